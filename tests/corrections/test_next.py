"""Which photos are asked for, and the task lists that annotation tools open."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tag2mask.corrections.formats import READERS
from tag2mask.corrections.reading import is_as_exported
from tag2mask.data import Sample, read_mask
from tag2mask.report.asking import choose_next, thumbnail
from tag2mask.report.survey import Doubt


def photo(name, labels, doubt):
    return Sample(name, Path(name), labels), Doubt(doubt, ())


def names(asked):
    return [one.sample.name for one in asked]


def test_doubtful_photos_of_classes_that_nobody_corrected_come_first():
    photos = [photo("a", (1,), 0.9), photo("b", (1,), 0.8), photo("c", (2,), 0.5), photo("d", (), 0.9)]
    nothing = {"look": lambda sample: None}
    assert names(choose_next(photos, {}, 3, **nothing)) == ["a", "c", "b"]
    assert names(choose_next(photos, {"a"}, 9, **nothing)) == ["c", "b", "d"]
    assert names(choose_next(photos, {"a", "c"}, 1, **nothing)) == ["b"]
    assert [one.rare for one in choose_next(photos, {}, 4, **nothing)] == [1, 2, 1, 0]


def test_frames_of_one_film_are_not_asked_for_twice():
    looks = {"a": np.array([1.0, 0]), "b": np.array([0.99, 0.14]), "c": np.array([0, 1.0])}
    photos = [photo("a", (1,), 0.9), photo("b", (1,), 0.9), photo("c", (1,), 0.1)]
    assert names(choose_next(photos, {}, 2, look=lambda sample: looks[sample.name])) == ["a", "c"]


def test_a_photo_that_cannot_be_read_has_no_look(tmp_path):
    assert thumbnail(Sample("a", tmp_path / "a.jpg")) is None
    Image.new("RGB", (30, 20), (9, 200, 7)).save(tmp_path / "a.png")
    seen = thumbnail(Sample("a", tmp_path / "a.png"))
    assert np.linalg.norm(seen) == pytest.approx(1)


def test_tasks_for_labelme_come_back(command, finished_whole_run, shapes_folder, tmp_path):
    out = tmp_path / "my tasks"
    said = command("next", finished_whole_run, "--count", "3", "--format", "labelme", "--out", out)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert len(lines) == 4
    opened = f'labelme "{out}" --labels "{out / "labels.txt"}"'
    assert lines[3] == f'to correct: {opened}; then tag2mask refine {finished_whole_run} "{out}"'
    assert (out / "labels.txt").read_text("utf-8").split() == ["disc", "square"]
    asked = [line.partition(":")[0] for line in lines[:3]]
    found = {one.photo: one for one in READERS["labelme"](out, {"disc": 1, "square": 2})}
    assert set(found) == set(asked)
    for name, one in found.items():
        mask = read_mask(finished_whole_run / f"predictions/{name}.png")
        assert is_as_exported(one.draw(*mask.shape), mask)
        photo = json.loads((out / f"{name}.json").read_text("utf-8"))["imagePath"]
        assert Path(photo).stem == name  # beside its JSON: LabelMe lists the photos of a folder
        assert (out / photo).read_bytes() == next(shapes_folder.rglob(photo)).read_bytes()


def test_tasks_for_label_studio_and_cvat(command, a_run, tmp_path):
    file, folder = tmp_path / "tasks.json", tmp_path / "cvat"
    assert command("next", a_run, "--count", "2", "--format", "label-studio", "--out", file).code == 0
    assert len(json.loads(file.read_text("utf-8"))) == 2
    assert file.with_suffix(".xml").exists()
    assert command("next", a_run, "--count", "2", "--format", "cvat", "--out", folder).code == 0
    root = ElementTree.parse(folder / "annotations.xml").getroot()
    images = root.findall("image")
    assert len(images) == 2
    for image in images:
        assert (folder / "images" / image.get("name")).is_file()
        with Image.open(folder / "images" / image.get("name")) as photo:
            assert photo.size == (int(image.get("width")), int(image.get("height")))
    labels = {one["name"] for one in json.loads((folder / "labels.json").read_text("utf-8"))}
    assert {polygon.get("label") for polygon in root.iter("polygon")} <= labels == {"disc", "square"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--format", "labelme"), "--format and --out go together"),
        (("--format", "labelm", "--out", "x"), "did you mean 'labelme'"),
        (("--format", "label-studio", "--out", "x"), "ending in .json"),
        (("--photo-url", "http://x/"), "means nothing but to label-studio"),
    ],
)
def test_what_is_wrong_with_a_request(command, finished_whole_run, given, said):
    done = command("next", finished_whole_run, *given)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_corrected_photos_are_not_asked_for_and_the_report_says_so(command, whole_run, drawn):
    assert command("refine", whole_run, drawn("p00", "p05"), "--all").code == 0
    asked = command("next", whole_run, "--count", "99").out.splitlines()
    assert len(asked) == 12
    assert not any(line.startswith(("p00", "p05")) for line in asked)
    page = (whole_run / "report/index.html").read_text("utf-8")
    assert "Correct these next" in page
    assert "2 training photos have a mask that a person corrected" in page
