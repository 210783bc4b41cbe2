"""Small tools that the objects and backgrounds of generated scenes are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Array: TypeAlias = npt.NDArray[Any]  # float32 where not said otherwise
Pixels: TypeAlias = npt.NDArray[np.uint8]
Random: TypeAlias = np.random.Generator
Shape: TypeAlias = tuple[int, int]


def noise(shape: Shape, period: float, rng: Random, *, squeeze: float = 1.0, octaves: int = 3) -> Array:
    """Return fractal noise of unit deviation, its features ``period`` wide and ``period / squeeze`` high."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(period / 2**octave, 1.0)
        grid = (max(2, round(shape[0] * squeeze / step) + 2), max(2, round(shape[1] / step) + 2))
        coarse = Image.fromarray(rng.standard_normal(grid, np.float32))
        total += np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)) * 0.6**octave
    unit: Array = (total - total.mean()) / max(float(total.std()), 1e-6)
    return unit


def step(value: Array, width: float = 0.03) -> Array:
    """Return 0 where ``value`` is negative, 1 where positive, with a soft edge."""
    share: Array = value / (2 * width) + 0.5
    return share.clip(0, 1)


def rgb(red: float, green: float, blue: float) -> Array:
    """Return a colour of three shares, 0..1."""
    return np.array([red, green, blue], np.float32)


def mix(under: Array, over: Array, share: Array) -> Array:
    """Return ``under`` covered by ``over`` to the given share, H x W."""
    mixed: Array = under + share[..., None] * (over - under)
    return mixed


def pick(colours: Sequence[Array], rng: Random, spread: float = 0.06) -> Array:
    """Return one of the colours, varied a little."""
    colour: Array = colours[int(rng.integers(len(colours)))] + rng.normal(0, spread, 3)
    return colour.clip(0, 1).astype(np.float32)
