"""Nothing stale: corrected tags, photos that come and go, in-memory data; what is said, redone, kept, refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml

import tag2mask as t2m
from tag2mask.config import load_recipe
from tag2mask.data import load, read_mask, write_mask
from tag2mask.errors import RunError
from tag2mask.runs.folder import Source, open_run, read_metrics, resume_run
from tag2mask.runs.lock import LOCK, locked
from tag2mask.runs.plan import plan
from tag2mask.runs.stages import STAGES, redo_stage, run_stages

SPLITS = {"split": "train", "eval_split": "val"}


@pytest.fixture
def moved(a_run, shapes):
    """A copy of the finished run, on a copy of its photos: both may be changed."""
    settings = yaml.safe_load((a_run / "config.yaml").read_text())
    settings["data"]["path"] = str(shapes)
    (a_run / "config.yaml").write_text(yaml.safe_dump(settings))
    return a_run


@pytest.fixture
def go_on(command, moved, shapes, recipe_file):
    """Call the run again, as a user does."""

    def call(*arguments):
        start = ("run", shapes, "--out", moved, "--recipe", recipe_file, "--split", "train", "--eval-split", "val")
        return command(*start, *arguments)

    return call


def retag(shapes, name, tags):
    table = (shapes / "tags.csv").read_text().splitlines()
    lines = [f"{name}.jpg,{tags}" if line.startswith(f"{name}.jpg,") else line for line in table]
    assert lines != table
    (shapes / "tags.csv").write_text("\n".join(lines) + "\n")


def written(run):
    """Return when each model and mask was written."""
    files = [
        *run.glob("*.safetensors"),
        *(f for kind in ("proxy", "retrain", "predictions") for f in (run / kind).iterdir()),
    ]
    return {file.relative_to(run).as_posix(): file.stat().st_mtime_ns for file in files}


def done_again(before, after):
    """Return the stems of models, and the folders of masks, of which something was written again."""
    return {name.rpartition("/")[0] or name.partition(".")[0] for name in after if after[name] != before.get(name)}


def test_nothing_has_changed(go_on, moved):
    before = written(moved)
    said = go_on()
    assert said.code == 0
    assert "changed" not in said.err.replace(str(moved), "")
    assert "every stage is done: nothing to do" in said.err
    assert "stages:" not in said.out
    assert written(moved) == before


@pytest.mark.parametrize("lost", ["predictions/p04.png", "proxy/p00.png", "report/index.html", "metrics.json"])
def test_what_is_missing_of_a_finished_run_is_made_again(go_on, moved, lost):
    before = (moved / lost).read_bytes()
    (moved / lost).unlink()
    said = go_on()
    assert said.code == 0
    assert "nothing to do" not in said.err
    assert "report: done in" in said.err
    if lost.endswith(".png"):
        assert (moved / lost).read_bytes() == before
    assert "nothing to do" in go_on().err


def test_a_mask_drawn_over_since_is_scored_and_shown(go_on, moved):
    write_mask(moved / "predictions/p04.png", np.zeros_like(read_mask(moved / "predictions/p04.png")))
    os.utime(moved / "predictions/p04.png", (time.time() + 5,) * 2)
    said = go_on()
    assert "evaluate: done in" in said.err
    assert "report: done in" in said.err


def test_scores_of_other_truth_are_not_left_by_a_process_that_was_killed(go_on, moved, shapes, monkeypatch):
    miou = read_metrics(moved)["proxy"]["miou"]
    write_mask(shapes / "masks/p00.png", np.zeros_like(read_mask(shapes / "masks/p00.png")))

    def killed(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(STAGES, "estimate", replace(STAGES["estimate"], do=killed))
        assert go_on().code == 130
    assert go_on().code == 0
    assert read_metrics(moved)["proxy"]["miou"] != miou


def test_corrected_tags_leave_nothing_old(go_on, moved, shapes):
    retag(shapes, "p00", "square")
    before = written(moved)
    said = go_on()
    assert said.code == 0
    assert f"other tags: 1 training photo (p00) since {moved} was made" in said.err
    assert "stages: classify, discover, estimate, segment, redraw, retrain, predict, evaluate, report" in said.out
    assert set(written(moved).values()).isdisjoint(before.values())
    for folder in ("proxy", "retrain"):
        assert 1 not in np.unique(read_mask(moved / folder / "p00.png"))  # no disc any more
    assert list(json.loads((moved / "data.json").read_text())["train"]["p00"]["tags"]) == ["square"]
    again = written(moved)
    assert "since" not in go_on().err
    assert written(moved) == again


def test_a_run_that_is_kept_goes_on_as_before_and_says_so(go_on, moved, shapes):
    retag(shapes, "p00", "square")
    before = written(moved)
    for _ in range(2):
        said = go_on("--keep")
        assert said.code == 0
        assert "other tags: 1 training photo (p00)" in said.err
        assert "results are kept" in said.err
        assert written(moved) == before


@pytest.mark.parametrize("change", ["added", "removed", "other files"])
def test_photos_that_come_go_or_change(go_on, moved, shapes, change):
    listed = (shapes / "train.txt").read_text().split()
    if change == "added":
        listed.append("p04")
    elif change == "removed":
        listed.remove("p13" if "p13" in listed else listed[-1])
    else:
        shutil.copy(shapes / "photos/p01.jpg", shapes / "photos/p02.jpg")
        shutil.copy(shapes / "masks/p01.png", shapes / "masks/p02.png")
    (shapes / "train.txt").write_text("\n".join(listed) + "\n")
    before = written(moved)
    said = go_on()
    assert said.code == 0, said.err
    assert f"{change}: 1 training photo (" in said.err
    after = written(moved)
    assert done_again(before, after) == {
        "classifier", "patterns", "segmenter", "segmenter-retrained", "proxy", "retrain", "predictions",
    }  # fmt: skip
    assert sorted(file.stem for file in (moved / "proxy").iterdir()) == sorted(listed)


def test_evaluation_photos_that_change_are_predicted_again_and_the_rest_stays(go_on, moved, shapes):
    (shapes / "val.txt").write_text("p04\np09\np13\np00\n")
    shutil.copy(shapes / "photos/p00.jpg", shapes / "photos/p09.jpg")
    shutil.copy(shapes / "masks/p00.png", shapes / "masks/p09.png")
    before, figures = written(moved), read_metrics(moved)
    said = go_on()
    assert said.code == 0, said.err
    assert "added: 1 evaluation photo (p00)" in said.err
    assert "other files: 1 evaluation photo (p09)" in said.err
    after = written(moved)
    assert {name for name in after if after[name] != before.get(name)} == {"predictions/p00.png", "predictions/p09.png"}
    assert read_metrics(moved)["classifier"]["images"] == 4  # measured again, not trained again
    assert read_metrics(moved)["prediction"]["images"] == 4
    assert read_metrics(moved)["patterns"] == figures["patterns"]


def test_an_evaluation_photo_that_goes_leaves_no_prediction(go_on, moved, shapes):
    (shapes / "val.txt").write_text("p04\np09\n")
    assert "removed: 1 evaluation photo (p13)" in go_on().err
    assert sorted(file.stem for file in (moved / "predictions").iterdir()) == ["p04", "p09"]


def test_true_masks_that_change_are_scored_again(go_on, moved, shapes):
    before, miou = written(moved), read_metrics(moved)["proxy"]["miou"]
    write_mask(shapes / "masks/p00.png", np.zeros_like(read_mask(shapes / "masks/p00.png")))
    said = go_on()
    assert "other true masks: 1 training photo (p00)" in said.err
    assert written(moved) == before
    assert read_metrics(moved)["proxy"]["miou"] != miou


def test_other_classes(go_on, moved, shapes):
    (shapes / "classes.txt").write_text("square\ndisc\n")
    said = go_on()
    assert said.code == 0
    assert "other classes: disc, square before, square, disc now" in said.err
    assert list(read_metrics(moved)["proxy"]["iou"]) == ["background", "square", "disc"]


def test_a_run_killed_while_it_removes_what_is_old(go_on, moved, shapes, monkeypatch):
    retag(shapes, "p00", "square")
    with monkeypatch.context() as patch:
        patch.setattr("tag2mask.runs.stages.write_fingerprint", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert go_on().code == 130
    assert not (moved / "segmenter.safetensors").exists()
    said = go_on("--until", "estimate")
    assert "other tags" in said.err
    assert said.code == 0
    assert 1 not in np.unique(read_mask(moved / "proxy/p00.png"))


@pytest.mark.parametrize("name", ["estimate", "evaluate", "report"])
def test_a_command_on_its_folder_refuses_changed_data(command, moved, shapes, name):
    retag(shapes, "p00", "square")
    before = written(moved)
    said = command(name, moved)
    assert said.code == 2
    assert "its data has changed (other tags: 1 training photo (p00)); update it with tag2mask run" in said.err
    assert written(moved) == before


def test_exported_masks_of_changed_data_are_said_to_be_old(command, moved, shapes, tmp_path):
    retag(shapes, "p00", "square")
    said = command("export", "coco", moved, "--out", tmp_path / "masks.json")
    assert said.code == 0
    assert "other tags: 1 training photo (p00)" in said.err
    assert "these masks are older" in said.err


def test_true_masks_that_change_are_no_reason_to_refuse(command, moved, shapes):
    before = read_metrics(moved)["proxy"]["miou"]
    write_mask(shapes / "masks/p00.png", np.zeros_like(read_mask(shapes / "masks/p00.png")))
    assert command("evaluate", moved).code == 0
    assert read_metrics(moved)["proxy"]["miou"] != before


def test_a_stage_done_again_removes_its_checkpoint_and_what_comes_after(a_run, finished_run):
    (a_run / ".segmenter.pt").write_bytes(b"of an old training")
    (a_run / ".segmenter-retrained.pt").write_bytes(b"of an old training")
    redo_stage(resume_run(a_run), "segment")
    assert sorted(file.name for file in a_run.glob(".*")) == [LOCK]
    assert not (a_run / "segmenter-retrained.safetensors").exists()
    assert not (a_run / "retrain").exists()
    assert "prediction" not in read_metrics(a_run)
    before, after = written_models(finished_run), written_models(a_run)
    assert after == {name: before[name] for name in ("classifier", "patterns", "segmenter")}


def written_models(run):
    from safetensors.torch import load_file

    return {
        file.stem: {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}
        for file in run.glob("*.safetensors")
    }


def test_a_stage_whose_needs_are_missing_removes_nothing(command, a_run):
    (a_run / "patterns.safetensors").unlink()
    before = written(a_run)
    said = command("segment", a_run)
    assert said.code == 2
    assert f"{a_run / 'patterns.safetensors'} does not exist" in said.err
    assert written(a_run) == before


def test_data_made_in_python_is_compared_too(shapes_folder, recipe_file, tmp_path):
    data = load(shapes_folder, split="train")
    data = data.with_samples(data.samples[:9])
    settings = ["segmenter.retrain=0", "segmenter.epochs=1", "classifier.epochs=5"]
    first = t2m.run(data, tmp_path / "run", recipe_file, settings=settings)
    before = written_models(first.out)
    t2m.run(data, tmp_path / "run", recipe_file, settings=settings)
    assert written_models(first.out) == before
    fewer = data.with_samples(data.samples[1:9])
    second = t2m.run(fewer, tmp_path / "run", recipe_file, settings=settings)
    assert len([*(second.out / "proxy").iterdir()]) == 8
    assert written_models(second.out)["classifier"] != before["classifier"]


def test_a_run_of_an_earlier_version_is_not_taken_up_unasked(go_on, moved):
    (moved / "data.json").unlink()
    said = go_on()
    assert said.code == 2
    assert "does not record its data" in said.err
    assert go_on("--keep").code == 0


def test_a_damaged_fingerprint(go_on, moved):
    (moved / "data.json").write_text('{"classes": 3}')
    said = go_on()
    assert said.code == 2
    assert f"{moved / 'data.json'} is damaged" in said.err


def test_a_second_process_is_told_that_the_folder_is_in_use(a_run):
    code = f"""
