"""A photo as overlapping squares, and the maps of these joined to a map of the photo. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, product
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from tag2mask.config import TilesConfig

Pixels = TypeVar("Pixels", bound=np.ndarray)

Window: TypeAlias = tuple[slice, slice]
"""Rows and columns of a photo."""

CRF_SIDE, CRF_OVERLAP = 1024, 256
"""Pixels of the parts of a photo in which the CRF is done where photos are tiled: half the overlap, which is seen but
not kept, is more than the CRF's longest deviation."""


class Tile(NamedTuple):
    """A square of a photo: its first row, its first column and its side, in pixels."""

    top: int
    left: int
    side: int

    def cut(self, pixels: Pixels) -> Pixels:
        """Return the pixels of the tile, H x W or H x W x 3 being those of the photo."""
        return pixels[self.top : self.top + self.side, self.left : self.left + self.side]  # type: ignore[return-value]


def tiles_of(size: tuple[int, int], how: TilesConfig) -> list[Tile]:
    """Return the tiles of a photo, row by row: as few as cover it, at even distances.

    They overlap by ``how.overlap`` pixels at least. In a photo with a side shorter than ``how.side`` they are squares
    of that side, and overlap less in proportion: a tile is never squashed or filled up.

    Args:
        size: height and width of the photo in pixels.
        how: side and overlap.

    >>> tiles_of((300, 1000), TilesConfig(side=448, overlap=64))[:2]
    [Tile(top=0, left=0, side=300), Tile(top=0, left=233, side=300)]
    """
    side = min(how.side, *size)
    overlap = how.overlap * side // how.side
    rows, columns = (_starts(length, side, overlap) for length in size)
    return [Tile(top, left, side) for top in rows for left in columns]


def place_in(size: tuple[int, int], tile: Tile) -> tuple[float, float, float, float]:
    """Return where a tile lies in a photo: first and last row, first and last column, the photo's being -1 and 1.

    >>> place_in((100, 200), Tile(50, 0, 50))
    (0.0, 1.0, -1.0, -0.5)
    """
    (top, bottom), (left, right) = (
        (2 * start / length - 1, 2 * (start + tile.side) / length - 1)
        for start, length in zip((tile.top, tile.left), size, strict=True)
    )
    return top, bottom, left, right


def bands(length: int, side: int, overlap: int) -> list[tuple[slice, slice]]:
    """Return overlapping bands of a side of a photo: what is seen of it each time, and what is kept of that.

    What is kept, together, is the whole side, each pixel once.

    >>> bands(10, 6, 2)
    [(slice(0, 6, None), slice(0, 5, None)), (slice(4, 10, None), slice(5, 10, None))]
    """
    side = min(side, length)
    seen = [slice(start, start + side) for start in _starts(length, side, overlap)]
    cuts = [0, *((before.stop + after.start) // 2 for before, after in pairwise(seen)), length]
    return list(zip(seen, (slice(*cut) for cut in pairwise(cuts)), strict=True))


def _starts(length: int, side: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    last = math.ceil((length - side) / (side - overlap))
    return [round(place * (length - side) / last) for place in range(last + 1)]


class Stitch:
    """The map of a photo from the maps of its tiles, their mean with weights that fall linearly to a tile's borders.

    It has the resolution of the tiles' maps. Only it is held, not those of the tiles.

    Args:
        size: height and width of the photo in pixels.

    >>> whole = Stitch((4, 6))
    >>> for tile in (Tile(0, 0, 4), Tile(0, 2, 4)):
    ...     whole.add(tile, torch.full((1, 2, 2), float(tile.left)))
    >>> whole.map().round(decimals=2).tolist()
    [[[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]]
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.sum: Tensor | None = None
        self.weight: Tensor | None = None

    def add(self, tile: Tile, maps: Tensor) -> None:
        """Take the maps of a tile, float C x h x w."""
        if self.sum is None or self.weight is None:
            height, width = (
                max(1, round(side * positions / tile.side))
                for side, positions in zip(self.size, maps.shape[1:], strict=True)
            )
            self.sum = maps.new_zeros(len(maps), height, width)
            self.weight = maps.new_zeros(height, width)
        rows, vertical, down = _placing(self.size[0], self.sum.shape[1], tile.top, tile.side, maps.shape[1])
        columns, horizontal, across = _placing(self.size[1], self.sum.shape[2], tile.left, tile.side, maps.shape[2])
        weight = (down[:, None] * across).to(maps.device)
        self.sum[:, rows, columns] += vertical.to(maps) @ maps @ horizontal.to(maps).T * weight
        self.weight[rows, columns] += weight

    def map(self) -> Tensor:
        """Return the photo's map, float C x H' x W'."""
        if self.sum is None or self.weight is None:
            raise ValueError("no tile has been added")
        return self.sum / self.weight


def _placing(length: int, positions: int, start: int, side: int, inside: int) -> tuple[slice, Tensor, Tensor]:
    """Return, along one axis, where a tile's map goes in the photo's, by which matrix, and with which weights.

    Args:
        length: of the photo in pixels.
        positions: of the photo's map.
        start: of the tile in pixels.
        side: of the tile in pixels.
        inside: positions of the tile's map.
    """
    pixels = (torch.arange(positions) + 0.5) * (length / positions) - start
    covered = ((pixels >= 0) & (pixels <= side)).nonzero().flatten()
    where = slice(int(covered[0]), int(covered[-1]) + 1) if len(covered) else slice(0, 0)
    pixels = pixels[where]
    places = (pixels * (inside / side) - 0.5).clamp(0, inside - 1)
    matrix = (1 - (places[:, None] - torch.arange(inside)).abs()).relu()
    return where, matrix, torch.minimum(pixels, side - pixels).clamp_min(1e-3) / side


def parts_of(size: tuple[int, int], tiles: TilesConfig | None) -> Iterator[tuple[Window, Window, Window]]:
    """Yield the parts of a photo that the CRF refines one by one, so that memory does not grow with the photo.

    Without tiles there is one part, the photo.

    Args:
        size: height and width of the photo in pixels.
        tiles: of the recipe.

    Yields:
        What the CRF sees, what is kept of its mask, and where that is in what it sees.
    """
    sides = [bands(length, length if tiles is None else CRF_SIDE, CRF_OVERLAP) for length in size]
    for (rows, of_rows), (columns, of_columns) in product(*sides):
        inner = tuple(
            slice(kept.start - seen.start, kept.stop - seen.start)
            for seen, kept in ((rows, of_rows), (columns, of_columns))
        )
        yield (rows, columns), (of_rows, of_columns), (inner[0], inner[1])
