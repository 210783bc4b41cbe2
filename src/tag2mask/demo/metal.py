"""Grey metal as a line camera sees it, with scratches, pits or stains, one kind of defect in a photo."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from tag2mask.demo.brushes import Array, Pixels, Random, Shape, noise, step
from tag2mask.demo.outlines import round_outline, scatter, window

CLASSES = ("scratch", "pit", "stain")
LEAST, MOST = 0.003, 0.15


def draw_metal(index: int, shape: Shape, rng: Random) -> tuple[Array, Pixels]:
    """Return a photo and a mask: six of nine show a defect."""
    return _draw(index % 9 % 3 + 1 if index % 9 < 6 else 0, shape, rng)


def draw_defect(index: int, shape: Shape, rng: Random) -> tuple[Array, Pixels]:
    """Return a photo and a mask: every one shows a defect."""
    return _draw(index % 3 + 1, shape, rng)


def _draw(label: int, shape: Shape, rng: Random) -> tuple[Array, Pixels]:
    metal = _surface(shape, rng)
    mask = np.zeros(shape, np.uint8)
    if label:
        paint = (_scratch, _pits, _stain)[label - 1]
        while True:  # again where chance made it too small or too large
            marked, alpha = paint(metal, rng)
            if LEAST < float((alpha >= 0.5).mean()) < MOST:
                break
        metal = marked
        mask[alpha >= 0.5] = label
    return np.repeat(metal[..., None], 3, -1).clip(0, 1), mask


def _surface(shape: Shape, rng: Random) -> Array:
    """Return brushed, rolled or cast metal, lit unevenly."""
    finish = rng.integers(3)
    if finish == 0:  # brushed: long streaks
        upright = rng.random() < 0.7
        turned = shape[::-1] if upright else shape
        streaks = noise(turned, 260, rng, squeeze=130, octaves=2) + 0.5 * noise(turned, 60, rng, squeeze=40, octaves=2)
        texture = streaks.T if upright else streaks
    elif finish == 1:  # rolled: short dashes
        texture = noise(shape, 14, rng, squeeze=4, octaves=2) + 0.6 * noise(shape, 3, rng, octaves=2)
    else:  # cast: grains
        texture = noise(shape, 5, rng, octaves=3) + 0.5 * noise(shape, 22, rng)
    level = rng.uniform(0.3, 0.65)
    light = 1 + 0.16 * noise(shape, 0.8 * shape[1], rng, octaves=2)
    surface: Array = level * (light + rng.uniform(0.05, 0.12) * texture + 0.03 * noise(shape, 2, rng, octaves=1))
    return surface.astype(np.float32)


def _scratch(metal: Array, rng: Random) -> tuple[Array, Array]:
    """Return the metal with one to three long thin lines, bright or dark, with a burr of the other tone."""
    rows, columns = np.indices(metal.shape, dtype=np.float32)
    side = min(metal.shape)
    tone, alpha = rng.choice((-1.0, 1.0)), np.zeros(metal.shape, np.float32)
    burr = np.zeros_like(alpha)
    angle = rng.uniform(0, np.pi)
    for _ in range(rng.integers(1, 4)):
        turn = angle + rng.normal(0, 0.25)
        row, column = rng.uniform(0.25, 0.75, 2) * metal.shape
        along = np.cos(turn) * (columns - column) + np.sin(turn) * (rows - row)
        across = np.cos(turn) * (rows - row) - np.sin(turn) * (columns - column)
        half = side * rng.uniform(0.18, 0.48)
        across = across + rng.uniform(-0.12, 0.12) * along**2 / half + 0.8 * np.sin(along / rng.uniform(12, 30))
        taper = np.sqrt((1 - (along / half) ** 2).clip(0, 1))
        width = max(1.1, side * rng.uniform(0.004, 0.009)) * (0.55 + 0.45 * taper)
        on = (taper > 0).astype(np.float32)
        alpha = np.maximum(alpha, on * step(width - np.abs(across), 0.5))
        burr = np.maximum(burr, on * step(0.6 * width - np.abs(across - 1.6 * width), 0.6))
    strength = rng.uniform(0.25, 0.6)
    marked = metal * (1 - 0.4 * tone * strength * burr * (1 - alpha))
    return marked * (1 + tone * strength * alpha), alpha


def _pits(metal: Array, rng: Random) -> tuple[Array, Array]:
    """Return the metal with a few dark round holes, their lower rims lit."""
    side = min(metal.shape)
    marked, alpha = metal.copy(), np.zeros(metal.shape, np.float32)
    typical = side * rng.uniform(0.012, 0.045)
    count = int(rng.integers(1, 5)) + round(float(rng.uniform(0.3, 1.2) * 0.0008 * side**2 / typical**2 * 6))
    radii = typical * np.exp(rng.normal(0, 0.3, count))
    depth = rng.uniform(0.4, 0.75)
    for row, column, radius in scatter(metal.shape, radii.tolist(), rng, apart=1.3):
        part, rows, columns = window(metal.shape, row, column, 2 * radius + 2)
        inside = round_outline(rows, columns, radius, rng, wobble=0.15, stretch=0.5)
        hole = step(inside, 0.7)
        rim = np.exp(-((inside + 1) ** 2) / 2.5) * (rows > 0) * (1 - hole)
        shade = depth * (0.75 + 0.25 * np.clip(-rows / radius, -1, 1))
        marked[part] *= (1 - shade * hole) * (1 + 0.35 * rim)
        alpha[part] = np.maximum(alpha[part], hole)
    return marked, alpha


def _stain(metal: Array, rng: Random) -> tuple[Array, Array]:
    """Return the metal with one ragged patch, darker or paler, its edge a little darker as where a drop dried."""
    side = min(metal.shape)
    radius = side * rng.uniform(0.1, 0.21)
    row, column = (rng.uniform(0.7 * radius, length - 0.7 * radius) for length in metal.shape)
    rows, columns = np.indices(metal.shape, dtype=np.float32)
    inside = round_outline(rows - row, columns - column, radius, rng, wobble=0.2, stretch=0.7)
    inside = inside + 0.16 * radius * noise(metal.shape, 0.8 * radius, rng, octaves=4)
    alpha = step(inside, 1.5)
    cloud = gaussian_filter(noise(metal.shape, 0.5 * radius, rng), 1)
    change = rng.choice((-1.0, -1.0, 1.0)) * rng.uniform(0.18, 0.4)
    edge = np.exp(-((inside - 2) ** 2) / 8)
    tone = 1 + change * (1 + 0.25 * cloud) - 0.12 * edge
    return metal * (1 + alpha * (tone - 1)), alpha
