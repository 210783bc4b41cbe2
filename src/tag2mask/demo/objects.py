"""The objects of generated scenes, each drawn in a frame where it fills about the unit disc."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import gaussian_filter

from tag2mask.demo.brushes import Array, Random, mix, pick, rgb, step


@dataclass(frozen=True)
class Surface:
    """What an object's frame shows: colour H x W x 3, distance to the outline (positive inside), height."""

    colour: Array
    inside: Array
    relief: Array
    gloss: float = 0.0


def _dome(inside: Array, rise: float = 1.0) -> Array:
    """Return the height of a rounded body whose outline lies at ``inside`` = 0."""
    height: Array = np.sqrt(1 - (1 - inside.clip(0, 1)) ** 2)
    return rise * height


def _ellipse(u: Array, v: Array, centre: tuple[float, float], axes: tuple[float, float]) -> Array:
    """Return about the distance to an ellipse's outline, positive inside."""
    ratio = np.hypot((u - centre[0]) / axes[0], (v - centre[1]) / axes[1])
    return (1 - ratio) * min(axes)


def _ball(u: Array, v: Array, rng: Random) -> Surface:
    """A football: the faces of a truncated icosahedron, dark pentagons among white hexagons."""
    height = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    faces = _FOOTBALL @ turn.astype(np.float32)
    reach = np.stack([u, v, height], axis=-1) @ faces.T
    ranked = np.partition(reach, -2, axis=-1)
    seam = step(0.02 - (ranked[..., -1] - ranked[..., -2]), 0.012)
    pentagon = step(reach[..., :12].max(-1) - reach[..., 12:].max(-1), 0.01)
    dark = pick([rgb(0.08, 0.08, 0.1), rgb(0.08, 0.08, 0.1), rgb(0.1, 0.15, 0.4)], rng, 0.03)
    white = pick([rgb(0.93, 0.93, 0.9)], rng, 0.03)
    colour = mix(mix(white, rgb(0.45, 0.45, 0.45), 0.8 * seam), dark, pentagon)
    inside = 1 - np.hypot(u, v)
    return Surface(colour, inside, _dome(inside), gloss=0.25)


def _football_faces() -> Array:
    """Return the 12 + 20 face normals over their distances: the largest dot product names the face hit."""
    golden = (1 + 5**0.5) / 2
    corners = [(0.0, a, b * golden) for a, b in product((-1, 1), repeat=2)]
    twelve = np.array([np.roll(corner, turn) for corner in corners for turn in range(3)])
    twenty = [(a, b, c) for a, b, c in product((-1.0, 1.0), repeat=3)]
    edges = [(0.0, a / golden, b * golden) for a, b in product((-1, 1), repeat=2)]
    twenty_all = np.array([*twenty, *(np.roll(edge, -turn) for edge in edges for turn in range(3))])
    unit = [faces / np.linalg.norm(faces, axis=1, keepdims=True) for faces in (twelve, twenty_all)]
    return np.concatenate([unit[0] / 0.9393, unit[1] / 0.9149]).astype(np.float32)


_FOOTBALL = _football_faces()


def _butterfly(u: Array, v: Array, rng: Random) -> Surface:
    """Two pairs of wings with dark veins and a spotted border, around a slender body along u."""
    side = np.abs(v)
    slant = rng.uniform(0.2, 0.45)
    fore = _ellipse(u - slant * side, side, (0.25, 0.52), (0.46, 0.54))
    hind = _ellipse(u + 0.3 * side, side, (-0.38, 0.38), (0.44, 0.42))
    body = _ellipse(u, v, (0.0, 0.0), (0.62, 0.1))
    wings = np.maximum(fore, hind)
    base = pick([rgb(0.95, 0.5, 0.08), rgb(0.25, 0.5, 0.95), rgb(0.98, 0.82, 0.2)], rng)
    angle = np.arctan2(side, u + 0.05)
    vein = step(np.abs(np.sin(angle * rng.uniform(6, 8))) * -1 + 0.22, 0.08)
    seam = step(0.05 - np.abs(fore - hind), 0.02) * step(np.minimum(fore, hind) + 0.05, 0.05)
    border = step(0.12 - wings, 0.03)
    dots = border * step(np.cos(angle * 26) - 0.35, 0.2) * step(0.03 - np.abs(wings - 0.065), 0.01)
    dark = rgb(0.07, 0.05, 0.05)
    colour = mix(np.broadcast_to(base, (*u.shape, 3)), base * 0.75, step(0.25 - side, 0.2))
    colour = mix(colour, dark, np.maximum(np.maximum(vein, seam), border))
    colour = mix(mix(colour, rgb(0.95, 0.95, 0.9), dots), dark, step(body))
    relief = np.where(body > 0, _dome(body * 8, 0.12), 0.25 * side)
    return Surface(colour, np.maximum(wings, body), relief)


