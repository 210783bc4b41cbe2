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
from made_data import make_photo, make_text, square
from PIL import Image
from pycocotools import mask as rle

from tag2mask.data import keep_truth, load, load_coco, read_mask, summary, trainable
from tag2mask.data.image_set import Sample
from tag2mask.data.outlines import Drawing, draw_truth
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
    path = coco(
        annotation(DOG, unpacked), annotation(LIGHT, region(10, 10, 3)), annotation(DOG, [[1, 1], *square(5, 5, 2)])
    )
    image_set = load_coco(path)
    wanted = np.zeros((16, 20), np.uint8)
    wanted[:2, :2], wanted[10:13, 10:13], wanted[5:7, 5:7] = 2, 1, 2
    assert np.array_equal(image_set.truth(image_set.samples[0]), wanted)


@pytest.mark.parametrize("segmentation", [None, [], {}, [[]], [[1, 1, 5, 5]]])
def test_boxes_give_no_truth(coco: Coco, segmentation: Any) -> None:
    image_set = load_coco(coco(annotation(DOG, segmentation), annotation(DOG, square(0, 0, 4))))
    assert image_set.truth(image_set.samples[0]) is None
    assert image_set.remarks == ("no truth to score 1 of 2 photos: objects without outline, as in 'one'",)


@pytest.mark.parametrize(
    "segmentation",
    [
        5, "text", [["a"] * 6], [[1e9] * 6], [[float("nan")] * 6], [[float("inf")] * 6],
        [[[0, 0, 1, 1, 2, 2]]],
        {"size": [16, 20]}, {"size": [20, 16], "counts": [320]}, {"size": [16, 20], "counts": [-1, 321]},
        {"size": [16, 20], "counts": [9999]}, {"size": [16, 20], "counts": "~~~~~~~~~~~~~~~~~~~~"},
        {"size": 3, "counts": "1"}, {"size": [16, 20], "counts": 7},
    ],
)  # fmt: skip
def test_wrong_segmentation(coco: Coco, segmentation: Any) -> None:
    """It is said before all the work, not when scores are wanted."""
    with pytest.raises(DataError, match=r"json: a segmentation of 'one': .*; export the file again") as error:
        load_coco(coco(annotation(DOG, segmentation)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        (square(0, 0, 4)[0], "one flat list"),
        ([[[0, 0], [4, 0], [4, 4]]], "nested too deep"),
        ([[1e9] * 6], "far outside"),
    ],
)
def test_polygons_in_another_form(coco: Coco, segmentation: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_coco(coco(annotation(DOG, segmentation)))


@pytest.mark.parametrize(
    ("crowd", "labels"), [("0", (2,)), ("1", ()), (0.0, (2,)), (True, ()), ("", (2,)), (None, (2,))]
)
def test_flags_of_crowds_as_text(coco: Coco, crowd: Any, labels: tuple[int, ...]) -> None:
    item = annotation(DOG, square(0, 0, 4)) | {"iscrowd": crowd}
    assert load_coco(coco(item)).samples[0].labels == labels
    with pytest.raises(DataError, match="item 0 of 'annotations' has no valid 'iscrowd'"):
        load_coco(coco(item | {"iscrowd": "perhaps"}))


def test_ids_as_text_and_sizes_that_are_missing(coco: Coco) -> None:
    photos = [{"id": "7", "file_name": "one.jpg"}, {"id": 9.0, "file_name": "two.jpg", "width": None, "height": "16"}]
    objects = [annotation(DOG, square(0, 0, 4)), {"image_id": "9", "category_id": "3", "segmentation": square(0, 0, 2)}]
    image_set = load_coco(coco(*objects, images=photos))
    assert [sample.labels for sample in image_set] == [(2,), (1,)]
    assert [image_set.truth(sample).sum() for sample in image_set] == [32, 4]
    with pytest.raises(DataError, match="item 0 of 'images' has no valid 'width'"):
        load_coco(coco(images=[photos[0] | {"width": -3}, photos[1]]))


def test_a_category_of_the_background_is_none(coco: Coco) -> None:
    """Its regions are background, also over other objects."""
    categories = [{"id": 0, "name": "Background"}, {"id": 3, "name": "dog"}, {"id": 4, "name": "dog"}]
    objects = [annotation(3, square(0, 0, 8)), annotation(0, square(2, 2, 4)), annotation(4, square(3, 3, 2))]
    image_set = load_coco(coco(*objects, categories=categories))
    assert (image_set.classes, image_set[0].labels) == (("dog",), (1,))
    wanted = np.zeros((16, 20), np.uint8)
    wanted[:8, :8], wanted[2:6, 2:6], wanted[3:5, 3:5] = 1, 0, 1
    assert np.array_equal(image_set.truth(image_set[0]), wanted)


@pytest.mark.parametrize(
    "folder", ["C:\\photos\\", "/data/photos/", "../photos/", "https://host/photos/", "old/deep/", ""]
)
def test_paths_of_another_machine(coco: Coco, folder: str) -> None:
    sizes = {"width": 20, "height": 16}
    photos = [{"id": number, "file_name": f"{folder}{name}.JPG", **sizes} for number, name in ((7, "one"), (9, "two"))]
    assert [sample.name for sample in load_coco(coco(images=photos))] == ["one", "two"]


def test_folders_with_backslashes(coco: Coco, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "coco/val2017/x/one.jpg", 20, 16)
    path = coco(images=[{"id": 7, "file_name": "x\\one.jpg", "width": 20, "height": 16}])
    assert [(sample.name, sample.image) for sample in load_coco(path)] == [("x/one", photo)]


def test_two_photos_whose_masks_would_have_one_name(coco: Coco) -> None:
    photos = [
        {"id": number, "file_name": name, "width": 20, "height": 16}
        for number, name in ((7, "one.jpg"), (9, "one.png"))
    ]
    with pytest.raises(DataError, match=r"'one.jpg' and 'one.png' have the same name, .*; rename one of the photos"):
        load_coco(coco(images=photos))


def test_roboflow_s_folders(coco: Coco, tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "dog"}]
    made = coco(annotation(1, square(0, 0, 4)), annotation(1, square(0, 0, 4), image=9), categories=categories)
    for split in ("train", "valid"):
        shutil.copytree(tmp_path / "coco/val2017", tmp_path / "pets" / split)
        shutil.copy(made, tmp_path / "pets" / split / "_annotations.coco.json")
    with pytest.raises(DataError, match="COCO files of the splits 'train', 'valid'; name one of them"):
        load(tmp_path / "pets")
    found = load(tmp_path / "pets", split="train")
    assert found == load(tmp_path / "pets/train")
    assert found.samples[0].image == tmp_path / "pets/train/one.jpg"
    beside = load(tmp_path / "pets/train/_annotations.coco.json", split="valid")
    assert beside.samples[0].image == tmp_path / "pets/valid/one.jpg"
    learnt = trainable(found)
    assert (learnt.classes, learnt.truth(learnt[0]).max()) == (("dog",), 1)
    assert learnt.remarks == ("left out, since no photo has them: 'pets' (1 of 2 classes)",)


