"""Generated data sets far from everyday photos: layout, tags, areas, determinism."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label

import tag2mask as t2m
from tag2mask.data.decode import read_mask
from tag2mask.demo.kinds import PAINTERS, make_photo, write_kind
from tag2mask.names import DemoKind

SIZE = 160
KINDS = sorted(PAINTERS)
WITHOUT = {  # the share of photos that show none of the classes
    "blobs": 0,
    "bright-blobs": 0,
    "scratches": 1 / 3,
    "scratches-only": 0,
    "lesion": 1 / 3,
    "leafspots": 0.2,
    "aerial": 1 / 8,
    "documents": 1 / 4,
}
AREAS = {  # the least and the most of a photo that a class takes, where it is
    "blobs": (0.01, 0.45),
    "bright-blobs": (0.01, 0.45),
    "scratches": (0.003, 0.15),
    "scratches-only": (0.003, 0.15),
    "lesion": (0.01, 0.2),
    "leafspots": (0.003, 0.08),
    "aerial": (0.001, 0.2),
    "documents": (0.01, 0.4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_layout_and_tags(kind: DemoKind, tmp_path: Path) -> None:
    write_kind(tmp_path, kind, count=9, size=64)
    names = [f"{kind}-{index:04d}" for index in range(9)]
    assert sorted(path.stem for path in (tmp_path / "photos").iterdir()) == names
    assert sorted(path.stem for path in (tmp_path / "masks").iterdir()) == names
    assert (tmp_path / "val.txt").read_text("utf-8").split() == names[6:]
    data = t2m.load(tmp_path)
    assert data.classes == PAINTERS[kind].classes
    assert [sample.name for sample in data.samples] == names
    for sample in data.samples:
        mask = read_mask(tmp_path / "masks" / f"{sample.name}.png")
        assert sample.labels == tuple(int(value) for value in np.unique(mask) if value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_photos_show(kind: DemoKind) -> None:
    scenes = [make_photo(kind, index, seed=2, size=SIZE) for index in range(24)]
    assert {shown for scene in scenes for shown in scene.labels} == set(range(1, len(PAINTERS[kind].classes) + 1))
    without = np.mean([not scene.labels for scene in scenes])
    assert without == pytest.approx(WITHOUT[kind], abs=0.1)
    areas = [float((scene.mask == shown).mean()) for scene in scenes for shown in scene.labels]
    least, most = AREAS[kind]
    assert least <= min(areas)
    assert max(areas) <= most
    for scene in scenes:
        assert max(scene.photo.shape) == SIZE
        assert scene.photo.shape[:2] == scene.mask.shape
        assert scene.photo.std() > 3


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_photo(kind: DemoKind) -> None:
    first, again, other = (make_photo(kind, 4, seed=seed, size=96) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.photo, again.photo)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.photo.shape != other.photo.shape or (first.photo != other.photo).any()


@pytest.mark.parametrize(("kind", "darker"), [("blobs", True), ("bright-blobs", False)])
def test_cells_differ_from_their_ground(kind: str, darker: bool) -> None:
    for index in range(8):
        scene = make_photo(kind, index, size=SIZE)
        cell, ground = scene.photo[scene.mask > 0].mean(), scene.photo[scene.mask == 0].mean()
        assert (cell < ground) == darker


def test_metal_and_ultrasound_are_grey() -> None:
    for kind in ("scratches", "scratches-only", "lesion"):
        photo = make_photo(kind, 0, size=96).photo
        assert (photo == photo[..., :1]).all()


def test_objects_from_above_keep_their_size() -> None:
    for size in (200, 500):
        cars, count = label(make_photo("aerial", 0, size=size).mask == 1)
        assert count >= 2
        assert 200 < np.median(np.bincount(cars.ravel())[1:]) < 450


def test_scenes_are_kinds_too(tmp_path: Path) -> None:
    write_kind(tmp_path, "tiny", count=2, size=64)
    assert (tmp_path / "photos/scene-0001.jpg").exists()
