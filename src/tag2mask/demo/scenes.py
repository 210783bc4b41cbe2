"""Generated scenes for the demo: six kinds of objects on shared, structured backgrounds, with exact masks."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from tag2mask.data.class_names import BACKGROUND
from tag2mask.data.decode import write_mask
from tag2mask.demo.backgrounds import draw_background
from tag2mask.demo.brushes import Array, Pixels, Random, Shape, noise
from tag2mask.demo.objects import CLASSES, KINDS, Kind, Surface

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
    write_data(folder, "scene", CLASSES, count, lambda index: make_scene(index, seed=seed, size=size, style=style))


def write_data(folder: Path, name: str, classes: Sequence[str], count: int, make: Callable[[int], Scene]) -> None:
    """Write ``count`` scenes as a data set, in the layout of `write_scenes`; those that show nothing are `background`.

    Args:
        folder: where to write; made if missing.
        name: what the photos' names begin with.
        classes: index i in a mask is ``classes[i - 1]``.
        count: how many scenes.
        make: returns scene i.
    """
    for part in ("photos", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = [f"{name}-{index:04d}" for index in range(count)]
    tags = []
    for index, photo in enumerate(names):
        scene = make(index)
        Image.fromarray(scene.photo).save(folder / "photos" / f"{photo}.jpg", quality=92)
        write_mask(folder / "masks" / f"{photo}.png", scene.mask)
        tags.append(" ".join(classes[label - 1] for label in scene.labels) or BACKGROUND)
    train = round(count * TRAIN_SHARE)
    _write_tags(folder / "tags.csv", names, tags)
    _write_lines(folder / "classes.txt", classes)
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
    light = light_from(rng)
    photo = draw_background(shape, rng)
    mask = np.zeros(shape, np.uint8)
    cast = _pair(index) if style == "pairs" else _cast(index, rng)
    for spot in _arrange(cast, shape, rng, 0.05 if style == "tiny" else 1.0):
        paint(photo, mask, spot, light, rng)
    return Scene(develop(photo, rng), mask)


def _write_tags(path: Path, names: Sequence[str], tags: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image", "labels"))
        table.writerows((f"{name}.jpg", cell) for name, cell in zip(names, tags, strict=True))


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# --- The plot: which objects, where, how large --------------------------------------------------------------


@dataclass(frozen=True)
class Spot:
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


def _arrange(cast: Sequence[int], shape: Shape, rng: Random, area: float) -> list[Spot]:
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


def _spot(label: int, portion: float, shape: Shape, rng: Random) -> Spot:
    height, width = shape
    radius = np.sqrt(portion * height * width / (np.pi * KINDS[label - 1].fill))
    radius = min(radius, 0.56 * min(shape))
    row, column = (
        rng.uniform(*sorted((0.85 * radius, side - 0.85 * radius))) if side > 1.7 * radius else side / 2
        for side in shape
    )
    return Spot(label, float(row), float(column), float(radius))


def _apart(spots: Sequence[Spot]) -> bool:
    pairs = ((a, b) for i, a in enumerate(spots) for b in spots[:i])
    return all(np.hypot(a.row - b.row, a.column - b.column) > 0.8 * (a.radius + b.radius) for a, b in pairs)


# --- Painting an object -------------------------------------------------------------------------------------


def light_from(rng: Random) -> Array:
    """Return the unit vector towards the light (column, row, height): from above, left or right."""
    light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.9, -0.2), rng.uniform(0.8, 1.3)], np.float32)
    unit: Array = light / np.linalg.norm(light)
    return unit


def paint(photo: Array, mask: Pixels, spot: Spot, light: Array, rng: Random) -> None:
    """Draw one object with its shading and its cast shadow over ``photo`` and ``mask``, in place."""
    kind = KINDS[spot.label - 1]
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


def _object_frame(rows: Array, columns: Array, radius: float, kind: Kind, rng: Random) -> tuple[Array, Array]:
    """Return the object's own coordinates u, v: turned, stretched, mirrored and a little bent."""
    angle = rng.uniform(-kind.tilt, kind.tilt)
    stretch = np.exp(rng.uniform(-0.12, 0.12)) * radius
    mirror = rng.choice((-1.0, 1.0))
    u = mirror * (np.cos(angle) * columns + np.sin(angle) * rows) / stretch
    v = (np.cos(angle) * rows - np.sin(angle) * columns) * stretch / radius**2
    bend_u, bend_v = (kind.bend * noise(rows.shape, 1.2 * radius, rng, octaves=2) for _ in range(2))
    return (u + bend_u).astype(np.float32), (v + bend_v).astype(np.float32)


def _cast_shadow(photo: Array, alpha: Array, corner: Shape, light: Array, radius: float, rng: Random) -> None:
    """Darken ``photo`` where the object, lifted a little above its background, keeps the light off."""
    full = np.zeros(photo.shape[:2], np.float32)
    full[corner[0] : corner[0] + alpha.shape[0], corner[1] : corner[1] + alpha.shape[1]] = alpha
    lift = rng.uniform(0.08, 0.3) * radius
    move = tuple(round(float(-lift * part)) for part in (light[1], light[0]))
    shadow = gaussian_filter(np.roll(full, move, (0, 1)), 0.1 * radius)
    photo *= 1 - rng.uniform(0.25, 0.6) * shadow[..., None]


def _shade(surface: Surface, radius: float, light: Array, rng: Random) -> Array:
    """Return the surface's colours lit by Lambert's law with a Blinn highlight."""
    slope_row, slope_column = np.gradient(surface.relief * radius)
    normal = np.stack([-slope_column, -slope_row, np.ones_like(slope_row)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    ambient = rng.uniform(0.35, 0.55)
    diffuse = ambient + (1.15 - ambient) * np.clip(normal @ light, 0, None)
    half = light + np.array([0, 0, 1], np.float32)
    highlight = surface.gloss * np.clip(normal @ (half / np.linalg.norm(half)), 0, None) ** 30
    grain = 1 + 0.1 * noise(surface.relief.shape, 0.12 * radius, rng)
    lit: Array = surface.colour * (diffuse * grain)[..., None] + highlight[..., None]
    return lit.clip(0, 1)


def develop(photo: Array, rng: Random) -> Pixels:
    """Return the picture that a camera takes: soft, tinted, vignetted, noisy, 8 bits."""
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in photo.shape[:2])
    vignette = 1 - rng.uniform(0, 0.22) * (rows[:, None] ** 2 + columns**2)
    tint = rng.uniform(0.93, 1.05, 3) * rng.uniform(0.85, 1.1)
    soft = gaussian_filter(photo, (0.6, 0.6, 0))
    exposed = np.clip(soft * vignette[..., None] * tint, 0, 1) ** rng.uniform(0.85, 1.2)
    noisy = exposed + rng.normal(0, rng.uniform(0.005, 0.02), photo.shape)
    developed: Pixels = np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return developed
