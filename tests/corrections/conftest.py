"""A finished run whose photos are all for training, and masks that a person might have drawn."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tag2mask.data import read_mask, write_mask


@pytest.fixture(scope="session")
def finished_whole_run(shapes_folder, recipe_file, tmp_path_factory, exit_code_of):
    """A run of all photos; read only."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert exit_code_of("run", shapes_folder, "--out", out, "--recipe", recipe_file) == 0
    return out


@pytest.fixture
def whole_run(finished_whole_run, tmp_path):
    """A copy of a run of all photos, to be changed."""
    return Path(shutil.copytree(finished_whole_run, tmp_path / "whole"))


@pytest.fixture
def truth(shapes_folder):
    """Give the true mask of a photo by its name."""
    return lambda name: read_mask(shapes_folder / f"masks/{name}.png")


@pytest.fixture
def drawn(tmp_path, truth):
    """Give a folder with the true masks of some photos."""

    def draw(*names, folder="drawn"):
        for name in names:
            write_mask(tmp_path / folder / f"{name}.png", truth(name))
        return tmp_path / folder

    return draw


@pytest.fixture
def contents():
    """Give what every file of a folder holds, by name."""
    return lambda folder: {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }
