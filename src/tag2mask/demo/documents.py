"""Scanned pages of text in columns, with a stamp, a table or a figure, or with text alone."""

from __future__ import annotations

import numpy as np

from tag2mask.demo.backgrounds import draw_background
from tag2mask.demo.brushes import Array, Pixels, Random, Shape, mix, noise, pick, rgb, step

CLASSES = ("stamp", "table", "figure")
SHOWN = ((1,), (2,), (3,), (1, 2), (2, 3), (1, 3), (), ())
"""What page i shows: entry i mod 8; one page in four is text alone."""


def draw_document(index: int, shape: Shape, rng: Random) -> tuple[Array, Pixels]:
    """Return a page and a mask: stamps are their discs, tables and figures their boxes."""
    paper = pick([rgb(0.95, 0.94, 0.91), rgb(0.93, 0.9, 0.82), rgb(0.92, 0.92, 0.92)], rng, 0.02)
    page = paper * (1 + 0.02 * noise(shape, 4, rng) + 0.04 * noise(shape, shape[1], rng, octaves=1))[..., None]
    mask = np.zeros(shape, np.uint8)
    ink = rng.uniform(0.1, 0.3) * rgb(1, 1, 1)
    shown = SHOWN[index % len(SHOWN)]
    boxes = _boxes(shape, [label for label in shown if label != 1], rng)
    page = mix(page, ink, _text(shape, boxes, rng))
    for label, (top, left, bottom, right) in boxes:
        part = np.s_[top:bottom, left:right]
        page[part] = (_table if label == 2 else _figure)(page[part], ink, rng)
        mask[part] = label
    if 1 in shown:
        page = _stamp(page, mask, rng)
    return page.clip(0, 1).astype(np.float32), mask


Box = tuple[int, int, int, int]


def _boxes(shape: Shape, labels: list[int], rng: Random) -> list[tuple[int, Box]]:
    """Return a place for each table and figure: one under the other, as wide as the text or as half of it."""
    height, width = shape
    found = []
    for number, label in enumerate(labels):
        low, high = 0.1 + 0.8 * number / len(labels), 0.1 + 0.8 * (number + 1) / len(labels)
        tall = height * rng.uniform(0.16, 0.32)
        top = rng.uniform(low * height, max(low * height + 1, high * height - tall))
        wide = width * rng.choice((0.38, 0.82)) * rng.uniform(0.85, 1)
        left = rng.uniform(0.09 * width, 0.91 * width - wide)
        found.append((label, (int(top), int(left), int(top + tall), int(left + wide))))
    return found


def _text(shape: Shape, boxes: list[tuple[int, Box]], rng: Random) -> Array:
    """Return how much ink lies where: words of small strokes in lines, paragraphs and one or two columns."""
    height, width = shape
    rows, columns = np.indices(shape, dtype=np.float32)
    pitch = max(5.0, height * rng.uniform(0.018, 0.03))
    line, within = np.floor(rows / pitch).astype(int), rows % pitch / pitch
    lines = int(height / pitch) + 2
    word = noise((lines, width), 3.5 * pitch, rng, squeeze=3.5 * pitch, octaves=1)[line[:, 0]]
    strokes = step(noise(shape, 0.34 * pitch, rng, squeeze=0.6, octaves=1) + 0.15, 0.5)
    ends = rng.uniform(0.4, 1.4, lines)[line]
    blank = (rng.random(lines) < 0.12)[line]
    share = columns / width
    two = rng.random() < 0.5
    inside = (share > 0.09) & (share < np.minimum(0.91, 0.05 + ends)) & (rows > 0.07 * height) & (rows < 0.93 * height)
    inside &= ~blank & ~(two & (np.abs(share - 0.5) < 0.02))
    for _, (top, left, bottom, right) in boxes:
        gap = int(0.4 * pitch)
        inside[max(0, top - gap) : bottom + gap, max(0, left - gap) : right + gap] = False
    ink: Array = 0.85 * strokes * step(word + 0.9, 0.12) * step(0.3 - np.abs(within - 0.5), 0.08) * inside
    return ink


