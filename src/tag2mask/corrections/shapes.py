"""What annotation tools draw: polygons, and boxes with or without a bitmap. Pure functions."""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tag2mask.data.outlines import what_is_wrong
from tag2mask.exports.polygons import draw

Pixels = NDArray[np.bool_]


def paint(shapes: Iterable[tuple[int, Pixels]], height: int, width: int) -> NDArray[np.uint8]:
    """Return a mask, uint8 H x W, of classes and their pixels, each over those before it.

    >>> paint([(1, np.array([[True, True]])), (2, np.array([[False, True]]))], 1, 2).tolist()
    [[1, 2]]
    """
    mask = np.zeros((height, width), np.uint8)
    for label, inside in shapes:
        mask[inside] = label
    return mask


def largest_first(shapes: Iterable[tuple[int, Pixels]]) -> list[tuple[int, Pixels]]:
    """Return shapes in an order in which smaller ones lie over larger ones."""
    return sorted(shapes, key=lambda shape: -np.count_nonzero(shape[1]))


def polygon_pixels(points: Any, height: int, width: int) -> Pixels:
    """Return the pixels whose centres are inside a polygon, bool H x W.

    Args:
        points: list of (x, y); the pixel of row r and column c covers c..c+1 by r..r+1.
        height: of the photo.
        width: of the photo.

    Raises:
        ValueError: it has fewer than three corners, is no list of pairs of numbers, or leaves the photo far behind.
    """
    try:
        corners = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        raise ValueError("a polygon has something else than numbers") from None
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError("a polygon has fewer than three corners")
    if wrong := what_is_wrong([corners.ravel().tolist()], height, width):
        raise ValueError(wrong)
    return draw(corners, height, width)


def box_pixels(points: Any, height: int, width: int, bitmap: Any = None) -> Pixels:
    """Return the pixels of a box, or, of LabelMe's masks, those that its bitmap has, bool H x W.

    Args:
        points: two opposite corners, (x, y); those of a bitmap are its first and last pixel.
        height: of the photo.
        width: of the photo.
        bitmap: PNG in base 64; None for a box.

    Raises:
        ValueError: the corners or the bitmap are none.
    """
    corners = np.asarray(points, np.float64)
    if corners.shape != (2, 2) or not (np.abs(corners) <= 4 * max(height, width)).all():
        raise ValueError("a box is not two corners in the photo")
    left, top = corners.min(0)
    right, bottom = corners.max(0)
    if bitmap is None:
        return polygon_pixels([(left, top), (right, top), (right, bottom), (left, bottom)], height, width)
    inside = _bitmap(bitmap)
    left, top = round(left), round(top)
    if left < 0 or top < 0 or top + inside.shape[0] > height or left + inside.shape[1] > width:
        raise ValueError("a mask's bitmap lies outside of the photo")
    whole = np.zeros((height, width), bool)
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return whole


def _bitmap(text: Any) -> Pixels:
    try:
        content = base64.b64decode(text, validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(content), formats=("PNG",)) as image:
                return np.asarray(image.convert("L")) > 0
    except (TypeError, ValueError, binascii.Error, OSError, SyntaxError, Warning, Image.DecompressionBombError):
        raise ValueError("a mask's bitmap is no PNG in base 64") from None


def scaled(points: Sequence[Any], height: int, width: int, whole: float) -> Any:
    """Return points that are given in parts of the photo, whose far corner is ``(whole, whole)``, in pixels.

    They are rounded to hundredths: outlines between pixels then run where they did, however few digits a file has.

    Raises:
        ValueError: they are no pairs of numbers.
    """
    try:
        return (np.asarray(points, np.float64).reshape(-1, 2) * (width / whole, height / whole)).round(2)
    except (TypeError, ValueError):
        raise ValueError("a polygon has something else than pairs of numbers") from None
