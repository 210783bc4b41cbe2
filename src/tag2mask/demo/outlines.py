"""Round outlines, and places that overlap a little at most: what the generated kinds share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tag2mask.demo.brushes import Array, Random, Shape


def window(shape: Shape, row: float, column: float, reach: float) -> tuple[tuple[slice, slice], Array, Array]:
    """Return the part of an array within ``reach`` of a place, and its rows and columns counted from the place."""
    top, left = (max(0, int(centre - reach)) for centre in (row, column))
    bottom, right = (
        max(0, min(side, int(centre + reach) + 1)) for side, centre in zip(shape, (row, column), strict=True)
    )
    rows, columns = np.meshgrid(
        np.arange(top, bottom, dtype=np.float32) - row, np.arange(left, right, dtype=np.float32) - column, indexing="ij"
    )
    return (slice(top, bottom), slice(left, right)), rows, columns


def round_outline(
    rows: Array, columns: Array, radius: float, rng: Random, *, wobble: float = 0.06, stretch: float = 0.15
) -> Array:
    """Return about the distance to a round, uneven outline around the origin in pixels, positive inside.

    Args:
        rows: from the centre.
        columns: from the centre.
        radius: in pixels.
        rng: where chance comes from.
        wobble: how uneven, as a share of the radius.
        stretch: the largest logarithm of the ratio of the axes.
    """
    turn, ratio = rng.uniform(0, np.pi), np.exp(rng.uniform(-stretch, stretch) / 2)
    along = (np.cos(turn) * columns + np.sin(turn) * rows) / ratio
    across = (np.cos(turn) * rows - np.sin(turn) * columns) * ratio
    angle = np.arctan2(across, along)
    reach = 1 + sum(
        wobble * rng.normal() / wave * np.cos(wave * angle + rng.uniform(0, 2 * np.pi)) for wave in (2, 3, 5, 8)
    )
    inside: Array = radius * reach - np.hypot(along, across)
    return inside.astype(np.float32)


def scatter(
    shape: Shape, radii: Sequence[float], rng: Random, *, apart: float = 0.95, tries: int = 25
) -> list[tuple[float, float, float]]:
    """Return row, column and radius of every disc that found a place; the first one always does.

    Args:
        shape: of the photo; centres lie in it.
        radii: of the discs, in pixels.
        rng: where chance comes from.
        apart: the least distance of two centres, as a share of the sum of their radii.
        tries: how many places are tried for each.
    """
    places: list[tuple[float, float, float]] = []
    for radius in radii:
        for _ in range(tries):
            row, column = rng.uniform(0, 1, 2) * shape
            if all(np.hypot(row - r, column - c) > apart * (radius + other) for r, c, other in places):
                places.append((float(row), float(column), float(radius)))
                break
    return places