def _fish(u: Array, v: Array, rng: Random) -> Surface:
    """A reef fish along u: a body with white, dark-edged bands, fins with rays, an eye."""
    body = _ellipse(u, v, (0.18, 0.0), (0.82, 0.5))
    fan = np.minimum(0.42 - np.abs(u + 0.75), 0.14 + 0.55 * (-u - 0.5) - np.abs(v))
    sail = _ellipse(u, v, (0.1, -0.36), (0.55, 0.34))
    keel = _ellipse(u, v, (-0.05, 0.38), (0.34, 0.26))
    fins = np.maximum(fan, np.maximum(sail, keel))
    base = pick([rgb(0.95, 0.42, 0.06), rgb(0.98, 0.78, 0.12), rgb(0.15, 0.35, 0.85)], rng)
    bands = np.stack([np.abs(u - place - 0.25 * v**2) for place in (0.62, 0.12, -0.36)]).min(0)
    rays = 0.85 + 0.15 * np.sin(40 * np.arctan2(v, u + 1.6))
    scales = 1 + 0.08 * np.sin(30 * u + 15 * v) * np.sin(30 * u - 15 * v)
    dark = rgb(0.06, 0.06, 0.08)
    colour = np.where((body > 0)[..., None], base * scales[..., None], (0.8 * base) * rays[..., None])
    colour = mix(colour, dark, step(0.14 - bands))
    colour = mix(colour, rgb(0.95, 0.95, 0.92), step(0.1 - bands))
    colour = mix(colour, dark, step(-1.02 - u, 0.04))
    eye = np.hypot(u - 0.78, v + 0.1)
    colour = mix(mix(colour, rgb(0.95, 0.9, 0.6), step(0.1 - eye)), dark, step(0.06 - eye))
    return Surface(colour, np.maximum(body, fins), np.maximum(_dome(body * 1.8, 0.45), 0.03), gloss=0.3)


def _ladybird(u: Array, v: Array, rng: Random) -> Surface:
    """Red wing cases with black spots, parted along u; a black head with two pale cheeks."""
    case = _ellipse(u, v, (-0.12, 0.0), (0.88, 0.8))
    head = _ellipse(u, v, (0.68, 0.0), (0.34, 0.5))
    size = rng.uniform(0.13, 0.19)
    places = ((0.42, 0.0), (0.2, 0.42), (-0.22, 0.24), (-0.32, 0.58), (-0.68, 0.25))
    spots = np.stack([size - np.hypot(u - x, np.abs(v) - y) for x, y in places]).max(0)
    dark = rgb(0.05, 0.05, 0.06)
    base = pick([rgb(0.82, 0.07, 0.05), rgb(0.9, 0.28, 0.05)], rng, 0.04)
    colour = mix(np.broadcast_to(base, (*u.shape, 3)), dark, step(spots))
    colour = mix(colour, dark, step(0.018 - np.abs(v), 0.012))
    colour = mix(colour, dark, step(u - 0.55))
    cheeks = 0.11 - np.hypot(u - 0.72, np.abs(v) - 0.3)
    colour = mix(colour, rgb(0.92, 0.9, 0.85), step(cheeks))
    relief = np.maximum(_dome(case * 1.25, 0.75), _dome(head * 2, 0.3))
    return Surface(colour, np.maximum(case, head), relief, gloss=0.7)


