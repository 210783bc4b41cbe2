"""Colours of the classes in pictures made for people. Mask files keep the VOC colours."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tag2mask.names import IGNORE

_EASILY_TOLD_APART = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip


@lru_cache(maxsize=1)
def class_colours() -> npt.NDArray[np.uint8]:
    """Return a colour for every value of a mask, uint8 256 x 3.

    Classes 1 to 7 have the colours of Okabe and Ito (Color Universal Design, 2008), which colour-blind people
    too can tell apart; further hues follow by the golden angle at three lightnesses. 0 is black, 255 grey.

    >>> class_colours()[[0, 1, 2, 255]].tolist()
    [[0, 0, 0], [230, 159, 0], [86, 180, 233], [160, 160, 160]]
    """
    colours = np.zeros((256, 3), np.uint8)
    colours[1:8] = _EASILY_TOLD_APART
    for value in range(8, IGNORE):
        hue, lightness = 0.618034 * value % 1, (0.72, 0.38, 0.55)[value % 3]
        colours[value] = np.rint(255 * np.array(colorsys.hls_to_rgb(hue, lightness, 0.6)))
    colours[IGNORE] = 160
    return colours


def stripes(shape: tuple[int, ...], period: int) -> npt.NDArray[np.bool_]:
    """Return diagonal stripes of ``period`` pixels: the sign of uncertain pixels (255).

    >>> stripes((2, 4), 4).tolist()
    [[True, True, False, False], [True, False, False, True]]
    """
    rows, columns = np.indices(shape)
    return np.asarray((rows + columns) % period < period / 2)
