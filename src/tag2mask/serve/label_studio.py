"""What Label Studio sends and takes: the labelling configuration, predictions, annotations. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from tag2mask.data.brush import decode_brush, encode_brush
from tag2mask.data.text import PlainXml
from tag2mask.errors import DataError, few
from tag2mask.exports.annotations import polygon_value
from tag2mask.exports.polygons import components, draw, polygon
from tag2mask.serve.fetch import split
from tag2mask.serve.model import Prediction

BRUSH, POLYGON = "brushlabels", "polygonlabels"
_TAGS = {"BrushLabels": BRUSH, "PolygonLabels": POLYGON}
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of a file that was uploaded."""

SPECK = 16
"""Polygons of fewer pixels are left out: nobody can take hold of them."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Control:
    """Where masks go in a project.

    Attributes:
        kind: ``brushlabels`` or ``polygonlabels``.
        name: of the labels.
        image: name of the image that they are of.
        field: of a task's data that leads to the photo.
        labels: names of the labels that are classes.
    """

    kind: str
    name: str
    image: str
    field: str
    labels: tuple[str, ...]


def read_control(configuration: str, classes: Sequence[str]) -> Control:
    """Return where masks go by a labelling configuration: its first brush labels, else its first polygon labels.

    Args:
        configuration: XML.
        classes: names of the foreground classes.

    Raises:
        DataError: it is no XML, or no label of a brush or a polygon over an image is one of the classes.
    """
    try:
        root = ElementTree.fromstring(configuration, ElementTree.XMLParser(target=PlainXml()))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(f"the labelling configuration is not valid XML ({error}); correct it") from None
    images = {node.get("name"): node.get("value", "") for node in root.iter("Image")}
    for tag, kind in _TAGS.items():
        for node in root.iter(tag):
            image, labels = node.get("toName"), [label.get("value", "") for label in node.iter("Label")]
            known = tuple(name for name in classes if name in labels)
            if known and image in images and images[image].startswith("$"):
                return Control(kind, node.get("name", ""), str(image), images[image][1:], known)
    raise DataError(
        "the labelling configuration has no BrushLabels or PolygonLabels of an Image with a label that is one of "
        f"{few(list(map(repr, classes)))}; add the classes as labels"
    )


def prediction_of(prediction: Prediction, control: Control) -> Record:
    """Return a prediction as Label Studio takes it: a region for each class, of polygons for each component."""
    height, width = prediction.mask.shape
    region = {
        "from_name": control.name, "to_name": control.image, "original_width": width, "original_height": height,
        "image_rotation": 0, "type": control.kind,
    }  # fmt: skip
    regions = []
    for label, name in prediction.found():
        if name not in control.labels:
            continue
        score, inside = round(float(prediction.scores[label]), 4), prediction.mask == label
        if control.kind == BRUSH:
            values: list[Record] = [{"format": "rle", "rle": encode_brush(inside), BRUSH: [name]}]
        else:
            pieces = components(inside.astype(np.uint8), SPECK)
            values = [polygon_value(polygon(piece), name, (height, width)) for piece in pieces]
        regions += [region | {"value": value, "score": score} for value in values]
    for number, one in enumerate(regions, 1):
        one["id"] = str(number)
    return {"model_version": prediction.version, "score": round(prediction.score, 4), "result": regions}


def mask_of(results: Iterable[Record], classes: Sequence[str], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the mask that an annotation draws, uint8 H x W; later regions cover earlier ones, the rest is 0.

    Args:
        results: the annotation's regions; those without a mask are passed over.
        classes: names of the foreground classes.
        size: height and width of the photo in pixels.

    Raises:
        DataError: a region is of another size, turned, of an unknown class, or damaged.
    """
    mask = np.zeros(size, np.uint8)
    for region in results:
        kind, value = region.get("type"), region.get("value")
        if kind not in _TAGS.values() or not isinstance(value, dict):
            continue
        seen = (region.get("original_height"), region.get("original_width"))
        if seen != size or region.get("image_rotation"):
            turned = region.get("image_rotation") or 0
            raise DataError(
                f"a region is of {seen[0]} x {seen[1]} pixels (height x width), turned by {turned} degrees, the photo "
                f"has {size[0]} x {size[1]}; draw it on the photo as it is"
            )
        names = value.get(kind)
        if not isinstance(names, list) or not names or names[0] not in classes:
            label = f"the label {names[0]!r}" if isinstance(names, list) and names else "no label"
            raise DataError(f"a region has {label}; the run has {few(list(map(repr, classes)))}")
        inside = decode_brush(value.get("rle", ()), *size) if kind == BRUSH else _drawn(value, size)
        mask[inside] = classes.index(names[0]) + 1
    return mask


def _drawn(value: Record, size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        points = np.array(value["points"], np.float64).reshape(-1, 2)
        if len(points) < 3 or not np.isfinite(points).all() or np.abs(points).max() > 1000:
            raise ValueError("no polygon")
    except (KeyError, OverflowError, TypeError, ValueError):
        raise DataError("a polygon has fewer than three points, or invalid coordinates; draw it again") from None
    points = points * (size[1] / 100, size[0] / 100)
    if np.abs(np.diff(points[:, 1])).sum() > size[0] * size[1]:  # drawing takes memory for each row that a line crosses
        raise DataError("a polygon is longer than the size of the photo allows; draw it again")
    return draw(points, *size)


def photo_name(place: str, names: Iterable[str]) -> str:
    """Return the name in the run of the photo that a task leads to.

    Args:
        place: URL or path of the photo. An uploaded file has eight signs before its name.
        names: of the run's photos: paths without suffix.

    Raises:
        DataError: none of them, or several, can be meant.

    >>> photo_name("/data/upload/1/0a1b2c3d-two_dogs.jpg", ["two dogs", "cat"])
    'two dogs'
    >>> photo_name("/data/local-files/?d=photos/sub/cat.png", ["sub/cat", "cat"])
    'sub/cat'
    """
    parts = split(place)
    path = PurePosixPath(parse_qs(parts.query).get("d", [unquote(parts.path)])[0])
    folders, last = [part for part in path.parts[:-1] if part != "/"], path.stem
    known = set(names)
    for stem in dict.fromkeys((last, _UPLOADED.sub("", last))):
        for start in range(len(folders) + 1):
            name = "/".join([*folders[start:], stem])
            if name in known:
                return name
    like = [name for name in known if _saved(PurePosixPath(name).name) == _UPLOADED.sub("", last)]
    if len(like) == 1:
        return like[0]
    which = f"it could be {few(sorted(map(repr, like)))}" if like else "add it to the run's photos"
    raise DataError(f"no training photo of the run is called {_UPLOADED.sub('', last)!r}; {which}")


def _saved(name: str) -> str:
    """Return what Label Studio calls an uploaded file of this name."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def place_of(data: Mapping[str, Any], control: Control) -> str:
    """Return what leads to a task's photo.

    Raises:
        DataError: the task has none.
    """
    place = data.get(control.field)
    if not isinstance(place, str) or not place:
        raise DataError(f"the task has no photo: {control.field!r} is missing in its data")
    return place