def test_a_turned_photo_whose_json_is_not(coco: Coco, tmp_path: Path) -> None:
    path = coco()
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (20, 16)).save(tmp_path / "coco/val2017/one.jpg", exif=exif)
    (note,) = load_coco(path).skipped
    assert "20 x 16 pixels (height x width), but 16 x 20 in the JSON: the photo's EXIF orientation turns it" in note


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
        patch.setattr("tag2mask.data.outlines._encode", None)
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
        ({"categories": [{"id": 3.5, "name": "dog"}]}, "item 0 of 'categories' has no valid 'id'"),
        ({"categories": [{"id": True, "name": "dog"}]}, "item 0 of 'categories' has no valid 'id'"),
        ({"categories": [3]}, "item 0 of 'categories'"),
        ({"categories": []}, "no class"),
        ({"categories": [{"id": 0, "name": "background"}]}, "no class except background"),
        ({"annotations": [{"image_id": 7, "category_id": 99}]}, "item 0 of 'annotations' has no category"),
        (
            {"annotations": [{"image_id": 99, "category_id": 3}]},
            "annotations of 1 photos that 'images' lacks",
        ),
        (
            {"images": [{"id": 7, "file_name": f"{name}.jpg", "width": 20, "height": 16} for name in ("one", "two")]},
            "two photos have the same id",
        ),
        ({"images": [{"id": 7, "file_name": "..", "width": 20, "height": 16}]}, "is not the name of a file"),
        ({"images": [{"id": 7, "file_name": "a\0.jpg", "width": 20, "height": 16}]}, "is not the name of a file"),
        ({"images": [{"id": 7, "file_name": "", "width": 20, "height": 16}]}, "is not the name of a file"),
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
