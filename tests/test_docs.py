"""What the pages point to exists: files, headings, names in the package, parameters of recipes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import tag2mask
from tag2mask.config import load_recipe

ROOT = Path(__file__).parents[1]
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


def test_a_name_that_does_not_exist_is_found_out():
    assert find("tag2mask.patterns.Moments.merge") is tag2mask.patterns.Moments.merge
    for name in ("tag2mask.paterns", "tag2mask.patterns.scores", "tag2mask.load_all"):
        with pytest.raises(AttributeError):
            find(name)


def test_the_papers_settings_are_those_of_its_recipe():
    table = (ROOT / "docs/paper.md").read_text("utf-8").partition("## Settings")[2].partition("\n## ")[0]
    settings = re.findall(r"\| `(\w+)\.(\w+)` \| `(.*)` \|", table)
    assert len(settings) == len(re.findall(r"^\|", table, re.MULTILINE)) - 2
    recipe = load_recipe("luo2020-voc-resnet101").model_dump(mode="json")
    for part, name, value in settings:
        assert recipe[part][name] == yaml.safe_load(value), name
