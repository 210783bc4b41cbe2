"""COCO instances: labels, drawn truth, and JSON that is not COCO's."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_data import make_text, square
from pycocotools import mask as rle

from tag2mask.data import keep_truth, load, load_coco, read_mask, summary
from tag2mask.data.image_set import Sample
from tag2mask.data.readers.coco import Drawing, draw_truth
from tag2mask.errors import DataError

Coco = Callable[..., Path]
LIGHT, DOG = 3, 18  # category ids; in the order of ids their indices are 1 and 2


def annotation(category: int, segmentation: Any, image: int = 7, crowd: int = 0) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}


def region(left: int, top: int, side: int) -> dict[str, Any]:
    pixels = np.zeros((16, 20), np.uint8, order="F")
    pixels[top : top + side, left : left + side] = 1
    packed = rle.encode(pixels)
    return {"size": packed["size"], "counts": packed["counts"].decode()}


def test_labels(coco: Coco) -> None:
    path = coco(annotation(DOG, square(0, 0, 4)), annotation(LIGHT, square(5, 5, 2)), annotation(DOG, square(8, 8, 2)))
    image_set = load_coco(path)
    assert image_set.classes == ("traffic light", "dog")
    assert [(sample.name, sample.labels) for sample in image_set.samples] == [("one", (1, 2)), ("two", ())]
    assert image_set.labels_from == str(path)
    assert [sample.name for sample in image_set.labelled().samples] == ["one"]


def test_crowds_give_no_label(coco: Coco) -> None:
    image_set = load_coco(coco(annotation(DOG, region(0, 0, 4), crowd=1)))
    assert image_set.samples[0].labels == ()


@pytest.mark.parametrize("order", [1, -1])
def test_smaller_lies_over_larger(coco: Coco, order: int) -> None:
    objects = [
        annotation(DOG, square(0, 0, 10)),
        annotation(LIGHT, square(2, 2, 4)),
        annotation(DOG, square(3, 3, 2)),
    ]
    image_set = load_coco(coco(*objects[::order]))
    wanted = np.zeros((16, 20), np.uint8)
    wanted[:10, :10] = 2
    wanted[2:6, 2:6] = 1
    wanted[3:5, 3:5] = 2
    assert np.array_equal(image_set.truth(image_set.samples[0]), wanted)
    assert np.array_equal(image_set.truth(image_set.samples[1]), np.zeros((16, 20)))


@pytest.mark.parametrize("side", [1, 8])
def test_crowd_regions_are_ignored_all_over(coco: Coco, side: int) -> None:
    path = coco(annotation(DOG, region(4, 4, side), crowd=1), annotation(DOG, square(0, 0, 6)))
    image_set = load_coco(path)
    truth = image_set.truth(image_set.samples[0])
    assert truth is not None
    assert (truth[4 : 4 + side, 4 : 4 + side] == 255).all()
    assert (truth == 255).sum() == side * side
    assert truth[0, 0] == 2


def test_all_forms_of_segmentation(coco: Coco) -> None:
    unpacked = {"size": [16, 20], "counts": [0, 2, 14, 2, 302]}
    path = coco(annotation(DOG, unpacked), annotation(LIGHT, region(10, 10, 3)), annotation(DOG, [[1, 1, 2, 2]]))
    image_set = load_coco(path)
    wanted = np.zeros((16, 20), np.uint8)
    wanted[:2, :2], wanted[10:13, 10:13] = 2, 1
    assert np.array_equal(image_set.truth(image_set.samples[0]), wanted)


@pytest.mark.parametrize("segmentation", [None, [], {}])
def test_boxes_give_no_truth(coco: Coco, segmentation: Any) -> None:
    image_set = load_coco(coco(annotation(DOG, segmentation), annotation(DOG, square(0, 0, 4))))
    assert image_set.truth(image_set.samples[0]) is None


@pytest.mark.parametrize(
    "segmentation",
    [
        5, "text", [5], [["a"] * 6], [[1e9] * 6], [[float("nan")] * 6], [[float("inf")] * 6],
        [[[0, 0, 1, 1, 2, 2]]],
        {"size": [16, 20]}, {"size": [20, 16], "counts": [320]}, {"size": [16, 20], "counts": [-1, 321]},
        {"size": [16, 20], "counts": [9999]}, {"size": [16, 20], "counts": "~~~~~~~~~~~~~~~~~~~~"},
        {"size": 3, "counts": "1"}, {"size": [16, 20], "counts": 7},
    ],
)  # fmt: skip
def test_wrong_segmentation(coco: Coco, segmentation: Any) -> None:
    image_set = load_coco(coco(annotation(DOG, segmentation)))
    with pytest.raises(DataError, match=r"one.jpg: a segmentation of this photo is not COCO's") as error:
        image_set.truth(image_set.samples[0])
    assert "\n" not in str(error.value)


NUMBERS = st.floats(-1e3, 1e3) | st.integers(-30, 30)


@given(st.lists(st.lists(NUMBERS, max_size=12), max_size=3) | st.lists(st.integers(-2, 400), max_size=8))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_polygons_and_runs(numbers: list[Any]) -> None:
    runs = {"size": [16, 20], "counts": numbers}
    for segmentation in (numbers, runs):
        try:
            mask = draw_truth(Sample("a", Path("a.jpg")), {"a": Drawing(16, 20, ((1, segmentation),))})
        except DataError:
            continue
        assert mask is None or (mask.shape == (16, 20) and set(np.unique(mask)) <= {0, 1})


def test_truth_is_drawn_once(coco: Coco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = coco(annotation(DOG, square(0, 0, 4)))
    kept = keep_truth(load_coco(path), tmp_path / "truth")
    sample = kept.samples[0]
    first = kept.truth(sample)
    assert np.array_equal(read_mask(tmp_path / "truth/one.png"), first)
    with monkeypatch.context() as patch:
        patch.setattr("tag2mask.data.readers.coco._encode", None)
        assert np.array_equal(kept.truth(sample), first)
    coco(annotation(LIGHT, square(0, 0, 4)))
    os.utime(path, ns=(0, (tmp_path / "truth/one.png").stat().st_mtime_ns + 10**9))
    changed = keep_truth(load_coco(path), tmp_path / "truth").truth(sample)
    assert changed is not None
    assert changed[0, 0] == 1


def test_boxes_are_not_kept(coco: Coco, tmp_path: Path) -> None:
    kept = keep_truth(load_coco(coco(annotation(DOG, None))), tmp_path / "truth")
    assert kept.truth(kept.samples[0]) is None
    assert not (tmp_path / "truth").exists()


def test_other_counts_than_published(coco: Coco) -> None:
    categories = [{"id": number, "name": f"class {number}"} for number in range(80)]
    image_set = load_coco(coco(annotation(DOG, square(0, 0, 4)), categories=categories))
    remark = "val2017 of COCO has 5000 photos as published, 4952 of them with annotations; here are 2 and 1"
    assert image_set.remarks == (remark,)
    assert summary(image_set).endswith(remark)
    assert load_coco(coco()).remarks == ()


def test_the_set_can_be_sent_to_workers(coco: Coco) -> None:
    image_set = pickle.loads(pickle.dumps(load_coco(coco(annotation(DOG, square(0, 0, 4))))))
    assert image_set.truth(image_set.samples[0]).sum() == 32


def test_where_photos_lie(coco: Coco, tmp_path: Path) -> None:
    path = coco()
    assert load_coco(path, images=tmp_path / "coco/val2017").samples == load_coco(path).samples
    shutil.move(tmp_path / "coco/val2017", tmp_path / "coco/annotations/images")
    assert load_coco(path).samples[0].image == tmp_path / "coco/annotations/images/one.jpg"
    with pytest.raises(DataError, match="none of its 2 photos is in"):
        load_coco(path, images=tmp_path)


def test_splits(coco: Coco, tmp_path: Path) -> None:
    path = coco()
    make_text(path.parent / "few.txt", "two.jpg\n")
    assert [sample.name for sample in load_coco(path, split="few").samples] == ["two"]
    sister = path.with_name("instances_train2017.json")
    shutil.copy(path, sister)
    shutil.copytree(tmp_path / "coco/val2017", tmp_path / "coco/train2017")
    assert load_coco(path, split="train2017").samples[0].image.parent.name == "train2017"
    with pytest.raises(DataError, match="no such split"):
        load_coco(path, split="test2017")


def test_load_finds_it(coco: Coco, tmp_path: Path) -> None:
    path = coco(annotation(DOG, square(0, 0, 4)))
    wanted = load_coco(path)
    assert load(path) == load(path, split="val2017") == load(tmp_path / "coco", split="val2017") == wanted
    with pytest.raises(DataError, match="COCO files of the splits 'val2017'; name one"):
        load(tmp_path / "coco")
    with pytest.raises(DataError, match="leave the tag table out"):
        load(path, labels="tags.csv")


def test_missing_unreadable_and_other_size(coco: Coco, tmp_path: Path) -> None:
    path = coco()
    (tmp_path / "coco/val2017/one.jpg").unlink()
    image_set = load_coco(path)
    assert len(image_set) == 1
    assert "one.jpg: no such file" in image_set.skipped[0]
    with pytest.raises(DataError, match="no such file"):
        load_coco(path, strict=True)
    photo = {"id": 9, "file_name": "two.jpg", "width": 16, "height": 20}
    path = coco(images=[photo, photo | {"id": 7, "file_name": "one.jpg"}])
    with pytest.raises(DataError, match=r"16 x 20 pixels \(height x width\), but 20 x 16 in the JSON"):
        load_coco(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": None}, "no list 'images'"),
        ({"annotations": {}}, "no list 'annotations'"),
        ({"categories": [{"id": "3", "name": "dog"}]}, "item 0 of 'categories' has no valid 'id'"),
        ({"categories": [3]}, "item 0 of 'categories'"),
        ({"categories": []}, "no class"),
        ({"categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "dog"}]}, "'dog' occurs twice"),
        ({"annotations": [{"image_id": 7, "category_id": 99}]}, "item 0 of 'annotations' is of no category"),
        (
            {"annotations": [{"image_id": 99, "category_id": 3}]},
            "annotations of 1 photos that 'images' lacks",
        ),
        (
            {"images": [{"id": 7, "file_name": "one.jpg", "width": 20, "height": 16}] * 2},
            "one id or one file_name",
        ),
        ({"images": [{"id": 7, "file_name": "../one.jpg", "width": 20, "height": 16}]}, "leads out of"),
        ({"images": [{"id": 7, "file_name": "/etc/one.jpg", "width": 20, "height": 16}]}, "leads out of"),
        ({"images": [{"id": 7, "file_name": "C:\\one.jpg", "width": 20, "height": 16}]}, "leads out of"),
    ],
)
def test_json_that_is_not_cocos(coco: Coco, changes: dict[str, Any], reason: str) -> None:
    path = coco(**changes)
    with pytest.raises(DataError, match=reason) as error:
        load_coco(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a.jpg": ["dog"]}'])
def test_other_json(tmp_path: Path, text: str) -> None:
    path = make_text(tmp_path / "x.json", text)
    with pytest.raises(DataError, match=r"not valid JSON|not a COCO instances file"):
        load(path)


def test_the_real_photos(real_photos: Path) -> None:
    image_set = load(real_photos / "coco128")
    assert (len(image_set), len(image_set.classes)) == (128, 80)
    assert sum(count > 0 for count in image_set.images_per_class().values()) == 71
    data = json.loads((real_photos / "coco128/instances.json").read_text())
    assert image_set.classes == tuple(item["name"] for item in sorted(data["categories"], key=lambda item: item["id"]))
    for sample in image_set.samples[:20]:
        truth = image_set.truth(sample)
        assert truth is not None
        assert set(truth.ravel().tolist()) - {0, 255} <= set(sample.labels)
