"""Microscopy: many round cells in every photo, dark on bright ground or bright on dark."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from tag2mask.demo.brushes import Array, Pixels, Random, Shape, mix, noise, pick, rgb, step
from tag2mask.demo.outlines import round_outline, scatter, window

CLASSES = ("cell",)


def draw_dark_cells(index: int, shape: Shape, rng: Random) -> tuple[Array, Pixels]:
    """Return a photo and a mask of stained cells in a bright field: darker than ground, with a rim and a nucleus."""
    ground = pick([rgb(0.9, 0.88, 0.86), rgb(0.93, 0.82, 0.86), rgb(0.88, 0.9, 0.8), rgb(0.8, 0.82, 0.84)], rng, 0.03)
    stain = pick([rgb(0.45, 0.25, 0.5), rgb(0.55, 0.22, 0.3), rgb(0.3, 0.3, 0.35), rgb(0.35, 0.35, 0.6)], rng, 0.05)
    strength = rng.uniform(0.45, 0.95)
    fibres = noise(shape, rng.uniform(8, 30), rng, squeeze=rng.uniform(0.6, 1.8))
    uneven = 1 + rng.uniform(0.02, 0.07) * fibres + 0.04 * noise(shape, shape[1], rng, octaves=1)
    photo = ground * (uneven + 0.02 * noise(shape, 3, rng, octaves=2))[..., None]
    mask = np.zeros(shape, np.uint8)
    nucleus = rng.uniform(0.35, 0.6) if rng.random() < 0.6 else 0.0
    halo = rng.uniform(0, 0.12)
    for row, column, radius in _places(shape, rng):
        part, rows, columns = window(shape, row, column, 1.6 * radius)
        inside = round_outline(rows, columns, radius, rng)
        depth = (inside / radius).clip(-1, 1)
        photo[part] *= 1 + (halo * np.exp(-((depth + 0.12) ** 2) / 0.01) * (depth < 0))[..., None]
        grain = 1 + 0.12 * noise(rows.shape, max(0.5 * radius, 2), rng)
        dark = strength * rng.uniform(0.8, 1.1) * (0.75 + 0.3 * np.exp(-(depth**2) / 0.02)) * grain
        if nucleus:
            dark = dark + 0.35 * strength * step(depth - 1 + nucleus, 0.08)
        alpha = step(inside, 0.8)
        photo[part] = mix(photo[part], photo[part] * (1 - dark.clip(0, 1)[..., None] * (1 - stain)), alpha)
        mask[part][alpha >= 0.5] = 1
    return photo.clip(0, 1), mask


def draw_bright_cells(index: int, shape: Shape, rng: Random) -> tuple[Array, Pixels]:
    """Return a photo and a mask of cells under fluorescence: glowing on dark ground, with haze and shot noise."""
    dye = pick([rgb(0.25, 0.95, 0.35), rgb(0.3, 0.45, 1.0), rgb(1.0, 0.3, 0.3), rgb(0.9, 0.9, 0.9)], rng, 0.05)
    ground = rng.uniform(0.03, 0.1) * (1 + 0.3 * noise(shape, 0.4 * shape[1], rng) + 0.2 * noise(shape, 6, rng))
    glow, mask = ground.clip(0, 1), np.zeros(shape, np.uint8)
    strength = rng.uniform(0.35, 0.9)
    for row, column, radius in _places(shape, rng):
        part, rows, columns = window(shape, row, column, 1.6 * radius)
        inside = round_outline(rows, columns, radius, rng)
        body = 0.55 + 0.45 * (inside / radius).clip(0, 1) ** 0.7
        lit = strength * rng.uniform(0.55, 1.15) * body * (1 + 0.22 * noise(rows.shape, max(0.45 * radius, 2), rng))
        alpha = step(inside, 1.2)
        glow[part] += alpha * (lit - glow[part])
        mask[part][alpha >= 0.5] = 1
    glow = glow + rng.uniform(0.1, 0.3) * gaussian_filter(glow, 0.05 * shape[1])
    shot = glow + np.sqrt(glow.clip(0, 1)) * rng.normal(0, rng.uniform(0.01, 0.04), shape)
    return (shot[..., None] * dye).clip(0, 1).astype(np.float32), mask


def _places(shape: Shape, rng: Random) -> list[tuple[float, float, float]]:
    """Return row, column and radius of cells that cover 6 to 35% of the photo, more or less of one size."""
    typical = min(shape) * rng.uniform(0.035, 0.1)
    count = max(3, round(rng.uniform(0.06, 0.35) * shape[0] * shape[1] / (np.pi * typical**2)))
    radii = typical * np.exp(rng.normal(0, rng.uniform(0.05, 0.25), min(count, 90)))
    return scatter(shape, radii.tolist(), rng)
