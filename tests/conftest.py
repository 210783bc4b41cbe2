"""A tiny photo set of coloured shapes, a tiny recipe, a finished run, and the command line in this process."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
import torch
from PIL import Image

from tag2mask import cli
from tag2mask.data import write_mask

CLASSES = ("disc", "square")
COLOURS = {1: (220, 40, 30), 2: (30, 60, 220)}
RECIPE = """\
name: tiny
workers: 0
backbone: {name: resnet10t, weights: random}
classifier: {size: 64, epochs: 40, holdout: 0.25}
patterns: {size: 96, layers: [C41], components: 5}
proxy: {crf: none}
segmenter: {size: 64, epochs: 2, batch_size: 4, learning_rate: 1.0e-2, backbone_learning_rate: 1.0e-4}
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


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory):
    """14 photos of two classes with tags, masks, classes and two lists; read only."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    (root / "photos").mkdir(parents=True)
    tags = [(1,)] * 5 + [(2,)] * 5 + [(1, 2)] * 4
    rows = ["image,labels"]
    for number, labels in enumerate(tags):
        photo, mask = draw_shapes(labels, 72 + 4 * (number % 3), 96 - 8 * (number % 2), number)
        Image.fromarray(photo).save(root / f"photos/p{number:02}.jpg", quality=95)
        write_mask(root / f"masks/p{number:02}.png", mask)
        rows.append(f"p{number:02}.jpg," + ";".join(CLASSES[label - 1] for label in labels))
    (root / "tags.csv").write_text("\n".join(rows) + "\n")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    val = (4, 9, 13)
    (root / "val.txt").write_text("".join(f"p{number:02}\n" for number in val))
    (root / "train.txt").write_text("".join(f"p{number:02}\n" for number in range(14) if number not in val))
    return root


@pytest.fixture
def shapes(shapes_folder, tmp_path):
    """The same photo set, to be changed."""
    return Path(shutil.copytree(shapes_folder, tmp_path / "shapes"))


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(RECIPE)
    return file


def call_command(*arguments):
    """Run the command line in this process and return its exit code."""
    logger, before = logging.getLogger("tag2mask"), sys.argv
    handlers = list(logger.handlers)
    sys.argv = ["tag2mask", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
        logger.handlers[:] = handlers
        logging.captureWarnings(False)
    return 0


@pytest.fixture(scope="session")
def exit_code_of():
    """Call the command line; what comes back is the exit code."""
    return call_command


@pytest.fixture
def command(capsys):
    """Call the command line; what comes back has ``code``, ``out`` and ``err``."""

    def call(*arguments):
        capsys.readouterr()
        code = call_command(*arguments)
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return call


@pytest.fixture(scope="session")
def finished_run(shapes_folder, recipe_file, tmp_path_factory):
    """A run of all stages with an evaluation split; read only."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    split = ("--split", "train", "--eval-split", "val")
    assert call_command("run", shapes_folder, "--out", out, "--recipe", recipe_file, *split) == 0
    return out


@pytest.fixture
def a_run(finished_run, tmp_path):
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