import sys
from pathlib import Path
from tag2mask.errors import RunError
from tag2mask.runs.lock import locked
try:
    with locked(Path({str(a_run)!r})):
        sys.exit("it was let in")
except RunError as error:
    print(error)
"""
    with locked(a_run):
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == f"another process works in {a_run}; wait until it ends, or choose another folder"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "it was let in" in said.stderr


def test_the_command_line_and_python_agree_on_a_run(command, shapes_folder, recipe_file, tmp_path, monkeypatch):
    """From two working folders, with relative paths, a table and a list beside, a path and a text."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(shapes_folder / "tags.csv", work / "my tags.csv")
    shutil.copy(shapes_folder / "val.txt", work / "some.txt")
    shutil.copytree(shapes_folder / "photos", work / "photos")
    monkeypatch.chdir(work)
    start = ("run", "photos", "--out", "run", "--recipe", recipe_file, "--labels", "my tags.csv")
    assert command(*start, "--split", "some.txt", "--until", "classify").code == 0
    monkeypatch.chdir(tmp_path)
    source = Source.of("work/photos", os.path.join("work", "my tags.csv"), work / "some.txt")
    assert resume_run(work / "run").source == source
    opened = open_run(work / "run", source, load_recipe(recipe_file))
    assert STAGES["classify"].is_done(opened)
    assert "stages: discover" in plan(opened)
    with pytest.raises(RunError, match=r"another run \(data.split is"):
        open_run(work / "run", Source.of("work/photos", "work/my tags.csv"), load_recipe(recipe_file))
    run_stages(opened, "discover")


