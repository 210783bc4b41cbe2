"""What annotation formats get of a mask: its components or objects, specks left out and counted."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from tag2mask.exports.instances import instances
from tag2mask.exports.polygons import Component, components
from tag2mask.proxy import SPECK_PART, SPECK_PIXELS, SPECK_SHARE, speck_area

log = logging.getLogger("tag2mask")


class Pieces:
    """Choose the pieces of masks that are exported.

    Args:
        min_area: leave out smaller pieces, in pixels; None to leave out specks (`tag2mask.proxy.speck_area`).
        split: split components where a neck joins two objects.
    """

    def __init__(self, min_area: int | None = None, split: bool = False) -> None:
        self.min_area, self.find = min_area, instances if split else components
        self.found = self.left_out = 0

    def of(self, mask: NDArray[np.uint8]) -> list[Component]:
        """Return the pieces of a mask, uint8 H x W."""
        found = list(self.find(mask))
        areas = [int(np.count_nonzero(piece.inside)) for piece in found]
        largest: dict[int, int] = {}
        for piece, area in zip(found, areas, strict=True):
            largest[piece.label] = max(area, largest.get(piece.label, 0))
        kept = [
            piece for piece, area in zip(found, areas, strict=True) if area >= self._least(largest[piece.label], mask)
        ]
        self.found += len(found)
        self.left_out += len(found) - len(kept)
        return kept

    def _least(self, largest: int, mask: NDArray[np.uint8]) -> float:
        return speck_area(largest, mask.size) if self.min_area is None else self.min_area

    def report(self) -> None:
        """Say how many pieces were left out, and how to keep them."""
        if not self.left_out:
            return
        count = f"left out {self.left_out:,} of {self.found:,} regions"
        if self.min_area is not None:
            log.info("%s: smaller than %d pixels", count, self.min_area)
            return
        log.warning(
            "%s as specks: smaller than 1/%.0f of the photo, %d pixels and 1/%.0f of the largest region of the class "
            "in the photo; --min-area 1 keeps them", count, 1 / SPECK_SHARE, SPECK_PIXELS, 1 / SPECK_PART,
        )  # fmt: skip
