"""Ultrasound: a fan of speckle with bands of tissue, and in two of three pictures one lesion."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from tag2mask.demo.brushes import Array, Pixels, Random, Shape, noise, step
from tag2mask.demo.outlines import round_outline

CLASSES = ("lesion",)


def draw_lesion(index: int, shape: Shape, rng: Random) -> tuple[Array, Pixels]:
    """Return a photo and a mask; two of three show a lesion, most darker than what is around it, one in five brighter.

    A dark one has an echo behind it, a bright one a shadow, as real ones do.
    """
    rows, columns = np.indices(shape, dtype=np.float32)
    height, width = shape
    apex = -rng.uniform(0.1, 0.35) * height
    spread = rng.uniform(0.5, 0.75)
    range_, angle = np.hypot(rows - apex, columns - width / 2), np.arctan2(columns - width / 2, rows - apex)
    near = rng.uniform(0.06, 0.12) * height - apex
    depth = (range_ - near) / (0.97 * height - apex - near)
    fan = step(depth, 0.01) * step(1 - depth, 0.01) * step(spread - np.abs(angle), 0.01)
    echo = _tissue(shape, rng, depth, angle, spread)
    mask = np.zeros(shape, np.uint8)
    if index % 3 != 2:
        echo, inside = _with_lesion(echo, rows, columns, range_, angle, apex, rng)
        mask[(inside >= 0) & (fan >= 0.5)] = 1
    picture = (echo.clip(0) * _speckle(range_, angle, rng) * fan) ** rng.uniform(0.6, 0.8)
    return np.repeat(picture[..., None], 3, -1).clip(0, 1).astype(np.float32), mask


def _tissue(shape: Shape, rng: Random, depth: Array, angle: Array, spread: float) -> Array:
    """Return the mean echo: layers bent like the probe, bright bands, dark shadows, fading with depth."""
    waves = depth + 0.035 * noise(shape, 0.5 * shape[1], rng)
    table = np.interp(np.linspace(0, 1, 64), np.linspace(0, 1, 12), rng.uniform(0.4, 1, 12))
    layers = np.interp(waves.clip(0, 1), np.linspace(0, 1, 64), gaussian_filter(table, 1.5))
    for _ in range(rng.integers(2, 5)):  # fascia
        band = np.exp(-(((waves - rng.uniform(0.05, 0.95)) / rng.uniform(0.006, 0.015)) ** 2))
        layers = layers + rng.uniform(0.3, 0.8) * band * step(noise(shape, 0.6 * shape[1], rng) + 0.6, 0.4)
    shadows = 1 - 0.45 * step(noise((2, 64), 12, rng, octaves=1)[0] - 1.2, 0.5)
    across = np.interp(angle, np.linspace(-spread, spread, 64), shadows)
    gain: Array = rng.uniform(0.35, 0.5) * layers * across * np.exp(-rng.uniform(0.3, 0.9) * depth.clip(0, 1))
    return gain * (1 + 0.18 * noise(shape, 0.15 * shape[1], rng))


def _with_lesion(
    echo: Array, rows: Array, columns: Array, range_: Array, angle: Array, apex: float, rng: Random
) -> tuple[Array, Array]:
    height, width = echo.shape
    radius = min(height, width) * rng.uniform(0.08, 0.2)
    place, far = rng.uniform(-0.3, 0.3), rng.uniform(0.38, 0.7) * height - apex
    row, column = apex + far * np.cos(place), width / 2 + far * np.sin(place)
    inside = round_outline(rows - row, columns - column, radius, rng, wobble=0.1, stretch=0.6)
    inside = inside + 0.06 * radius * noise(echo.shape, 0.6 * radius, rng)
    bright = rng.random() < 0.2
    level = rng.uniform(1.9, 2.6) if bright else rng.uniform(0.12, 0.4)
    behind = (range_ > far) * np.exp(-(((angle - place) * far / (0.75 * radius)) ** 2)) * step(-inside, 0.1 * radius)
    fade = np.exp(-((range_ - far) / (3 * radius)).clip(0))
    changed = echo * (1 + behind * fade * (-0.5 if bright else rng.uniform(0.3, 0.9)))
    own = 1 + 0.25 * noise(echo.shape, 0.5 * radius, rng)
    alpha = step(inside, 0.05 * radius + 0.7)
    return changed + alpha * (echo * level * own - changed), inside


def _speckle(range_: Array, angle: Array, rng: Random) -> Array:
    """Return Rayleigh speckle of unit mean, fine along the beam and coarser across it, more so with depth."""
    beams, samples = 190, max(64, int(range_.max() / 1.3))
    waves = [gaussian_filter(rng.standard_normal((beams, samples), np.float32), (1.0, 1.2)) for _ in range(2)]
    size = np.hypot(*waves)
    coordinates = np.stack([(angle / 1.7 + 0.5) * (beams - 1), range_ / range_.max() * (samples - 1)])
    speckle: Array = map_coordinates(size / size.mean(), coordinates, order=1, mode="nearest")
    return speckle
