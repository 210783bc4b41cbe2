"""Objects of a class that touch, taken apart at their necks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tag2mask.exports.polygons import Component, components

NECK = 0.5
"""Two parts are two objects where the neck between them is narrower than this share of the thinner part."""


def instances(mask: NDArray[np.uint8], min_area: int = 1, neck: float = NECK) -> Iterator[Component]:
    """Yield a mask's components, those that a neck joins in parts.

    Args:
        mask: uint8 H x W; background and 255 have no components.
        min_area: smaller components and parts, in pixels, are left out.
        neck: see `NECK`; 0 for whole components.

    >>> mask = np.zeros((7, 15), np.uint8)
    >>> mask[:, :7] = mask[:, 8:] = mask[3, 7] = 1
    >>> [part.inside.shape for part in instances(mask)]
    [(7, 8), (7, 7)]
    """
    for component in components(mask, min_area):
        parts = split(component.inside, neck)
        for number, (rows, columns) in enumerate(ndimage.find_objects(parts), 1):
            inside = parts[rows, columns] == number
            if np.count_nonzero(inside) >= min_area:
                yield Component(component.label, component.top + rows.start, component.left + columns.start, inside)


def split(inside: NDArray[np.bool_], neck: float = NECK) -> NDArray[np.int32]:
    """Return which part each pixel of a component belongs to, int32 h x w, 1..P; 0 outside.

    The height of a pixel is its distance to the outside. Each peak's catchment, by a watershed, is a part; two are one
    where the saddle between them is at least ``neck`` times as high as the lower peak, the highest saddles first.

    Args:
        inside: bool h x w.
        neck: see `NECK`.
    """
    if not neck:
        return inside.astype(np.int32)
    height = ndimage.gaussian_filter(ndimage.distance_transform_edt(np.pad(inside, 1)), 1.0)[1:-1, 1:-1] * inside
    parts, count = _catchments(height, inside)
    _, numbers = np.unique(_join(parts, height, count, neck)[1:], return_inverse=True)
    return np.concatenate([[0], numbers + 1]).astype(np.int32)[parts]


def _catchments(height: NDArray[np.float64], inside: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Return from which peak each pixel is the steepest way down, 1..P, 0 outside; and P."""
    around = np.pad(height, 1, constant_values=-1.0)
    steps = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
    rows, columns = height.shape
    near = [around[1 + down : 1 + down + rows, 1 + right : 1 + right + columns] for down, right in steps]
    way = np.array([down * columns + right for down, right in steps])[np.argmax(near, 0)]
    up = np.arange(height.size) + way.ravel()
    while (further := up[up]).tobytes() != up.tobytes():
        up = further
    peaks, count = ndimage.label((up == np.arange(height.size)).reshape(height.shape) & inside)
    return np.where(inside, peaks.ravel()[up].reshape(height.shape), 0).astype(np.int32), int(count)


def _join(parts: NDArray[np.int32], height: NDArray[np.float64], count: int, neck: float) -> NDArray[np.int64]:
    """Return for each part, from 0, the first of those that it is one with."""
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, parts, height)
    saddles: dict[tuple[int, int], float] = {}
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = np.sort([parts[here], parts[there]], axis=0)
        met = (a != b) & (a > 0)
        lower = np.minimum(height[here], height[there])[met]
        for first, second, value in zip(a[met].tolist(), b[met].tolist(), lower.tolist(), strict=True):
            saddles[first, second] = max(value, saddles.get((first, second), 0.0))
    root = np.arange(count + 1)
    for (first, second), saddle in sorted(saddles.items(), key=lambda item: -item[1]):
        one, other = root[first], root[second]
        if one != other and saddle >= neck * min(peaks[one], peaks[other]):
            peaks[min(one, other)] = max(peaks[one], peaks[other])
            root[root == max(one, other)] = min(one, other)
    return root
