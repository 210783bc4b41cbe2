"""Masks as the annotation files of other tools: COCO, LabelMe, YOLO, Label Studio."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import yaml
from numpy.typing import NDArray
from pycocotools import mask as rle

from tag2mask.data import voc_palette
from tag2mask.exports.instances import instances as parts_of
from tag2mask.exports.masks import Masks
from tag2mask.exports.polygons import Component, components, polygon, run_lengths
from tag2mask.files import whole

LABELME_VERSION = "5.5.0"
"""The version of LabelMe whose files these are."""

PHOTO_URL = "/data/local-files/?d="
"""What stands before a photo's name in Label Studio's URL of it."""

Record = dict[str, Any]


def write_coco(masks: Masks, out: Path, *, min_area: int = 1, instances: bool = False) -> None:
    """Write COCO instances: one annotation a component, as run lengths; category i is class index i.

    Args:
        masks: what to write.
        out: the JSON file.
        min_area: smaller components, in pixels, are left out.
        instances: components are split where a neck joins two objects.
    """
    pieces = parts_of if instances else components
    images: list[Record] = []
    numbers = count(1)

    def annotations() -> Iterator[Record]:
        for image, (name, mask) in enumerate(masks.read("COCO"), 1):
            height, width = mask.shape
            images.append({"id": image, "file_name": masks.photo_name(name), "height": height, "width": width})
            for component in pieces(mask, min_area):
                yield {"id": next(numbers), "image_id": image, **_coco_annotation(component, height, width)}

    about = {"description": f"masks exported by tag2mask {version('tag2mask')}"}
    categories = [{"id": index, "name": name} for index, name in enumerate(masks.classes, 1)]
    with whole(out) as file, file.open("w", encoding="utf-8") as text:
        text.write(f'{{"info": {json.dumps(about)}, "categories": {json.dumps(categories)}, "annotations": ')
        _write_list(annotations(), text.write)
        text.write(', "images": ')
        _write_list(images, text.write)
        text.write("}\n")


def write_labelme(masks: Masks, out: Path, *, tolerance: float = 0.5, min_area: int = 1) -> None:
    """Write a LabelMe JSON a photo: one polygon a component.

    Args:
        masks: what to write.
        out: the folder.
        tolerance: of `polygon`, in pixels.
        min_area: smaller components, in pixels, are left out.
    """
    with whole(out) as folder:
        for name, mask in masks.read("LabelMe"):
            height, width = mask.shape
            shapes = [
                {
                    "label": masks.classes[component.label - 1],
                    "points": polygon(component, tolerance).round(2).tolist(),
                    "group_id": None,
                    "shape_type": "polygon",
                    "flags": {},
                }
                for component in components(mask, min_area)
            ]
            record = {
                "version": LABELME_VERSION,
                "flags": {},
                "shapes": shapes,
                "imagePath": _path_from((out / f"{name}.json").parent, masks.photos[name]),
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            }
            _write(folder / f"{name}.json", json.dumps(record, indent=2) + "\n")


def write_yolo(masks: Masks, out: Path, *, tolerance: float = 0.5, min_area: int = 1, instances: bool = False) -> None:
    """Write YOLO segmentation labels, ``labels/<name>.txt`` a photo and ``data.yaml``: one polygon a component.

    Args:
        masks: what to write.
        out: the folder.
        tolerance: of `polygon`, in pixels.
        min_area: smaller components, in pixels, are left out.
        instances: components are split where a neck joins two objects.
    """
    pieces = parts_of if instances else components
    with whole(out) as folder:
        for name, mask in masks.read("YOLO"):
            lines = []
            for component in pieces(mask, min_area):
                points = polygon(component, tolerance) / (mask.shape[1], mask.shape[0])
                lines.append(f"{component.label - 1} " + " ".join(f"{value:.6f}" for value in points.ravel()))
            _write(folder / "labels" / f"{name}.txt", "".join(f"{line}\n" for line in lines))
        data = {"train": "images", "val": "images", "names": dict(enumerate(masks.classes))}
        _write(folder / "data.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def write_label_studio(
    masks: Masks,
    out: Path,
    *,
    tolerance: float = 0.5,
    min_area: int = 1,
    photo_url: str = PHOTO_URL,
) -> None:
    """Write Label Studio tasks with predicted polygons, and the labelling configuration beside them as XML.

    Args:
        masks: what to write.
        out: the JSON file; the configuration has its name with ``.xml``.
        tolerance: of `polygon`, in pixels.
        min_area: smaller components, in pixels, are left out.
        photo_url: what stands before a photo's file name in its URL.
    """

    def tasks() -> Iterator[Record]:
        for name, mask in masks.read("Label Studio"):
            results = [
                {"id": str(number), **_label_studio_result(masks, component, polygon(component, tolerance), mask)}
                for number, component in enumerate(components(mask, min_area), 1)
            ]
            yield {
                "data": {"image": photo_url + quote(os.fsencode(masks.photo_name(name)))},
                "predictions": [{"model_version": f"tag2mask {version('tag2mask')}", "result": results}],
            }

    with whole(out) as file, whole(out.with_suffix(".xml")) as configuration:
        with file.open("w", encoding="utf-8") as text:
            _write_list(tasks(), text.write)
        _write(configuration, label_studio_configuration(masks.classes))


def label_studio_configuration(classes: Iterable[str]) -> str:
    """Return Label Studio's labelling configuration for the classes, in the colours of the masks.

    >>> print(label_studio_configuration(["cat & dog"]))
    <View>
      <Image name="image" value="$image" zoom="true" />
      <PolygonLabels name="label" toName="image">
        <Label value="cat &amp; dog" background="#800000" />
      </PolygonLabels>
    </View>
    <BLANKLINE>
    """
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    labels = ElementTree.SubElement(view, "PolygonLabels", name="label", toName="image")
    for name, colour in zip(classes, voc_palette()[1:], strict=False):
        ElementTree.SubElement(labels, "Label", value=name, background=f"#{bytes(colour).hex()}")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _coco_annotation(component: Component, height: int, width: int) -> Record:
    counts = run_lengths(component, height, width)
    packed = rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    rows, columns = component.inside.shape
    return {
        "category_id": component.label,
        "segmentation": {"size": [height, width], "counts": packed["counts"].decode("ascii")},
        "area": int(component.inside.sum()),
        "bbox": [component.left, component.top, columns, rows],
        "iscrowd": 0,
    }


def _label_studio_result(
    masks: Masks, component: Component, points: NDArray[np.float64], mask: NDArray[np.uint8]
) -> Record:
    height, width = mask.shape
    return {
        "type": "polygonlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": polygon_value(points, masks.classes[component.label - 1], (height, width)),
    }


def polygon_value(points: NDArray[np.float64], label: str, size: tuple[int, int]) -> Record:
    """Return a polygon as Label Studio has it.

    Args:
        points: float64 N x 2, (x, y) in pixels.
        label: name of its class.
        size: height and width of the photo in pixels.
    """
    percent = (100 * points / (size[1], size[0])).round(4).tolist()
    return {"points": percent, "closed": True, "polygonlabels": [label]}


def _path_from(folder: Path, file: Path) -> str:
    """Return the path of a file as seen from a folder; the whole path where they are on two drives."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        return file.absolute().as_posix()


def _write(file: Path, text: str) -> None:
    """Write a file of an export that takes its place as a whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


def _write_list(records: Iterable[Record], write: Any) -> None:
    """Write records as a JSON list, one a line, without holding them all."""
    before = "[\n"
    for record in records:
        write(before + json.dumps(record))
        before = ",\n"
    write("\n]" if before == ",\n" else "[]")
