"""The examples of docs/extending.md, each put as one new file into a copy of the package and used there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import tag2mask
from tag2mask.data import read_mask

PAGE = Path(__file__).parents[1] / "docs/extending.md"


@pytest.fixture
def package(tmp_path):
    """A copy of the package, to be added to; what is run with `python_in` uses it."""
    home = tmp_path / "home"
    shutil.copytree(Path(tag2mask.__file__).parent, home / "tag2mask", ignore=shutil.ignore_patterns("__pycache__"))
    return home / "tag2mask"


def python_in(package, *arguments):
    """Call Python with a copy of the package, which must succeed; return what it says."""
    command = [sys.executable, *map(str, arguments)]
    search = os.pathsep.join((str(package.parent), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": search}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def example(section):
    """Return the first block of Python in a section of the page."""
    text = PAGE.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]


def test_a_method_is_one_new_file(package, shapes_folder, recipe_file, tmp_path):
    (package / "methods/scda.py").write_text(example("A method"), "utf-8")
    out = tmp_path / "run"
    start = ("run", shapes_folder, "--out", out, "--recipe", recipe_file, "--method", "scda")
    said = python_in(package, "-m", "tag2mask", *start, "--set", "proxy.cam_weight=1", "--set", "segmenter.retrain=0")
    assert "proxy.cam_weight does nothing: the method scda does not read it" in said
    assert not list(out.glob("patterns*"))
    masks = [read_mask(out / f"proxy/p{number:02}.png") for number in range(14)]
    assert {frozenset(np.unique(mask).tolist()) for mask in masks[:10]} == {frozenset({0, 1}), frozenset({0, 2})}
    assert all(set(np.unique(mask)) == {0, 255} for mask in masks[10:])  # of two classes: uncertain
    assert "SCDA" in (out / "report/index.html").read_text("utf-8")


def test_a_method_that_learns_is_one_new_file(package, shapes_folder, recipe_file, tmp_path):
    (package / "methods/lpcam.py").write_text(example("A method that learns"), "utf-8")
    out = tmp_path / "run"
    start = ("run", shapes_folder, "--out", out, "--recipe", recipe_file, "--method", "lpcam", "--until", "estimate")
    python_in(package, "-m", "tag2mask", *start, "--set", "backbone.name=resnet10t")
    learnt = load_file(out / "learnt.safetensors")
    for name, vectors in learnt.items():
        sizes = vectors.norm(dim=2).flatten().tolist()
        assert all(size < 1e-6 or abs(size - 1) < 1e-4 for size in sizes), name
    assert (learnt["objects"] != 0).any(2).any(1).all()
    masks = [read_mask(out / f"proxy/p{number:02}.png") for number in range(14)]
    tags = [{1}] * 5 + [{2}] * 5 + [{1, 2}] * 4
    assert all({*np.unique(mask).tolist()} <= {0, *present} for mask, present in zip(masks, tags, strict=True))
    assert sum(mask.any() for mask in masks) > 10


def test_a_backbone_family_is_one_new_file(package):
    file = package / "networks/families/dla.py"
    file.write_text(example("A backbone"), "utf-8")
    use = """
import torch
from tag2mask.networks import families
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.deeplab import SegmentationNetwork
print(families.__file__, *families.families())
backbone = Backbone("dla46x_c", ["C41", "C42", "last"], output_stride=32, weights="random")
with torch.no_grad():
    maps = backbone(torch.zeros(2, 3, 66, 90))
    segmenter = SegmentationNetwork("dla46x_c", ["a", "b"], output_stride=32, weights="random").eval()
    print({name: tuple(features.shape) for name, features in maps.items()}, *segmenter(torch.zeros(1, 3, 66, 90)).shape)
"""
    found, shapes = python_in(package, "-c", use).splitlines()
    assert found.split() == [str(file.with_name("__init__.py")), *sorted(found.split()[1:])]
    assert "dla" in found.split()
    assert shapes == str({name: (2, 256, 3, 3) for name in ("level5.tree1", "level5", "last")}) + " 1 3 12 12"


def test_a_reader_of_data_is_one_new_file(package, tmp_path):
    for name, tags in (("a", ["dog"]), ("b", ["cat", "dog"])):
        Image.new("RGB", (12, 8)).save(tmp_path / f"{name}.jpg")
        with (tmp_path / "mine.jsonl").open("a") as file:
            file.write(json.dumps({"photo": f"{name}.jpg", "tags": tags}) + "\n")
    (tmp_path / "wrong.jsonl").write_text('{"photo": "a.jpg", "tags": ["dog"]}\n{"image": "a.jpg"}\n')
    (package / "data/readers/jsonl.py").write_text(example("A reader of data"), "utf-8")
    use = f"""
import tag2mask
from pathlib import Path
root = Path({str(tmp_path)!r})
data = tag2mask.load(root / "mine.jsonl")
print(data.classes, [(sample.name, sample.labels) for sample in data], data.origin[0] == str(root / "mine.jsonl"))
try:
    tag2mask.load(root / "wrong.jsonl")
except tag2mask.UserError as error:
    print(error)
"""
    assert python_in(package, "-c", use).splitlines() == [
        "('cat', 'dog') [('a', (2,)), ('b', (1, 2))] True",
        f'{tmp_path}/wrong.jsonl: line 2 is not {{"photo": ..., "tags": [...]}}; correct it',
    ]
