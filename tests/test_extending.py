"""The examples of docs/extending.md, each put as one new file into a copy of the package and used there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tag2mask
from tag2mask.data import read_mask

PAGE = Path(__file__).parents[1] / "docs/extending.md"


@pytest.fixture
def package(tmp_path):
    """A copy of the package, to be added to; what is run with ``tag2mask_in`` uses it."""
    home = tmp_path / "home"
    shutil.copytree(Path(tag2mask.__file__).parent, home / "tag2mask", ignore=shutil.ignore_patterns("__pycache__"))
    return home / "tag2mask"


def tag2mask_in(package, *arguments):
    """Call the command line of a copy of the package, which must succeed; return what it says."""
    command = [sys.executable, "-m", "tag2mask.cli", *map(str, arguments)]
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
    said = tag2mask_in(package, *start, "--set", "proxy.cam_weight=1", "--set", "segmenter.epochs=1")
    assert "proxy.cam_weight does nothing: the method scda does not read it" in said
    assert not list(out.glob("patterns*"))
    masks = [read_mask(out / f"proxy/p{number:02}.png") for number in range(14)]
    assert {frozenset(np.unique(mask).tolist()) for mask in masks[:10]} == {frozenset({0, 1}), frozenset({0, 2})}
    assert all(set(np.unique(mask)) == {0, 255} for mask in masks[10:])  # of two classes: uncertain
    assert "SCDA" in (out / "report/index.html").read_text("utf-8")