@pytest.mark.parametrize("left", [["config.yaml"], ["config.yaml", "data.json"], [".lock", ".tag2mask-0123abcd-1.tmp"]])
def test_a_run_killed_as_it_began_starts_anew(go_on, moved, left):
    for path in moved.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in left:
            path.unlink()
    (moved / left[-1]).touch()
    said = go_on("--until", "classify")
    assert said.code == 0, said.err
    assert sorted(path.name for path in moved.iterdir()) == [
        ".lock", "classifier.safetensors", "config.yaml", "data.json", "metrics.json",
    ]  # fmt: skip


def test_a_stage_that_the_recipe_does_not_have_removes_nothing(command, a_run):
    values = yaml.safe_load((a_run / "config.yaml").read_text())
    values["recipe"]["segmenter"]["retrain"] = 0
    (a_run / "config.yaml").write_text(yaml.safe_dump(values))
    before = written(a_run)
    said = command("retrain", a_run)
    assert said.code == 2
    assert f"the recipe of {a_run} has no stage retrain" in said.err
    assert written(a_run) == before


@pytest.fixture
def copied(shapes):
    """Photos and true masks have the times of another machine."""
    for file in (*shapes.rglob("*.jpg"), *shapes.rglob("*.png")):
        os.utime(file, (time.time() - 1000,) * 2)


