"""Generated scenes for the demo: six kinds of objects on shared, structured backgrounds, with exact masks."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from tag2mask.data.decode import write_mask

Array: TypeAlias = npt.NDArray[Any]  # float32 where not said otherwise
Pixels: TypeAlias = npt.NDArray[np.uint8]
Random: TypeAlias = np.random.Generator
Shape: TypeAlias = tuple[int, int]

TRAIN_SHARE = 2 / 3

Style: TypeAlias = Literal["plain", "tiny", "pairs"]
"""What the scenes show: ``plain``, objects one by one and large; ``tiny``, the same of a twentieth of the area;
``pairs``, every class with one other and never without it, so that no tags tell the two apart."""


@dataclass(frozen=True)
class Scene:
    """A generated photo and its truth.

    Attributes:
        photo: uint8 H x W x 3 RGB.
        mask: uint8 H x W; 0 is background, i the class ``CLASSES[i - 1]``.
    """

    photo: Pixels
    mask: Pixels

    @property
    def labels(self) -> tuple[int, ...]:
        """Return the sorted indices of the classes that the mask shows."""
        return tuple(int(label) for label in np.unique(self.mask) if label)


def write_scenes(folder: Path, *, count: int = 300, seed: int = 0, size: int = 320, style: Style = "plain") -> None:
    """Write a data set of generated scenes: photos, tags and exact masks.

    The folder then holds ``photos/*.jpg``, ``tags.csv``, ``classes.txt``, ``masks/*.png``, ``train.txt`` (the
    first two thirds of the scenes) and ``val.txt``. Scene i depends on ``seed``, ``size``, ``style`` and i alone.

    Args:
        folder: where to write; made if missing.
        count: how many scenes.
        seed: another seed, other scenes.
        size: the longer side of the photos in pixels; the shorter one varies.
        style: what they show, see `Style`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_scenes(folder, count=3, size=96)
        >>> sorted(path.name for path in folder.iterdir())
        ['classes.txt', 'masks', 'photos', 'tags.csv', 'train.txt', 'val.txt']
    """
    for part in ("photos", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = [f"scene-{index:04d}" for index in range(count)]
    labels = []
    for index, name in enumerate(names):
        scene = make_scene(index, seed=seed, size=size, style=style)
        Image.fromarray(scene.photo).save(folder / "photos" / f"{name}.jpg", quality=92)
        write_mask(folder / "masks" / f"{name}.png", scene.mask)
        labels.append(scene.labels)
    train = round(count * TRAIN_SHARE)
    _write_tags(folder / "tags.csv", names, labels)
    _write_lines(folder / "classes.txt", CLASSES)
    _write_lines(folder / "train.txt", names[:train])
    _write_lines(folder / "val.txt", names[train:])


def make_scene(index: int, *, seed: int = 0, size: int = 320, style: Style = "plain") -> Scene:
    """Return scene ``index`` of the endless series that ``seed`` names.

    Its first object is of class ``index % 6``, so that every class gets its share of a data set; three
    scenes in ten show a second or a third class, those of the style ``pairs`` always the same second one.

    Example:
        >>> scene = make_scene(3, size=96)
        >>> scene.photo.dtype, scene.mask.shape == scene.photo.shape[:2], 4 in scene.labels
        (dtype('uint8'), True, True)
    """
    rng = np.random.default_rng([seed, index])
    shape = _photo_shape(size, rng)
    light = _light(rng)
    photo = _background(shape, rng)
    mask = np.zeros(shape, np.uint8)
    cast = _pair(index) if style == "pairs" else _cast(index, rng)
    for spot in _arrange(cast, shape, rng, 0.05 if style == "tiny" else 1.0):
        _paint(photo, mask, spot, light, rng)
    return Scene(_develop(photo, rng), mask)


def _write_tags(path: Path, names: Sequence[str], labels: Sequence[Sequence[int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image", "labels"))
        for name, present in zip(names, labels, strict=True):
            table.writerow((f"{name}.jpg", " ".join(CLASSES[label - 1] for label in present)))


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# --- The plot: which objects, where, how large --------------------------------------------------------------


@dataclass(frozen=True)
class _Spot:
    """An object's place: its class, centre (row, column) and radius in pixels."""

    label: int
    row: float
    column: float
    radius: float


def _photo_shape(size: int, rng: Random) -> Shape:
    short = round(size * rng.uniform(0.66, 0.86))
    return (short, size) if rng.random() < 0.7 else (size, short)


def _cast(index: int, rng: Random) -> list[int]:
    """Return the label of every object: one class in seven scenes of ten, now and then twice the same."""
    kinds = len(CLASSES)
    first = index % kinds
    others = (first + 1 + rng.permutation(kinds - 1)) % kinds
    extra = int(rng.choice(3, p=(0.70, 0.26, 0.04)))
    cast = [first, *others[:extra].tolist()]
    if len(cast) < 3 and rng.random() < 0.3:
        cast.append(first)
    return [kind + 1 for kind in cast]


def _pair(index: int) -> list[int]:
    """Return the labels of a class and of the one that it never is without."""
    first = index % len(CLASSES)
    return [first + 1, (first ^ 1) + 1]


def _arrange(cast: Sequence[int], shape: Shape, rng: Random, area: float) -> list[_Spot]:
    """Return places that overlap a little at most, smaller ones on top; objects shrink until they fit.

    Args:
        cast: the label of every object.
        shape: of the photo.
        rng: where chance comes from.
        area: of the objects, as a share of what is usual.
    """
    crowd = len(cast)
    cover = rng.uniform(0.18, 0.45) if crowd == 1 else rng.uniform(0.36, 0.52)
    portions = rng.dirichlet([12.0] * crowd) * cover
    shrink = area
    while True:
        for _ in range(20):
            spots = [_spot(label, portion * shrink, shape, rng) for label, portion in zip(cast, portions, strict=True)]
            if _apart(spots):
                return sorted(spots, key=lambda spot: -spot.radius)
        shrink *= 0.93


def _spot(label: int, portion: float, shape: Shape, rng: Random) -> _Spot:
    height, width = shape
    radius = np.sqrt(portion * height * width / (np.pi * _KINDS[label - 1].fill))
    radius = min(radius, 0.56 * min(shape))
    row, column = (
        rng.uniform(*sorted((0.85 * radius, side - 0.85 * radius))) if side > 1.7 * radius else side / 2
        for side in shape
    )
    return _Spot(label, float(row), float(column), float(radius))


def _apart(spots: Sequence[_Spot]) -> bool:
    pairs = ((a, b) for i, a in enumerate(spots) for b in spots[:i])
    return all(np.hypot(a.row - b.row, a.column - b.column) > 0.8 * (a.radius + b.radius) for a, b in pairs)


# --- Painting an object -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Surface:
    """What an object's frame shows: colour H x W x 3, distance to the outline (positive inside), height."""

    colour: Array
    inside: Array
    relief: Array
    gloss: float = 0.0


def _light(rng: Random) -> Array:
    """Return the unit vector towards the light (column, row, height): from above, left or right."""
    light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.9, -0.2), rng.uniform(0.8, 1.3)], np.float32)
    unit: Array = light / np.linalg.norm(light)
    return unit


def _paint(photo: Array, mask: Pixels, spot: _Spot, light: Array, rng: Random) -> None:
    """Draw one object with its shading and its cast shadow over ``photo`` and ``mask``, in place."""
    kind = _KINDS[spot.label - 1]
    reach = 1.35 * spot.radius
    top, left = (max(0, int(centre - reach)) for centre in (spot.row, spot.column))
    window = np.s_[top : int(spot.row + reach) + 1, left : int(spot.column + reach) + 1]
    offsets = np.indices(mask[window].shape, dtype=np.float32)
    rows, columns = offsets[0] + (top - spot.row), offsets[1] + (left - spot.column)
    u, v = _object_frame(rows, columns, spot.radius, kind, rng)
    surface = kind.draw(u, v, rng)
    alpha = np.clip(surface.inside * spot.radius + 0.5, 0, 1)
    _cast_shadow(photo, alpha, (top, left), light, spot.radius, rng)
    lit = _shade(surface, spot.radius, light, rng)
    photo[window] += alpha[..., None] * (lit - photo[window])
    mask[window][alpha >= 0.5] = spot.label


def _object_frame(rows: Array, columns: Array, radius: float, kind: _Kind, rng: Random) -> tuple[Array, Array]:
    """Return the object's own coordinates u, v: turned, stretched, mirrored and a little bent."""
    angle = rng.uniform(-kind.tilt, kind.tilt)
    stretch = np.exp(rng.uniform(-0.12, 0.12)) * radius
    mirror = rng.choice((-1.0, 1.0))
    u = mirror * (np.cos(angle) * columns + np.sin(angle) * rows) / stretch
    v = (np.cos(angle) * rows - np.sin(angle) * columns) * stretch / radius**2
    bend_u, bend_v = (kind.bend * _noise(rows.shape, 1.2 * radius, rng, octaves=2) for _ in range(2))
    return (u + bend_u).astype(np.float32), (v + bend_v).astype(np.float32)


def _cast_shadow(photo: Array, alpha: Array, corner: Shape, light: Array, radius: float, rng: Random) -> None:
    """Darken ``photo`` where the object, lifted a little above its background, keeps the light off."""
    full = np.zeros(photo.shape[:2], np.float32)
    full[corner[0] : corner[0] + alpha.shape[0], corner[1] : corner[1] + alpha.shape[1]] = alpha
    lift = rng.uniform(0.08, 0.3) * radius
    move = tuple(round(float(-lift * part)) for part in (light[1], light[0]))
    shadow = gaussian_filter(np.roll(full, move, (0, 1)), 0.1 * radius)
    photo *= 1 - rng.uniform(0.25, 0.6) * shadow[..., None]


def _shade(surface: _Surface, radius: float, light: Array, rng: Random) -> Array:
    """Return the surface's colours lit by Lambert's law with a Blinn highlight."""
    slope_row, slope_column = np.gradient(surface.relief * radius)
    normal = np.stack([-slope_column, -slope_row, np.ones_like(slope_row)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    ambient = rng.uniform(0.35, 0.55)
    diffuse = ambient + (1.15 - ambient) * np.clip(normal @ light, 0, None)
    half = light + np.array([0, 0, 1], np.float32)
    highlight = surface.gloss * np.clip(normal @ (half / np.linalg.norm(half)), 0, None) ** 30
    grain = 1 + 0.1 * _noise(surface.relief.shape, 0.12 * radius, rng)
    lit: Array = surface.colour * (diffuse * grain)[..., None] + highlight[..., None]
    return lit.clip(0, 1)


def _develop(photo: Array, rng: Random) -> Pixels:
    """Return the picture that a camera takes: soft, tinted, vignetted, noisy, 8 bits."""
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in photo.shape[:2])
    vignette = 1 - rng.uniform(0, 0.22) * (rows[:, None] ** 2 + columns**2)
    tint = rng.uniform(0.93, 1.05, 3) * rng.uniform(0.85, 1.1)
    soft = gaussian_filter(photo, (0.6, 0.6, 0))
    exposed = np.clip(soft * vignette[..., None] * tint, 0, 1) ** rng.uniform(0.85, 1.2)
    noisy = exposed + rng.normal(0, rng.uniform(0.005, 0.02), photo.shape)
    developed: Pixels = np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return developed


# --- Small tools of the trade -------------------------------------------------------------------------------


def _noise(shape: Shape, period: float, rng: Random, *, squeeze: float = 1.0, octaves: int = 3) -> Array:
    """Return fractal noise of unit deviation, its features ``period`` wide and ``period / squeeze`` high."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(period / 2**octave, 1.0)
        grid = (max(2, round(shape[0] * squeeze / step) + 2), max(2, round(shape[1] / step) + 2))
        coarse = Image.fromarray(rng.standard_normal(grid, np.float32))
        total += np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)) * 0.6**octave
    unit: Array = (total - total.mean()) / max(float(total.std()), 1e-6)
    return unit


def _step(value: Array, width: float = 0.03) -> Array:
    """Return 0 where ``value`` is negative, 1 where positive, with a soft edge."""
    share: Array = value / (2 * width) + 0.5
    return share.clip(0, 1)


def _rgb(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue], np.float32)


def _mix(under: Array, over: Array, share: Array) -> Array:
    """Return ``under`` covered by ``over`` to the given share, H x W."""
    mixed: Array = under + share[..., None] * (over - under)
    return mixed


def _pick(colours: Sequence[Array], rng: Random, spread: float = 0.06) -> Array:
    """Return one of the colours, varied a little."""
    colour: Array = colours[int(rng.integers(len(colours)))] + rng.normal(0, spread, 3)
    return colour.clip(0, 1).astype(np.float32)


def _dome(inside: Array, rise: float = 1.0) -> Array:
    """Return the height of a rounded body whose outline lies at ``inside`` = 0."""
    height: Array = np.sqrt(1 - (1 - inside.clip(0, 1)) ** 2)
    return rise * height


def _ellipse(u: Array, v: Array, centre: tuple[float, float], axes: tuple[float, float]) -> Array:
    """Return about the distance to an ellipse's outline, positive inside."""
    ratio = np.hypot((u - centre[0]) / axes[0], (v - centre[1]) / axes[1])
    return (1 - ratio) * min(axes)


# --- The objects, each in a frame where it fills about the unit disc ----------------------------------------


def _ball(u: Array, v: Array, rng: Random) -> _Surface:
    """A football: the faces of a truncated icosahedron, dark pentagons among white hexagons."""
    height = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    faces = _FOOTBALL @ turn.astype(np.float32)
    reach = np.stack([u, v, height], axis=-1) @ faces.T
    ranked = np.partition(reach, -2, axis=-1)
    seam = _step(0.02 - (ranked[..., -1] - ranked[..., -2]), 0.012)
    pentagon = _step(reach[..., :12].max(-1) - reach[..., 12:].max(-1), 0.01)
    dark = _pick([_rgb(0.08, 0.08, 0.1), _rgb(0.08, 0.08, 0.1), _rgb(0.1, 0.15, 0.4)], rng, 0.03)
    white = _pick([_rgb(0.93, 0.93, 0.9)], rng, 0.03)
    colour = _mix(_mix(white, _rgb(0.45, 0.45, 0.45), 0.8 * seam), dark, pentagon)
    inside = 1 - np.hypot(u, v)
    return _Surface(colour, inside, _dome(inside), gloss=0.25)


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


def _butterfly(u: Array, v: Array, rng: Random) -> _Surface:
    """Two pairs of wings with dark veins and a spotted border, around a slender body along u."""
    side = np.abs(v)
    slant = rng.uniform(0.2, 0.45)
    fore = _ellipse(u - slant * side, side, (0.25, 0.52), (0.46, 0.54))
    hind = _ellipse(u + 0.3 * side, side, (-0.38, 0.38), (0.44, 0.42))
    body = _ellipse(u, v, (0.0, 0.0), (0.62, 0.1))
    wings = np.maximum(fore, hind)
    base = _pick([_rgb(0.95, 0.5, 0.08), _rgb(0.25, 0.5, 0.95), _rgb(0.98, 0.82, 0.2)], rng)
    angle = np.arctan2(side, u + 0.05)
    vein = _step(np.abs(np.sin(angle * rng.uniform(6, 8))) * -1 + 0.22, 0.08)
    seam = _step(0.05 - np.abs(fore - hind), 0.02) * _step(np.minimum(fore, hind) + 0.05, 0.05)
    border = _step(0.12 - wings, 0.03)
    dots = border * _step(np.cos(angle * 26) - 0.35, 0.2) * _step(0.03 - np.abs(wings - 0.065), 0.01)
    dark = _rgb(0.07, 0.05, 0.05)
    colour = _mix(np.broadcast_to(base, (*u.shape, 3)), base * 0.75, _step(0.25 - side, 0.2))
    colour = _mix(colour, dark, np.maximum(np.maximum(vein, seam), border))
    colour = _mix(_mix(colour, _rgb(0.95, 0.95, 0.9), dots), dark, _step(body))
    relief = np.where(body > 0, _dome(body * 8, 0.12), 0.25 * side)
    return _Surface(colour, np.maximum(wings, body), relief)


def _fish(u: Array, v: Array, rng: Random) -> _Surface:
    """A reef fish along u: a body with white, dark-edged bands, fins with rays, an eye."""
    body = _ellipse(u, v, (0.18, 0.0), (0.82, 0.5))
    fan = np.minimum(0.42 - np.abs(u + 0.75), 0.14 + 0.55 * (-u - 0.5) - np.abs(v))
    sail = _ellipse(u, v, (0.1, -0.36), (0.55, 0.34))
    keel = _ellipse(u, v, (-0.05, 0.38), (0.34, 0.26))
    fins = np.maximum(fan, np.maximum(sail, keel))
    base = _pick([_rgb(0.95, 0.42, 0.06), _rgb(0.98, 0.78, 0.12), _rgb(0.15, 0.35, 0.85)], rng)
    bands = np.stack([np.abs(u - place - 0.25 * v**2) for place in (0.62, 0.12, -0.36)]).min(0)
    rays = 0.85 + 0.15 * np.sin(40 * np.arctan2(v, u + 1.6))
    scales = 1 + 0.08 * np.sin(30 * u + 15 * v) * np.sin(30 * u - 15 * v)
    dark = _rgb(0.06, 0.06, 0.08)
    colour = np.where((body > 0)[..., None], base * scales[..., None], (0.8 * base) * rays[..., None])
    colour = _mix(colour, dark, _step(0.14 - bands))
    colour = _mix(colour, _rgb(0.95, 0.95, 0.92), _step(0.1 - bands))
    colour = _mix(colour, dark, _step(-1.02 - u, 0.04))
    eye = np.hypot(u - 0.78, v + 0.1)
    colour = _mix(_mix(colour, _rgb(0.95, 0.9, 0.6), _step(0.1 - eye)), dark, _step(0.06 - eye))
    return _Surface(colour, np.maximum(body, fins), np.maximum(_dome(body * 1.8, 0.45), 0.03), gloss=0.3)


def _ladybird(u: Array, v: Array, rng: Random) -> _Surface:
    """Red wing cases with black spots, parted along u; a black head with two pale cheeks."""
    case = _ellipse(u, v, (-0.12, 0.0), (0.88, 0.8))
    head = _ellipse(u, v, (0.68, 0.0), (0.34, 0.5))
    size = rng.uniform(0.13, 0.19)
    places = ((0.42, 0.0), (0.2, 0.42), (-0.22, 0.24), (-0.32, 0.58), (-0.68, 0.25))
    spots = np.stack([size - np.hypot(u - x, np.abs(v) - y) for x, y in places]).max(0)
    dark = _rgb(0.05, 0.05, 0.06)
    base = _pick([_rgb(0.82, 0.07, 0.05), _rgb(0.9, 0.28, 0.05)], rng, 0.04)
    colour = _mix(np.broadcast_to(base, (*u.shape, 3)), dark, _step(spots))
    colour = _mix(colour, dark, _step(0.018 - np.abs(v), 0.012))
    colour = _mix(colour, dark, _step(u - 0.55))
    cheeks = 0.11 - np.hypot(u - 0.72, np.abs(v) - 0.3)
    colour = _mix(colour, _rgb(0.92, 0.9, 0.85), _step(cheeks))
    relief = np.maximum(_dome(case * 1.25, 0.75), _dome(head * 2, 0.3))
    return _Surface(colour, np.maximum(case, head), relief, gloss=0.7)


def _strawberry(u: Array, v: Array, rng: Random) -> _Surface:
    """A red cone with seeds in rows and a green star of leaves; its tip points along v."""
    across = u / (0.84 - 0.34 * v)
    fruit = (1 - np.hypot(across, v / 0.98)) * 0.8
    pitch = rng.uniform(0.2, 0.26)
    row = np.round(v / pitch)
    seed_v = v / pitch - row
    seed_u = across / pitch - 0.5 * (row % 2)
    seed_u = seed_u - np.round(seed_u)
    seed = np.hypot(1.5 * seed_u, seed_v)
    base = _pick([_rgb(0.85, 0.08, 0.1), _rgb(0.78, 0.05, 0.12)], rng, 0.04)
    colour = base * (0.72 + 0.28 * np.clip(seed / 0.45, 0, 1))[..., None]
    colour = _mix(colour, _rgb(0.93, 0.78, 0.35), _step(0.2 - seed, 0.08))
    angle = np.arctan2(v + 0.82, u)
    points = 5 * angle + rng.uniform(0, 6)
    leaf = 0.36 + 0.24 * np.cos(points) - np.hypot(u, 1.4 * (v + 0.82))
    green = _rgb(0.25, 0.5, 0.12) * (0.8 + 0.3 * np.abs(np.sin(points / 2)))[..., None]
    colour = _mix(colour, green, _step(leaf))
    dimples = 0.02 * np.clip(seed / 0.4, 0, 1)
    relief = np.where(leaf > 0, 0.75 + 0.1 * leaf, _dome(fruit * 1.3, 0.7) + dimples)
    return _Surface(colour, np.maximum(fruit, leaf), gaussian_filter(relief, 1.0), gloss=0.45)


def _sunflower(u: Array, v: Array, rng: Random) -> _Surface:
    """Yellow petals in two layers around a brown disc of seeds set in spirals."""
    rho, phi = np.hypot(u, v), np.arctan2(v, u)
    count = int(rng.integers(11, 17))
    front = 0.6 + 0.36 * np.abs(np.cos(count * phi / 2)) ** 0.7 - rho
    back = 0.58 + 0.4 * np.abs(np.sin(count * phi / 2)) ** 0.7 - rho
    crease = np.where(front > 0, np.abs(np.cos(count * phi / 2)), np.abs(np.sin(count * phi / 2)))
    core = rng.uniform(0.36, 0.46) - rho
    base = _pick([_rgb(0.98, 0.78, 0.08), _rgb(0.98, 0.66, 0.05)], rng, 0.04)
    tone = (0.62 + 0.38 * crease) * np.where(front > 0, 1.0, 0.82) * (0.75 + 0.3 * rho)
    spiral = 9 * np.log(rho + 0.05)
    seeds = np.sin(13 * phi + spiral) * np.sin(13 * phi - spiral)
    brown = _rgb(0.32, 0.18, 0.07) * (0.75 + 0.45 * seeds)[..., None]
    colour = _mix(base * tone[..., None], brown, _step(core))
    relief = np.where(core > 0, _dome(core * 2.5, 0.18), 0.05 * crease)
    return _Surface(colour, np.maximum(front, back), gaussian_filter(relief, 1.0), gloss=0.1)


@dataclass(frozen=True)
class _Kind:
    """A class: how to draw it, its largest tilt, how far it bends, how much of the unit disc it fills."""

    name: str
    draw: Callable[[Array, Array, Random], _Surface]
    tilt: float
    bend: float
    fill: float


_KINDS = (
    _Kind("ball", _ball, np.pi, 0.012, 1.0),
    _Kind("butterfly", _butterfly, np.pi, 0.05, 0.65),
    _Kind("fish", _fish, 0.5, 0.05, 0.55),
    _Kind("ladybird", _ladybird, np.pi, 0.03, 0.75),
    _Kind("strawberry", _strawberry, 0.9, 0.05, 0.8),
    _Kind("sunflower", _sunflower, np.pi, 0.05, 0.8),
)

CLASSES = tuple(kind.name for kind in _KINDS)
"""The class names; index i in a mask is ``CLASSES[i - 1]``."""


# --- The backgrounds, shared by all classes -----------------------------------------------------------------


def _background(shape: Shape, rng: Random) -> Array:
    """Return one of the textures, or one above another with a horizon between them."""
    back = _texture(shape, rng)
    if rng.random() < 0.45:
        floor = _texture(shape, rng)
        rows = np.arange(shape[0], dtype=np.float32)[:, None]
        edge = shape[0] * rng.uniform(0.3, 0.75) + shape[0] * 0.015 * _noise((2, shape[1]), 60, rng)[:1]
        back = _mix(back, floor, _step(rows - edge, 1.0))
    shading = 1 + 0.12 * _noise(shape, 0.6 * shape[1], rng, octaves=1)
    return np.clip(back * shading[..., None], 0, 1)


def _texture(shape: Shape, rng: Random) -> Array:
    paint = _TEXTURES[rng.integers(len(_TEXTURES))]
    return paint(shape, rng).astype(np.float32)


def _meadow(shape: Shape, rng: Random) -> Array:
    """Grass blades under a clouded sky."""
    rows = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    clouds = _step(_noise(shape, 0.5 * shape[1], rng, squeeze=1.8) - 0.3, 0.7)
    sky = _mix(_mix(_rgb(0.3, 0.55, 0.9), _rgb(0.8, 0.9, 0.97), rows), _rgb(0.95, 0.95, 0.96), 0.8 * clouds)
    blades = _noise(shape, 5, rng, squeeze=0.25, octaves=2) + 0.6 * _noise(shape, 50, rng)
    grass = _mix(_rgb(0.16, 0.33, 0.08), _rgb(0.5, 0.65, 0.22), _step(blades, 1.6))
    edge = rng.uniform(0.05, 0.6) + 0.02 * _noise((2, shape[1]), 30, rng)[:1]
    return _mix(sky, grass, _step(rows - edge, 0.01))


def _sand(shape: Shape, rng: Random) -> Array:
    """Wind ripples and grains."""
    rows, columns = np.indices(shape, dtype=np.float32)
    waves = rows / rng.uniform(9, 18) + columns * rng.uniform(-0.03, 0.03) + 1.2 * _noise(shape, 90, rng)
    height = 0.5 * np.sin(2 * np.pi * waves / 2) + 0.25 * _noise(shape, 3, rng, octaves=2)
    base = _pick([_rgb(0.8, 0.68, 0.48), _rgb(0.72, 0.64, 0.52)], rng, 0.04)
    return base * (1 + 0.16 * height)[..., None]


def _water(shape: Shape, rng: Random) -> Array:
    """Ripples with bright crests."""
    swell = _noise(shape, 40, rng, squeeze=3.0) + 0.4 * _noise(shape, 14, rng, squeeze=2.5)
    base = _pick([_rgb(0.1, 0.35, 0.5), _rgb(0.08, 0.42, 0.45), _rgb(0.2, 0.35, 0.5)], rng, 0.04)
    return _mix(base * (1 + 0.25 * swell)[..., None], _rgb(0.75, 0.88, 0.92), 0.7 * _step(swell - 1.2, 0.5))


def _wood(shape: Shape, rng: Random) -> Array:
    """Planks with grain, laid across or upright."""
    upright = rng.random() < 0.5
    rows = np.indices(shape[::-1] if upright else shape, dtype=np.float32)[0]
    plank = rng.uniform(35, 70)
    number = np.floor(rows / plank).astype(int)
    shift = rng.uniform(-1, 1, number.max() + 1)[number]
    grain = np.sin(rows / 2.2 + 5 * _noise(rows.shape, 120, rng, squeeze=3.0) + 9 * shift)
    base = _pick([_rgb(0.6, 0.42, 0.25), _rgb(0.45, 0.3, 0.18), _rgb(0.7, 0.55, 0.38)], rng, 0.04)
    tone = 1 + 0.1 * grain + 0.12 * shift + 0.06 * _noise(rows.shape, 60, rng, squeeze=12.0)
    gap = _step(1.5 - np.abs(rows - plank * np.round(rows / plank)), 0.7)
    planks = _mix(base * tone[..., None], _rgb(0.1, 0.07, 0.05), gap)
    return planks.swapaxes(0, 1) if upright else planks


def _bricks(shape: Shape, rng: Random) -> Array:
    """A wall in stretcher bond."""
    rows, columns = np.indices(shape, dtype=np.float32)
    high = rng.uniform(16, 28)
    wide = 2.4 * high
    course = np.floor(rows / high).astype(int)
    along = columns + 0.5 * wide * (course % 2)
    number = np.floor(along / wide).astype(int)
    tones = rng.normal(1, 0.12, (course.max() + 1, number.max() + 1))[course, number]
    gap = np.minimum(rows % high, along % wide)
    base = _pick([_rgb(0.6, 0.3, 0.22), _rgb(0.62, 0.56, 0.5), _rgb(0.5, 0.36, 0.28)], rng, 0.04)
    wall = base * (tones + 0.1 * _noise(shape, 4, rng))[..., None]
    return _mix(wall, _pick([_rgb(0.72, 0.7, 0.66)], rng), _step(2.5 - gap, 0.8))


def _foliage(shape: Shape, rng: Random) -> Array:
    """A hedge: leaves as the cells of scattered points, lit one by one."""
    cell, edge, shade = _cells(shape, rng.uniform(14, 24), rng)
    greens = _mix(_rgb(0.1, 0.24, 0.07), _rgb(0.4, 0.58, 0.2), shade)
    return greens * (0.55 + 0.45 * np.clip(edge / 6, 0, 1) + 0.06 * cell)[..., None]


def _pebbles(shape: Shape, rng: Random) -> Array:
    """A stony ground: rounded grey and brown cells."""
    cell, edge, shade = _cells(shape, rng.uniform(18, 34), rng)
    stones = _mix(_rgb(0.42, 0.4, 0.38), _rgb(0.72, 0.68, 0.62), shade)
    return stones * (0.35 + 0.65 * np.clip(edge / 7, 0, 1) ** 0.6 + 0.05 * cell)[..., None]


def _cells(shape: Shape, pitch: float, rng: Random) -> tuple[Array, Array, Array]:
    """Return a noise and, for the cells of scattered points, the distance to the edge and a tone each."""
    number = max(4, round(shape[0] * shape[1] / pitch**2))
    points = rng.uniform(0, 1, (number, 2)) * shape
    grid = np.indices(shape, dtype=np.float32).reshape(2, -1).T
    grid += np.stack([_noise(shape, pitch, rng).ravel() for _ in range(2)], -1) * (0.12 * pitch)
    distances, nearest = cKDTree(points).query(grid, k=2)
    edge = (distances[:, 1] - distances[:, 0]).reshape(shape)
    tone = rng.uniform(0, 1, number)[nearest[:, 0]].reshape(shape)
    return _noise(shape, 4, rng), edge.astype(np.float32), tone.astype(np.float32)


def _bokeh(shape: Shape, rng: Random) -> Array:
    """Lights far out of focus over a dim gradient."""
    glow = _step(_noise(shape, 0.7 * shape[1], rng, octaves=2), 2.0)
    dim = _pick([_rgb(0.12, 0.12, 0.2), _rgb(0.15, 0.2, 0.14), _rgb(0.25, 0.16, 0.12)], rng)
    picture = _mix(dim, np.clip(2.4 * dim, 0, 1), glow)
    rows, columns = np.indices(shape, dtype=np.float32)
    lights = [_rgb(0.95, 0.8, 0.5), _rgb(0.6, 0.75, 0.95), _rgb(0.7, 0.9, 0.6), _rgb(0.95, 0.6, 0.6)]
    for _ in range(rng.integers(10, 26)):
        row, column = rng.uniform(0, 1, 2) * shape
        disc = rng.uniform(6, 22) - np.hypot(rows - row, columns - column)
        picture = _mix(picture, _pick(lights, rng), rng.uniform(0.15, 0.5) * _step(disc, 2.0))
    return picture


_TEXTURES = (_meadow, _sand, _water, _wood, _bricks, _foliage, _pebbles, _bokeh)
