"""Every format that masks are exported to is read back; what is wrong in one ends in one line, and nothing is done."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tag2mask.corrections.formats import READERS, sniff
from tag2mask.corrections.reading import is_as_exported
from tag2mask.data import read_mask, write_mask
from tag2mask.data.brush import encode_brush
from tag2mask.errors import DataError
from tag2mask.exports import export
from tag2mask.runs.folder import resume_run

FORMATS = {"coco": "all.json", "labelme": "labels", "yolo": "set", "label-studio": "tasks.json"}


def near_outlines(mask):
    """Return which pixels are within a pixel of an outline."""
    return ndimage.maximum_filter(mask, 3) != ndimage.minimum_filter(mask, 3)


def annotated(file):
    """Turn Label Studio's predictions into annotations, as a person does who submits them."""
    tasks = json.loads(file.read_text("utf-8"))
    for task in tasks:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"], "updated_at": "2026-01-01"}]
    file.write_text(json.dumps(tasks), "utf-8")


@pytest.fixture
def difficult(tmp_path, shapes_folder, truth):
    """True masks with a hole, a thin line, a point, and one class upon the other."""
    for name in ("p00", "p05", "p10"):
        mask = truth(name).copy()
        mask[5:30, 5:30] = 1
        mask[12:20, 10:20] = 0
        mask[14:17, 12:16] = 2
        mask[40, 3:60] = 2
        mask[50, 50] = 1
        write_mask(tmp_path / f"masks/{name}.png", mask)
    return tmp_path / "masks"


@pytest.mark.parametrize("format", FORMATS)
def test_masks_come_back(difficult, shapes_folder, tmp_path, format):
    out = tmp_path / FORMATS[format]
    photos = None if format == "yolo" else shapes_folder / "photos"
    export(format, difficult, out, classes=shapes_folder / "classes.txt", photos=photos)
    if format == "label-studio":
        annotated(out)
    assert sniff(out) == format
    found = {Path(one.photo).stem: one for one in READERS[format](out, {"disc": 1, "square": 2})}
    assert set(found) == {"p00", "p05", "p10"}
    for name, one in found.items():
        mask = read_mask(difficult / f"{name}.png")
        assert one.size in (None, mask.shape)
        drawn = one.draw(*mask.shape)
        assert not ((drawn != mask) & ~near_outlines(mask)).any()
        assert np.count_nonzero(drawn != mask) <= 0.02 * np.count_nonzero(mask)
        assert is_as_exported(drawn, mask)


@pytest.mark.parametrize("min_area", [None, 1])
@pytest.mark.parametrize("format", FORMATS)
def test_masks_without_their_specks_are_as_exported(tmp_path, format, min_area):
    """Else what nobody has touched would be truth, since exports leave specks out."""
    mask = np.zeros((600, 800), np.uint8)
    mask[100:400, 100:400] = 1
    mask[500:506, 700:706] = 1  # a speck with pixels that are not at its outline
    mask[450:550, 450:550] = 2
    write_mask(tmp_path / "masks/a.png", mask)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (800, 600)).save(tmp_path / "photos/a.jpg")
    (tmp_path / "classes.txt").write_text("disc\nsquare\n")
    out, photos = tmp_path / FORMATS[format], None if format == "yolo" else tmp_path / "photos"
    export(format, tmp_path / "masks", out, classes=tmp_path / "classes.txt", photos=photos, min_area=min_area)
    if format == "label-studio":
        annotated(out)
    [one] = READERS[format](out, {"disc": 1, "square": 2})
    drawn = one.draw(*mask.shape)
    assert bool(drawn[503, 703]) == (min_area == 1)
    assert is_as_exported(drawn, mask)
    without_an_object = np.where(drawn == 2, 0, drawn)
    assert not is_as_exported(without_an_object, mask)


def test_classes_go_by_name_not_by_number(difficult, shapes_folder, tmp_path):
    export(
        "coco", difficult, tmp_path / "all.json", classes=shapes_folder / "classes.txt", photos=shapes_folder / "photos"
    )
    [one, *_] = READERS["coco"](tmp_path / "all.json", {"square": 1, "disc": 2})
    mask = read_mask(difficult / "p00.png")
    assert np.array_equal(one.draw(*mask.shape), np.array([0, 2, 1], np.uint8)[mask])


def png(pixels):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_bitmap_of_labelme(tmp_path):
    shape = {"label": "disc", "shape_type": "mask", "points": [[2, 1], [4, 2]], "mask": png(np.eye(2, 3) > 0)}
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [shape], "imagePath": "a.jpg"}), "utf-8")
    [one] = READERS["labelme"](tmp_path, {"disc": 1})
    assert np.argwhere(one.draw(4, 6)).tolist() == [[1, 2], [2, 3]]


def test_a_brush_of_label_studio(truth, tmp_path):
    inside = truth("p00") == 1
    brush = {"type": "brushlabels", "value": {"format": "rle", "rle": encode_brush(inside), "brushlabels": ["disc"]}}
    (tmp_path / "a.json").write_text(json.dumps([{**TASK, "annotations": [{"result": [brush]}]}]), "utf-8")
    [one] = READERS["label-studio"](tmp_path / "a.json", {"disc": 1})
    assert np.array_equal(one.draw(*inside.shape), inside)
    with pytest.raises(DataError, match="values of 8 bits"):
        one.draw(inside.shape[0], inside.shape[1] + 1)


