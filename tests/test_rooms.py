"""The house: imports point down the list of rooms, in no circle, and modules stay short."""

from __future__ import annotations

import importlib.util
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_LINES = 400


@pytest.fixture(scope="module")
def house():
    """What draws the picture of the rooms: it holds their list and reads the imports."""
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs/architecture.py")
    module = sys.modules["architecture"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["architecture"]


def upward(house, package):
    """Return the imports that point up the list of rooms."""
    rank = list(house.ROOMS).index
    pairs = ((name, other) for name, others in house.imports_of(package).items() for other in others)
    return [f"{a} -> {b}" for a, b in sorted(pairs) if rank(house.room_of(a)) > rank(house.room_of(b))]


def circle(house, package):
    """Return the modules of a circle of imports; none if there is none."""
    try:
        TopologicalSorter(house.imports_of(package)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_module_is_in_a_room(house):
    assert {house.room_of(module) for module in house.modules_of(house.PACKAGE)} == set(house.ROOMS)


def test_imports_point_down(house):
    assert upward(house, house.PACKAGE) == []
    assert circle(house, house.PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "from tag2mask.api import run",
        "import tag2mask.api",
        "from tag2mask import api",
        "from .. import api",
        "from ..api import run",
        "def late():\n    from tag2mask.api import run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tag2mask.api import run",
    ],
)
def test_an_import_that_points_up_is_found(house, tmp_path, line):
    package = tmp_path / "tag2mask"
    (package / "crf").mkdir(parents=True)
    for file in ("__init__.py", "api.py", "crf/__init__.py"):
        (package / file).write_text("")
    (package / "crf/dense.py").write_text(line)
    assert upward(house, package) == ["tag2mask.crf.dense -> tag2mask.api"]
    assert circle(house, package) == []
    (package / "api.py").write_text("from tag2mask.crf.dense import dense_crf")
    assert set(circle(house, package)) == {"tag2mask.api", "tag2mask.crf.dense"}


def test_modules_are_short_or_say_in_their_first_line_why_not(house):
    for file in house.modules_of(house.PACKAGE).values():
        lines = file.read_text("utf-8").splitlines()
        assert len(lines) <= MOST_LINES or "in one file" in lines[0], f"{file} has {len(lines)} lines"


def test_the_picture_is_drawn(house, tmp_path):
    house.draw(house.PACKAGE, tmp_path / "architecture.svg")
    drawn, kept = (path.read_text("utf-8") for path in (tmp_path / "architecture.svg", house.KEPT))
    for room in house.ROOMS:
        assert f"<!-- {house.title_of(room)} -->" in drawn
        assert f"<!-- {house.title_of(room)} -->" in kept, "draw it again: python docs/architecture.py docs/pictures"
