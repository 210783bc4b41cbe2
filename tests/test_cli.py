"""The command line: a whole run, predictions, scores, and one clear line for every wrong input."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image

from tag2mask.data import load, photo_size, read_mask, write_mask
from tag2mask.runs.folder import resume_run

SPLITS = ("--split", "train", "--eval-split", "val")


def state(folder):
    """Return what is in a folder, None where there is none."""
    if not folder.exists():
        return None
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def remove(folder, names):
    for name in names:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


@pytest.fixture
def wrong(command):
    """Call a command that must end in exit code 2, one line, and nothing written in ``out``; return the line."""

    def call(*arguments, out, says):
        before = state(out)
        said = command(*arguments)
        assert said.code == 2
        assert "Traceback" not in said.err + said.out
        lines = said.err.splitlines()
        assert len(lines) == 1, said.err
        assert lines[0].startswith("tag2mask: ")
        assert says in lines[0]
        assert state(out) == before
        return lines[0]

    return call


@pytest.fixture
def wrong_run(wrong, recipe_file, tmp_path):
    """Start a run that must be refused before anything is written."""

    def call(data, *arguments, says):
        out = tmp_path / "out"
        return wrong("run", data, "--out", out, "--recipe", recipe_file, *arguments, out=out, says=says)

    return call


def test_a_whole_run_says_what_it_does_and_ends_with_scores(command, a_run, shapes_folder, recipe_file):
    shutil.rmtree(a_run / "predictions")
    before = {file: file.stat().st_mtime_ns for file in a_run.glob("*.safetensors")}
    said = command("run", shapes_folder, "--out", a_run, "--recipe", recipe_file, *SPLITS)
    assert said.code == 0
    assert "11 photos of 2 classes" in said.out
    assert "evaluation: 3 photos" in said.out
    assert "stages: estimate, redraw, predict, evaluate, report; roughly" in said.out
    assert "mIoU" in said.out
    assert str(a_run) in said.out.replace("\n", "")
    assert {file: file.stat().st_mtime_ns for file in before} == before
    metrics = json.loads((a_run / "metrics.json").read_text())
    assert isinstance(metrics["proxy"]["miou"], float)
    assert isinstance(metrics["prediction"]["miou"], float)


def test_until_a_stage_and_on_from_there(command, finished_run, shapes_folder, recipe_file, tmp_path):
    out = tmp_path / "out"
    start = ("run", shapes_folder, "--out", out, "--recipe", recipe_file, *SPLITS)
    assert command(*start, "--until", "discover").code == 0
    assert sorted(file.name for file in out.iterdir()) == [
        ".lock", "classifier.safetensors", "config.yaml", "data.json", "metrics.json", "patterns.safetensors",
    ]  # fmt: skip
    assert command(*start, "--until", "segment").code == 0
    assert not (out / "predictions").exists()
    assert command(*start).code == 0
    mine, theirs = (json.loads((run / "metrics.json").read_text()) for run in (out, finished_run))
    assert [mine[name] for name in ("classifier", "patterns", "proxy", "retrain", "prediction")] == [
        theirs[name] for name in ("classifier", "patterns", "proxy", "retrain", "prediction")
    ]
    for folder in ("proxy", "retrain", "predictions"):
        for file in (finished_run / folder).iterdir():
            assert file.read_bytes() == (out / folder / file.name).read_bytes()


def test_a_stage_that_there_is_not(wrong_run, shapes_folder):
    assert "discover" in wrong_run(shapes_folder, "--until", "dicsover", says="dicsover")


@pytest.mark.parametrize("stage", ["estimate", "report"])
def test_a_stage_again(command, a_run, stage):
    folder = {"estimate": "proxy", "report": "report"}[stage]
    before = {file.name: file.stat().st_mtime_ns for file in (a_run / folder).iterdir()}
    said = command(stage, a_run)
    assert said.code == 0
    after = {file.name: file.stat().st_mtime_ns for file in (a_run / folder).iterdir()}
    assert set(after) == set(before)
    assert all(after[name] > before[name] for name in before)


def test_every_stage_is_a_command(command):
    said = command("--help").out
    for name in (
        "classify",
        "discover",
        "estimate",
        "segment",
        "retrain",
        "predict",
        "evaluate",
        "report",
        "run",
        "demo",
    ):
        assert f" {name} " in said


def test_predict_a_folder(command, finished_run, shapes, tmp_path):
    (shapes / "photos/more").mkdir()
    photo = np.random.default_rng(0).integers(0, 256, (41, 83), np.uint8)
    Image.fromarray(photo).save(shapes / "photos/more/grey.PNG")
    said = command("predict", finished_run, shapes / "photos", "--out", tmp_path / "masks")
    assert said.code == 0
    assert "15 of 15 masks" in said.out
    files = sorted(file.relative_to(tmp_path / "masks").as_posix() for file in (tmp_path / "masks").rglob("*.png"))
    assert files == ["more/grey.png", *(f"p{number:02}.png" for number in range(14))]
    for file in (tmp_path / "masks").rglob("*.png"):
        with Image.open(file) as image:
            assert image.mode == "P"
    assert read_mask(tmp_path / "masks/more/grey.png").shape == (41, 83)
    assert read_mask(tmp_path / "masks/p01.png").shape == photo_size(shapes / "photos/p01.jpg")
    assert (tmp_path / "masks/p04.png").read_bytes() == (finished_run / "predictions/p04.png").read_bytes()


def test_predict_one_photo_a_split_and_an_earlier_segmenter(command, finished_run, shapes_folder, tmp_path):
    photo = shapes_folder / "photos/p04.jpg"
    assert command("predict", finished_run, photo, "--out", tmp_path / "one").code == 0
    assert [file.name for file in (tmp_path / "one").iterdir()] == ["p04.png"]
    assert command("predict", finished_run, shapes_folder, "--split", "val", "--out", tmp_path / "val").code == 0
    assert sorted(file.stem for file in (tmp_path / "val").iterdir()) == ["p04", "p09", "p13"]
    first = ("predict", finished_run, shapes_folder, "--split", "val", "--rounds", 0, "--out", tmp_path / "first")
    assert command(*first).code == 0
    masks = [b"".join(file.read_bytes() for file in sorted((tmp_path / name).iterdir())) for name in ("val", "first")]
    assert masks[0] != masks[1]


def test_predict_again_with_another_segmenter_gives_its_masks(command, finished_run, shapes_folder, tmp_path):
    """Masks of another run in the folder are not passed off as this run's."""
    arguments = (shapes_folder, "--split", "val", "--out", tmp_path / "masks")
    assert command("predict", finished_run, *arguments, "--rounds", 0).code == 0
    assert command("predict", finished_run, *arguments, "--rounds", 0).code == 0
    said = command("predict", finished_run, *arguments)
    same = [
        (tmp_path / f"masks/{name}.png").read_bytes() == (finished_run / f"predictions/{name}.png").read_bytes()
        for name in ("p04", "p09", "p13")
    ]
    assert said.code == 2 or all(same)


