"""A folder of masks with photos and awkward names, and the refusal that every bad input ends in."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tag2mask.data import write_mask

NAMES = ("plain", "ünï cödé/with space", "100%#?&", "line\nbreak", 'deep/er/b\'s "c"')
CLASSES = ("a/b", "día & <noche>", "x: [y]", "../up")


def pieces(seed, height=37, width=53):
    """Return a mask of boxes of four classes, with holes of background and of 255."""
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for value in (1, 2, 3, 4, 0, 255, 2, 0):
        top, left = random.integers(0, height - 8), random.integers(0, width - 8)
        mask[top : top + random.integers(3, 20), left : left + random.integers(3, 20)] = value
    return mask


@pytest.fixture
def awkward(tmp_path):
    """Masks (one of background alone), their photos and classes, under names that want escaping."""
    root = tmp_path / "awkward"
    masks = {name: pieces(seed) for seed, name in enumerate(NAMES)}
    masks["nothing"] = np.zeros((20, 30), np.uint8)
    for name, mask in masks.items():
        write_mask(root / f"masks/{name}.png", mask)
        photo = root / f"photos/{name}.JPG"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.shape[::-1]).save(photo, "JPEG")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), "utf-8")
    options = ("--classes", root / "classes.txt", "--photos", root / "photos")
    return SimpleNamespace(root=root, folder=root / "masks", masks=masks, classes=CLASSES, options=options)


@pytest.fixture
def refused(command, tmp_path):
    """Call an export that must end in exit code 2 and one line, and leave nothing; return the line."""

    def call(*arguments, says):
        before = {file for file in tmp_path.rglob("*") if file.is_file()}
        said = command("export", *arguments)
        assert said.code == 2, said.err
        lines = said.err.splitlines()
        assert len(lines) == 1, said.err
        assert lines[0].startswith("tag2mask: ")
        assert says in lines[0]
        assert {file for file in tmp_path.rglob("*") if file.is_file()} == before
        return lines[0]

    return call
