"""Corrected masks as annotation tools write them: which format, and a reader for each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
from numpy.typing import NDArray

from tag2mask.config import read_yaml
from tag2mask.corrections.shapes import (
    Pixels,
    box_pixels,
    largest_first,
    paint,
    polygon_pixels,
    scaled,
)
from tag2mask.data import Sample, read_mask
from tag2mask.data.brush import decode_brush
from tag2mask.data.class_names import BACKGROUND, class_name
from tag2mask.data.outlines import draw_truth
from tag2mask.data.photos import masks_by_name
from tag2mask.data.readers.coco import read_instances
from tag2mask.data.tables import TABLE_NAMES
from tag2mask.data.text import read_json, read_text
from tag2mask.errors import DataError, nearest
from tag2mask.names import IGNORE, CorrectionFormat

Classes = Mapping[str, int]
"""Class indices by name."""


@dataclass(frozen=True)
class Found:
    """What a file says of one photo.

    Attributes:
        photo: the photo's name as the file has it.
        source: the file, for messages.
        draw: the mask, uint8 H x W, from the photo's height and width; raises ValueError or DataError.
        other: another name that the photo may have.
        size: height and width that the file says, None where it says none.
    """

    photo: str
    source: Path
    draw: Callable[[int, int], NDArray[np.uint8]]
    other: str = ""
    size: tuple[int, int] | None = None


def sniff(path: Path) -> CorrectionFormat:
    """Return the format of a file or folder.

    Raises:
        DataError: it is of none, or the folder is empty.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder of corrections; check the path")
    if path.is_file():
        return _of_file(path)
    if (path / "data.yaml").is_file() and any(path.rglob("*.txt")):
        return CorrectionFormat.YOLO
    files = _jsons(path)
    if files:
        first = _of_json(files[0])
        return CorrectionFormat.LABELME if first is None else first
    if masks_by_name(path):
        return CorrectionFormat.PNG
    if table_in(path):
        return CorrectionFormat.TAGS
    if any(path.rglob("*.txt")):
        raise DataError(f"{path}: YOLO labels need the names of the classes; put data.yaml beside them")
    raise DataError(
        f"{path}: no corrections in this folder; it should have masks (*.png), LabelMe's *.json, labels/*.txt with"
        " data.yaml, a COCO or Label Studio JSON, or a tag table"
    )


def _of_file(path: Path) -> CorrectionFormat:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return CorrectionFormat.TAGS
    if suffix == ".json":
        return _of_json(path) or CorrectionFormat.LABELME
    raise DataError(f"{path}: corrections are a folder, or a .json, .csv or .tsv file; give one of these")


def _of_json(path: Path) -> CorrectionFormat | None:
    """Return what a JSON file is; None for LabelMe's, of which there is one a photo."""
    data = read_json(path)
    if isinstance(data, dict) and "shapes" in data:
        return None
    if isinstance(data, dict) and "images" in data:
        return CorrectionFormat.COCO
    if isinstance(data, list) and data and isinstance(data[0], dict) and "data" in data[0]:
        return CorrectionFormat.LABEL_STUDIO
    return CorrectionFormat.TAGS


def table_in(path: Path) -> Path | None:
    """Return the tag table in a folder of corrections, or the file itself; None where there is none."""
    if path.is_file():
        return path
    return next((path / name for name in TABLE_NAMES if (path / name).is_file()), None)


def _jsons(path: Path) -> list[Path]:
    """Return the JSON files of a folder that are not its tag table."""
    return sorted(file for file in path.rglob("*.json") if file.name not in TABLE_NAMES)


def read_png(path: Path, classes: Classes) -> Iterator[Found]:
    """Yield the mask files of a folder: class indices in the order of the run's classes, 255 for pixels left out."""
    for name, file in masks_by_name(path).items():

        def draw(height: int, width: int, file: Path = file) -> NDArray[np.uint8]:
            mask = read_mask(file)
            if mask.shape != (height, width):
                raise ValueError(_other_size(mask.shape, height, width))
            highest = int(np.max(mask, where=mask != IGNORE, initial=0))
            if highest > len(classes):
                raise ValueError(f"class index {highest}, but the run has {len(classes)} classes")
            return mask

        yield Found(name, file, draw)