def _table(part: Array, ink: Array, rng: Random) -> Array:
    """Return the part with ruled rows and columns, a shaded head, and figures in the cells."""
    height, width = part.shape[:2]
    rows, columns = np.indices((height, width), dtype=np.float32)
    tall, wide = height / rng.integers(4, 8), width / rng.integers(3, 6)
    rules = step(1 - np.minimum(rows % tall, columns % wide), 0.4)
    rules = np.maximum(rules, step(1.2 - np.minimum(height - 1 - rows, width - 1 - columns), 0.4))
    middle = (np.abs(rows % tall / tall - 0.5) < 0.2) & (np.abs(columns % wide / wide - 0.45) < 0.28)
    marks = step(noise((height, width), 0.2 * tall, rng, squeeze=0.6, octaves=1), 0.5) * middle
    head = mix(part, pick([rgb(0.7, 0.75, 0.85), rgb(0.75, 0.75, 0.75)], rng), 0.8 * (rows < tall))
    return mix(head, ink, np.maximum(0.7 * rules, 0.85 * marks))


def _figure(part: Array, ink: Array, rng: Random) -> Array:
    """Return a photo in print, or a chart of bars in a frame."""
    height, width = part.shape[:2]
    if rng.random() < 0.6:
        picture = draw_background((height, width), rng)
        if rng.random() < 0.5:
            picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
        return picture
    rows, columns = np.indices((height, width), dtype=np.float32)
    count = int(rng.integers(4, 9))
    bar = np.minimum((columns / width * count).astype(int), count - 1)
    tall = rng.uniform(0.2, 0.85, count)[bar]
    filled = (1 - rows / height < tall) & (np.abs(columns / width * count % 1 - 0.5) < 0.32)
    paint = pick([rgb(0.2, 0.4, 0.7), rgb(0.7, 0.35, 0.2), rgb(0.3, 0.3, 0.3)], rng)
    frame = step(1.5 - np.minimum(np.minimum(rows, height - 1 - rows), np.minimum(columns, width - 1 - columns)), 0.4)
    return mix(mix(mix(part, paint, filled.astype(np.float32)), ink, 0.3 * (rows % (height / 5) < 1)), ink, frame)


def _stamp(page: Array, mask: Pixels, rng: Random) -> Array:
    """Return the page with a round stamp over whatever is there: two rings and marks between them, in worn ink."""
    shape = mask.shape
    radius = min(shape) * rng.uniform(0.1, 0.17)
    rows, columns = np.indices(shape, dtype=np.float32)
    row, column = (rng.uniform(1.1 * radius, side - 1.1 * radius) for side in shape)
    away, angle = np.hypot(rows - row, columns - column), np.arctan2(rows - row, columns - column)
    rings = np.maximum(step(0.045 * radius + 0.3 - np.abs(away - 0.95 * radius), 0.5),
                       step(0.02 * radius + 0.3 - np.abs(away - 0.62 * radius), 0.5))  # fmt: skip
    letters = step(np.sin(angle * 24 + 2 * np.sin(angle * 7)) - 0.1, 0.4) * (np.abs(away / radius - 0.785) < 0.09)
    middle = step(np.sin((rows - row) / radius * 20) - 0.2, 0.4) * (np.abs(columns - column) < 0.38 * radius)
    middle = middle * (np.abs(rows - row) < 0.32 * radius)
    worn = (0.75 + 0.25 * noise(shape, 0.4 * radius, rng)).clip(0.2, 1)
    ink = pick([rgb(0.7, 0.12, 0.15), rgb(0.15, 0.2, 0.6), rgb(0.25, 0.15, 0.5)], rng, 0.03)
    mask[away <= 0.95 * radius + 0.045 * radius + 0.3] = 1
    return mix(page, ink, 0.9 * worn * np.maximum(rings, np.maximum(letters, middle)))
