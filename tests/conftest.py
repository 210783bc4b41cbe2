"""A tiny photo set of coloured shapes, a tiny recipe, a finished run, and the command line in this process."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
collect_ignore = ["user_script.py"]  # mypy reads it; nothing runs it

import pytest
import torch
from made_shapes import CLASSES, RECIPE, draw_shapes
from PIL import Image

from tag2mask import cli
from tag2mask.data import write_mask


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def load_benchmark():
    """Give a script of ``benchmarks/`` by its name, as a module."""
    loaded = []

    def load(name):
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"benchmarks/{name}.py")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


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