def read_labelme(path: Path, classes: Classes) -> Iterator[Found]:
    """Yield LabelMe's JSON files: polygons, rectangles and masks, later ones over earlier ones."""
    files = [path] if path.is_file() else _jsons(path)
    for file in files:
        record = read_json(file)
        shapes = record.get("shapes") if isinstance(record, dict) else None
        if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
            raise DataError(f"{file}: not a LabelMe file (no list 'shapes'); take it out of the folder")
        labels = [_class(shape.get("label"), classes, file) for shape in shapes]

        def draw(height: int, width: int, shapes: list[Any] = shapes, labels: list[int] = labels) -> NDArray[np.uint8]:
            drawn = [_labelme_shape(shape, height, width) for shape in shapes]
            return paint(zip(labels, drawn, strict=True), height, width)

        inner = Path(file.name) if path.is_file() else file.relative_to(path)
        size = record.get("imageHeight"), record.get("imageWidth")
        known = (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else None
        yield Found(inner.with_suffix("").as_posix(), file, draw, str(record.get("imagePath") or ""), known)


def _labelme_shape(shape: Mapping[str, Any], height: int, width: int) -> Pixels:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind == "polygon":
        return polygon_pixels(points, height, width)
    if kind in ("rectangle", "mask"):
        return box_pixels(points, height, width, shape.get("mask") if kind == "mask" else None)
    raise ValueError(f"a {kind} has no pixels of its own; draw a polygon")


def read_coco(path: Path, classes: Classes) -> Iterator[Found]:
    """Yield the photos of a COCO JSON, smaller objects over larger ones."""
    file = _only_json(path, CorrectionFormat.COCO)
    names, drawings = read_instances(file)
    values = np.zeros(256, np.uint8)
    values[IGNORE] = IGNORE
    used = {index for _, drawing in drawings for index, _ in drawing.objects if index not in (0, IGNORE)}
    for index in used:
        values[index] = _class(names[index - 1], classes, file)
    for photo, drawing in drawings:

        def draw(height: int, width: int, photo: str = photo, drawing: Any = drawing) -> NDArray[np.uint8]:
            sized = drawing._replace(height=height, width=width)
            mask = draw_truth(Sample(photo, Path(photo)), {photo: sized})
            if mask is None:
                raise ValueError(f"an object of {photo!r} has a box but no outline; draw it")
            return values[mask]

        size = (drawing.height, drawing.width) if drawing.height and drawing.width else None
        yield Found(photo, file, draw, size=size)


def read_yolo(path: Path, classes: Classes) -> Iterator[Found]:
    """Yield YOLO's segmentation labels, ``labels/*.txt`` with ``data.yaml``; smaller pieces over larger ones."""
    if not (path / "data.yaml").is_file():
        raise DataError(f"{path}: YOLO labels need the names of the classes; give the folder that has data.yaml")
    numbers = _yolo_classes(path / "data.yaml")
    base = path / "labels" if (path / "labels").is_dir() else path
    for file in sorted(base.rglob("*.txt")):
        lines = [line.split() for line in read_text(file).splitlines() if line.strip()]
        labels = [_class(numbers.get(line[0], f"number {line[0]}"), classes, file) for line in lines]

        def draw(
            height: int, width: int, lines: list[list[str]] = lines, labels: list[int] = labels
        ) -> NDArray[np.uint8]:
            if any(len(line) == 5 for line in lines):
                raise ValueError("a line is a box; YOLO's segmentation labels have polygons")
            if any(len(line) % 2 == 0 for line in lines):
                raise ValueError("a line has an odd number of coordinates")
            drawn = [polygon_pixels(scaled(line[1:], height, width, 1), height, width) for line in lines]
            return paint(largest_first(zip(labels, drawn, strict=True)), height, width)

        yield Found(file.relative_to(base).with_suffix("").as_posix(), file, draw)


def _yolo_classes(file: Path) -> dict[str, Any]:
    """Return the names of the classes by their numbers, as text."""
    try:
        names = read_yaml(file.read_bytes()).get("names")
    except (ValueError, AttributeError, OSError):
        names = None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        raise DataError(f"{file}: no list of class names ('names'); export the labels again")
    return {str(number): name for number, name in names.items()}


def read_label_studio(path: Path, classes: Classes) -> Iterator[Found]:
    """Yield Label Studio's tasks that a person has annotated, the last annotation of each: polygons and brushes."""
    file = _only_json(path, CorrectionFormat.LABEL_STUDIO)
    tasks = read_json(file)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{file}: not a list of Label Studio's tasks; export the project as JSON")
    for number, task in enumerate(tasks, 1):
        made = [one for one in task.get("annotations") or () if isinstance(one, dict) and not one.get("was_cancelled")]
        if not made:
            continue
        last = max(enumerate(made), key=lambda item: (str(item[1].get("updated_at") or ""), item[0]))[1]
        results = [one for one in last.get("result") or () if isinstance(one, dict)]
        regions = [(one, _label_studio_class(one, classes, file)) for one in results if _is_region(one)]
        photo = _photo_of(task.get("data"))
        if not photo:
            raise DataError(f"{file}: task {number} names no photo in 'data'; export the project as JSON")

        def draw(height: int, width: int, regions: list[tuple[Any, int]] = regions) -> NDArray[np.uint8]:
            drawn = [(label, _label_studio_pixels(one, height, width)) for one, label in regions]
            return paint(drawn, height, width)

        sizes = {(one.get("original_height"), one.get("original_width")) for one, _ in regions}
        height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        yield Found(photo, file, draw, re.sub(r"(^|/)[0-9a-f]{8}-", r"\1", photo), size)


def _is_region(result: Mapping[str, Any]) -> bool:
    """Return whether a result of Label Studio has a class and a place; choices, texts and relations have not."""
    return str(result.get("type")).endswith("labels") and isinstance(result.get("value"), dict)


def _label_studio_class(result: Mapping[str, Any], classes: Classes, file: Path) -> int:
    names = result["value"].get(result["type"])
    if not isinstance(names, list) or len(names) != 1:
        raise DataError(f"{file}: a region has {names!r} for its label; give each region one class")
    return _class(names[0], classes, file)


def _label_studio_pixels(result: Mapping[str, Any], height: int, width: int) -> Pixels:
    kind, value = result["type"], result["value"]
    if result.get("image_rotation"):
        raise ValueError("the photo was turned in Label Studio; turn it back")
    if kind == "polygonlabels":
        return polygon_pixels(scaled(value.get("points"), height, width, 100), height, width)
    if kind == "brushlabels":
        return decode_brush(value.get("rle") or (), height, width)
    raise ValueError(f"a region of {kind} has no outline; draw a polygon or use the brush")


def _photo_of(data: Any) -> str:
    """Return the name of a task's photo, from its URL.

    >>> _photo_of({"image": "/data/local-files/?d=sub%2Fa%20b.jpg"}), _photo_of({"image": "s3://photos/a.jpg"})
    ('sub/a b.jpg', 'a.jpg')
    """
    texts = [text for text in data.values() if isinstance(text, str)] if isinstance(data, dict) else []
    url = data["image"] if texts and isinstance(data.get("image"), str) else next(iter(texts), "")
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    query = parts.query.removeprefix("d=") if parts.query.startswith("d=") else ""
    return os.fsdecode(unquote_to_bytes(query or parts.path)).lstrip("/")


def _only_json(path: Path, format: CorrectionFormat) -> Path:
    """Return the one JSON of a folder, or the file itself."""
    files = [path] if path.is_file() else _jsons(path)
    if len(files) != 1:
        raise DataError(f"{path}: {len(files)} JSON files; give the one of format {format}")
    return files[0]


def _class(name: Any, classes: Classes, source: Path) -> int:
    """Return the index of a class by its name; the background's is 0."""
    known = class_name(name) if isinstance(name, str) else name
    if known == BACKGROUND:
        return 0
    if not isinstance(known, str) or known not in classes:
        hint = nearest(str(known), classes) or f"; the run has {', '.join(classes)}"
        raise DataError(f"{source}: class {known!r} is not among the run's classes{hint}")
    return classes[known]


def _other_size(shape: tuple[int, ...], height: int, width: int) -> str:
    return f"the mask has {shape[0]} x {shape[1]} pixels (height x width), its photo {height} x {width}"


READERS: dict[str, Callable[[Path, Classes], Iterator[Found]]] = {
    CorrectionFormat.PNG: read_png,
    CorrectionFormat.LABELME: read_labelme,
    CorrectionFormat.COCO: read_coco,
    CorrectionFormat.YOLO: read_yolo,
    CorrectionFormat.LABEL_STUDIO: read_label_studio,
}