def test_a_copy_of_the_photos_is_the_same_data(go_on, moved, copied):
    before = written(moved)
    said = go_on()
    assert said.code == 0
    assert "since" not in said.err.replace(str(moved), "")
    assert written(moved) == before
    assert "checksums" not in go_on("--log-format", "json").err


def test_a_copy_of_the_photos_can_be_corrected_and_its_report_written(command, moved, copied):
    assert command("report", moved).code == 0
    assert command("next", moved, "--count", 2).code == 0


def test_another_photo_of_the_same_size_is_another_photo(go_on, moved, shapes):
    content = bytearray((shapes / "photos/p00.jpg").read_bytes())
    content[len(content) // 2] ^= 1
    (shapes / "photos/p00.jpg").write_bytes(content)
    assert "other files: 1 training photo (p00)" in go_on().err


def test_a_run_whose_data_has_no_checksums_goes_by_times(go_on, moved, shapes):
    known = json.loads((moved / "data.json").read_text())
    for photo in (*known["train"].values(), *known["evaluation"].values()):
        photo["photo"], photo["mask"] = photo["photo"][:2], photo["mask"] and photo["mask"][:2]
    (moved / "data.json").write_text(json.dumps(known))
    assert "nothing to do" in go_on().err
    os.utime(shapes / "photos/p00.jpg", (time.time() - 1000,) * 2)
    assert "other files: 1 training photo (p00)" in go_on().err
