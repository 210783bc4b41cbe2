"""Data sets of every kind that the demo draws: scenes, and what is far from everyday photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from tag2mask.demo import aerial, cells, documents, leaves, metal, objects, scenes, ultrasound
from tag2mask.demo.brushes import Array, Pixels, Random, Shape
from tag2mask.demo.scenes import Scene, develop, write_data
from tag2mask.names import DemoKind


class Painter(NamedTuple):
    """How a kind is drawn.

    Attributes:
        classes: index i in a mask is ``classes[i - 1]``.
        draw: returns a photo, float32 H x W x 3 of 0..1, and its mask, from the scene's number and a shape.
        flat: the shorter side of a photo over the longer one, from and to.
        upright: how many of the photos are higher than wide, 0..1.
        grey: whether the camera sees no colours.
    """

    classes: tuple[str, ...]
    draw: Callable[[int, Shape, Random], tuple[Array, Pixels]]
    flat: tuple[float, float]
    upright: float = 0.0
    grey: bool = False


PAINTERS: dict[DemoKind, Painter] = {
    DemoKind.BLOBS: Painter(cells.CLASSES, cells.draw_dark_cells, (0.75, 0.8)),
    DemoKind.BRIGHT_BLOBS: Painter(cells.CLASSES, cells.draw_bright_cells, (0.8, 1.0)),
    DemoKind.SCRATCHES: Painter(metal.CLASSES, metal.draw_metal, (0.7, 1.0), 0.5, grey=True),
    DemoKind.SCRATCHES_ONLY: Painter(metal.CLASSES, metal.draw_defect, (1.0, 1.0), grey=True),
    DemoKind.LESION: Painter(ultrasound.CLASSES, ultrasound.draw_lesion, (0.75, 0.9), grey=True),
    DemoKind.LEAFSPOTS: Painter(leaves.CLASSES, leaves.draw_leaf, (0.5, 0.7), 0.2),
    DemoKind.AERIAL: Painter(aerial.CLASSES, aerial.draw_aerial, (0.75, 1.0)),
    DemoKind.DOCUMENTS: Painter(documents.CLASSES, documents.draw_document, (0.7, 0.78), 1.0),
}
"""The kinds other than scenes."""


def write_kind(folder: Path, kind: DemoKind | str, *, count: int = 300, seed: int = 0, size: int = 320) -> None:
    """Write a generated data set of a kind: photos, tags and exact masks, in the layout of `write_scenes`.

    Photos that show none of the classes have the tag ``background``. Photo i depends on ``seed``, ``size``, ``kind``
    and i alone.

    Args:
        folder: where to write; made if missing.
        kind: what to draw, see `tag2mask.names.DemoKind`.
        count: how many photos.
        seed: another seed, other photos.
        size: the longer side of the photos in pixels.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_kind(folder, "leafspots", count=5, size=96)
        >>> (folder / "tags.csv").read_text().splitlines()[-1]
        'leafspots-0004.jpg,background'
    """
    kind = DemoKind(kind)
    classes = PAINTERS[kind].classes if kind in PAINTERS else objects.CLASSES
    name = kind if kind in PAINTERS else "scene"
    write_data(folder, str(name), classes, count, lambda index: make_photo(kind, index, seed=seed, size=size))


def make_photo(kind: DemoKind | str, index: int, *, seed: int = 0, size: int = 320) -> Scene:
    """Return photo ``index`` of the endless series that ``seed`` names.

    Example:
        >>> make_photo("blobs", 3, size=96).labels
        (1,)
    """
    kind = DemoKind(kind)
    if kind not in PAINTERS:
        return scenes.make_scene(index, seed=seed, size=size, style=cast(scenes.Style, str(kind)))
    painter = PAINTERS[kind]
    rng = np.random.default_rng([seed, index])
    short = round(size * rng.uniform(*painter.flat))
    shape = (size, short) if rng.random() < painter.upright else (short, size)
    photo, mask = painter.draw(index, shape, rng)
    developed = develop(photo, rng)
    if painter.grey:
        developed = np.repeat(developed.mean(-1, keepdims=True).round().astype(np.uint8), 3, -1)
    return Scene(developed, mask)