def test_predict_resumed_keeps_the_masks_that_are_there(command, finished_run, shapes_folder, tmp_path):
    arguments = ("predict", finished_run, shapes_folder, "--split", "val", "--out", tmp_path / "masks")
    assert command(*arguments).code == 0
    (tmp_path / "masks/p09.png").unlink()
    kept = (tmp_path / "masks/p04.png").stat().st_mtime_ns
    assert command(*arguments, "--resume").code == 0
    assert (tmp_path / "masks/p04.png").stat().st_mtime_ns == kept
    assert (tmp_path / "masks/p09.png").read_bytes() == (finished_run / "predictions/p09.png").read_bytes()


def test_predict_never_takes_photos_for_masks(command, finished_run, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photos/a.png")
    before = (tmp_path / "photos/a.png").read_bytes()
    said = command("predict", finished_run, tmp_path / "photos", "--out", tmp_path / "photos")
    assert (tmp_path / "photos/a.png").read_bytes() == before
    assert said.code == 2


def test_predict_leaves_unreadable_photos_out_unless_strict(command, finished_run, shapes, tmp_path):
    broken = shapes / "photos/p03.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    said = command("predict", finished_run, shapes / "photos", "--out", tmp_path / "masks")
    assert said.code == 0
    assert "13 of 14 masks" in said.out
    assert "p03.jpg" in said.err
    said = command("predict", finished_run, shapes / "photos", "--out", tmp_path / "strict", "--strict")
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("tag2mask: ")
    assert "p03.jpg" in said.err


def test_evaluate_prints_and_writes(command, finished_run, shapes_folder, tmp_path):
    arguments = (finished_run / "predictions", shapes_folder / "masks", "--split", shapes_folder / "val.txt")
    files = ("--json", tmp_path / "new/scores.json", "--csv", tmp_path / "scores.csv")
    said = command("evaluate", *arguments, "--classes", shapes_folder / "classes.txt", *files)
    assert said.code == 0
    scores = json.loads((tmp_path / "new/scores.json").read_text())
    wanted = json.loads((finished_run / "metrics.json").read_text())["prediction"]
    assert scores == wanted
    assert "mIoU" in said.out
    assert f"{scores['miou']:.1f}" in said.out
    rows = list(csv.reader((tmp_path / "scores.csv").open()))
    assert [row[0] for row in rows] == ["class", "background", "disc", "square", "mIoU"]
    assert float(rows[-1][1]) == scores["miou"]


def test_evaluate_a_run_again(command, a_run, tmp_path):
    before = json.loads((a_run / "metrics.json").read_text())
    said = command("evaluate", a_run, "--json", tmp_path / "scores.json", "--csv", tmp_path / "scores.csv")
    assert said.code == 0
    assert json.loads((tmp_path / "scores.json").read_text())["prediction"] == before["prediction"]
    assert (tmp_path / "scores.csv").read_text().startswith("class,proxy,retrain,prediction\n")


def test_a_demo_of_another_kind_needs_another_folder(command, a_run):
    before = sorted(a_run.rglob("*"))
    said = command("demo", "--kind", "blobs", "--out", a_run)
    assert said.code == 2
    assert "choose another folder with --out" in said.err
    assert sorted(a_run.rglob("*")) == before


def test_recipes(command, tmp_path):
    assert {"fast", "demo"} <= set(command("recipes").out.split())
    assert yaml.safe_load(command("recipes", "fast").out)["name"] == "fast"


# Bad input


def test_a_missing_folder(wrong_run, tmp_path):
    wrong_run(tmp_path / "none", says=str(tmp_path / "none"))


def test_an_empty_folder(wrong_run, tmp_path):
    (tmp_path / "empty").mkdir()
    wrong_run(tmp_path / "empty", says="no photos")


def test_a_missing_table_or_split(wrong_run, shapes_folder):
    wrong_run(shapes_folder, "--labels", "none.csv", says="none.csv")
    assert "did you mean 'train'?" in wrong_run(shapes_folder, "--split", "trian", says="no such split")
    wrong_run(shapes_folder, "--split", "train", "--eval-split", "tset", says="no such split")


def test_a_table_with_unknown_columns(wrong_run, shapes):
    (shapes / "tags.csv").write_text("image,shown\np00.jpg,disc\n")
    assert "image,labels" in wrong_run(shapes, says="unknown columns 'shown'")


def test_a_photo_without_tags(wrong_run, shapes):
    lines = (shapes / "tags.csv").read_text().splitlines(keepends=True)
    (shapes / "tags.csv").write_text("".join(line for line in lines if "p06" not in line))
    wrong_run(shapes, says="p06")


def test_tags_for_no_photo(wrong_run, shapes):
    with (shapes / "tags.csv").open("a") as table:
        table.write("p99.jpg,disc\n")
    wrong_run(shapes, says="p99")


def test_a_class_of_one_photo(wrong_run, shapes):
    table = (shapes / "tags.csv").read_text()
    (shapes / "tags.csv").write_text(table.replace("p00.jpg,disc", "p00.jpg,disc;star"))
    (shapes / "classes.txt").write_text("disc\nsquare\nstar\n")
    wrong_run(shapes, says="'star' (1)")


def test_a_class_of_no_photo_is_left_out(command, shapes, recipe_file, tmp_path):
    """Of a split too, whose other photos may have it; its true pixels then are background."""
    (shapes / "classes.txt").write_text("star\ndisc\nsquare\n")
    for file in (shapes / "masks").iterdir():
        mask = read_mask(file)
        write_mask(file, np.where(np.isin(mask, [1, 2]), mask + 1, mask).astype(np.uint8))
    start = ("run", shapes, "--out", tmp_path / "out", "--recipe", recipe_file, "--until", "classify")
    said = command(*start, "--split", "train", "--eval-split", "val")
    assert (said.code, said.err.count("star")) == (0, 0)
    assert "left out, since no photo has them: 'star' (1 of 3 classes)" in said.out
    data = resume_run(tmp_path / "out").evaluation
    assert data.classes == ("disc", "square")
    assert set(np.unique(data.truth(data[-1]))) == {0, *data[-1].labels}
    assert command(*start, "--split", "train", "--eval-split", "val").code == 0


def test_true_masks_are_checked_before_the_start(wrong_run, shapes):
    """Not by the evaluation, which comes after all the work."""
    mask = read_mask(shapes / "masks/p07.png")
    for value, said in ((9, "p07.png: class index 9, but there are 2 classes"), (255, "")):
        mask[mask > 0] = value
        write_mask(shapes / "masks/p07.png", mask)
        if said:
            wrong_run(shapes, says=said)
    for file in (shapes / "masks").iterdir():
        write_mask(file, np.where(read_mask(file), 255, 0).astype(np.uint8))
    wrong_run(shapes, says="and the 13 other true masks hold no other values than 0 and 255, and 255 means")


def test_masks_of_0_and_255_have_no_score(command, shapes_folder, tmp_path):
    for file in (shapes_folder / "masks").iterdir():
        write_mask(tmp_path / "white" / file.name, np.where(read_mask(file), 255, 0).astype(np.uint8))
    for pair in ((shapes_folder / "masks", tmp_path / "white"), (tmp_path / "white", tmp_path / "white")):
        said = command("evaluate", *pair)
        assert said.code == 2
        assert f"{tmp_path / 'white'}: the masks hold no other values than 0 and 255, and 255 means" in said.err
    names = ("--classes", shapes_folder / "classes.txt", "--out", tmp_path / "yolo")
    said = command("export", "yolo", tmp_path / "white", *names)
    assert said.code == 2
    assert "255 means that a pixel is ignored" in said.err
    assert not (tmp_path / "yolo").exists()


def test_evaluate_takes_the_names_that_run_takes(command, shapes_folder, tmp_path):
    masks = tmp_path / "masks"
    for file in (shapes_folder / "masks").iterdir():
        Image.open(file).save(masks.mkdir(exist_ok=True) or masks / f"{file.stem}.tif")
    (masks / "._p00.png").write_bytes(b"of macOS")
    (masks / "p00.jpg").write_bytes(b"")
    (tmp_path / "few.txt").write_text("photos\\p00.JPG\n/home/me/p05.jpg\np01.png 1\n")
    for pair in ((shapes_folder / "masks", masks), (masks, shapes_folder / "masks")):
        said = command("evaluate", *pair, "--split", tmp_path / "few.txt", "--json", tmp_path / "scores.json")
        assert said.code == 0, said.err
        scores = json.loads((tmp_path / "scores.json").read_text())
        assert (scores["miou"], scores["images"]) == (100, 3)
    assert "skipped: 1 images in the folder of true masks, the first is" in command("evaluate", *pair[::-1]).err
    (tmp_path / "twice.txt").write_text("disc\ndisc\n")
    said = command("evaluate", *pair, "--classes", tmp_path / "twice.txt")
    assert (said.code, "class 'disc' occurs twice" in said.err) == (2, True)


def test_predictions_are_never_taken_for_photos(command, finished_run, shapes, recipe_file, tmp_path):
    photos, before = shapes / "photos", len(list((shapes / "photos").iterdir()))
    for out in (photos / "masks", photos, shapes / "masks/mine"):
        said = command("predict", finished_run, shapes, "--out", out)
        assert said.code == 2
        assert f"choose a folder outside of {shapes}" in said.err
    shutil.copytree(finished_run, photos / "runs/mine")
    assert len(load(shapes)) == before
    said = command("predict", finished_run, photos, "--out", tmp_path / "masks")
    assert (said.code, f"{before} of {before} masks" in said.out) == (0, True)
    said = command("run", photos / "runs/mine", "--out", tmp_path / "out", "--recipe", recipe_file)
    assert (said.code, "this is the folder of a run; give the folder of its photos" in said.err) == (2, True)


def test_no_mask_at_all_is_no_success(command, finished_run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"")
    said = command("predict", finished_run, tmp_path / "photos", "--out", tmp_path / "masks")
    assert said.code == 2
    assert "no mask was written, since no photo can be read" in said.err
    assert "a.jpg: the photo cannot be read (the file is empty)" in said.err
    assert not (tmp_path / "masks").exists()


def test_photos_that_became_unreadable_are_one_line_and_their_older_masks_do_not_count(
    command, finished_run, shapes, tmp_path
):
    predict = ("predict", finished_run, shapes, "--out", tmp_path / "masks", "--set", "inference.crf=null")
    assert "14 of 14 masks" in command(*predict).out
    for number in (2, 5, 6):
        (shapes / f"photos/p{number:02}.jpg").write_bytes(b"")
    said = command(*predict)
    assert (said.code, "11 of 14 masks" in said.out) == (0, True)
    assert said.err.count("skipped") == 1
    assert "skipped: 3, such as" in said.err
    assert "p02.jpg: the photo cannot be read (the file is empty)" in said.err
    assert "14 of 14 masks" in command(*predict, "--resume").out  # those that are there are kept


def test_a_tag_that_the_list_of_classes_has_not(wrong_run, shapes):
    (shapes / "classes.txt").write_text("disc\nsqare\n")
    wrong_run(shapes, says="square")


def test_a_mask_of_another_size(wrong_run, shapes):
    write_mask(shapes / "masks/p07.png", np.zeros((10, 20), np.uint8))
    wrong_run(shapes, "--until", "classify", says="p07.png")


def test_a_mask_of_another_size_in_an_evaluation(wrong, shapes_folder, shapes, tmp_path):
    write_mask(shapes / "masks/p07.png", np.zeros((10, 20), np.uint8))
    scores = tmp_path / "scores.json"
    wrong("evaluate", shapes / "masks", shapes_folder / "masks", "--json", scores, out=scores, says="p07.png")
    wrong("evaluate", shapes_folder / "masks", shapes / "masks", "--json", scores, out=scores, says="p07.png")


def test_a_mask_missing_in_an_evaluation(wrong, shapes_folder, shapes, tmp_path):
    (shapes / "masks/p07.png").unlink()
    wrong("evaluate", shapes / "masks", shapes_folder / "masks", out=tmp_path, says="the first is p07.png")
    wrong("evaluate", shapes / "none", shapes_folder / "masks", out=tmp_path, says="no such folder")
    (tmp_path / "list.txt").write_text("p00\nq00\n")
    arguments = (shapes_folder / "masks", shapes_folder / "masks", "--split", tmp_path / "list.txt")
    wrong("evaluate", *arguments, out=tmp_path, says="q00")


def test_too_few_classes_named_in_an_evaluation(wrong, shapes_folder, tmp_path):
    (tmp_path / "classes.txt").write_text("disc\n")
    masks = shapes_folder / "masks"
    wrong("evaluate", masks, masks, "--classes", tmp_path / "classes.txt", out=tmp_path, says="class 2")


@pytest.mark.parametrize("done", ["classify", "discover", "segment", "predict"])
def test_a_class_list_that_disagrees_with_the_saved_models(command, a_run, shapes_folder, recipe_file, tmp_path, done):
    """A third class has come in since, and every stage must notice, even where the run is to be kept as it is."""
    data = shutil.copytree(shapes_folder, tmp_path / "data")
    settings = yaml.safe_load((a_run / "config.yaml").read_text())
    settings["data"]["path"] = str(data)
    (a_run / "config.yaml").write_text(yaml.safe_dump(settings))
    table = (data / "tags.csv").read_text().replace("jpg,disc", "jpg,disc;star")
    (data / "tags.csv").write_text(table)
    (data / "classes.txt").write_text("star\ndisc\nsquare\n")
    undone = {
        "classify": ["patterns.safetensors", "proxy", "segmenter.safetensors", "segmenter-retrained.safetensors"],
        "discover": ["proxy", "segmenter.safetensors", "segmenter-retrained.safetensors"],
        "segment": ["segmenter-retrained.safetensors", "retrain", "predictions"],
        "predict": [],
    }[done]
    remove(a_run, undone)
    before = set(state(a_run))
    said = command("run", data, "--out", a_run, "--recipe", recipe_file, *SPLITS, "--keep")
    assert said.code == 2
    assert "Traceback" not in said.err
    assert said.err.splitlines()[-1].startswith("tag2mask: ")
    assert "classes" in said.err.splitlines()[-1]
    assert set(state(a_run)) == before


@pytest.mark.parametrize("keep", [0, 0.7])
@pytest.mark.parametrize(
    ("name", "undone"),
    [
        ("classifier", ["patterns.safetensors"]),
        ("patterns", ["proxy"]),
        ("segmenter", ["segmenter-retrained.safetensors", "retrain"]),
        ("segmenter-retrained", ["predictions"]),
    ],
)
def test_a_corrupt_safetensors_file(command, a_run, shapes_folder, recipe_file, name, undone, keep):
    file = a_run / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    remove(a_run, undone)
    before = set(state(a_run))
    said = command("run", shapes_folder, "--out", a_run, "--recipe", recipe_file, *SPLITS)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert said.err.splitlines()[-1].startswith(f"tag2mask: {file} is corrupt")
    assert set(state(a_run)) == before


def test_a_corrupt_segmenter_for_predict(wrong, a_run, shapes_folder, tmp_path):
    file = a_run / "segmenter-retrained.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    arguments = ("predict", a_run, shapes_folder, "--out", tmp_path / "masks")
    wrong(*arguments, out=tmp_path / "masks", says="segmenter-retrained.safetensors is corrupt")


def test_a_corrupt_file_of_weights(wrong_run, shapes_folder, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"nothing of the kind")
    setting = f"backbone.weights={tmp_path / 'weights.safetensors'}"
    wrong_run(shapes_folder, "--set", setting, says="weights.safetensors is corrupt")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("backbone.name=resnet1O", "timm has no network 'resnet1O'"),
        ("patterns.layers=[layr4.0]", "has no layer 'layr4.0'; did you mean 'layer4.0'?"),
        ("segmenter.train_from=layr4", "has no layer 'layr4'; did you mean 'layer4"),
        ("backbone.weights=none.safetensors", "no weights file none.safetensors"),
    ],
)
def test_a_network_layer_or_weights_that_there_are_not(wrong_run, shapes_folder, setting, says):
    """Seen before anything is written, so that the mended command can use the same folder."""
    wrong_run(shapes_folder, "--set", setting, says=says)


