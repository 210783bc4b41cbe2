"""The backgrounds of generated scenes, shared by all classes."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from tag2mask.demo.brushes import Array, Random, Shape, mix, noise, pick, rgb, step


def draw_background(shape: Shape, rng: Random) -> Array:
    """Return one of the textures, or one above another with a horizon between them."""
    back = _texture(shape, rng)
    if rng.random() < 0.45:
        floor = _texture(shape, rng)
        rows = np.arange(shape[0], dtype=np.float32)[:, None]
        edge = shape[0] * rng.uniform(0.3, 0.75) + shape[0] * 0.015 * noise((2, shape[1]), 60, rng)[:1]
        back = mix(back, floor, step(rows - edge, 1.0))
    shading = 1 + 0.12 * noise(shape, 0.6 * shape[1], rng, octaves=1)
    return np.clip(back * shading[..., None], 0, 1)


def _texture(shape: Shape, rng: Random) -> Array:
    paint = _TEXTURES[rng.integers(len(_TEXTURES))]
    return paint(shape, rng).astype(np.float32)


def _meadow(shape: Shape, rng: Random) -> Array:
    """Grass blades under a clouded sky."""
    rows = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    clouds = step(noise(shape, 0.5 * shape[1], rng, squeeze=1.8) - 0.3, 0.7)
    sky = mix(mix(rgb(0.3, 0.55, 0.9), rgb(0.8, 0.9, 0.97), rows), rgb(0.95, 0.95, 0.96), 0.8 * clouds)
    blades = noise(shape, 5, rng, squeeze=0.25, octaves=2) + 0.6 * noise(shape, 50, rng)
    grass = mix(rgb(0.16, 0.33, 0.08), rgb(0.5, 0.65, 0.22), step(blades, 1.6))
    edge = rng.uniform(0.05, 0.6) + 0.02 * noise((2, shape[1]), 30, rng)[:1]
    return mix(sky, grass, step(rows - edge, 0.01))


def _sand(shape: Shape, rng: Random) -> Array:
    """Wind ripples and grains."""
    rows, columns = np.indices(shape, dtype=np.float32)
    waves = rows / rng.uniform(9, 18) + columns * rng.uniform(-0.03, 0.03) + 1.2 * noise(shape, 90, rng)
    height = 0.5 * np.sin(2 * np.pi * waves / 2) + 0.25 * noise(shape, 3, rng, octaves=2)
    base = pick([rgb(0.8, 0.68, 0.48), rgb(0.72, 0.64, 0.52)], rng, 0.04)
    return base * (1 + 0.16 * height)[..., None]


def _water(shape: Shape, rng: Random) -> Array:
    """Ripples with bright crests."""
    swell = noise(shape, 40, rng, squeeze=3.0) + 0.4 * noise(shape, 14, rng, squeeze=2.5)
    base = pick([rgb(0.1, 0.35, 0.5), rgb(0.08, 0.42, 0.45), rgb(0.2, 0.35, 0.5)], rng, 0.04)
    return mix(base * (1 + 0.25 * swell)[..., None], rgb(0.75, 0.88, 0.92), 0.7 * step(swell - 1.2, 0.5))


def _wood(shape: Shape, rng: Random) -> Array:
    """Planks with grain, laid across or upright."""
    upright = rng.random() < 0.5
    rows = np.indices(shape[::-1] if upright else shape, dtype=np.float32)[0]
    plank = rng.uniform(35, 70)
    number = np.floor(rows / plank).astype(int)
    shift = rng.uniform(-1, 1, number.max() + 1)[number]
    grain = np.sin(rows / 2.2 + 5 * noise(rows.shape, 120, rng, squeeze=3.0) + 9 * shift)
    base = pick([rgb(0.6, 0.42, 0.25), rgb(0.45, 0.3, 0.18), rgb(0.7, 0.55, 0.38)], rng, 0.04)
    tone = 1 + 0.1 * grain + 0.12 * shift + 0.06 * noise(rows.shape, 60, rng, squeeze=12.0)
    gap = step(1.5 - np.abs(rows - plank * np.round(rows / plank)), 0.7)
    planks = mix(base * tone[..., None], rgb(0.1, 0.07, 0.05), gap)
    return planks.swapaxes(0, 1) if upright else planks


def bricks(shape: Shape, rng: Random) -> Array:
    """A wall in stretcher bond."""
    rows, columns = np.indices(shape, dtype=np.float32)
    high = rng.uniform(16, 28)
    wide = 2.4 * high
    course = np.floor(rows / high).astype(int)
    along = columns + 0.5 * wide * (course % 2)
    number = np.floor(along / wide).astype(int)
    tones = rng.normal(1, 0.12, (course.max() + 1, number.max() + 1))[course, number]
    gap = np.minimum(rows % high, along % wide)
    base = pick([rgb(0.6, 0.3, 0.22), rgb(0.62, 0.56, 0.5), rgb(0.5, 0.36, 0.28)], rng, 0.04)
    wall = base * (tones + 0.1 * noise(shape, 4, rng))[..., None]
    return mix(wall, pick([rgb(0.72, 0.7, 0.66)], rng), step(2.5 - gap, 0.8))


def _foliage(shape: Shape, rng: Random) -> Array:
    """A hedge: leaves as the cells of scattered points, lit one by one."""
    cell, edge, shade = _cells(shape, rng.uniform(14, 24), rng)
    greens = mix(rgb(0.1, 0.24, 0.07), rgb(0.4, 0.58, 0.2), shade)
    return greens * (0.55 + 0.45 * np.clip(edge / 6, 0, 1) + 0.06 * cell)[..., None]


def _pebbles(shape: Shape, rng: Random) -> Array:
    """A stony ground: rounded grey and brown cells."""
    cell, edge, shade = _cells(shape, rng.uniform(18, 34), rng)
    stones = mix(rgb(0.42, 0.4, 0.38), rgb(0.72, 0.68, 0.62), shade)
    return stones * (0.35 + 0.65 * np.clip(edge / 7, 0, 1) ** 0.6 + 0.05 * cell)[..., None]


def _cells(shape: Shape, pitch: float, rng: Random) -> tuple[Array, Array, Array]:
    """Return a noise and, for the cells of scattered points, the distance to the edge and a tone each."""
    number = max(4, round(shape[0] * shape[1] / pitch**2))
    points = rng.uniform(0, 1, (number, 2)) * shape
    grid = np.indices(shape, dtype=np.float32).reshape(2, -1).T
    grid += np.stack([noise(shape, pitch, rng).ravel() for _ in range(2)], -1) * (0.12 * pitch)
    distances, nearest = cKDTree(points).query(grid, k=2)
    edge = (distances[:, 1] - distances[:, 0]).reshape(shape)
    tone = rng.uniform(0, 1, number)[nearest[:, 0]].reshape(shape)
    return noise(shape, 4, rng), edge.astype(np.float32), tone.astype(np.float32)


def _bokeh(shape: Shape, rng: Random) -> Array:
    """Lights far out of focus over a dim gradient."""
    glow = step(noise(shape, 0.7 * shape[1], rng, octaves=2), 2.0)
    dim = pick([rgb(0.12, 0.12, 0.2), rgb(0.15, 0.2, 0.14), rgb(0.25, 0.16, 0.12)], rng)
    picture = mix(dim, np.clip(2.4 * dim, 0, 1), glow)
    rows, columns = np.indices(shape, dtype=np.float32)
    lights = [rgb(0.95, 0.8, 0.5), rgb(0.6, 0.75, 0.95), rgb(0.7, 0.9, 0.6), rgb(0.95, 0.6, 0.6)]
    for _ in range(rng.integers(10, 26)):
        row, column = rng.uniform(0, 1, 2) * shape
        disc = rng.uniform(6, 22) - np.hypot(rows - row, columns - column)
        picture = mix(picture, pick(lights, rng), rng.uniform(0.15, 0.5) * step(disc, 2.0))
    return picture


_TEXTURES = (_meadow, _sand, _water, _wood, bricks, _foliage, _pebbles, _bokeh)
