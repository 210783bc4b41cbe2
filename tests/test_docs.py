"""What the pages point to exists: files, headings, names in the package, parameters of recipes."""

from __future__ import annotations

import re
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

import tag2mask
from tag2mask.config import load_recipe
from tag2mask.patterns.moments import Moments
from tag2mask.runs.stages import STAGES

ROOT = Path(__file__).parents[1]
EXAMPLES = [ROOT / "README.md", ROOT / "docs/python.md"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find(name):
    """Return what a dotted name stands for, or raise."""
    parts = name.split(".")
    thing, path = tag2mask, parts.pop(0)
    while parts:
        path = f"{path}.{parts[0]}"
        try:
            thing = import_module(path)
        except ModuleNotFoundError:
            break
        parts.pop(0)
    for part in parts:
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8")):
        if re.match(r"\w+:", target):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_exist(page):
    text = page.read_text("utf-8")
    names = set(re.findall(r"\btag2mask(?:\.[A-Za-z_]\w*)+", text))
    names |= {f"tag2mask.{name}" for name in re.findall(r"\bt2m\.(\w+)", text)}
    for name in sorted(names):
        find(name)


def test_what_python_m_starts_is_there():
    code = [file for folder in ("docs", "benchmarks", "src", "tests") for file in (ROOT / folder).glob("**/*.py")]
    started = {
        name for file in PAGES + code for name in re.findall(r'-m["\s,]+(tag2mask[\w.]*)', file.read_text("utf-8"))
    }
    assert started
    for name in started:
        assert find_spec(f"{name}.__main__"), name


def test_a_name_that_does_not_exist_is_found_out():
    assert find("tag2mask.patterns.moments.Moments.merge") is Moments.merge
    for name in ("tag2mask.paterns", "tag2mask.patterns.scores", "tag2mask.load_all"):
        with pytest.raises(AttributeError):
            find(name)


@pytest.fixture
def folder_of_examples(shapes_folder, tmp_path):
    """What the examples name: photos/, tags.csv, photo.jpg."""
    shutil.copytree(shapes_folder / "photos", tmp_path / "photos")
    shutil.copytree(shapes_folder / "masks", tmp_path / "photos/masks")
    shutil.copy(shapes_folder / "tags.csv", tmp_path)
    shutil.copy(shapes_folder / "photos/p00.jpg", tmp_path / "photo.jpg")
    return tmp_path


def examples(page):
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.name)
def test_the_examples_in_python_run(page, folder_of_examples, recipe_file, monkeypatch):
    """With a tiny recipe."""
    monkeypatch.chdir(folder_of_examples)
    code = examples(page).replace('recipe="fast"', f'recipe="{recipe_file.as_posix()}"')
    given = {"__name__": "__main__"}
    exec(compile(code, str(page), "exec"), given)
    assert given["mask"].dtype == np.uint8
    assert set(np.unique(given["mask"])) <= {0, 1, 2, 255}
    if page.name == "python.md":
        assert given["refined"].shape == given["probabilities"].shape
    assert (folder_of_examples / "runs/mine/report/index.html").exists()


def test_every_name_of_the_public_face_is_in_an_example():
    used = set(re.findall(r"\bt2m\.(\w+)", "".join(map(examples, EXAMPLES))))
    assert used == set(tag2mask.__all__) - {"__version__"}


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    assert sorted(re.findall(r"[\w-]+\.md", navigation)) == [page.name for page in PAGES[1:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    for file in re.findall(r"\b(?:tests|benchmarks|docs)/[\w/.-]+\.(?:py|md)\b", page.read_text("utf-8")):
        assert (ROOT / file).exists(), file


def test_the_page_of_the_house_names_every_room_and_stage():
    page, script = ((ROOT / f"docs/architecture.{kind}").read_text("utf-8") for kind in ("md", "py"))
    rooms = re.findall(
        r'^    "(\w+)": "(.*)",$', script.partition("\nROOMS = {\n")[2].partition("\n}\n")[0], re.MULTILINE
    )
    assert len(rooms) > 20
    tables = [re.findall(r"^\| `(\w+)` \| (.*?) \|", part, re.MULTILINE) for part in page.split("\n## ")]
    assert tables[1] == rooms
    assert [name for name, _ in tables[3]] == list(STAGES)


def test_the_papers_settings_are_those_of_its_recipe():
    table = (ROOT / "docs/paper.md").read_text("utf-8").partition("## Settings")[2].partition("\n## ")[0]
    settings = re.findall(r"\| `(\w+)\.(\w+)` \| `(.*)` \|", table)
    assert len(settings) == len(re.findall(r"^\|", table, re.MULTILINE)) - 2
    recipe = load_recipe("luo2020-voc-resnet101").model_dump(mode="json")
    for part, name, value in settings:
        assert recipe[part][name] == yaml.safe_load(value), name
