"""Corrections into a run: kept, taught, done once, whole or not at all."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import tag2mask
from tag2mask.config import with_values
from tag2mask.corrections import refine as module
from tag2mask.data import read_mask, write_mask
from tag2mask.errors import UserError
from tag2mask.networks.kept import KeptFeatures
from tag2mask.runs import confidence, shadow, stages
from tag2mask.runs import refine as refining
from tag2mask.runs.corrected import shown_in
from tag2mask.runs.folder import resume_run
from tag2mask.runs.stages import run_stages


def test_corrected_masks_are_truth_everywhere(command, whole_run, drawn, truth, tmp_path, contents):
    names = ("p01", "p06", "p11")
    before = {file.name: read_mask(file) for file in (whole_run / "predictions").glob("*.png")}
    said = command("refine", whole_run, drawn(*names))
    assert said.code == 0, said.err
    assert "took the corrected masks of 3 photos" in said.out
    for name in names:
        for folder in ("corrected", "proxy", "refined", "predictions"):
            assert np.array_equal(read_mask(whole_run / folder / f"{name}.png"), truth(name)), (folder, name)
    metrics = json.loads((whole_run / "metrics.json").read_text("utf-8"))
    assert metrics["refined"]["images"] == metrics["proxy"]["images"] == 14 - len(names)
    assert metrics["corrections"]["thresholds"]["disc"]["photos"] == 2
    assert any(not np.array_equal(read_mask(whole_run / "predictions" / name), mask) for name, mask in before.items())
    assert not (whole_run / shadow.FOLDER).exists()
    for file in (whole_run / "proxy").glob("*.png"):  # no stage overwrites them
        file.unlink()
    run_stages(resume_run(whole_run))
    assert np.array_equal(read_mask(whole_run / "proxy/p01.png"), truth("p01"))

    state = contents(whole_run)
    again = command("refine", whole_run, drawn(*names))
    assert "nothing to do" in again.err
    assert contents(whole_run) == state
    said = command("export", "labelme", whole_run, "--out", tmp_path / "labels")
    assert said.code == 0, said.err
    shapes = json.loads((tmp_path / "labels/p01.json").read_text("utf-8"))["shapes"]
    assert [shape["label"] for shape in shapes] == ["disc"]


def test_the_second_refinement_sees_only_the_mirror_image_of_a_new_correction(monkeypatch, command, whole_run, drawn):
    assert command("refine", whole_run, drawn("p01", "p06")).code == 0
    for part in ("64", "scores"):
        assert len(list((whole_run / "features" / part).glob("*.safetensors"))) == 14
    proxy = {file.name: file.read_bytes() for file in (whole_run / "proxy").glob("*.png")}

    def unexpected(*_, **__):
        raise AssertionError("a photo is seen again")

    see = KeptFeatures._see

    def new(self, sample, side, mirrored):
        assert (sample.name, mirrored) == ("p11", True)
        return see(self, sample, side, mirrored)

    monkeypatch.setattr(KeptFeatures, "_see", new)
    monkeypatch.setattr(confidence, "photo_batches", unexpected)
    said = command("refine", whole_run, drawn("p11", folder="more"))
    assert said.code == 0, said.err
    changed = {name for name, content in proxy.items() if (whole_run / "proxy" / name).read_bytes() != content}
    assert changed == {"p11.png"}


def test_a_correction_that_is_taken_back(command, whole_run, drawn, truth):
    before, drawn_again = read_mask(whole_run / "proxy/p01.png"), read_mask(whole_run / "retrain/p01.png")
    assert command("refine", whole_run, drawn("p01", "p06")).code == 0
    assert np.array_equal(read_mask(whole_run / "retrain/p01.png"), truth("p01"))
    (whole_run / "corrected/p01.png").unlink()
    run_stages(resume_run(whole_run))
    assert not np.array_equal(read_mask(whole_run / "proxy/p01.png"), truth("p01"))
    assert read_mask(whole_run / "proxy/p01.png").shape == before.shape
    assert np.array_equal(read_mask(whole_run / "retrain/p01.png"), drawn_again)
    assert np.array_equal(read_mask(whole_run / "proxy/p06.png"), truth("p06"))
    assert json.loads((whole_run / "metrics.json").read_text("utf-8"))["corrections"]["photos"] == 1


def test_a_run_with_other_photos_to_predict(command, a_run, drawn, shapes_folder, recipe_file):
    before = (a_run / "segmenter-retrained.safetensors").read_bytes()
    said = command("refine", a_run, drawn("p00", "p05"))
    assert said.code == 0, said.err
    assert (a_run / "segmenter-refined.safetensors").exists()
    assert (a_run / "segmenter-retrained.safetensors").read_bytes() == before
    assert resume_run(a_run).segmenter_file.name == "segmenter-refined.safetensors"
    assert len(list((a_run / "refined").glob("*.png"))) == 11
    again = command(
        "run", shapes_folder, "--recipe", recipe_file, "--split", "train", "--eval-split", "val", "--out", a_run
    )
    assert "nothing to do" in again.err, again.err
    said = command("refine", a_run, drawn("p04", folder="val"))
    assert said.code == 2
    assert "scored on" in said.err
    assert len(said.err.splitlines()) == 1


def test_a_mask_that_contradicts_the_tags(command, whole_run, tmp_path, truth):
    mask = truth("p01").copy()
    mask[:20, :20] = 2
    write_mask(tmp_path / "drawn/p01.png", mask)
    said = command("refine", whole_run, tmp_path / "drawn")
    assert said.code == 0, said.err
    assert "p01: its mask shows square, which its tags do not name: the mask is taken; --yes" in said.err
    assert (read_mask(whole_run / "predictions/p01.png") == 2).any()
    assert resume_run(whole_run).train.samples[1].labels == (1,)
    said = command("refine", whole_run, tmp_path / "drawn", "--yes")
    assert said.code == 0, said.err
    assert "its tags are now disc, square" in said.err
    assert "classify" in said.err
    assert resume_run(whole_run).train.samples[1].labels == (1, 2)
    assert "nothing to do" in command("refine", whole_run, tmp_path / "drawn", "--yes").err


def test_corrected_tags_from_a_table(command, whole_run, tmp_path):
    (tmp_path / "tags.csv").write_text("image,labels\np01.jpg,disc;square\np02.jpg,disc\n", "utf-8")
    said = command("refine", whole_run, tmp_path / "tags.csv")
    assert said.code == 0, said.err
    assert "corrected tags of 1" in said.out
    assert [sample.labels for sample in resume_run(whole_run).train.samples[1:3]] == [(1, 2), (1,)]
    assert not (whole_run / "segmenter-refined.safetensors").exists()


def test_masks_that_nobody_changed_are_no_corrections(command, whole_run, truth, tmp_path):
    folder = tmp_path / "labels"
    for file in (whole_run / "predictions").glob("*.png"):
        write_mask(folder / file.name, read_mask(file))
    assert "nothing to do" in command("refine", whole_run, folder).err
    write_mask(folder / "p03.png", truth("p03"))
    said = command("refine", whole_run, folder)
    assert "took the corrected masks of 1 photos; 13 are as they were exported" in said.out, said.err
    # The same folder with one more correction, though the run has made other masks since.
    write_mask(folder / "p07.png", truth("p07"))
    said = command("refine", whole_run, folder)
    assert "took the corrected masks of 1 photos; 12 are" in said.out, said.out + said.err
    assert sorted(file.stem for file in (whole_run / "corrected").glob("*.png")) == ["p03", "p07"]
    assert "took the corrected masks of 12 photos" in command("refine", whole_run, folder, "--all").out


def test_from_python(whole_run, drawn):
    done = tag2mask.refine(whole_run, drawn("p02"))
    assert done.taken == ("p02",)
    assert done.format == "png"
    assert done.scores.refined.images == 13


@pytest.mark.parametrize("stage", ["estimate", "refine", "predict", "report"])
def test_a_process_that_ends_early_leaves_the_run_as_it_was(monkeypatch, whole_run, drawn, contents, stage):
    state = contents(whole_run)

    def end(run, *rest):
        raise KeyboardInterrupt

    one = stages.STAGES[stage]
    monkeypatch.setitem(stages.STAGES, stage, replace(one, do=end))
    with pytest.raises(KeyboardInterrupt):
        tag2mask.refine(whole_run, drawn("p02"))
    assert contents(whole_run) == state


def test_killed_while_the_new_run_takes_its_place(monkeypatch, whole_run, drawn, truth):
    """At the moment when all is done the run is as after, whatever was moved already."""
    replaced = os.replace

    def until_refined(source, target):
        if os.path.basename(target) == "refined":
            raise SystemExit(9)
        replaced(source, target)

    monkeypatch.setattr(shadow.os, "replace", until_refined)
    with pytest.raises(SystemExit):
        tag2mask.refine(whole_run, drawn("p02"))
    monkeypatch.undo()
    assert (whole_run / shadow.FOLDER / "done").exists()
    run = resume_run(whole_run)
    assert not (whole_run / shadow.FOLDER).exists()
    assert np.array_equal(read_mask(whole_run / "refined/p02.png"), truth("p02"))
    assert not module.stages_to_do(run)


def test_a_run_that_is_not_finished_is_refused(whole_run, drawn, contents):
    (whole_run / "segmenter-retrained.safetensors").unlink()
    state = contents(whole_run)
    with pytest.raises(UserError, match="call tag2mask run"):
        tag2mask.refine(whole_run, drawn("p02"))
    assert contents(whole_run) == state


def test_what_no_corrected_mask_shows_is_learnt_from_the_runs_own_masks(monkeypatch, whole_run, drawn, truth):
    given = {}
    monkeypatch.setattr(refining, "RIGHT", 0.0)  # own masks of shapes are seldom right
    monkeypatch.setattr(refining, "train_segmenter", lambda net, samples, masks, *_, **more: given.update(
        shown={one.name: one.labels for one in samples}, masks=masks.name, often=more["often"]))  # fmt: skip
    tag2mask.refine(whole_run, drawn("p01"))  # a disc
    assert next(iter(given["shown"])) == "p01"
    assert np.array_equal(read_mask(whole_run / given["masks"] / "p01.png"), truth("p01"))
    counts = Counter(label for labels in given["shown"].values() for label in labels)
    run = resume_run(whole_run)
    own = {one.name: shown_in(read_mask(whole_run / given["masks"] / f"{one.name}.png")) for one in run.train.samples}
    assert given["shown"] == {name: own[name] for name in given["shown"]}
    assert set(given["often"]) == set(given["shown"])
    shown = Counter(label for labels in own.values() for label in labels)
    assert all(counts[label] >= min(3, shown[label]) for label in (1, 2))
    corrected = refining.photos_to_learn(run)
    run.recipe = with_values(run.recipe, {"refine.remember": 1})
    assert {label for one in refining.photos_to_remember(run, corrected) for label in one.labels} >= {2}
    assert refining.photos_to_remember(run, corrected, {2}) == []  # the disc is corrected, and squares are wrong
    monkeypatch.setattr(refining, "RIGHT", 0.3)
    assert refining.wrong_classes(np.array([0.1, np.nan, 0.31])) == {1}
    assert refining.wrong_classes(np.array([0.1, np.nan, 0.8])) == set()  # most are right
    assert refining.wrong_classes(np.array([np.nan])) == set()
    run.recipe = with_values(run.recipe, {"refine.remember": 0})
    assert refining.photos_to_remember(run, corrected) == []


def test_a_run_that_does_not_record_its_data_is_refused(command, whole_run, drawn):
    (whole_run / "data.json").unlink()
    said = command("refine", whole_run, drawn("p01"))
    assert said.code == 2
    assert "does not record its data" in said.err
    assert not (whole_run / "corrected").exists()
