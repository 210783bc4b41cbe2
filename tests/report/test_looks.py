"""Quick looks: `show` and `patterns`, as a user calls them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from tag2mask.data import ImageSet
from tag2mask.data.loading import photo_batches
from tag2mask.patterns.estimator import ClassPatterns
from tag2mask.report import OverviewRow, looks, overlay, save_look, save_overview, save_patterns
from tag2mask.runs.folder import resume_run
from tag2mask.runs.trained import load_segmenter


def pixels(file):
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def test_show(command, finished_run, shapes_folder, tmp_path):
    photo, out = shapes_folder / "photos/p04.jpg", tmp_path / "new/overlay.png"
    said = command("show", finished_run, photo, "--out", out)
    assert said.code == 0
    mask = load_segmenter(finished_run).predict(photo)
    for value, name in enumerate(("disc", "square"), 1):
        assert (name in said.out) == bool((mask == value).any())
        if (mask == value).any():
            assert f"{name} {100 * float((mask == value).mean()):.1f}%" in said.out
    assert str(out) in said.out.replace("\n", "")
    assert [file.name for file in out.parent.iterdir()] == ["overlay.png"]


def test_the_overlay_lies_over_the_photo_and_its_legend_below(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    mask = np.zeros((480, 640), np.uint8)
    mask[:, 320:] = 1
    save_look(photo, mask, ["cat"], tmp_path / "a.png")
    shown = pixels(tmp_path / "a.png")
    assert shown.shape[1] == 640
    assert shown.shape[0] > 500
    np.testing.assert_allclose(
        shown[20:200, 20:300].mean((0, 1)), overlay(photo, mask)[20:200, 20:300].mean((0, 1)), atol=2
    )
    np.testing.assert_allclose(
        shown[20:200, 340:].mean((0, 1)), overlay(photo, mask)[20:200, 340:].mean((0, 1)), atol=2
    )
    assert (shown[490:] != 255).any()


def test_show_says_what_is_wrong(command, finished_run, shapes, tmp_path):
    photo = shapes / "photos/p04.jpg"
    before = photo.read_bytes()
    for arguments, says in (
        ((finished_run, tmp_path / "none.jpg"), "none.jpg"),
        ((finished_run, shapes / "tags.csv"), "tags.csv"),
        ((tmp_path, photo), "holds no run"),
        ((finished_run, photo, "--out", photo), "would be overwritten"),
        ((finished_run, photo, "--out", tmp_path), "cannot be written"),
    ):
        said = command("show", *arguments)
        assert said.code == 2
        assert len(said.err.splitlines()) == 1
        assert says in said.err
    assert photo.read_bytes() == before


def test_patterns(command, a_run, tmp_path):
    said = command("patterns", a_run)
    assert said.code == 0
    assert "2 pictures" in said.out
    assert sorted(file.name for file in (a_run / "report/patterns").iterdir()) == ["01-disc.png", "02-square.png"]
    (a_run / "patterns.safetensors").unlink()
    said = command("patterns", a_run, "--out", tmp_path / "pictures")
    assert said.code == 2
    assert "patterns.safetensors" in said.err
    assert not (tmp_path / "pictures").exists()


def test_typical_photos_have_the_highest_mean_score(finished_run, monkeypatch):
    monkeypatch.setattr(looks, "TYPICAL", 3)
    data = resume_run(finished_run).train
    patterns = ClassPatterns.load(finished_run / "patterns.safetensors")
    means = {}
    for samples, images in photo_batches(data.samples, patterns.size, workers=0):
        for sample, scores in zip(samples, patterns.score(images).numpy(), strict=True):
            means[sample.name] = scores.mean((1, 2))
    for label, photos in enumerate(looks.typical_photos(patterns, data), 1):
        wanted = sorted((s.name for s in data.samples if label in s.labels), key=lambda n: -means[n][label - 1])
        assert [photo.sample.name for photo in photos] == wanted[:3]
        assert [photo.scores.mean() for photo in photos] == pytest.approx(
            [means[n][label - 1] for n in wanted[:3]], rel=1e-4
        )


def test_pictures_of_classes_whose_names_are_no_file_names(finished_run, tmp_path):
    data = resume_run(finished_run).train
    patterns = ClassPatterns.load(finished_run / "patterns.safetensors")
    patterns.classes_ = ("../../$up_{", "_a/b" * 40)
    data = ImageSet(patterns.classes_, data.samples[:6])
    files = save_patterns(patterns, data, tmp_path / "deep/pictures")
    assert sorted(files) == sorted((tmp_path / "deep/pictures").iterdir())
    assert len(list(tmp_path.iterdir())) == 1
    assert all(len(file.name) < 50 and pixels(file).std() > 10 for file in files)


def test_names_that_matplotlib_takes_for_formulas(tmp_path):
    photo, mask = np.full((60, 80, 3), 90, np.uint8), np.ones((60, 80), np.uint8)
    for draw in (
        lambda file: save_look(photo, mask, ["$\\frac$"], file),
        lambda file: save_overview([OverviewRow("a$_{\nb\udcff", photo, proxy=mask)], ["_$\\frac$"], file),
    ):
        draw(tmp_path / "a.png")
        assert pixels(tmp_path / "a.png").std() > 10


def test_an_unreadable_photo_is_left_out_of_the_patterns(command, a_run, shapes, caplog):
    data = resume_run(a_run).train
    photo = shapes / "photos/p00.jpg"
    (a_run / "config.yaml").write_text(
        (a_run / "config.yaml").read_text().replace(str(data.samples[0].image.parents[1]), str(shapes))
    )
    photo.write_bytes(photo.read_bytes()[:900])
    assert command("patterns", a_run).code == 0
    assert "p00.jpg" in caplog.text
    said = command("patterns", a_run, "--strict")
    assert said.code == 2
    assert "p00.jpg" in said.err
    shutil.rmtree(shapes / "photos")
    assert command("patterns", a_run).code == 2
