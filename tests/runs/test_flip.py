"""Class patterns that a person has turned round: what follows, the second run, and the words of doubt."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml

from tag2mask.data import read_mask
from tag2mask.patterns import ClassPatterns
from tag2mask.runs.folder import resume_run
from tag2mask.runs.tasks import say_doubts


def flips(run):
    return yaml.safe_load((run / "config.yaml").read_text("utf-8"))["recipe"]["patterns"]["flip"]


def masks(run):
    return {file.stem: read_mask(file) for file in (run / "proxy").glob("*.png")}


def test_a_class_is_turned_round_stays_so_and_is_turned_back(command, a_run, shapes_folder, recipe_file):
    before, patterns = masks(a_run), ClassPatterns.load(a_run / "patterns.safetensors")
    assert command("flip", a_run, "square").code == 0
    turned = ClassPatterns.load(a_run / "patterns.safetensors")
    assert turned.directions_[1] @ patterns.directions_[1] == pytest.approx(-1, abs=1e-4)
    assert turned.directions_[0] @ patterns.directions_[0] == pytest.approx(1, abs=1e-4)
    assert flips(a_run) == ["square"]
    after = masks(a_run)
    assert all(np.array_equal(before[name], after[name]) for name in before if not (before[name] == 2).any())
    assert any(not np.array_equal(before[name], after[name]) for name in before if (before[name] == 2).any())
    assert (a_run / "report/index.html").exists()

    again = ("run", shapes_folder, "--recipe", recipe_file, "--split", "train", "--eval-split", "val", "--out", a_run)
    said = command(*again)
    assert said.code == 0, said.err
    assert "nothing to do" in said.err
    assert flips(a_run) == ["square"]

    assert command("flip", a_run, "square").code == 0
    assert flips(a_run) == []
    assert all(np.array_equal(before[name], mask) for name, mask in masks(a_run).items())


def test_a_class_that_is_not_there_changes_nothing(command, a_run):
    files = sorted(file.name for file in a_run.iterdir())
    said = command("flip", a_run, "sqare")
    assert said.code == 2
    assert "patterns.flip names 'sqare'" in said.err
    assert "did you mean 'square'" in said.err
    assert len(said.err.splitlines()) == 1
    assert sorted(file.name for file in a_run.iterdir()) == files


def test_a_recipe_that_flips_an_unknown_class_is_refused_before_anything(command, shapes_folder, recipe_file, tmp_path):
    said = command(
        "run", shapes_folder, "--recipe", recipe_file, "--out", tmp_path / "out", "--set", "patterns.flip=[cell]"
    )
    assert said.code == 2
    assert "patterns.flip names 'cell'" in said.err
    assert not (tmp_path / "out").exists()


def test_doubtful_classes_are_named_with_the_commands_that_show_and_turn_them(a_run, caplog):
    run = resume_run(a_run)
    file = a_run / "metrics.json"
    metrics = json.loads(file.read_text("utf-8"))
    metrics["patterns"]["disc"]["confidence"] = 0.8
    metrics["patterns"]["square"]["confidence"] = 0.61
    file.write_text(json.dumps(metrics), "utf-8")
    say_doubts(run)
    [line] = [record.getMessage() for record in caplog.records]
    assert "'square' (0.61), 'disc' (0.80)" in line
    assert f"tag2mask patterns {a_run}" in line
    assert f"tag2mask flip {a_run} CLASS" in line


def test_a_run_without_patterns_has_none_to_turn(command, a_run):
    config = a_run / "config.yaml"
    config.write_text(config.read_text("utf-8").replace("method: patterns", "method: cam"), "utf-8")
    shutil.rmtree(a_run / "predictions")
    said = command("flip", a_run, "square")
    assert said.code == 2
    assert "are made by cam" in said.err
    assert (a_run / "proxy").is_dir()