LABELME = {"shapes": [{"label": "disc", "points": [[1, 1], [40, 1], [40, 40]], "shape_type": "polygon"}]}
TASK = {"data": {"image": "/data/upload/1/0a1b2c3d-p00.jpg"}, "annotations": [{"result": []}]}


def region(**changed):
    value = {"points": [[1, 1], [50, 1], [50, 50]], "polygonlabels": ["disc"]}
    return {"type": "polygonlabels", "original_width": 96, "original_height": 72, "value": value, **changed}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no corrections in this folder"),
        ({"p00.json": "{"}, "not valid JSON"),
        ({"p00.json": json.dumps(LABELME), "p01.json": '{"shapes": ['}, "p01.json: not valid JSON"),
        ({"nosuch.json": json.dumps(LABELME)}, "'nosuch' is not among the training photos"),
        ({"p00.json": json.dumps(LABELME).replace("disc", "dsic")}, "did you mean 'disc'"),
        ({"p00.json": json.dumps({**LABELME, "imageHeight": 5, "imageWidth": 6})}, "is 5 x 6 pixels there"),
        ({"p00.json": json.dumps(LABELME).replace("[40, 1], ", "")}, "fewer than three corners"),
        ({"p00.json": json.dumps(LABELME).replace("[40, 1]", "[40, 1e9]")}, "far outside"),
        ({"p00.json": json.dumps(LABELME).replace("[40, 1]", "[40, NaN]")}, "far outside"),
        ({"p00.json": json.dumps(LABELME).replace("[40, 1]", '[40, "x"]')}, "something else than numbers"),
        ({"p00.json": json.dumps(LABELME).replace("polygon", "line")}, "a line has no pixels"),
        ({"p00.png": np.zeros((5, 6), np.uint8)}, "5 x 6 pixels (height x width), its photo"),
        ({"p00.png": np.full((72, 96), 3, np.uint8)}, "class index 3, but the run has 2 classes"),
        ({"p00.png": np.full((72, 96), 255, np.uint8)}, "hold no other values than 0 and 255"),
        ({"tasks.json": json.dumps([{**TASK, "data": {}}])}, "names no photo"),
        (
            {"tasks.json": json.dumps([{**TASK, "annotations": [{"result": [region(original_width=95)]}]}])},
            "is 72 x 95 pixels there",
        ),
        (
            {"tasks.json": json.dumps([{**TASK, "annotations": [{"result": [region(image_rotation=90)]}]}])},
            "turned in Label Studio",
        ),
        ({"labels/p00.txt": "0 0.1 0.1 0.5 0.1 0.5 0.5\n"}, "put data.yaml beside them"),
        ({"labels/p00.txt": "3 0.1 0.1 0.5 0.1 0.5 0.5\n", "data.yaml": "names: [disc]"}, "class 'number 3'"),
        ({"labels/p00.txt": "0 0.1 0.1 0.5 0.1\n", "data.yaml": "names: [disc]"}, "a line is a box"),
        ({"labels/p00.txt": "0 0.1 0.1 0.5 0.1 x 0.5\n", "data.yaml": "names: [disc]"}, "pairs of numbers"),
        ({"tags.csv": "image,labels\np00.jpg,dics\n"}, "did you mean 'disc'"),
        ({"tags.csv": "image,labels\nnosuch.jpg,disc\n"}, "no photo for 1 of the entries"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_done(
    command, finished_whole_run, tmp_path, contents, files, said
):
    folder = tmp_path / "given"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_mask(folder / name, content) if isinstance(content, np.ndarray) else (folder / name).write_text(content)
    state = contents(finished_whole_run)
    done = command("--quiet", "refine", finished_whole_run, folder)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert contents(finished_whole_run) == state


def test_run_lengths_of_another_length(command, finished_whole_run, tmp_path):
    record = {
        "images": [{"id": 1, "file_name": "p00.jpg", "height": 72, "width": 96}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "segmentation": {"size": [72, 96], "counts": [5, 5]}, "iscrowd": 0}
        ],
    }
    file = tmp_path / "all.json"
    file.write_text(json.dumps(record), "utf-8")
    done = command("--quiet", "refine", finished_whole_run, file)
    assert done.code == 2
    assert "run lengths do not add up to the photo's pixels" in done.err
    assert len(done.err.splitlines()) == 1


def test_tasks_that_nobody_has_annotated_are_no_corrections(command, finished_whole_run, tmp_path):
    export("label-studio", finished_whole_run, tmp_path / "tasks.json")
    done = command("--quiet", "refine", finished_whole_run, tmp_path / "tasks.json")
    assert done.code == 2
    assert "no annotated photo" in done.err


def test_an_uploaded_photo_of_label_studio_is_found(command, whole_run, tmp_path):
    task = {**TASK, "annotations": [{"result": [region(), {"type": "choices", "value": {"choices": ["ok"]}}]}]}
    (tmp_path / "tasks.json").write_text(json.dumps([task]), "utf-8")
    done = command("refine", whole_run, tmp_path / "tasks.json")
    assert done.code == 0, done.err
    assert [*resume_run(whole_run).corrections.masks] == ["p00"]
