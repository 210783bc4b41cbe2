"""What a run survives: kill -9 and a full disk (`benchmarks/faults.py` does this and more, at length)."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tag2mask.errors import DataError
from tag2mask.files import remove_unfinished, write_bytes
from tag2mask.networks.weights import load_checkpoint, read_weights, save_checkpoint, save_tensors
from tag2mask.runs import folder


@pytest.fixture(scope="module")
def faults(load_benchmark):
    return load_benchmark("faults")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(
    faults, finished_run, shapes_folder, recipe_file, tmp_path
):
    out = tmp_path / "run"
    arguments = ("run", shapes_folder, "--out", out, "--recipe", recipe_file, "--split", "train", "--eval-split", "val")
    for after in (0.5, 1.0):
        started = faults.Started(arguments, tmp_path / "said.txt")
        started.stop(signal.SIGKILL, after)
        started.wait()
        assert not started.left_alone()
        assert not out.exists() or faults.corrupt(out) == []
    if out.exists():
        (out / ".tag2mask-0123abcd-1.tmp").write_text("{")
    started = faults.Started(arguments, tmp_path / "said.txt")
    assert started.wait() == 0, started.said.read_text()
    assert faults.result(out) == faults.result(finished_run)
    assert faults.left_behind(out) == []


@pytest.mark.parametrize(("stage", "figures"), [("classify", "classifier"), ("discover", "patterns")])
def test_a_run_killed_before_a_stage_wrote_its_figures_has_them_at_the_end(
    a_run, shapes_folder, recipe_file, command, monkeypatch, stage, figures
):
    """They are there before the file that tells that the stage is done."""
    wanted = folder.read_metrics(a_run)[figures]
    kept = {name: value for name, value in folder.read_metrics(a_run).items() if name != figures}
    (a_run / "metrics.json").write_text(json.dumps(kept))
    (a_run / "classifier.safetensors").unlink()
    (a_run / "patterns.safetensors").unlink()
    record = folder.Run.record

    def killed(run, name, value):
        if name == figures:
            raise KeyboardInterrupt
        record(run, name, value)

    split = ("--split", "train", "--eval-split", "val")
    arguments = ("run", shapes_folder, "--out", a_run, "--recipe", recipe_file, *split, "--until", stage)
    with monkeypatch.context() as patched:
        patched.setattr(folder.Run, "record", killed)
        assert command(*arguments).code == 130
    assert command(*arguments).code == 0
    assert folder.read_metrics(a_run)[figures] == wanted


def test_a_checkpoint_of_what_is_finished_is_removed(a_run, shapes_folder, recipe_file, command):
    for name in (".segmenter.pt", ".segmenter-other.pt"):
        (a_run / name).touch()
    split = ("--split", "train", "--eval-split", "val")
    arguments = ("run", shapes_folder, "--out", a_run, "--recipe", recipe_file, *split, "--until", "classify")
    assert command(*arguments).code == 0
    assert not (a_run / ".segmenter.pt").exists()
    assert (a_run / ".segmenter-other.pt").exists()


@pytest.fixture
def full_disk(monkeypatch):
    write = Path.write_bytes

    def half(file, content):
        write(file, bytes(content)[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill():
        monkeypatch.setattr(Path, "write_bytes", half)

    return fill


def test_a_full_disk_leaves_what_was_there(full_disk, tmp_path):
    model = nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(model.parameters())
    writes = {
        "a.safetensors": lambda file: save_tensors(file, {"a": torch.ones(3)}, "a test", {}),
        "a.pt": lambda file: save_checkpoint(file, model, optimiser, 4),
        "a.json": lambda file: write_bytes(file, b"{}"),
    }
    for name, write in writes.items():
        write(tmp_path / name)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    full_disk()
    for name, write in writes.items():
        with pytest.raises(DataError, match="No space left on device") as error:
            write(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert load_checkpoint(tmp_path / "a.pt", model, optimiser) == 4
    assert read_weights(tmp_path / "a.safetensors")["a"].tolist() == [1, 1, 1]


def test_a_disk_that_is_full_for_others_code_is_one_line_too(
    monkeypatch, command, shapes_folder, recipe_file, tmp_path
):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "page.html"))

    monkeypatch.setattr("tag2mask.runs.stages.run_stages", full)
    said = command("run", shapes_folder, "--out", tmp_path / "out", "--recipe", recipe_file)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith(f"tag2mask: {tmp_path / 'page.html'}: the disk is full")
    assert "Traceback" not in said.err


def test_only_unfinished_files_are_removed(tmp_path):
    kept = ["a.png", ".segmenter.pt", ".hidden", "a.12", "truth/.list.txt", ".backup.2024", ".tag2mask-notes.tmp"]
    removed = [".tag2mask-0123abcd-123.tmp", "truth/.tag2mask-89abcdef-9.tmp"]
    (tmp_path / "truth").mkdir()
    for name in (*kept, *removed):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()) == sorted(kept)