def test_a_misspelt_key_names_the_nearest(wrong, wrong_run, shapes_folder, recipe_file, tmp_path):
    wrong_run(shapes_folder, "--set", "segmenter.epcohs=3", says="'segmenter.epcohs'; did you mean 'epochs'?")
    file = tmp_path / "wrong.yaml"
    file.write_text(recipe_file.read_text().replace("backbone:", "backbon:"))
    out = tmp_path / "out"
    wrong("run", shapes_folder, "--out", out, "--recipe", file, out=out, says="did you mean 'backbone'?")
    wrong("run", shapes_folder, "--out", out, "--recipe", "fats", out=out, says="did you mean 'fast'?")


def test_a_misspelt_key_for_predict(wrong, finished_run, shapes_folder, tmp_path):
    out = tmp_path / "masks"
    arguments = ("predict", finished_run, shapes_folder, "--out", out, "--set", "inference.scale=[64]")
    wrong(*arguments, out=out, says="did you mean 'scales'?")


def test_the_folder_of_another_run(wrong, finished_run, shapes, shapes_folder, recipe_file):
    start = ("run", shapes_folder, "--out", finished_run, "--recipe", recipe_file)
    wrong(*start, *SPLITS, "--set", "seed=1", out=finished_run, says="another run (recipe.seed is 0 there and 1 here)")
    wrong(*start, out=finished_run, says="another run (data.eval_split")
    other = ("run", shapes, "--out", finished_run, "--recipe", recipe_file, *SPLITS)
    wrong(*other, out=finished_run, says="another run (data.path")


