"""`tag2mask doctor`: what it finds, and what it says when something needed is broken."""

from __future__ import annotations

import json

import numba

from tag2mask import doctor


def test_all_is_well_here(command, tmp_path):
    said = command("doctor", tmp_path / "not/there/yet", "--json")
    assert said.code == 0
    answer = json.loads(said.out)
    rows = {row["name"]: row for row in answer["checks"]}
    assert answer["ok"] is True
    assert {"tag2mask", "Python", "torch", "torchvision", "timm", "numba", "accelerate"} <= set(rows)
    assert "tf_efficientnet_lite0, pip package" in rows["default weights"]["text"]
    assert "GB free" in rows["space"]["text"]
    assert not (tmp_path / "not").exists()
    assert rows["numba"]["text"] == numba.__version__


def test_a_package_that_cannot_be_imported(command, monkeypatch):
    monkeypatch.setitem(doctor._NEEDED, "timm", "no_module_of_this_name")
    said = command("doctor")
    assert said.code == 2
    assert said.err.splitlines() == ["tag2mask: broken: timm; the table says how to fix it"]
    assert "ModuleNotFoundError" in said.out
    assert "--force-reinstall" in said.out


def test_weights_that_cannot_be_read_and_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise OSError("no [room] left")

    monkeypatch.setattr(doctor, "_default_weights", fail)
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", fail)
    checks = doctor.examine(tmp_path)
    assert doctor.broken(checks) == ["default weights", "space"]
    assert {check.text for check in checks if check.state == "broken"} == {"OSError: no [room] left"}


def test_little_space_and_missing_extras_are_notes(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: doctor.shutil._ntuple_diskusage(9e9, 8e9, 1e9))
    monkeypatch.setitem(doctor._EXTRAS, "export", ("no-such-package",))
    rows = {check.name: check for check in doctor.examine(tmp_path)}
    assert rows["space"].state == "note"
    assert rows["extra export"].state == "note"
    assert 'pip install "tag2mask[export]"' in rows["extra export"].text
    assert not doctor.broken(list(rows.values()))
