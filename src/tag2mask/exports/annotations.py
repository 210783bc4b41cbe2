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
from tag2mask.data.brush import encode_brush
from tag2mask.exports.masks import Masks
from tag2mask.exports.pieces import Pieces
from tag2mask.exports.polygons import Component, polygon, run_lengths
from tag2mask.files import whole

LABELME_VERSION = "5.5.0"
"""The version of LabelMe whose files these are."""

LOCAL_FILES = "/data/local-files/?d="
"""What stands before a photo's name in Label Studio's URL of it."""

Record = dict[str, Any]


def write_coco(masks: Masks, out: Path, pieces: Pieces) -> None:
    """Write COCO instances: one annotation a component, as run lengths; category i is class index i.

    Args:
        masks: what to write.
        out: the JSON file.
        pieces: chooses the components or objects.
    """
    images: list[Record] = []
    numbers = count(1)

    def annotations() -> Iterator[Record]:
        for image, (name, mask) in enumerate(masks.read("COCO"), 1):
            height, width = mask.shape
            images.append({"id": image, "file_name": masks.photo_name(name), "height": height, "width": width})
            for component in pieces.of(mask):
                yield {"id": next(numbers), "image_id": image, **_coco_annotation(component, height, width)}

    about = {"description": f"masks exported by tag2mask {version('tag2mask')}"}
    categories = [{"id": index, "name": name} for index, name in enumerate(masks.classes, 1)]
    with whole(out) as file, file.open("w", encoding="utf-8") as text:
        text.write(f'{{"info": {json.dumps(about)}, "categories": {json.dumps(categories)}, "annotations": ')
        _write_list(annotations(), text.write)
        text.write(', "images": ')
        _write_list(images, text.write)
        text.write("}\n")


def write_labelme(
    masks: Masks, out: Path, pieces: Pieces, *, tolerance: float = 0.5, with_photos: bool = False
) -> None:
    """Write a LabelMe JSON a photo, one polygon a component, and ``labels.txt``, the classes for its ``--labels``.

    Args:
        masks: what to write.
        out: the folder.
        tolerance: of `polygon`, in pixels.
        pieces: chooses the components or objects.
        with_photos: put each photo beside its JSON: LabelMe lists the photos of a folder, not the JSON files.
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
                for component in pieces.of(mask)
            ]
            photo = out / masks.put_photo(name, folder) if with_photos else masks.photos[name]
            record = {
                "version": LABELME_VERSION,
                "flags": {},
                "shapes": shapes,
                "imagePath": path_from((out / f"{name}.json").parent, photo),
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            }
            write(folder / f"{name}.json", json.dumps(record, indent=2) + "\n")
        write(folder / "labels.txt", "".join(f"{name}\n" for name in masks.classes))


def write_yolo(masks: Masks, out: Path, pieces: Pieces, *, tolerance: float = 0.5) -> None:
    """Write YOLO segmentation labels, ``labels/<name>.txt`` a photo and ``data.yaml``: one polygon a component.

    Args:
        masks: what to write.
        out: the folder.
        tolerance: of `polygon`, in pixels.
        pieces: chooses the components or objects.
    """
    with whole(out) as folder:
        for name, mask in masks.read("YOLO"):
            lines = []
            for component in pieces.of(mask):
                points = polygon(component, tolerance) / (mask.shape[1], mask.shape[0])
                lines.append(f"{component.label - 1} " + " ".join(f"{value:.6f}" for value in points.ravel()))
            write(folder / "labels" / f"{name}.txt", "".join(f"{line}\n" for line in lines))
        data = {"train": "images", "val": "images", "names": dict(enumerate(masks.classes))}
        write(folder / "data.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def write_label_studio(
    masks: Masks,
    out: Path,
    pieces: Pieces,
    *,
    tolerance: float = 0.5,
    brush: bool = False,
    photo_url: str | None = None,
) -> None:
    """Write Label Studio tasks with predicted regions, and the labelling configuration beside them as XML.

    Args:
        masks: what to write.
        out: the JSON file; the configuration has its name with ``.xml``.
        tolerance: of `polygon`, in pixels.
        pieces: chooses the components or objects.
        brush: exact brush regions instead of polygons.
        photo_url: what stands before a photo's file name in its URL; None for a photo in Label Studio's local storage,
            which has to be a folder in its document root: the photos' folder in the one above it.
    """

    def value(component: Component, size: tuple[int, int]) -> Record:
        label = masks.classes[component.label - 1]
        if brush:
            return brush_value(component, label, size)
        return polygon_value(polygon(component, tolerance), label, size)

    def tasks() -> Iterator[Record]:
        for name, mask in masks.read("Label Studio"):
            size = (mask.shape[0], mask.shape[1])
            results = [
                {"id": str(number), **_label_studio_result(value(component, size), size)}
                for number, component in enumerate(pieces.of(mask), 1)
            ]
            yield {
                "data": {"image": _photo_url(masks, name, photo_url)},
                "predictions": [{"model_version": f"tag2mask {version('tag2mask')}", "result": results}],
            }

    with whole(out) as file, whole(out.with_suffix(".xml")) as configuration:
        with file.open("w", encoding="utf-8") as text:
            _write_list(tasks(), text.write)
        write(configuration, label_studio_configuration(masks.classes, brush))


def _photo_url(masks: Masks, name: str, before: str | None) -> str:
    photo = masks.photo_name(name)
    if before is None:
        folder = masks.photos[name].absolute().parents[len(Path(name).parts) - 1]
        before, photo = LOCAL_FILES, f"{folder.name}/{photo}"
    return before + quote(os.fsencode(photo))


def label_studio_configuration(classes: Iterable[str], brush: bool = False) -> str:
    """Return Label Studio's labelling configuration for the classes, in the colours of the masks.

    Args:
        classes: names of the foreground classes.
        brush: label with a brush instead of polygons.

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
    labels = ElementTree.SubElement(view, "BrushLabels" if brush else "PolygonLabels", name="label", toName="image")
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


def _label_studio_result(value: Record, size: tuple[int, int]) -> Record:
    return {
        "type": "brushlabels" if "rle" in value else "polygonlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": value,
    }


def brush_value(component: Component, label: str, size: tuple[int, int]) -> Record:
    """Return a brush region as Label Studio has it.

    Args:
        component: its pixels.
        label: name of its class.
        size: height and width of the photo in pixels.
    """
    inside = np.zeros(size, bool)
    rows, columns = component.inside.shape
    inside[component.top : component.top + rows, component.left : component.left + columns] = component.inside
    return {"format": "rle", "rle": encode_brush(inside), "brushlabels": [label]}


def polygon_value(points: NDArray[np.float64], label: str, size: tuple[int, int]) -> Record:
    """Return a polygon as Label Studio has it.

    Args:
        points: float64 N x 2, (x, y) in pixels.
        label: name of its class.
        size: height and width of the photo in pixels.
    """
    percent = (100 * points / (size[1], size[0])).round(4).tolist()
    return {"points": percent, "closed": True, "polygonlabels": [label]}


def path_from(folder: Path, file: Path) -> str:
    """Return the path of a file as seen from a folder; the whole path where they are on two drives."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        return file.absolute().as_posix()


def write(file: Path, text: str) -> None:
    """Write a file of an export that takes its place as a whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


def _write_list(records: Iterable[Record], put: Any) -> None:
    """Write records as a JSON list, one a line, without holding them all."""
    before = "[\n"
    for record in records:
        put(before + json.dumps(record))
        before = ",\n"
    put("\n]" if before == ",\n" else "[]")
