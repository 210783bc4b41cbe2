"""Generated scenes: the folder's layout, tags that agree with masks, determinism, variety."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.decode import read_mask
from tag2mask.demo.scenes import CLASSES, Scene, make_scene, write_scenes

COUNT = 12
SIZE = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, count=COUNT, size=SIZE)
    return folder


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(index, seed=1, size=SIZE) for index in range(60)]


def read_tags(folder: Path) -> dict[str, list[str]]:
    with (folder / "tags.csv").open(newline="", encoding="utf-8") as file:
        return {row["image"]: row["labels"].split(" ") for row in csv.DictReader(file)}


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_layout(folder: Path) -> None:
    names = [f"scene-{index:04d}" for index in range(COUNT)]
    assert sorted(path.name for path in (folder / "photos").iterdir()) == [f"{name}.jpg" for name in names]
    assert sorted(path.name for path in (folder / "masks").iterdir()) == [f"{name}.png" for name in names]
    assert lines(folder / "train.txt") == names[:8]
    assert lines(folder / "val.txt") == names[8:]
    assert tuple(lines(folder / "classes.txt")) == CLASSES
    assert list(read_tags(folder)) == [f"{name}.jpg" for name in names]


def test_tags_are_what_the_masks_show(folder: Path) -> None:
    for image, labels in read_tags(folder).items():
        mask = read_mask(folder / "masks" / Path(image).with_suffix(".png"))
        with Image.open(folder / "photos" / image) as photo:
            assert photo.size == mask.shape[::-1]
            assert photo.mode == "RGB"
            assert max(photo.size) == SIZE
        assert labels == [CLASSES[value - 1] for value in np.unique(mask) if value]


def test_every_object_can_be_seen(scenes: list[Scene]) -> None:
    for scene in scenes:
        shares = [float((scene.mask == label).mean()) for label in scene.labels]
        assert shares
        assert min(shares) > 0.03
        assert 0.1 < sum(shares) < 0.6


def test_variety(scenes: list[Scene]) -> None:
    classes_per_scene = Counter(len(scene.labels) for scene in scenes)
    images_per_class = Counter(label for scene in scenes for label in scene.labels)
    assert 0.5 < classes_per_scene[1] / len(scenes) < 0.85
    assert set(images_per_class) == set(range(1, len(CLASSES) + 1))
    assert min(images_per_class.values()) >= 10
    assert len({scene.mask.shape for scene in scenes}) > 10


def test_backgrounds_are_structured(scenes: list[Scene]) -> None:
    spreads = [float(scene.photo[scene.mask == 0].std()) for scene in scenes]
    assert min(spreads) > 8
    assert np.median(spreads) > 20


def test_same_seed_same_scene() -> None:
    first, again, other = (make_scene(4, seed=seed, size=SIZE) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.photo, again.photo)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.photo.shape != other.photo.shape or (first.photo != other.photo).any()


def test_same_seed_same_files(folder: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, count=3, size=SIZE)
    for part in ("photos/scene-0002.jpg", "masks/scene-0002.png"):
        assert (tmp_path / part).read_bytes() == (folder / part).read_bytes()


def test_tiny_objects_are_tiny() -> None:
    for index in range(12):
        scene = make_scene(index, size=320, style="tiny")
        assert index % len(CLASSES) + 1 in scene.labels
        assert 0.003 < float((scene.mask > 0).mean()) < 0.04


def test_pairs_never_come_apart() -> None:
    pairs = {make_scene(index, size=SIZE, style="pairs").labels for index in range(18)}
    assert pairs == {(1, 2), (3, 4), (5, 6)}


def test_small_scenes_work() -> None:
    for index in range(12):
        scene = make_scene(index, size=48)
        assert index % len(CLASSES) + 1 in scene.labels