def test_a_folder_that_holds_something_else(wrong, shapes_folder, recipe_file, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    start = ("run", shapes_folder, "--recipe", recipe_file, "--out")
    wrong(*start, tmp_path / "full", out=tmp_path, says="not empty")
    wrong(*start, tmp_path / "full/letter.txt", out=tmp_path, says="letter.txt")
    wrong(*start, tmp_path / "full/letter.txt/deeper", out=tmp_path, says="letter.txt")


def test_no_run_where_one_is_named(wrong, a_run, shapes_folder, tmp_path):
    for arguments in (("estimate", tmp_path), ("evaluate", tmp_path), ("predict", tmp_path / "none", shapes_folder)):
        out = tmp_path / "out"
        more = ("--out", out) if arguments[0] == "predict" else ()
        wrong(*arguments, *more, out=out, says="holds no run")
    (a_run / "config.yaml").write_text("data: 3\n")
    wrong("estimate", a_run, out=a_run, says="config.yaml is not the configuration of a run")


def test_a_stage_before_the_one_that_it_needs(wrong, a_run, tmp_path, shapes_folder):
    (a_run / "patterns.safetensors").unlink()
    wrong("estimate", a_run, out=tmp_path / "none", says="patterns.safetensors")
    (a_run / "segmenter-retrained.safetensors").unlink()
    (a_run / "segmenter.safetensors").unlink()
    out = tmp_path / "masks"
    wrong("predict", a_run, shapes_folder, "--out", out, out=out, says="finish the run")
    wrong("predict", a_run, shapes_folder, "--rounds", 4, "--out", out, out=out, says="finish the run")


def test_damaged_scores_of_a_run(wrong, a_run):
    (a_run / "metrics.json").write_text('{"proxy": ')
    wrong("evaluate", a_run, out=a_run / "none", says="metrics.json")


def test_no_photos_to_predict(wrong, finished_run, tmp_path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "masks"
    wrong("predict", finished_run, tmp_path / "empty", "--out", out, out=out, says="no photos")
    wrong("predict", finished_run, tmp_path / "none", "--out", out, out=out, says="none")


def test_a_photo_that_cannot_be_read_with_strict(wrong_run, command, shapes, recipe_file, tmp_path):
    (shapes / "photos/p02.jpg").write_bytes(b"no photo")
    wrong_run(shapes, "--strict", says="p02.jpg")
    start = ("run", shapes, "--out", tmp_path / "out", "--recipe", recipe_file, "--until", "classify")
    said = command(*start)
    assert said.code == 0
    assert "left out: 1" in said.out
    assert "p02.jpg" in said.out


def test_no_photo_whose_pixels_can_be_read(command, shapes, recipe_file, tmp_path):
    for photo in (shapes / "photos").iterdir():
        photo.write_bytes(photo.read_bytes()[:900])
    said = command("run", shapes, "--out", tmp_path / "out", "--recipe", recipe_file)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("tag2mask: ")


def test_an_interrupt_says_how_to_go_on(monkeypatch, command, shapes_folder, recipe_file, tmp_path):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("tag2mask.runs.stages.run_stages", stop)
    said = command("run", shapes_folder, "--out", tmp_path / "out", "--recipe", recipe_file)
    assert said.code == 130
    assert said.err.strip().splitlines()[-1] == "tag2mask: stopped; the same command continues from here"


@pytest.fixture
def interrupts():
    """SIGINT as in a shell; in a job in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent like this here")
@pytest.mark.parametrize("options", [(), ("--log-format", "json")])
def test_ctrl_c_is_heard_at_once(
    monkeypatch, exit_code_of, capfd, shapes_folder, recipe_file, tmp_path, options, interrupts
):
    before, seen = signal.getsignal(signal.SIGINT), []

    def stop(*arguments):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        finally:
            seen.append(capfd.readouterr().err)  # before anything else has ended

    monkeypatch.setattr("tag2mask.runs.stages.run_stages", stop)
    assert exit_code_of(*options, "run", shapes_folder, "--out", tmp_path / "out", "--recipe", recipe_file) == 130
    assert signal.getsignal(signal.SIGINT) is before
    last = seen[0].splitlines()[-1]
    assert (json.loads(last)["message"] if options else last.removeprefix("tag2mask: ")).startswith(
        "stopping; press Ctrl-C"
    )


def test_a_picture_that_is_replaced_is_said(command, finished_run, shapes_folder, tmp_path):
    arguments = ("show", finished_run, shapes_folder / "photos/p00.jpg", "--out", tmp_path / "a.png")
    assert "replaces" not in command(*arguments).out
    assert command(*arguments).out.endswith(f"the picture is {tmp_path / 'a.png'}, which replaces an earlier file\n")


def test_in_a_process_of_its_own(finished_run, tmp_path):
    """What a shell sees: exit code 2, one line, no traceback."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [
        sys.executable,
        "-m",
        "tag2mask",
        "predict",
        finished_run,
        tmp_path / "none",
        "--out",
        tmp_path / "a",
    ]
    said = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert said.returncode == 2
    assert said.stderr.splitlines() == [f"tag2mask: {tmp_path / 'none'}: no such photo or folder; check the path"]
    assert said.stdout == ""
    assert not (tmp_path / "a").exists()
