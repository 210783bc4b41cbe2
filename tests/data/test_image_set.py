"""The image set itself: truth, counts, the summary, and whether it can be learnt from."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from made_data import make_photo

from tag2mask.data import ImageSet, Sample, check_trainable, load, summary, write_mask
from tag2mask.errors import DataError


def made_set(labels: list[tuple[int, ...]], classes: tuple[str, ...] = ("cat", "dog"), skipped: int = 0) -> ImageSet:
    samples = tuple(Sample(str(n), Path(f"{n}.jpg"), row) for n, row in enumerate(labels))
    return ImageSet(classes, samples, tuple(f"x{n}.jpg: cannot be read" for n in range(skipped)), labels_from="t.csv")


@pytest.mark.parametrize("missing", [[(1,), (1,), (2,)], [(1,), (1,)]])
def test_a_class_with_one_photo_or_none(missing: list[tuple[int, ...]]) -> None:
    with pytest.raises(DataError, match=rf"t.csv: too few photos.*: 'dog' \({len(missing) - 2}\); give") as error:
        check_trainable(made_set(missing))
    assert "\n" not in str(error.value)


def test_two_photos_of_each_class_are_enough() -> None:
    check_trainable(made_set([(1, 2), (1, 2)]))


def test_summary() -> None:
    text = summary(made_set([(1,), (1, 2), ()], skipped=5))
    assert text.splitlines() == [
        "3 photos of 2 classes, tags from t.csv",
        "1 with one tag, 1 with several, 1 with none (background only)",
        "photos per class:",
        "  cat  2  dog  1",
        "left out: 5",
        "  x0.jpg: cannot be read",
        "  x1.jpg: cannot be read",
        "  x2.jpg: cannot be read",
        "  and 2 more",
    ]


@pytest.mark.parametrize("length", [1, 10, 33, 197])
def test_summary_fits_80_columns(length: int) -> None:
    classes = tuple(f"{n:03}" + "x" * length for n in range(30))
    lines = summary(made_set([(1,), (2,)] * 500, classes)).splitlines()
    assert all(len(line) <= 80 for line in lines) or length == 197
    assert all("".join(lines).count(name) == 1 for name in classes)


def test_truth_of_another_size(tmp_path: Path) -> None:
    sample = Sample("a", make_photo(tmp_path / "a.png"), (1,), tmp_path / "m.png")
    write_mask(tmp_path / "m.png", np.zeros((12, 8), np.uint8))
    with pytest.raises(DataError, match=r"m.png: the mask has 12 x 8 .* its photo a.png 8 x 12; save"):
        ImageSet(("cat",), (sample,)).truth(sample)


def test_truth_of_an_unknown_class(tmp_path: Path) -> None:
    sample = Sample("a", make_photo(tmp_path / "a.png"), (1,), tmp_path / "m.png")
    write_mask(tmp_path / "m.png", np.full((8, 12), 255, np.uint8))
    assert (ImageSet(("cat",), (sample,)).truth(sample) == 255).all()
    write_mask(tmp_path / "m.png", np.full((8, 12), 2, np.uint8))
    with pytest.raises(DataError, match=r"class index 2, but there are 1 classes; use"):
        ImageSet(("cat",), (sample,)).truth(sample)


def test_the_set_can_be_sent_to_workers() -> None:
    image_set = made_set([(1,)])
    assert pickle.loads(pickle.dumps(image_set)) == image_set


def test_load_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or file; check the path"):
        load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="neither a folder of photos nor a COCO JSON"):
        load(tmp_path / "notes.txt")