def _strawberry(u: Array, v: Array, rng: Random) -> Surface:
    """A red cone with seeds in rows and a green star of leaves; its tip points along v."""
    across = u / (0.84 - 0.34 * v)
    fruit = (1 - np.hypot(across, v / 0.98)) * 0.8
    pitch = rng.uniform(0.2, 0.26)
    row = np.round(v / pitch)
    seed_v = v / pitch - row
    seed_u = across / pitch - 0.5 * (row % 2)
    seed_u = seed_u - np.round(seed_u)
    seed = np.hypot(1.5 * seed_u, seed_v)
    base = pick([rgb(0.85, 0.08, 0.1), rgb(0.78, 0.05, 0.12)], rng, 0.04)
    colour = base * (0.72 + 0.28 * np.clip(seed / 0.45, 0, 1))[..., None]
    colour = mix(colour, rgb(0.93, 0.78, 0.35), step(0.2 - seed, 0.08))
    angle = np.arctan2(v + 0.82, u)
    points = 5 * angle + rng.uniform(0, 6)
    leaf = 0.36 + 0.24 * np.cos(points) - np.hypot(u, 1.4 * (v + 0.82))
    green = rgb(0.25, 0.5, 0.12) * (0.8 + 0.3 * np.abs(np.sin(points / 2)))[..., None]
    colour = mix(colour, green, step(leaf))
    dimples = 0.02 * np.clip(seed / 0.4, 0, 1)
    relief = np.where(leaf > 0, 0.75 + 0.1 * leaf, _dome(fruit * 1.3, 0.7) + dimples)
    return Surface(colour, np.maximum(fruit, leaf), gaussian_filter(relief, 1.0), gloss=0.45)


def _sunflower(u: Array, v: Array, rng: Random) -> Surface:
    """Yellow petals in two layers around a brown disc of seeds set in spirals."""
    rho, phi = np.hypot(u, v), np.arctan2(v, u)
    count = int(rng.integers(11, 17))
    front = 0.6 + 0.36 * np.abs(np.cos(count * phi / 2)) ** 0.7 - rho
    back = 0.58 + 0.4 * np.abs(np.sin(count * phi / 2)) ** 0.7 - rho
    crease = np.where(front > 0, np.abs(np.cos(count * phi / 2)), np.abs(np.sin(count * phi / 2)))
    core = rng.uniform(0.36, 0.46) - rho
    base = pick([rgb(0.98, 0.78, 0.08), rgb(0.98, 0.66, 0.05)], rng, 0.04)
    tone = (0.62 + 0.38 * crease) * np.where(front > 0, 1.0, 0.82) * (0.75 + 0.3 * rho)
    spiral = 9 * np.log(rho + 0.05)
    seeds = np.sin(13 * phi + spiral) * np.sin(13 * phi - spiral)
    brown = rgb(0.32, 0.18, 0.07) * (0.75 + 0.45 * seeds)[..., None]
    colour = mix(base * tone[..., None], brown, step(core))
    relief = np.where(core > 0, _dome(core * 2.5, 0.18), 0.05 * crease)
    return Surface(colour, np.maximum(front, back), gaussian_filter(relief, 1.0), gloss=0.1)


@dataclass(frozen=True)
class Kind:
    """A class: how to draw it, its largest tilt, how far it bends, how much of the unit disc it fills."""

    name: str
    draw: Callable[[Array, Array, Random], Surface]
    tilt: float
    bend: float
    fill: float


KINDS = (
    Kind("ball", _ball, np.pi, 0.012, 1.0),
    Kind("butterfly", _butterfly, np.pi, 0.05, 0.65),
    Kind("fish", _fish, 0.5, 0.05, 0.55),
    Kind("ladybird", _ladybird, np.pi, 0.03, 0.75),
    Kind("strawberry", _strawberry, 0.9, 0.05, 0.8),
    Kind("sunflower", _sunflower, np.pi, 0.05, 0.8),
)

CLASSES = tuple(kind.name for kind in KINDS)
"""The class names; index i in a mask is ``CLASSES[i - 1]``."""
