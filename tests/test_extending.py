"""The examples of docs/extending.md, each put as one new file into a copy of the package and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

import tag2mask

ROOT = Path(__file__).parents[1]


def example(section):
    """Return the first block of Python in a section of docs/extending.md."""
    text = (ROOT / "docs/extending.md").read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def with_file(folder, name, content):
    """Copy the package, add one file to the copy, and return a function that runs Python lines with it."""
    copied = shutil.copytree(Path(tag2mask.__file__).parent, folder / "src/tag2mask")
    assert not (copied / name).exists()
    (copied / name).write_text(content, "utf-8")

    def run(lines):
        environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
        done = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_reader_of_data_is_one_file(tmp_path):
    for name, tags in (("a", ["dog"]), ("b", ["cat", "dog"])):
        Image.new("RGB", (12, 8)).save(tmp_path / f"{name}.jpg")
        with (tmp_path / "mine.jsonl").open("a") as file:
            file.write(json.dumps({"photo": f"{name}.jpg", "tags": tags}) + "\n")
    (tmp_path / "wrong.jsonl").write_text('{"photo": "a.jpg", "tags": ["dog"]}\n{"image": "a.jpg"}\n')
    run = with_file(tmp_path, "data/readers/jsonl.py", example("A reader of data"))
    said = run(
        f"""
import tag2mask
from pathlib import Path
root = Path({str(tmp_path)!r})
assert Path(tag2mask.__file__).is_relative_to(root), tag2mask.__file__
from tag2mask.data import load
data = load(root / "mine.jsonl")
print(data.classes, [(sample.name, sample.labels) for sample in data], data.origin[0] == str(root / "mine.jsonl"))
try:
    load(root / "wrong.jsonl")
except tag2mask.UserError as error:
    print(error)
"""
    )
    assert said.splitlines() == [
        "('cat', 'dog') [('a', (2,)), ('b', (1, 2))] True",
        f'{tmp_path}/wrong.jsonl: line 2 is not {{"photo": ..., "tags": [...]}}; correct it',
    ]
