"""Specks: which components they are, that exports leave them out and say so, and that inference can fill them."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from PIL import Image

import tag2mask as t2m
from tag2mask.config import InferenceConfig
from tag2mask.data import read_mask, write_mask
from tag2mask.exports.pieces import Pieces
from tag2mask.inference import mask_at
from tag2mask.proxy import speck_area, without_specks


def speckled():
    """Return a mask of 200 x 300: a box of class 1 with a hole, three specks, and a lone small object of class 2."""
    mask = np.zeros((200, 300), np.uint8)
    mask[20:120, 30:130] = 1
    mask[50, 60:63] = 0
    mask[150, 200] = mask[160, 210] = mask[170:172, 220:222] = 1
    mask[10:12, 250:252] = 2
    return mask


def areas(pieces, mask):
    return [(piece.label, int(piece.inside.sum())) for piece in pieces.of(mask)]


@pytest.mark.parametrize(
    ("largest", "size", "limit"),
    [(10_000, 60_000, 6), (10_000, 12_000_000, 100), (20, 60_000, 2), (10**6, 10**6, 100)],
)
def test_a_speck_is_small_for_its_photo_and_for_its_class(largest, size, limit):
    assert speck_area(largest, size) == limit


def test_specks_are_left_out_unless_they_are_the_largest_of_their_class():
    pieces = Pieces()
    assert areas(pieces, speckled()) == [(1, 9997), (2, 4)]
    assert (pieces.found, pieces.left_out) == (5, 3)
    assert areas(Pieces(min_area=1), speckled()) == [(1, 9997), (1, 1), (1, 1), (1, 4), (2, 4)]
    assert areas(Pieces(min_area=5), speckled()) == [(1, 9997)]


def test_objects_that_are_all_small_stay():
    mask = np.zeros((2000, 3000), np.uint8)
    mask[::100, ::100] = mask[1::100, ::100] = 1
    assert len(Pieces().of(mask)) == 600


@pytest.fixture
def folder(tmp_path):
    write_mask(tmp_path / "masks/a.png", speckled())
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (300, 200)).save(tmp_path / "photos/a.jpg")
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    return tmp_path


OUT = {"coco": "o.json", "labelme": "o", "yolo": "o", "label-studio": "o.json"}


def count(format, out):
    if format == "coco":
        return len(json.loads(out.read_text())["annotations"])
    if format == "labelme":
        return len(json.loads((out / "a.json").read_text())["shapes"])
    if format == "yolo":
        return len((out / "labels/a.txt").read_text().splitlines())
    return len(json.loads(out.read_text())[0]["predictions"][0]["result"])


@pytest.mark.parametrize("format", OUT)
@pytest.mark.parametrize(
    ("options", "left", "says"),
    [
        ((), 2, "left out 3 of 5 regions as specks"),
        (("--min-area", 1), 5, ""),
        (("--min-area", 5), 1, "left out 4 of 5 regions: smaller than 5 pixels"),
    ],
)
def test_every_format_leaves_specks_out_and_says_how_to_keep_them(command, folder, format, options, left, says):
    out = folder / OUT[format]
    about = ("--classes", folder / "classes.txt", "--photos", folder / "photos")
    said = command("export", format, folder / "masks", "--out", out, *about, *options)
    assert said.code == 0, said.err
    assert count(format, out) == left
    text = " ".join(said.err.split())
    assert says in text
    assert ("left out" in text) == bool(says)
    assert ("--min-area 1 keeps them" in text) == (not options)


def test_in_python_the_warning_is_given_too(folder, caplog):
    with caplog.at_level(logging.WARNING, "tag2mask"):
        t2m.export("yolo", folder / "masks", folder / "o", classes=folder / "classes.txt")
    assert "smaller than 1/10000 of the photo, 100 pixels and 1/10 of the largest" in caplog.text


def test_filled_specks_have_the_class_around_them():
    filled = without_specks(speckled())
    wanted = np.zeros((200, 300), np.uint8)
    wanted[20:120, 30:130], wanted[10:12, 250:252] = 1, 2
    assert (filled == wanted).all()
    assert without_specks(wanted) is wanted
    assert (without_specks(np.zeros((3, 4), np.uint8)) == 0).all()


@pytest.mark.parametrize("crf", [None, InferenceConfig().crf])
def test_inference_fills_specks_if_the_recipe_says_so(monkeypatch, crf):
    how = InferenceConfig(crf=crf, fill_specks=True)
    for name in ("most_likely", "mask_of"):
        monkeypatch.setattr(f"tag2mask.inference.{name}", lambda *given: speckled())
    monkeypatch.setattr("tag2mask.inference.probabilities_of", lambda *given: None)
    photo = np.zeros((200, 300, 3), np.uint8)
    assert (mask_at([], photo, (200, 300), how) == without_specks(speckled())).all()
    assert (mask_at([], photo, (200, 300), how.model_copy(update={"fill_specks": False})) == speckled()).all()


def test_predict_takes_the_setting(command, finished_run, shapes_folder, tmp_path):
    for value in ("true", "false"):
        out = tmp_path / value
        said = command(
            "predict", finished_run, shapes_folder / "photos", "--out", out, "--set", f"inference.fill_specks={value}"
        )
        assert said.code == 0, said.err
    for file in (tmp_path / "false").iterdir():
        assert (read_mask(tmp_path / "true" / file.name) == without_specks(read_mask(file))).all()
