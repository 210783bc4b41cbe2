"""Confidence of a class's region in a photo's mask, from what is known without true masks. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tag2mask.names import IGNORE
from tag2mask.resize import resize

Mask = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]

RARE = 0.95
"""Share of the scores in photos without a class that its rare scores exceed."""

AGREED = 0.2
"""Agreement of the first and the final mask from which on it does not lower the confidence."""


class Confidence(NamedTuple):
    """What is said of a class in a photo's mask.

    Attributes:
        label: the class, 1..C.
        value: 0 to 1; the lower, the less likely it is that the region is right.
        area: share of the photo's pixels that the mask gives to the class, 0 to 1.
    """

    label: int
    value: float
    area: float


def judged(labels: Sequence[int], mask: Mask) -> list[int]:
    """Return the classes that a photo's confidences are of: its tags, or without any those that its mask shows.

    >>> judged([2], np.array([[0, 1]])), judged([], np.array([[0, 1, 255]]))
    ([2], [1])
    """
    return list(labels) or [int(value) for value in np.unique(mask) if value not in (0, IGNORE)]


def agreement(mask: Mask, other: Mask, label: int) -> float:
    """Return the IoU of a class in two masks, without the uncertain pixels of either; 0 where neither shows it.

    Args:
        mask: uint8 H x W.
        other: likewise.
        label: the class.

    >>> agreement(np.array([[0, 1, 1, 1]]), np.array([[1, 1, 1, 255]]), 1)
    0.6666666666666666
    """
    certain = (mask != IGNORE) & (other != IGNORE)
    first, second = (mask == label) & certain, (other == label) & certain
    return float((first & second).sum() / max(1, (first | second).sum()))


def region_of(mask: Mask, label: int, shape: tuple[int, int]) -> Map:
    """Return how much of each position of a map a class covers in a mask, float32 h x w, 0..1."""
    shown = torch.from_numpy((mask == label).astype(np.float32))
    return np.asarray(resize(shown[None, None], shape, antialias=True)[0, 0].clamp_(0, 1).numpy())


def rarity(region: Map, scores: Map, bound: float) -> float:
    """Return the share of a region in which a class's scores are rare in photos without the class.

    Args:
        region: float32 h x w, 0..1.
        scores: float32 h x w.
        bound: the quantile `RARE` of the class's scores in photos without it.

    Returns:
        0 to 1; 0 for no region.
    """
    covered = float(region.sum())
    return float(region[scores > bound].sum()) / covered if covered else 0.0


def confidence_of(area: float, rare: float | None, agreed: float | None, sign: float = 1.0) -> float:
    r"""Return the confidence of a region, $s\,r \min(1, a / 0.2)$, 0 to 1; 0 for no region.

    Args:
        area: the region's share of the photo.
        rare: r, see `rarity`; None where no photo is without the class: it then counts as 1.
        agreed: a, `agreement` of the first and the final mask; None where there is one mask only.
        sign: s, the confidence that the class's pattern does not point to the background.

    >>> confidence_of(0.3, 0.8, 0.9), confidence_of(0.3, 0.8, 0.1), confidence_of(0.3, None, 0.6, 0.5)
    (0.8, 0.4, 0.5)
    """
    if not area:
        return 0.0
    return sign * (1.0 if rare is None else rare) * (1.0 if agreed is None else min(1.0, agreed / AGREED))
