"""Sets split in two: every photo in one part, every class in both where that can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag2mask.data import ImageSet, Sample
from tag2mask.errors import DataError

CLASSES = ("cat", "cow", "dog")


def made(labels: list[set[int]]) -> ImageSet:
    samples = tuple(Sample(f"{place:03}", Path(f"{place}.jpg"), tuple(row)) for place, row in enumerate(labels))
    return ImageSet(CLASSES, samples, labels_from="t.csv")


def test_shares_of_each_class() -> None:
    data = made([{1}] * 100 + [{2}] * 20 + [{3}] * 10 + [set()] * 30)
    first, second = data.split(0.8)
    assert (len(first), len(second)) == (128, 32)
    assert first.images_per_class() == {"cat": 80, "cow": 16, "dog": 8}
    assert first.labels_from == "t.csv"
    assert [sample.name for sample in first] == sorted(sample.name for sample in first)


def test_the_seed_decides() -> None:
    data = made([{1}, {2}, {3}, {1, 2}, {2, 3}] * 8)
    assert data.split(0.5) == data.split(0.5, seed=0)
    assert data.split(0.5, seed=1) != data.split(0.5)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_two_photos_of_a_class_are_divided(share: float) -> None:
    for part in made([{1}] * 50 + [{2}] * 2 + [{3, 1}] * 2).split(share):
        assert min(part.images_per_class().values()) >= 1


@given(st.lists(st.sets(st.integers(1, 3)), min_size=2, max_size=30), st.floats(0.01, 0.99), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_any_set(labels: list[set[int]], share: float, seed: int) -> None:
    data = made(labels)
    parts = data.split(share, seed)
    assert sorted(sample.name for part in parts for sample in part) == [sample.name for sample in data]
    assert all(len(part) for part in parts)
    single = [place for place, name in enumerate(CLASSES) if sum(row == {place + 1} for row in labels) >= 2]
    for part in parts:  # two photos of this class alone can always be divided
        assert all(part.images_per_class()[CLASSES[place]] for place in single)


@pytest.mark.parametrize(("share", "photos"), [(0, 4), (1, 4), (1.5, 4), (-1, 4), (0.5, 1), (0.5, 0)])
def test_what_cannot_be_split(share: float, photos: int) -> None:
    with pytest.raises(DataError, match=r"photos cannot be split at .*; take a share between 0 and 1") as error:
        made([{1}] * photos).split(share)
    assert "\n" not in str(error.value)
