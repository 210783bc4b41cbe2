"""Masks to polygons and run lengths: one for each connected component."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from scipy import ndimage

from tag2mask.names import IGNORE

AGREEMENT = 0.98
"""A polygon's corners are left out only as far as its drawing and its component keep this IoU."""


class Component(NamedTuple):
    """Pixels of one class that hang together by their edges.

    Attributes:
        label: class index.
        top: first row.
        left: first column.
        inside: bool h x w, which pixels of its bounding box it has.
    """

    label: int
    top: int
    left: int
    inside: NDArray[np.bool_]


def components(mask: NDArray[np.uint8], min_area: int = 1) -> Iterator[Component]:
    """Yield a mask's components, class by class; background and 255 have none.

    Args:
        mask: uint8 H x W.
        min_area: smaller components, in pixels, are left out.

    >>> [(one.label, one.top, one.left, one.inside.shape) for one in components(np.eye(2, dtype=np.uint8))]
    [(1, 0, 0, (1, 1)), (1, 1, 1, (1, 1))]
    """
    for label in np.unique(mask):
        if label in (0, IGNORE):
            continue
        numbered, _ = ndimage.label(mask == label)
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), 1):
            inside = numbered[rows, columns] == number
            if np.count_nonzero(inside) >= min_area:
                yield Component(int(label), rows.start, columns.start, inside)


def run_lengths(component: Component, height: int, width: int) -> list[int]:
    """Return a component as COCO's run lengths: pixels outside and inside in turn, down the columns of the mask.

    >>> run_lengths(Component(1, 1, 0, np.ones((1, 2), bool)), height=2, width=3)
    [1, 1, 1, 1, 2]
    """
    steps = np.diff(np.pad(component.inside.T.astype(np.int8), ((0, 0), (1, 1))))
    starts, ends = (
        (column + component.left) * height + row + component.top
        for column, row in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    broken = starts[1:] != ends[:-1]  # a run may go on from the foot of a column to the head of the next
    starts, ends = starts[np.r_[True, broken]], ends[np.r_[broken, True]]
    bounds = np.stack([starts, ends], 1).ravel()
    counts = np.diff(bounds, prepend=0, append=height * width)
    return [int(count) for count in (counts if counts[-1] else counts[:-1])]


def polygon(component: Component, tolerance: float = 0.5) -> NDArray[np.float64]:
    """Return a component's outline, its holes joined to it by bridges of no width.

    The outline runs midway between the centres of pixels inside and outside. Corners are left out where that
    moves it by no more than ``tolerance`` (Douglas and Peucker 1973), and fewer where the IoU of what is drawn
    with the component would fall below `AGREEMENT`. From the leftmost corner of each hole a bridge goes left to
    the next line; it is walked both ways, so the polygon stays one ring and its drawing has the hole.

    Args:
        component: as `components` gives it.
        tolerance: in pixels; 0 leaves no pixel out of place.

    Returns:
        float64 N x 2, (x, y) in the mask; the pixel of row r and column c covers c..c+1 by r..r+1.

    >>> polygon(Component(1, 0, 0, np.ones((2, 2), bool)), 0).tolist()
    [[0.0, 0.5], [0.5, 0.0], [1.5, 0.0], [2.0, 0.5], [2.0, 1.5], [1.5, 2.0], [0.5, 2.0], [0.0, 1.5]]
    """
    inside, rings = component.inside, _rings(component.inside)
    for allowed in (tolerance, tolerance / 2, tolerance / 4, 0):
        corners = _joined([_simplified(ring, allowed) for ring in rings])
        drawn = draw(corners, *inside.shape)
        if np.count_nonzero(drawn & inside) >= AGREEMENT * np.count_nonzero(drawn | inside):
            break
    return corners + np.array([component.left, component.top])


def draw(corners: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Return which pixels have their centre inside a polygon, by the even-odd rule.

    Args:
        corners: float N x 2, (x, y).
        height: of what is drawn on.
        width: of what is drawn on.

    Returns:
        bool H x W.
    """
    ends = np.roll(corners, -1, 0)
    first, last = (
        np.clip(np.ceil(end(corners[:, 1], ends[:, 1]) - 0.5), 0, height).astype(int)
        for end in (np.minimum, np.maximum)
    )
    rows = last - first  # the edge crosses the centre lines of so many
    edge = np.repeat(np.arange(len(corners)), rows)
    row = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows - first, rows)
    (x, y), (far_x, far_y) = corners[edge].T, ends[edge].T
    crossing = x + (row + 0.5 - y) / (far_y - y) * (far_x - x)
    flips = np.zeros((height, width + 1), np.int32)
    np.add.at(flips, (row, np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)), 1)
    return np.asarray(np.cumsum(flips, 1)[:, :-1] % 2 == 1)


def _rings(inside: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return the outline and then the holes, each without its first corner at the end."""
    traced: Any = contour_generator(z=np.pad(inside, 1).astype(float), fill_type=FillType.OuterOffset).filled(0.5, 1.5)
    (points, *_), (offsets, *_) = traced
    return [points[start : end - 1] - 0.5 for start, end in pairwise(offsets)]


def _simplified(ring: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Leave out corners (Douglas and Peucker); a ring of which too little would be left stays as it is."""
    closed = np.vstack([ring, ring[:1]])
    farthest = int(np.argmax(((ring - ring[0]) ** 2).sum(1)))
    kept = np.zeros(len(closed), bool)
    waiting = [(0, farthest), (farthest, len(ring))]
    while waiting:
        first, last = waiting.pop()
        kept[[first, last]] = True
        (x, y), (wide, high) = (closed[first + 1 : last] - closed[first]).T, closed[last] - closed[first]
        away = np.abs(wide * y - high * x) / np.hypot(wide, high)
        if away.max(initial=0) > tolerance:
            middle = first + 1 + int(away.argmax())
            waiting += [(first, middle), (middle, last)]
    return ring[kept[:-1]] if np.count_nonzero(kept) > 3 else ring


def _joined(rings: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Join the holes, from left to right, to the outline: what lies left of one is joined before it."""
    joined, *holes = rings
    for hole in sorted(holes, key=lambda ring: float(ring[:, 0].min())):
        hole = np.roll(hole, -int(hole[:, 0].argmin()), 0)
        after, joint = _left_of(joined, hole[0])
        joined = np.vstack([joined[: after + 1], joint, hole, hole[:1], joint, joined[after + 1 :]])
    return joined


def _left_of(ring: NDArray[np.float64], point: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]]:
    """Return the edge of a ring next to the left of a point, and where; else the corner nearest to the point."""
    (x, y), (far_x, far_y) = ring.T, np.roll(ring, -1, 0).T
    crossed = np.flatnonzero((y <= point[1]) != (far_y <= point[1]))
    at = x[crossed] + (point[1] - y[crossed]) / (far_y - y)[crossed] * (far_x - x)[crossed]
    crossed, at = crossed[at <= point[0]], at[at <= point[0]]
    if not len(at):
        nearest = int(((ring - point) ** 2).sum(1).argmin())
        return nearest, ring[nearest]
    return int(crossed[at.argmax()]), np.array([at.max(), point[1]])
