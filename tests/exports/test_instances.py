"""Objects that touch, taken apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as rle

from tag2mask.data import write_mask
from tag2mask.exports.instances import instances, split
from tag2mask.exports.polygons import components


def discs(*places, shape=(60, 140)):
    """Return a mask of discs, each (row, column, radius)."""
    rows, columns = np.indices(shape)
    return np.any([np.hypot(rows - row, columns - column) <= radius for row, column, radius in places], 0)


@pytest.mark.parametrize(
    ("inside", "parts"),
    [
        (discs((30, 30, 20)), 1),
        (discs((30, 30, 20), (30, 68, 20)), 2),
        (discs((30, 30, 20), (30, 68, 20), (30, 106, 20)), 3),
        (discs((30, 30, 20), (30, 45, 20)), 1),  # which overlap too far to be told apart
        (discs((30, 30, 20), (30, 57, 8)), 2),
        (np.ones((20, 90), bool), 1),
        (np.ones((1, 40), bool), 1),
        (np.ones((1, 1), bool), 1),
    ],
)
def test_discs_that_touch(inside, parts):
    numbers = split(inside)
    assert numbers.max() == parts
    assert set(np.unique(numbers)) - {0} == set(range(1, parts + 1))
    assert ((numbers > 0) == inside).all()
    assert split(inside, neck=0).max() == 1


def test_the_cut_is_at_the_neck():
    numbers = split(discs((30, 30, 20), (30, 68, 20)))
    assert abs(np.flatnonzero(np.diff(numbers[30]))[1] - 48.5) <= 1
    assert (numbers.max(0)[:48] <= numbers.max(0)[50]).all()


def test_pixels_are_neither_lost_nor_shared():
    random = np.random.default_rng(0)
    mask = random.choice(np.array([0, 1, 2, 255], np.uint8), (40, 50), p=(0.2, 0.5, 0.2, 0.1))
    drawn = np.zeros(mask.shape, int)
    for part in instances(mask):
        rows, columns = part.inside.shape
        drawn[part.top : part.top + rows, part.left : part.left + columns] += part.label * part.inside
    assert (drawn == np.where(mask == 255, 0, mask)).all()
    assert len(list(instances(mask, neck=0))) == len(list(components(mask)))
    assert min(part.inside.sum() for part in instances(mask, min_area=4)) >= 4


def test_exports(command, tmp_path):
    mask = discs((30, 30, 20), (30, 68, 20)).astype(np.uint8)
    write_mask(tmp_path / "masks/a.png", mask)
    write_mask(tmp_path / "photos/a.png", mask)
    (tmp_path / "classes.txt").write_text("cell\n")
    given = (tmp_path / "masks", "--classes", tmp_path / "classes.txt", "--photos", tmp_path / "photos")
    for options, count in (((), 1), (("--instances",), 2)):
        out = tmp_path / f"{count}.json"
        assert command("export", "coco", *given, "--out", out, *options).code == 0
        found = json.loads(out.read_text())["annotations"]
        assert len(found) == count
        assert (np.sum([rle.decode(one["segmentation"]) for one in found], 0) == mask).all()
        assert command("export", "yolo", *given, "--out", tmp_path / f"yolo{count}", *options).code == 0
        assert len((tmp_path / f"yolo{count}/labels/a.txt").read_text().splitlines()) == count
    said = command("export", "labelme", *given, "--out", tmp_path / "labelme", "--instances")
    assert said.code == 2
    assert "--instances means nothing to the format labelme" in said.err
