"""COCO's segmentations: polygons and run lengths, checked and drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from tag2mask.data.image_set import Sample
from tag2mask.errors import DataError
from tag2mask.names import IGNORE

_PACKED = re.compile("(?:[P-o]{0,6}[0-O])*")
"""Packed run lengths, each ending in a sign that says so: pycocotools would read on beyond the last."""

_CORNERS = 3
"""A polygon of fewer has no area."""


class Drawing(NamedTuple):
    """What is drawn on one photo.

    Attributes:
        height: of the photo, pixels.
        width: of the photo, pixels.
        objects: of each annotation the index to paint (255 for a crowd) and COCO's ``segmentation``:
            polygons or run lengths; None or empty where there is only a box.
    """

    height: int
    width: int
    objects: tuple[tuple[int, Any], ...]


def draw_truth(sample: Sample, drawings: Mapping[str, Drawing]) -> NDArray[np.uint8] | None:
    """Draw the semantic truth of a photo from its annotations.

    Larger objects are painted first, so that smaller ones lie over them; crowd regions come last and are
    255 all over. Polygons of fewer than three corners are passed over.

    Args:
        sample: the photo.
        drawings: what to draw, by the photo's name.

    Returns:
        uint8 H x W, 0 to C and 255; None if some object of the photo has no outline.

    Raises:
        DataError: a segmentation is not COCO's or lies outside of the photo.
    """
    height, width, objects = drawings[sample.name]
    try:
        if not all(has_outline(segmentation) for _, segmentation in objects):
            return None
        if wrong := next((why for _, outline in objects if (why := what_is_wrong(outline, height, width))), ""):
            raise ValueError(wrong)
        regions = [(index, _encode(segmentation, height, width)) for index, segmentation in objects]
        regions.sort(key=lambda region: (region[0] == IGNORE, -int(rle.area(region[1]))))
        mask = np.zeros((height, width), np.uint8)
        for index, region in regions:
            mask[rle.decode(region) > 0] = index
    except Exception as error:  # pycocotools raises nearly anything, plain Exception too
        raise DataError(
            f"{sample.image}: a segmentation of this photo is not COCO's ({error}); correct it in the JSON"
        ) from None
    return mask


def has_outline(segmentation: Any) -> bool:
    """Return whether there is anything to draw: run lengths, or a polygon of three corners or more.

    >>> has_outline([[1, 1, 5, 5]]), has_outline([[1, 1, 5, 1, 5, 5]]), has_outline([[]]), has_outline(None)
    (False, True, False, False)
    """
    if not isinstance(segmentation, list):
        return bool(segmentation)
    return any(not isinstance(polygon, list) or len(polygon) >= 2 * _CORNERS for polygon in segmentation)


def what_is_wrong(segmentation: Any, height: int, width: int) -> str:
    """Return why a segmentation is not COCO's; empty if it is, or if there is none.

    >>> what_is_wrong([1, 1, 5, 1, 5, 5], 8, 8)
    'polygons must be a list of lists, [[x, y, x, y, ...]], but this is one flat list'
    """
    if not segmentation:
        return ""
    if isinstance(segmentation, dict):
        return _wrong_runs(segmentation, height, width)
    if not isinstance(segmentation, list):
        return "neither polygons nor run lengths"
    if any(isinstance(polygon, (int, float)) for polygon in segmentation):
        return "polygons must be a list of lists, [[x, y, x, y, ...]], but this is one flat list"
    if any(isinstance(polygon, list) and polygon and isinstance(polygon[0], list) for polygon in segmentation):
        return "polygons are nested too deep: write [[x, y, x, y, ...]], without a list for each corner"
    try:
        numbers = [np.asarray(polygon, np.float64) for polygon in segmentation]
    except (TypeError, ValueError):
        return "a polygon has something else than numbers"
    if not all(polygon.ndim == 1 and (np.abs(polygon) <= 4 * max(height, width)).all() for polygon in numbers):
        return "a polygon lies far outside of the photo"
    most = 4 * height * width + 100 * (height + width)  # pycocotools takes memory for each pixel of an outline
    if sum(map(len, numbers)) * 4 * max(height, width) > most and sum(map(_length, numbers)) > most:
        return "the outline of an object is longer than any that fits in the photo"
    return ""


def _length(polygon: NDArray[np.float64]) -> float:
    """Return an upper bound of a polygon's length in pixels."""
    return float(np.abs(np.diff(polygon[: len(polygon) // 2 * 2].reshape(-1, 2), axis=0)).sum())


def _wrong_runs(runs: Mapping[str, Any], height: int, width: int) -> str:
    if runs.get("size") != [height, width]:
        return f"run lengths are of another size than the photo's, {height} x {width}"
    counts = runs.get("counts")
    if isinstance(counts, str):
        return "" if _PACKED.fullmatch(counts) else "run lengths are damaged"
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        return "run lengths are neither text nor a list of whole numbers"
    return "" if sum(counts) == height * width else "run lengths do not add up to the photo's pixels"


def _encode(segmentation: Any, height: int, width: int) -> Any:
    """Return a segmentation in which nothing is wrong as run lengths in pycocotools' packed form."""
    if isinstance(segmentation, dict):
        packed = isinstance(segmentation["counts"], str)
        return segmentation if packed else rle.frPyObjects(segmentation, height, width)
    corners = [np.asarray(polygon[: len(polygon) // 2 * 2], np.float64) for polygon in segmentation]
    drawable = [polygon for polygon in corners if len(polygon) >= 2 * _CORNERS]
    return rle.merge(rle.frPyObjects([polygon.tolist() for polygon in drawable], height, width))
