"""confidence.csv of a run: which photos and classes it has, of which masks, and when it is made anew."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import yaml

from tag2mask.config import TilesConfig
from tag2mask.data import read_mask, write_mask
from tag2mask.runs.confidence import COLUMNS, confidences_of
from tag2mask.runs.folder import resume_run
from tag2mask.runs.stages import flip
from tag2mask.runs.tasks import photo_sets


def rows_of(run):
    with (run / "confidence.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    return rows


def tags_of(folder, split):
    names = (folder / split).read_text().split()
    lines = [line.replace(".jpg", "").split(",") for line in (folder / "tags.csv").read_text().split()[1:]]
    return {(name, tag) for name, tags in lines if name in names for tag in tags.split(";")}


def with_recipe(run, **parts):
    opened = resume_run(run)
    opened.recipe = opened.recipe.model_copy(
        update={
            name: getattr(opened.recipe, name).model_copy(update=part) if isinstance(part, dict) else part
            for name, part in parts.items()
        }
    )
    return opened


def test_a_line_for_each_tag_the_lowest_confidence_first(finished_run, shapes_folder):
    rows = rows_of(finished_run)
    of_training, of_evaluation = (
        {(row["image"], row["class"]) for row in rows if row["masks"] == folder}
        for folder in ("retrain", "predictions")
    )
    assert of_training == tags_of(shapes_folder, "train.txt")
    assert of_evaluation == tags_of(shapes_folder, "val.txt")
    assert len(rows) == len(of_training) + len(of_evaluation)
    values = [float(row["confidence"]) for row in rows]
    assert values == sorted(values)
    assert all(0 <= value <= 1 for value in values)
    for row in rows:
        mask = read_mask(finished_run / row["masks"] / f"{row['image']}.png")
        share = (mask == ("disc", "square").index(row["class"]) + 1).mean()
        assert float(row["area"]) == pytest.approx(share, abs=1e-6)
        assert share or row["confidence"] == "0.0000"


def test_a_tag_that_the_mask_does_not_show_has_no_confidence(command, a_run):
    name = next(row["image"] for row in reversed(rows_of(a_run)) if row["masks"] == "retrain")
    file = a_run / "retrain" / f"{name}.png"
    write_mask(file, np.zeros_like(read_mask(file)))
    assert command("report", a_run).code == 0
    found = [row for row in rows_of(a_run) if row["image"] == name]
    assert found
    assert {(row["confidence"], row["area"]) for row in found} == {("0.0000", "0.000000")}


def test_the_table_goes_with_the_masks_that_it_is_of(command, a_run, tmp_path):
    other = shutil.copytree(a_run, tmp_path / "other")
    assert command("estimate", a_run).code == 0
    assert not (a_run / "confidence.csv").exists()
    flip(resume_run(other), ["square"])
    assert not (other / "confidence.csv").exists()


def test_a_run_without_its_table_gets_it_and_nothing_else_is_done(command, a_run, shapes_folder, recipe_file):
    call = ("run", shapes_folder, "--recipe", recipe_file, "--split", "train", "--eval-split", "val", "--out", a_run)
    assert "nothing to do" in command(*call).err
    before = rows_of(a_run)
    (a_run / "confidence.csv").unlink()  # as in a run that an older version made
    said = command(*call)
    assert said.code == 0
    assert "report: done" in said.err
    assert "segment: done" not in said.err
    assert rows_of(a_run) == before


def test_corrected_tags_are_those_of_the_table(command, shapes, recipe_file, tmp_path):
    tags = shapes / "tags.csv"
    run = tmp_path / "corrected"
    call = ("run", shapes, "--recipe", recipe_file, "--out", run, "--set", "segmenter.retrain=0")
    assert command(*call).code == 0
    assert {row["masks"] for row in rows_of(run)} == {"predictions"}
    lines = tags.read_text()
    tags.write_text(lines.replace("p00.jpg,disc", "p00.jpg,square").replace("p01.jpg,disc", "p01.jpg,background"))
    assert command(*call).code == 0
    assert [row["class"] for row in rows_of(run) if row["image"] == "p00"] == ["square"]
    shown = [row for row in rows_of(run) if row["image"] == "p01"]  # its tag says that there is none of the classes
    assert all(row["confidence"] == "0.0000" and float(row["area"]) > 0 for row in shown)


def test_without_retraining_the_first_masks_of_the_training_photos_are_judged(a_run):
    run = with_recipe(a_run, segmenter={"retrain": 0})
    training, evaluation = photo_sets(run)
    assert (training.final.name, evaluation.final.name) == ("proxy", "predictions")
    of_training, of_evaluation = confidences_of(run, [training, evaluation])
    assert set(of_training) == {sample.name for sample in run.train.samples}
    assert set(of_evaluation) == {sample.name for sample in run.evaluation.samples}


@pytest.mark.parametrize(
    "parts",
    [{"proxy": {"method": "cam"}}, {"proxy": {"method": "gradcam"}}, {"tiles": TilesConfig(side=64, overlap=16)}],
)
def test_other_methods_and_tiles(a_run, parts):
    run = with_recipe(a_run, **parts)
    of_training, _ = confidences_of(run, photo_sets(run))
    values = [one.value for of_photo in of_training.values() for one in of_photo]
    assert len(set(values)) > 1
    assert all(0 <= value <= 1 for value in values)


def test_where_every_photo_has_the_class_agreement_and_sign_are_left(command, shapes, recipe_file, tmp_path):
    names = [f"p{number:02}" for number in (0, 1, 2, 3)]
    (shapes / "train.txt").write_text("\n".join(names))
    run = tmp_path / "discs"
    assert command("run", shapes, "--split", "train", "--recipe", recipe_file, "--out", run).code == 0
    sign = json.loads((run / "metrics.json").read_text())["patterns"]["disc"]["confidence"]
    rows = rows_of(run)
    assert sorted(row["image"] for row in rows) == names
    for row in rows:
        first, final = (read_mask(run / folder / f"{row['image']}.png") == 1 for folder in ("proxy", "predictions"))
        agreed = (first & final).sum() / max(1, (first | final).sum())
        assert float(row["confidence"]) == pytest.approx(sign * min(1, agreed / 0.2), abs=1e-3)


def test_an_unreadable_photo_has_no_line(command, a_run, shapes, recipe_file):
    config = yaml.safe_load((a_run / "config.yaml").read_text("utf-8"))
    config["data"]["path"] = str(shapes)
    (a_run / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    (shapes / "photos/p00.jpg").write_bytes(b"no photo")
    run = resume_run(a_run)
    run.strict = False
    of_training, _ = confidences_of(run, photo_sets(run))
    assert "p00" not in of_training
    assert "p01" in of_training


def test_the_benchmark_of_a_run(load_benchmark, finished_run, monkeypatch, capsys, tmp_path):
    script, file = load_benchmark("confidence"), tmp_path / "confidence.json"
    monkeypatch.setattr("sys.argv", ["confidence.py", str(finished_run), "--json", str(file)])
    script.main()
    [result] = json.loads(file.read_text("utf-8"))
    assert result["count"] == len(rows_of(finished_run))
    assert set(result["classes"]) == {"disc", "square"}
    assert f"Spearman {result['spearman']}" in capsys.readouterr().out
    rows = [script.Row("disc", value / 10, value**2) for value in range(5)]
    assert script.measured(rows)["spearman"] == 1
    assert script.measured(rows)["fifths"] == [0.0, 100.0, 400.0, 900.0, 1600.0]
    assert script.spearman(rows[:1]) is None
