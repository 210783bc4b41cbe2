"""Photos of coloured shapes, and a recipe that is small enough for them."""

from __future__ import annotations

import numpy as np

CLASSES = ("disc", "square")
COLOURS = {1: (220, 40, 30), 2: (30, 60, 220)}
RECIPE = """\
name: tiny
workers: 0
backbone: {name: test_resnet, weights: random}
classifier: {size: 64, epochs: 40, holdout: 0.25}
patterns: {size: 96, layers: [C41], components: 5}
proxy: {crf: none}
segmenter: {size: 64, epochs: 2, batch_size: 4, learning_rate: 1.0e-2, backbone_learning_rate: 1.0e-4}
refine: {shows: 32}
inference: {scales: [64], crf: null}
"""


def draw_shapes(labels, height, width, seed):
    """Return a photo and its mask: noise with a red disc (1) and/or a blue square (2)."""
    random = np.random.default_rng(seed)
    photo = random.integers(90, 130, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    rows, columns = np.indices(mask.shape)
    for place, label in enumerate(labels):
        row = height / 2 + random.integers(-8, 9)
        column = width * (place + 1) / (len(labels) + 1)
        far = (
            np.hypot(rows - row, columns - column) if label == 1 else np.maximum(abs(rows - row), abs(columns - column))
        )
        inside = far < 0.22 * min(height, width)
        mask[inside] = label
        photo[inside] = np.clip(np.array(COLOURS[label]) + random.integers(-20, 20, (inside.sum(), 3)), 0, 255)
    return photo, mask
