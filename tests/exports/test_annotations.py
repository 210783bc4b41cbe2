"""COCO, LabelMe, YOLO and Label Studio: the files by their formats' schemas, and the masks drawn back from them."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from matplotlib.path import Path as Outline
from PIL import Image
from pycocotools.coco import COCO
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

import tag2mask as t2m
from tag2mask.data import load_coco, read_mask, write_mask
from tag2mask.data.brush import decode_brush
from tag2mask.runs.folder import resume_run

FORMATS = {"coco": "out.json", "labelme": "out", "yolo": "out", "label-studio": "out.json"}
EXACT = {"coco": (), "labelme": ("--tolerance", 0), "yolo": ("--tolerance", 0), "label-studio": ("--tolerance", 0)}


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Packed(Strict):
    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: str


class CocoAnnotation(Strict):
    id: Annotated[int, Field(ge=1)]
    image_id: int
    category_id: Annotated[int, Field(ge=1)]
    segmentation: Packed
    area: Annotated[int, Field(ge=1)]
    bbox: Annotated[list[int], Field(min_length=4, max_length=4)]
    iscrowd: Literal[0]


class CocoImage(Strict):
    id: Annotated[int, Field(ge=1)]
    file_name: str
    height: int
    width: int


class CocoCategory(Strict):
    id: Annotated[int, Field(ge=1)]
    name: str


class CocoFile(Strict):
    info: dict[str, str]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation]
    images: list[CocoImage]


Point = Annotated[list[float], Field(min_length=2, max_length=2)]
Points = Annotated[list[Point], Field(min_length=3)]


class LabelmeShape(Strict):
    label: str
    points: Points
    group_id: None
    shape_type: Literal["polygon"]
    flags: dict[str, bool]


class LabelmeFile(Strict):
    version: Annotated[str, Field(pattern=r"^5\.\d+\.\d+$")]
    flags: dict[str, bool]
    shapes: list[LabelmeShape]
    imagePath: str  # noqa: N815
    imageData: None  # noqa: N815
    imageHeight: int  # noqa: N815
    imageWidth: int  # noqa: N815


class PolygonValue(Strict):
    points: Annotated[
        list[Annotated[list[Annotated[float, Field(ge=0, le=100)]], Field(min_length=2, max_length=2)]],
        Field(min_length=3),
    ]
    closed: Literal[True]
    polygonlabels: Annotated[list[str], Field(min_length=1, max_length=1)]


class BrushValue(Strict):
    format: Literal["rle"]
    rle: list[Annotated[int, Field(ge=0, le=255)]]
    brushlabels: Annotated[list[str], Field(min_length=1, max_length=1)]


class StudioResult(Strict):
    id: str
    type: Literal["polygonlabels", "brushlabels"]
    from_name: str
    to_name: str
    original_width: int
    original_height: int
    image_rotation: Literal[0]
    value: PolygonValue | BrushValue


class StudioPrediction(Strict):
    model_version: str
    result: list[StudioResult]


class StudioTask(Strict):
    data: dict[Literal["image"], str]
    predictions: Annotated[list[StudioPrediction], Field(min_length=1, max_length=1)]


def paint(mask, label, points):
    """Draw a polygon of pixel coordinates into a mask, as matplotlib sees it."""
    rows, columns = np.indices(mask.shape)
    centres = np.stack([columns.ravel(), rows.ravel()], 1) + 0.5
    mask[Outline([*points, points[0]]).contains_points(centres).reshape(mask.shape)] = label


def certain(mask):
    """Return what an export keeps of a mask: 255 is left out."""
    return np.where(mask == 255, 0, mask)


@pytest.mark.parametrize(("format", "exact"), [*EXACT.items(), ("label-studio", ("--brush",))])
def test_awkward_names_and_pixels_come_back(command, awkward, tmp_path, format, exact):
    """All names and masks of a folder survive, and nothing is written outside of --out."""
    before = set(tmp_path.rglob("*"))
    out = tmp_path / "new" / FORMATS[format]
    said = command("export", format, awkward.folder, "--out", out, *awkward.options, "--min-area", 1, *exact)
    assert said.code == 0, said.err
    assert str(out) in said.out.replace("\n", "")
    assert set(tmp_path.rglob("*")) - before <= {tmp_path / "new", *(tmp_path / "new").rglob("*")}
    back = READERS[format](out, awkward)
    assert back.keys() == awkward.masks.keys()
    for name, mask in awkward.masks.items():
        assert (back[name] == certain(mask)).all(), name


def read_back_coco(out, awkward):
    CocoFile.model_validate_json(out.read_bytes())
    coco = COCO(out)
    assert [(item["id"], item["name"]) for item in coco.loadCats(coco.getCatIds())] == [*enumerate(awkward.classes, 1)]
    back = {}
    for image in coco.dataset["images"]:
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.imgToAnns[image["id"]]:
            inside = coco.annToMask(annotation) > 0
            rows, columns = np.nonzero(inside)
            assert annotation["area"] == inside.sum()
            assert annotation["bbox"] == [
                columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1,
            ]  # fmt: skip
            assert not mask[inside].any()
            mask[inside] = annotation["category_id"]
        assert image["file_name"].endswith(".JPG")
        back[image["file_name"].removesuffix(".JPG")] = mask
    numbers = [annotation["id"] for annotation in coco.dataset["annotations"]]
    assert numbers == [*range(1, len(numbers) + 1)]
    return back


def read_back_labelme(out, awkward):
    back = {}
    for file in out.rglob("*.json"):
        record = LabelmeFile.model_validate_json(file.read_bytes())
        name = file.relative_to(out).as_posix().removesuffix(".json")
        photo = file.parent / record.imagePath
        assert photo.samefile(awkward.root / f"photos/{name}.JPG")
        back[name] = np.zeros((record.imageHeight, record.imageWidth), np.uint8)
        for shape in record.shapes:
            paint(back[name], 1 + awkward.classes.index(shape.label), shape.points)
    return back


def read_back_yolo(out, awkward):
    data = yaml.safe_load((out / "data.yaml").read_text("utf-8"))
    assert data == {"train": "images", "val": "images", "names": dict(enumerate(awkward.classes))}
    back = {}
    for file in (out / "labels").rglob("*.txt"):
        name = file.relative_to(out / "labels").as_posix().removesuffix(".txt")
        height, width = awkward.masks[name].shape
        back[name] = np.zeros((height, width), np.uint8)
        for line in file.read_text().splitlines():
            index, *values = line.split(" ")
            points = np.array(values, float).reshape(-1, 2)
            assert points.min() >= 0
            assert points.max() <= 1
            paint(back[name], 1 + int(index), points * (width, height))
    return back


def read_back_label_studio(out, awkward):
    view = ElementTree.parse(out.with_suffix(".xml")).getroot()
    image, labels = view
    assert (image.tag, labels.tag) in (("Image", "PolygonLabels"), ("Image", "BrushLabels"))
    assert view.tag == "View"
    assert image.get("value") == "$image"
    assert labels.get("toName") == image.get("name")
    assert [label.get("value") for label in labels] == [*awkward.classes]
    back = {}
    for task in TypeAdapter(list[StudioTask]).validate_json(out.read_bytes()):
        path = unquote_to_bytes(task.data["image"].removeprefix("/data/local-files/?d=photos/")).decode()
        name = path.removesuffix(".JPG")
        back[name] = np.zeros_like(awkward.masks[name])
        for result in task.predictions[0].result:
            assert (result.from_name, result.to_name) == (labels.get("name"), image.get("name"))
            assert (result.original_height, result.original_width) == back[name].shape
            if result.type == "brushlabels":
                inside = decode_brush(result.value.rle, *back[name].shape)
                assert not back[name][inside].any()
                back[name][inside] = 1 + awkward.classes.index(result.value.brushlabels[0])
                continue
            points = np.array(result.value.points) * (result.original_width, result.original_height) / 100
            paint(back[name], 1 + awkward.classes.index(result.value.polygonlabels[0]), points)
    return back


READERS = {
    "coco": read_back_coco,
    "labelme": read_back_labelme,
    "yolo": read_back_yolo,
    "label-studio": read_back_label_studio,
}


def test_coco_is_read_by_this_package_too(shapes_folder, tmp_path):
    out = t2m.export(
        "coco", shapes_folder / "masks", tmp_path / "instances.json",
        classes=shapes_folder / "classes.txt", photos=shapes_folder,
    )  # fmt: skip
    data = load_coco(out, images=shapes_folder / "photos")
    assert data.classes == ("disc", "square")
    assert len(data) == 14
    for sample in data.samples:
        assert (data.truth(sample) == read_mask(shapes_folder / f"masks/{sample.name}.png")).all()


def test_min_area_and_tolerance(awkward, tmp_path):
    options = {"classes": awkward.root / "classes.txt", "photos": awkward.root / "photos"}
    areas = {}
    for area in (1, 40):
        out = t2m.export("coco", awkward.folder, tmp_path / f"{area}.json", min_area=area, **options)
        areas[area] = [item["area"] for item in json.loads(out.read_text())["annotations"]]
    assert areas[40] == [area for area in areas[1] if area >= 40]
    assert 0 < len(areas[40]) < len(areas[1])
    corners = {}
    for tolerance in (0, 0.5):
        out = t2m.export("labelme", awkward.folder, tmp_path / f"l{tolerance}", tolerance=tolerance, **options)
        shapes = [shape for file in out.rglob("*.json") for shape in json.loads(file.read_text())["shapes"]]
        corners[tolerance] = sum(len(shape["points"]) for shape in shapes)
    assert corners[0.5] < corners[0]


def test_brush_regions_replace_polygons(command, awkward, tmp_path):
    """A second export with the other option leaves nothing of the first, in the configuration neither."""
    out = tmp_path / "tasks.json"
    for options, tag, kind in (((), "PolygonLabels", "polygonlabels"), (("--brush",), "BrushLabels", "brushlabels")):
        assert command("export", "label-studio", awkward.folder, "--out", out, *awkward.options, *options).code == 0
        assert f"<{tag} " in out.with_suffix(".xml").read_text("utf-8")
        results = [one for task in json.loads(out.read_text()) for one in task["predictions"][0]["result"]]
        assert {(one["type"], kind in one["value"]) for one in results} == {(kind, True)}
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["tasks.json", "tasks.xml"]


def test_files_that_the_run_reads_are_not_replaced(refused, a_run, shapes, tmp_path):
    out = t2m.export("coco", shapes / "masks", tmp_path / "set.json", classes=shapes / "classes.txt", photos=shapes)
    config = yaml.safe_load((a_run / "config.yaml").read_text())
    config["data"] |= {"path": str(out), "labels": None, "split": None, "eval_split": None}
    (a_run / "config.yaml").write_text(yaml.safe_dump(config))
    before = out.read_bytes()
    for file in (out, a_run / "data.json", a_run / "metrics.json"):
        refused("coco", a_run, "--out", file, "--photos", shapes, says="would replace a file that")
    assert out.read_bytes() == before


def test_photo_url(awkward, tmp_path):
    out = tmp_path / "tasks.json"
    t2m.export(
        "label-studio", awkward.folder, out, classes=awkward.root / "classes.txt", photos=awkward.root,
        photo_url="https://photos.test/a/",
    )  # fmt: skip
    urls = {task["data"]["image"] for task in json.loads(out.read_text())}
    assert "https://photos.test/a/plain.JPG" in urls
    assert "https://photos.test/a/100%25%23%3F%26.JPG" in urls


@pytest.mark.parametrize(
    ("masks", "folder", "names"),
    [
        ((), "predictions", {"p04", "p09", "p13"}),
        (("--masks", "proxy"), "proxy", None),
        (("--masks", "retrain"), "retrain", None),
    ],
)
def test_masks_of_a_run(command, finished_run, tmp_path, masks, folder, names):
    """A run knows its classes and photos itself."""
    said = command("export", "coco", finished_run, "--out", tmp_path / "out.json", *masks)
    assert said.code == 0, said.err
    record = json.loads((tmp_path / "out.json").read_text())
    assert [item["name"] for item in record["categories"]] == ["disc", "square"]
    files = {Path(item["file_name"]).stem for item in record["images"]}
    assert files == (names or {file.stem for file in (finished_run / folder).iterdir()})
    total = sum(int(np.isin(read_mask(file), (1, 2)).sum()) for file in (finished_run / folder).iterdir())
    assert sum(item["area"] for item in record["annotations"]) == total


def test_a_run_whose_photos_have_moved(command, refused, a_run, shapes_folder, tmp_path):
    config = a_run / "config.yaml"
    moved = str(tmp_path / "moved")
    config.write_text(config.read_text().replace(str(shapes_folder), moved))
    assert resume_run(a_run).source.path == moved
    line = refused("coco", a_run, "--out", tmp_path / "out.json", says="moved")
    assert "--photos" in line
    said = command("export", "coco", a_run, "--out", tmp_path / "out.json", "--photos", shapes_folder)
    assert said.code == 0, said.err
    said = command("export", "yolo", a_run, "--out", tmp_path / "yolo")
    assert said.code == 0
    assert "not compared" in said.err
    assert len(list((tmp_path / "yolo/labels").iterdir())) == 3


def test_a_split_in_its_order(shapes_folder, tmp_path):
    (tmp_path / "list.txt").write_text("p09\np02\n\np09\n")
    out = t2m.export(
        "coco", shapes_folder / "masks", tmp_path / "out.json", split=tmp_path / "list.txt",
        classes=shapes_folder / "classes.txt", photos=shapes_folder,
    )  # fmt: skip
    assert [item["file_name"] for item in json.loads(out.read_text())["images"]] == ["p09.jpg", "p02.jpg"]


def test_a_file_is_replaced_and_an_empty_folder_used(command, awkward, tmp_path):
    (tmp_path / "out.json").write_text("old")
    assert command("export", "coco", awkward.folder, "--out", tmp_path / "out.json", *awkward.options).code == 0
    assert "annotations" in json.loads((tmp_path / "out.json").read_text())
    (tmp_path / "empty").mkdir()
    assert command("export", "yolo", awkward.folder, "--out", tmp_path / "empty", *awkward.options).code == 0
    assert (tmp_path / "empty/data.yaml").exists()


def test_memory_does_not_grow_with_the_number_of_masks(tmp_path):
    mask = np.zeros((400, 500), np.uint8)
    mask[100:350, 200:400] = 1
    (tmp_path / "classes.txt").write_text("box\n")
    peaks = []
    for count in (2, 8):
        folder = tmp_path / str(count)
        for number in range(count):
            write_mask(folder / f"masks/{number}.png", mask)
            Image.fromarray(mask).save(folder / f"{number}.png")
        tracemalloc.start()
        t2m.export("coco", folder / "masks", folder / "out.json", classes=tmp_path / "classes.txt", photos=folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < mask.nbytes


# Bad input


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["ünï cödé/with space", "line\nbreak"])
def test_a_broken_mask_leaves_nothing_half_written(refused, awkward, tmp_path, format, name):
    """One is the last of all, after much has been written; the other's name must not break the line."""
    broken = awkward.folder / f"{name}.png"
    broken.write_bytes(broken.read_bytes()[:60])
    says = "cannot be read (truncated or corrupt)"
    refused(format, awkward.folder, "--out", tmp_path / FORMATS[format], *awkward.options, says=says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("coc", "{masks}", "--out", "{tmp}/o.json"), "did you mean 'coco'?"),
        (("coco", "{tmp}/none", "--out", "{tmp}/o.json"), "no such run or folder of masks"),
        (("coco", "{tmp}", "--out", "{tmp}/o.txt"), "ending in .json"),
        (("coco", "{masks}", "--out", "{tmp}/o.json", "--classes", "{classes}"), "--photos"),
        (("coco", "{masks}", "--out", "{tmp}/o.json", "--photos", "{photos}"), "--classes"),
        (("coco", "{masks}", "--out", "{tmp}/o.json", "--tolerance", "1"), "--tolerance means nothing to the format"),
        (("coco", "{masks}", "--out", "{tmp}/o.json", "--masks", "proxy"), "is no run"),
        (("coco", "{run}", "--out", "{tmp}/o.json", "--masks", "proxi"), "did you mean 'proxy'?"),
        (("label-studio", "{run}", "--out", "{tmp}/o.json", "--brush", "--tolerance", "1"), "exact; leave one out"),
        (("coco", "{run}", "--out", "{tmp}/o.json", "--brush"), "--brush means nothing to the format coco"),
        (("labelme", "{masks}", "--out", "{photos}", "--photos", "{photos}", "--classes", "{classes}"), "not empty"),
        (("yolo", "{photos}", "--out", "{tmp}/o", "--classes", "{classes}"), "no masks (*.png)"),
        (("yolo", "{masks}", "--out", "{tmp}/o", "--classes", "{tmp}/none.txt"), "none.txt"),
        (("yolo", "{masks}", "--out", "{tmp}/o", "--classes", "{classes}", "--split", "{list}"), "no mask for 1 of"),
        (("yolo", "{masks}", "--out", "{tmp}/o", "--classes", "{classes}", "--photos", "{run}"), "the folder of a run"),
        (("yolo", "{masks}", "--out", "{tmp}/o", "--classes", "{one}"), "there are 1 classes"),
        (("yolo", "{masks}", "--out", "{tmp}/o", "--classes", "{twice}"), "occurs twice"),
        (("yolo", "{masks}", "--out", "{classes}/under/o", "--classes", "{classes}"), "cannot be written"),
    ],
)  # fmt: skip
def test_wrong_arguments(refused, awkward, finished_run, tmp_path, arguments, says):
    (tmp_path / "list.txt").write_text("plain\nnothere\n")
    (tmp_path / "one.txt").write_text("one\n")
    (tmp_path / "twice.txt").write_text("one\none\n")
    places = {
        "masks": awkward.folder, "photos": awkward.root / "photos", "classes": awkward.root / "classes.txt",
        "tmp": tmp_path, "run": finished_run, "list": tmp_path / "list.txt", "one": tmp_path / "one.txt",
        "twice": tmp_path / "twice.txt",
    }  # fmt: skip
    refused(*(argument.format(**places) for argument in arguments), says=says)


def test_photos_that_do_not_fit(refused, awkward, tmp_path):
    photo = awkward.root / "photos/plain.JPG"
    Image.new("RGB", (9, 5)).save(photo)
    export = ("coco", awkward.folder, "--out", tmp_path / "o.json", *awkward.options)
    refused(*export, says="plain.JPG has 5 x 9")
    photo.unlink()
    refused(*export, says="plain.png: none of the photos")


def test_a_run_without_masks_or_models(refused, a_run, tmp_path):
    shutil.rmtree(a_run / "predictions")
    refused("coco", a_run, "--out", tmp_path / "o.json", says="has no predictions yet")
    for file in a_run.glob("*.safetensors"):
        file.unlink()
    refused("coco", a_run, "--masks", "proxy", "--out", tmp_path / "o.json", says="--classes")
