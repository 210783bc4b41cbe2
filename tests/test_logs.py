"""What a command says while it works: quiet, verbose, JSON lines, and progress in a file."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import datetime

import pytest

import tag2mask as t2m
from tag2mask import logs, progress
from tag2mask.runs import stages

pytestmark = pytest.mark.usefixtures("_as_before")


@pytest.fixture
def _as_before():
    handlers, level = list(logs.LOG.handlers), logs.LOG.level
    yield
    logs.set_up()
    logs.LOG.handlers[:] = handlers
    logs.LOG.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def go_on(command, a_run, shapes_folder, recipe_file):
    """Go on with a run whose predictions are missing, with options before the command."""

    def call(*options):
        for file in (a_run / "predictions").iterdir():
            file.unlink()
        rest = ("--out", a_run, "--recipe", recipe_file, "--split", "train", "--eval-split", "val")
        return command(*options, "run", shapes_folder, *rest)

    return call


def test_text_by_default(go_on):
    said = go_on()
    assert said.code == 0
    assert "photos of 2 classes" in said.out
    lines = said.err.splitlines()
    assert any("  predict: done in " in line for line in lines)
    assert "\r" not in said.err
    assert "\x1b" not in said.err
    for line in lines:
        datetime.strptime(line.split("  ")[0], "%H:%M:%S")


def test_quiet_leaves_the_result(go_on):
    said = go_on("--quiet")
    assert said.code == 0
    assert said.err == ""
    assert "mIoU" in said.out
    assert "photos of 2 classes" not in said.out


def test_json_lines(go_on):
    said = go_on("--log-format", "json")
    assert said.code == 0
    lines = [json.loads(line) for line in said.err.splitlines()]
    assert {"time", "level", "stage", "message"} == set(lines[0])
    stages = [line["stage"] for line in lines]
    assert stages == sorted(stages, key=["estimate", "redraw", "predict", "evaluate", "report"].index)
    assert {"estimate", "redraw", "predict", "evaluate", "report"} == set(stages)
    assert {line["level"] for line in lines} == {"info"}
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert times == sorted(times)
    assert times[0].utcoffset().total_seconds() == 0


def test_an_error_in_json(command, tmp_path):
    said = command("--log-format", "json", "predict", tmp_path, tmp_path, "--out", tmp_path / "masks")
    assert said.code == 2
    (line,) = map(json.loads, said.err.splitlines())
    assert line["level"] == "error"
    assert "holds no run" in line["message"]
    assert "traceback" not in line


def test_verbose_says_where_an_error_arose(command, tmp_path):
    said = command("--verbose", "predict", tmp_path, tmp_path, "--out", tmp_path / "masks")
    assert said.code == 2
    assert "tag2mask on Python" in said.err.splitlines()[0]
    assert "in resume_run" in said.err
    assert said.err.splitlines()[-1].startswith("tag2mask: ")
    said = command("--log-format", "json", "-v", "predict", tmp_path, tmp_path, "--out", tmp_path / "masks")
    assert "in resume_run" in json.loads(said.err.splitlines()[-1])["traceback"]


def test_verbose_says_every_parameter(go_on):
    said = go_on("-v")
    assert said.code == 0
    assert "sharpness: 3.0" in said.err


def test_a_fault_in_json_has_its_traceback(monkeypatch, go_on):
    def fail(*arguments):
        """Fail."""
        raise ZeroDivisionError("never seen")

    monkeypatch.setitem(stages.STAGES, "evaluate", replace(stages.STAGES["evaluate"], do=fail))
    said = go_on("--log-format", "json", "--quiet")
    assert said.code == 1
    (line,) = map(json.loads, said.err.splitlines())
    assert line["level"] == "critical"
    assert line["stage"] == "evaluate"
    assert "ZeroDivisionError: never seen" in line["traceback"]


def test_contradicting_or_unknown_options(command):
    said = command("--quiet", "--verbose", "recipes")
    assert said.code == 2
    assert said.err.splitlines() == ["tag2mask: --quiet and --verbose: choose one"]
    said = command("--log-format", "xml", "recipes")
    assert said.code == 2
    assert "xml" in said.err
    assert "json" in said.err


@pytest.fixture
def slow(monkeypatch):
    """Every item takes a minute."""
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))


@pytest.mark.usefixtures("slow")
def test_progress_in_a_file(capsys):
    logs.set_up()
    assert list(progress.track("abc", 3, "photos")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[1] for line in lines] == [
        "photos: 1 of 3, 2 min 0 s left", "photos: 2 of 3, 1 min 0 s left",
    ]  # fmt: skip


@pytest.mark.usefixtures("slow")
def test_progress_in_json_and_quiet(capsys):
    logs.set_up(log_format=logs.LogFormat.JSON)
    list(progress.track("abc", 3, "photos"))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["task"], line["done"], line["total"], line["seconds_left"]) for line in lines] == [
        ("photos", 1, 3, 120), ("photos", 2, 3, 60),
    ]  # fmt: skip
    logs.set_up(quiet=True)
    assert list(progress.track("abc", 3, "photos")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_run_from_python_says_what_it_does(capsys, monkeypatch, a_run, shapes_folder, recipe_file):
    """As in a notebook, where nobody has set up logging; and nothing where somebody has."""
    monkeypatch.setattr(logging.root, "handlers", [])
    (a_run / "report/index.html").unlink()

    def said(level):
        logs.LOG.handlers[:], _ = [], logs.LOG.setLevel(level)
        t2m.run(shapes_folder, a_run, recipe_file, split="train", eval_split="val")
        return capsys.readouterr().err

    text = said(logging.NOTSET)
    assert "photos of 2 classes" in text
    assert "report: Write the report page." in text
    assert "every stage is done: nothing to do" in said(logging.NOTSET)
    assert said(logging.WARNING) == ""


@pytest.mark.usefixtures("slow")
def test_progress_in_python_without_any_set_up(capsys, monkeypatch):
    monkeypatch.setattr(logs.LOG, "handlers", [])
    logs.LOG.setLevel(logging.NOTSET)
    list(progress.track("ab", 2, "photos"))
    assert capsys.readouterr().err == "  photos: 1 of 2, 1 min 0 s left\n"
