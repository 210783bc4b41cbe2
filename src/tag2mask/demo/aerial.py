"""Fields and roads from above, with cars, trees and roofs of 20 to 40 pixels, however large the photo."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from tag2mask.demo.brushes import Array, Pixels, Random, Shape, mix, noise, pick, rgb, step
from tag2mask.demo.outlines import round_outline, scatter, window

CLASSES = ("car", "tree", "roof")
SHOWN = ((1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3), ())
"""What photo i shows: entry i mod 8, so that each class is in half of the photos."""


def draw_aerial(index: int, shape: Shape, rng: Random) -> tuple[Array, Pixels]:
    """Return a photo and a mask."""
    photo, mask = _fields(shape, rng), np.zeros(shape, np.uint8)
    roads = [_Road(shape, rng) for _ in range(rng.integers(1, 3))]
    for road in roads:
        photo = road.paint(photo, rng)
    free = np.min([road.apart for road in roads], axis=0)
    sun = rng.uniform(-1, 1, 2) * 5 + np.sign(rng.uniform(-1, 1, 2)) * 2
    number = max(1.0, shape[0] * shape[1] / 256**2)
    for label in SHOWN[index % len(SHOWN)]:
        if label == 1:
            places = [place for road in roads for place in road.lanes(number, rng)]
        else:
            places = _beside(free, number, mask, rng, label)
        for row, column, turn in places:
            _paint(photo, mask, label, row, column, turn, sun, rng)
    return photo.clip(0, 1), mask


def _fields(shape: Shape, rng: Random) -> Array:
    """Return a patchwork of crops, meadows and bare soil, each with furrows of its own."""
    colours = [rgb(0.35, 0.45, 0.22), rgb(0.55, 0.52, 0.32), rgb(0.45, 0.36, 0.26), rgb(0.28, 0.38, 0.18)]
    points = rng.uniform(-0.1, 1.1, (max(3, round(shape[0] * shape[1] / 280**2) + 2), 2)) * shape
    rows, columns = np.indices(shape, dtype=np.float32)
    field, best, second = np.zeros(shape, int), np.full(shape, np.inf), np.full(shape, np.inf)
    for number, (row, column) in enumerate(points.astype(np.float32)):
        away = np.hypot(rows - row, columns - column)
        field[away < best] = number
        second = np.minimum(second, np.maximum(best, away))
        best = np.minimum(best, away)
    base = np.stack([pick(colours, rng, 0.025) for _ in points])[field]
    turns, pitches = rng.uniform(0, np.pi, len(points)), rng.uniform(5, 11, len(points))
    across = (rows * (np.cos(turns) / pitches)[field] + columns * (np.sin(turns) / pitches)[field]).astype(np.float32)
    furrows = rng.uniform(0, 0.09, len(points))[field] * np.sin(2 * np.pi * across)
    light = 1 + furrows + 0.08 * noise(shape, 40, rng) + 0.06 * noise(shape, 4, rng)
    hedge = step(3 - (second - best), 1.5) * 0.5
    return mix(base * light[..., None], rgb(0.3, 0.35, 0.18), hedge).astype(np.float32)


class _Road:
    """A bent grey band with a dashed line in its middle."""

    def __init__(self, shape: Shape, rng: Random) -> None:
        self.shape = shape
        self.turn = rng.uniform(0, np.pi)
        self.row, self.column = rng.uniform(0.25, 0.75, 2) * shape
        self.bend = rng.uniform(-1, 1) * 0.1 / max(shape)
        self.half = rng.uniform(17, 22)
        rows, columns = np.indices(shape, dtype=np.float32)
        along = np.cos(self.turn) * (columns - self.column) + np.sin(self.turn) * (rows - self.row)
        across = np.cos(self.turn) * (rows - self.row) - np.sin(self.turn) * (columns - self.column)
        self.along, self.across = along, across - self.bend * along**2
        self.apart = np.abs(self.across) - self.half

    def paint(self, photo: Array, rng: Random) -> Array:
        tar = pick([rgb(0.4, 0.4, 0.41), rgb(0.5, 0.49, 0.47), rgb(0.33, 0.33, 0.35)], rng, 0.02)
        surface = tar * (1 + 0.05 * noise(self.shape, 5, rng) + 0.06 * noise(self.shape, 60, rng))[..., None]
        dashes = step(0.9 - np.abs(self.across), 0.5) * (self.along % 36 < 18)
        verge = mix(photo, rgb(0.5, 0.47, 0.36), 0.6 * step(5 - self.apart, 2))
        return mix(mix(verge, surface, step(-self.apart, 0.8)), rgb(0.85, 0.85, 0.82), dashes)

    def lanes(self, number: float, rng: Random) -> list[tuple[float, float, float]]:
        """Return places of cars in the two lanes and their direction."""
        reach = 0.5 * np.hypot(*self.shape)
        found: list[tuple[float, float, float]] = []
        taken: list[tuple[float, int]] = []
        for _ in range(40):
            along, lane = rng.uniform(-reach, reach), rng.choice((-1, 1))
            across = lane * 0.5 * self.half + self.bend * along**2
            row = self.row + np.sin(self.turn) * along + np.cos(self.turn) * across
            column = self.column + np.cos(self.turn) * along - np.sin(self.turn) * across
            seen = 14 < row < self.shape[0] - 14 and 14 < column < self.shape[1] - 14
            if seen and all(abs(along - a) > 44 or lane != other for a, other in taken):
                taken.append((along, lane))
                found.append((row, column, self.turn + np.arctan(2 * self.bend * along)))
        return found[: int(rng.integers(2, 4 + int(2 * number)))]


def _beside(free: Array, number: float, mask: Pixels, rng: Random, label: int) -> list[tuple[float, float, float]]:
    """Return places off the roads: trees in groves and alone, roofs in rows along one direction."""
    count = int(rng.integers(3, 4 + int(4 * number)))
    spread = scatter(free.shape, [26.0 if label == 3 else 15.0] * (2 * count), rng)
    turn = rng.uniform(0, np.pi)
    inside = [(r, c) for r, c, _ in spread if free[int(r), int(c)] > 26 and not _near(mask, r, c)]
    places = inside[:count] or [max(((r, c) for r, c, _ in spread), key=lambda p: free[int(p[0]), int(p[1])])]
    return [(r, c, turn + rng.normal(0, 0.06) + rng.integers(2) * np.pi / 2) for r, c in places]


def _near(mask: Pixels, row: float, column: float) -> bool:
    part, _, _ = window(mask.shape, row, column, 26)
    return bool(mask[part].any())


def _paint(
    photo: Array, mask: Pixels, label: int, row: float, column: float, turn: float, sun: Array, rng: Random
) -> None:
    """Draw an object and its shadow in place."""
    part, rows, columns = window(mask.shape, row, column, 36)
    u = np.cos(turn) * columns + np.sin(turn) * rows
    v = np.cos(turn) * rows - np.sin(turn) * columns
    inside, colour = (_car, _tree, _roof)[label - 1](u, v, rng)
    alpha = step(inside, 0.6)
    lift = (0.35, 1.0, 0.9)[label - 1]
    shade = gaussian_filter(shift(alpha, lift * sun, order=1), 1)
    photo[part] *= 1 - 0.5 * shade[..., None]
    photo[part] = mix(photo[part], colour, alpha)
    mask[part][alpha >= 0.5] = label


_PAINTS = (
    rgb(0.9, 0.9, 0.9),
    rgb(0.12, 0.12, 0.14),
    rgb(0.65, 0.1, 0.1),
    rgb(0.2, 0.3, 0.6),
    rgb(0.6, 0.62, 0.65),
)


def _car(u: Array, v: Array, rng: Random) -> tuple[Array, Array]:
    half, wide = rng.uniform(12, 16), rng.uniform(5.5, 7)
    paint = pick(_PAINTS, rng, 0.03)
    corner = np.hypot((np.abs(u) - half + 3).clip(0), (np.abs(v) - wide + 3).clip(0))
    inside = np.minimum(3 - corner, np.minimum(half - np.abs(u), wide - np.abs(v)))
    glass = step(np.minimum(wide - 1.5 - np.abs(v), 2.2 - np.abs(u - 0.28 * half)), 0.7)
    rear = step(np.minimum(wide - 1.5 - np.abs(v), 1.5 - np.abs(u + 0.6 * half)), 0.7)
    colour = paint * (1 + 0.15 * step(wide - 2.5 - np.abs(v), 1) - 0.08)[..., None]
    return inside, mix(colour, rgb(0.1, 0.12, 0.16), np.maximum(glass, rear))


def _tree(u: Array, v: Array, rng: Random) -> tuple[Array, Array]:
    radius = rng.uniform(10, 19)
    inside = round_outline(u, v, radius, rng, wobble=0.2) + 1.2 * noise(u.shape, 6, rng)
    green = pick([rgb(0.12, 0.28, 0.1), rgb(0.2, 0.34, 0.12), rgb(0.1, 0.22, 0.12)], rng, 0.03)
    light = 1 + 0.35 * noise(u.shape, 6, rng, octaves=2) - 0.4 * (u + v) / radius / 2
    return inside, green * light.clip(0.3, 2)[..., None]


def _roof(u: Array, v: Array, rng: Random) -> tuple[Array, Array]:
    half, wide = rng.uniform(15, 21), rng.uniform(10, 14)
    tiles = pick([rgb(0.6, 0.27, 0.18), rgb(0.5, 0.22, 0.16), rgb(0.4, 0.4, 0.43), rgb(0.45, 0.32, 0.25)], rng, 0.03)
    slope = np.where(v > 0, 1.18, 0.78) + 0.06 * np.sin(2 * np.pi * v / 3) + 0.04 * noise(u.shape, 4, rng)
    ridge = step(0.8 - np.abs(v), 0.5) * 0.5
    inside = np.minimum(half - np.abs(u), wide - np.abs(v))
    return inside, mix(tiles * slope[..., None], rgb(0.75, 0.6, 0.5), ridge)
