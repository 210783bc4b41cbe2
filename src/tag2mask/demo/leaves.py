"""A leaf on plain ground, with brown spots of a disease or, one in five, healthy."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from tag2mask.demo.brushes import Array, Pixels, Random, Shape, mix, noise, pick, rgb, step
from tag2mask.demo.outlines import round_outline

CLASSES = ("spot",)


def draw_leaf(index: int, shape: Shape, rng: Random) -> tuple[Array, Pixels]:
    """Return a photo and a mask of the spots; the leaf itself is background."""
    rows, columns = np.indices(shape, dtype=np.float32)
    paper = pick([rgb(0.85, 0.84, 0.83), rgb(0.84, 0.8, 0.8), rgb(0.76, 0.78, 0.79), rgb(0.62, 0.64, 0.66)], rng, 0.03)
    photo = paper * (1 + 0.06 * noise(shape, 0.8 * shape[1], rng, octaves=1) + 0.01 * noise(shape, 3, rng))[..., None]
    long = max(shape) * rng.uniform(0.4, 0.48)
    u, v = _along(rows, columns, shape, long, rng)
    leaf, half = _leaf_outline(u, v, rng)
    stalk = np.minimum(0.022 - np.abs(v - 0.05 * (u + 0.85) ** 2), np.minimum(u + 1.2, -0.8 - u))
    whole = step(np.maximum(leaf, stalk) * long, 0.7)
    shadow = gaussian_filter(shift(whole, (0.03 * long, 0.02 * long), order=1), 0.03 * long)
    photo *= 1 - 0.3 * shadow[..., None]
    green = _green(shape, u, v, half, leaf, rng)
    mask = np.zeros(shape, np.uint8)
    if index % 5 != 4:
        green, spots = _sick(green, leaf, long, rows, columns, rng)
        mask[spots & (whole >= 0.5)] = 1
    photo = mix(photo, green, whole)
    return photo.clip(0, 1), mask


def _along(rows: Array, columns: Array, shape: Shape, long: float, rng: Random) -> tuple[Array, Array]:
    """Return coordinates along the leaf (-1 at its stalk, 1 at its tip) and across it, a little bent."""
    turn = rng.normal(0, 0.12) + (np.pi if rng.random() < 0.5 else 0) + (np.pi / 2 if shape[0] > shape[1] else 0)
    row, column = (side * rng.uniform(0.46, 0.54) for side in shape)
    u = (np.cos(turn) * (columns - column) + np.sin(turn) * (rows - row)) / long
    v = (np.cos(turn) * (rows - row) - np.sin(turn) * (columns - column)) / long
    return u, v + rng.uniform(-0.15, 0.15) * (u**2 - 0.3)


def _leaf_outline(u: Array, v: Array, rng: Random) -> tuple[Array, float]:
    """Return about the distance to the leaf's wavy edge as a share of its length, and its half width."""
    half, belly = rng.uniform(0.36, 0.52), rng.uniform(-0.25, 0.1)
    ramp = ((u + 1) / 2).clip(0, 1)
    power = np.log(0.5) / np.log((belly + 1) / 2)
    width = half * np.sin(np.pi * ramp**power).clip(0) ** rng.uniform(0.8, 1.1)
    waves = rng.uniform(6, 12)
    sides = [rng.uniform(0.005, 0.04) * np.sin(waves * u * np.pi + rng.uniform(0, 6)) for _ in range(2)]
    edge = width * (1 + np.where(v > 0, sides[0], sides[1]) / half) - np.abs(v)
    return np.minimum(edge, 1 - np.abs(u)).astype(np.float32), half


def _green(shape: Shape, u: Array, v: Array, half: float, leaf: Array, rng: Random) -> Array:
    """Return the blade's colours: a pale midrib, side veins that arch to the tip, and folds between them."""
    base = pick([rgb(0.2, 0.38, 0.1), rgb(0.32, 0.48, 0.1), rgb(0.12, 0.27, 0.1), rgb(0.45, 0.55, 0.15)], rng, 0.03)
    phase = (u - 0.9 * np.abs(v) - 0.25 * v**2) * rng.uniform(6, 9) + 0.06 * noise(shape, 0.2 * shape[1], rng)
    fold = np.sin(2 * np.pi * phase) * np.sign(v) ** 2
    veins = step(np.cos(2 * np.pi * phase) - 0.96, 0.03) * 0.35
    light = 1 + rng.uniform(0.06, 0.16) * fold + 0.12 * noise(shape, 0.5 * shape[1], rng) + 0.04 * noise(shape, 4, rng)
    light = light * (1 - 0.25 * np.exp(-leaf / 0.02) * (leaf > 0)) * (1 + 0.1 * np.sign(v))
    blade = base * light[..., None]
    midrib = step(0.016 * (1.2 - ((u + 1) / 2).clip(0, 1)) - np.abs(v), 0.006)
    gloss = rng.uniform(0, 0.25) * step(noise(shape, 0.25 * shape[1], rng) - 1.1, 0.6)
    pale = mix(blade, 1.25 * base + rgb(0.12, 0.14, 0.06), np.maximum(midrib, veins))
    return mix(pale, rgb(0.85, 0.9, 0.85), gloss).astype(np.float32)


def _sick(green: Array, leaf: Array, long: float, rows: Array, columns: Array, rng: Random) -> tuple[Array, Array]:
    """Return the blade with spots, brown in a yellow ring, and where they are: the brown."""
    brown = pick([rgb(0.3, 0.16, 0.08), rgb(0.45, 0.27, 0.1), rgb(0.22, 0.13, 0.1), rgb(0.55, 0.36, 0.14)], rng, 0.03)
    typical = long * rng.uniform(0.025, 0.09)
    cover = rng.uniform(0.015, 0.09) * float((leaf > 0).sum())
    places = np.argwhere(leaf > 0.03)
    brownness, ring = (np.full(leaf.shape, -1e3, np.float32) for _ in range(2))
    while True:
        radius = typical * np.exp(rng.normal(0, 0.35))
        row, column = places[rng.integers(len(places))]
        inside = round_outline(rows - row, columns - column, radius, rng, wobble=0.22, stretch=0.5)
        inside = inside + 0.1 * radius * noise(leaf.shape, radius, rng, octaves=2)
        brownness = np.maximum(brownness, inside)
        ring = np.maximum(ring, inside + rng.uniform(0.15, 0.5) * radius)
        spots = (brownness >= 0) & (leaf >= 0)
        if spots.sum() >= cover:
            break
    yellow = mix(green, rgb(0.75, 0.68, 0.18), rng.uniform(0.2, 0.7) * step(ring, 0.15 * typical))
    own = brown * (1 + 0.25 * noise(leaf.shape, 0.6 * typical, rng))[..., None]
    own = mix(own, 1.5 * own + rgb(0.08, 0.05, 0.03), 0.6 * step(brownness - 0.5 * typical, 0.2 * typical))
    return mix(yellow, own, step(brownness, 0.8)), spots
