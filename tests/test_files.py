"""Files that are whole or not there, also where another program holds the one to be replaced, as on Windows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tag2mask import files
from tag2mask.errors import DataError
from tag2mask.files import write_text


@pytest.fixture
def held(monkeypatch):
    """A machine that refuses to replace a file so many times; what comes back gets the seconds waited."""
    waited, rename = [], Path.replace

    def hold(times, system):
        monkeypatch.setattr(files, "os", type("Os", (), {**vars(files.os), "name": system}))
        monkeypatch.setattr(files.time, "sleep", waited.append)
        left = iter([True] * times)

        def replace(path, target):
            if next(left, False):
                raise PermissionError(13, "The process cannot access the file because it is being used")
            return rename(path, target)

        monkeypatch.setattr(Path, "replace", replace)
        return waited

    return hold


def test_on_windows_a_file_in_use_is_replaced_a_little_later(held, tmp_path):
    (tmp_path / "a.txt").write_text("old")
    waited = held(3, "nt")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert waited == [0.1] * 3
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(("system", "tries"), [("nt", 9), ("posix", 0)])
def test_a_file_that_stays_in_use_is_told_in_one_line(held, tmp_path, system, tries):
    (tmp_path / "a.txt").write_text("old")
    waited = held(10, system)
    with pytest.raises(DataError, match=r"a\.txt: cannot be written \(The process cannot access"):
        write_text(tmp_path / "a.txt", "new")
    assert len(waited) == tries
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_weights_that_were_read_do_not_hold_their_file(tmp_path):
    """On Windows nobody could replace a file that is mapped into memory; elsewhere the tensors would change with it."""
    torch = pytest.importorskip("torch")
    from tag2mask.networks.weights import read_weights, save_tensors

    save_tensors(tmp_path / "a.safetensors", {"a": torch.ones(1000)}, "a thing", {"classes": ["cat"]})
    tensors = read_weights(tmp_path / "a.safetensors")
    size = (tmp_path / "a.safetensors").stat().st_size
    with (tmp_path / "a.safetensors").open("r+b") as file:
        file.seek(size - 4000)
        file.write(b"\0" * 4000)
    assert tensors["a"].sum() == 1000
