"""The examples of docs/extending.md, each put as one new file into a copy of the package and used there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import tag2mask

PAGE = Path(__file__).parents[1] / "docs/extending.md"


def test_a_backbone_family_is_one_new_file(tmp_path):
    section = PAGE.read_text("utf-8").partition("\n## A backbone\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    copy = shutil.copytree(Path(tag2mask.__file__).parent, tmp_path / "tag2mask")
    file = copy / "networks/families/dla.py"
    assert not file.exists()
    file.write_text(code, "utf-8")
    use = """
import torch
from tag2mask.networks import families
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.deeplab import Segmenter
print(families.__file__, *families.families())
backbone = Backbone("dla46x_c", ["C41", "C42", "last"], output_stride=32, weights="random")
with torch.no_grad():
    maps = backbone(torch.zeros(2, 3, 66, 90))
    segmenter = Segmenter("dla46x_c", ["a", "b"], output_stride=32, weights="random").eval()
    print({name: tuple(features.shape) for name, features in maps.items()}, *segmenter(torch.zeros(1, 3, 66, 90)).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", use], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found, shapes = done.stdout.splitlines()
    assert found.split() == [str(file.with_name("__init__.py")), *sorted(found.split()[1:])]
    assert "dla" in found.split()
    assert shapes == str({name: (2, 256, 3, 3) for name in ("level5.tree1", "level5", "last")}) + " 1 3 12 12"
