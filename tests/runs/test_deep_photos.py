"""A run on 12-bit photos in 16-bit files: every stage, new photos and exports scale them alike."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from made_shapes import CLASSES, draw_shapes
from PIL import Image

import tag2mask as t2m
from tag2mask.data import read_mask, write_mask


def save_deep(photo, path, bits=12):
    """Save the grey of a photo with so many bits in a file of 16."""
    grey = np.asarray(Image.fromarray(photo).convert("L")).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey << (bits - 8)).save(path)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    root = tmp_path_factory.mktemp("deep") / "shapes"
    rows = ["image,labels"]
    for number in range(10):
        photo, mask = draw_shapes((number % 2 + 1,), 72, 96, number)
        save_deep(photo, root / f"photos/p{number}.png")
        write_mask(root / f"masks/p{number}.png", mask)
        rows.append(f"p{number}.png,{CLASSES[number % 2]}")
    (root / "tags.csv").write_text("\n".join(rows) + "\n")
    for name, numbers in (("train", range(8)), ("val", (8, 9))):
        (root / f"{name}.txt").write_text("".join(f"p{number}\n" for number in numbers))
    return root


@pytest.fixture(scope="module")
def deep_run(deep, recipe_file, tmp_path_factory, exit_code_of):
    out = tmp_path_factory.mktemp("deep-run") / "run"
    split = ("--split", "train", "--eval-split", "val")
    assert exit_code_of("run", deep, "--out", out, "--recipe", recipe_file, *split) == 0
    return out


def test_the_run_knows_its_levels(deep, deep_run):
    low, high = json.loads((deep_run / "data.json").read_text())["levels"]
    assert 700 < low < high < 2200
    data = t2m.load(deep, split="train")
    assert (low, high) == data.levels
    assert np.mean([sample.read().mean() for sample in data]) > 60  # a twelfth of that when 65535 becomes 255
    assert t2m.load_segmenter(deep_run).levels == (low, high)


def test_new_photos_are_scaled_as_the_run_was(deep, deep_run, tmp_path, command):
    """A photo alone, whose own range is another; it comes out as among the others."""
    photo, _ = draw_shapes((1,), 72, 96, 8)
    save_deep(np.clip(photo, 90, 110), tmp_path / "p.png")
    model = t2m.load_segmenter(deep_run)
    wanted = model.predict(t2m.Sample("p", tmp_path / "p.png", levels=model.levels).read())
    assert command("predict", deep_run, tmp_path / "p.png", "--out", tmp_path / "masks").code == 0
    assert np.array_equal(read_mask(tmp_path / "masks/p.png"), wanted)
    assert np.array_equal(model.predict(tmp_path / "p.png"), wanted)
    assert command("predict", deep_run, deep / "photos", "--out", tmp_path / "all").code == 0
    for name in ("p8", "p9"):
        assert np.array_equal(read_mask(tmp_path / f"all/{name}.png"), read_mask(deep_run / f"predictions/{name}.png"))


def test_an_exported_segmenter_keeps_the_levels(deep_run, tmp_path, command):
    assert command("export", "huggingface", deep_run, "--out", tmp_path / "folder").code == 0
    exported = t2m.load_segmenter(tmp_path / "folder")
    assert exported.levels == t2m.load_segmenter(deep_run).levels
    config = tmp_path / "folder/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"levels": [1, "x"]}))
    with pytest.raises(t2m.UserError, match=r"config.json is damaged: its levels"):
        t2m.load_segmenter(tmp_path / "folder")


def test_a_run_of_8_bits_has_none(finished_run):
    assert json.loads((finished_run / "data.json").read_text())["levels"] is None
    assert t2m.load_segmenter(finished_run).levels is None


def test_photos_of_more_light_are_said_and_begin_again(deep, recipe_file, tmp_path, command):
    root = shutil.copytree(deep, tmp_path / "shapes")
    again = ("run", root, "--out", tmp_path / "run", "--recipe", recipe_file)
    assert command(*again, "--until", "classify").code == 0
    before = t2m.load(root).levels
    for number in range(10):
        photo, _ = draw_shapes((number % 2 + 1,), 72, 96, number)
        save_deep(photo, root / f"photos/p{number}.png", bits=13)
    line = f"other levels of 16-bit photos: {before} before, {t2m.load(root).levels} now"
    assert line not in command(*again, "--until", "classify", "--keep").err  # the levels, too, are as before
    assert json.loads((tmp_path / "run/data.json").read_text())["levels"] == [*before]
    assert line in command(*again, "--until", "classify").err
    assert json.loads((tmp_path / "run/data.json").read_text())["levels"] == [*t2m.load(root).levels]
