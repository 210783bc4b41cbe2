"""Processes that read photos, forked (Linux) and spawned (macOS, Windows): everything works under both."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from tag2mask.data import load
from tag2mask.data.loading import SquarePhotos, WholePhotos, read_ahead, read_by
from tag2mask.errors import RunError
from tag2mask.training.datasets import MaskedPhotos, TaggedPhotos

HERE = Path(__file__).parent
UNGUARDED = """
import multiprocessing
multiprocessing.set_start_method("spawn", force=True)
import tag2mask as t2m
from tag2mask.logs import set_up
set_up(quiet=True)
print("begun")
try:
    t2m.run("photos", "run", "tiny.yaml", labels="tags.csv", settings=["workers=1"])
except t2m.UserError as error:
    print(error)
"""


def python(*arguments, folder=None):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, cwd=folder, env=environment, timeout=500, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_run_predictions_and_trainings_by_workers(method, tmp_path):
    said = python(HERE / "under_start_method.py", method, tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == "all is done"
    assert "skipped" not in said.stderr


def test_a_script_without_a_guard_is_told_what_to_do_in_one_line(shapes, recipe_file, tmp_path):
    (shapes / "tiny.yaml").write_bytes(recipe_file.read_bytes())
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    said = python(script, folder=shapes)
    wanted = (
        "the processes that read photos ended as they began: put the script's own calls under "
        'if __name__ == "__main__": or set workers=0'
    )
    assert said.returncode == 0, said.stderr
    assert set(said.stdout.splitlines()) == {"begun", wanted}
    assert said.stdout.splitlines().count(wanted) == 1
    assert "Traceback" not in said.stderr


def test_everything_given_to_workers_can_be_pickled(shapes_folder):
    data = load(shapes_folder)
    for photos in (
        WholePhotos(data.samples, 64),
        SquarePhotos(data.samples, 64),
        TaggedPhotos(data.samples, 2, 64, 0.5, 0.1),
        MaskedPhotos(data.samples, data.samples[0].mask.parent, 2, 64, 0.5),
    ):
        torch.manual_seed(0)
        _, wanted = photos[3]
        torch.manual_seed(0)
        index, found = pickle.loads(pickle.dumps(photos))[3]
        assert index == 3
        for one, other in zip(_parts(found), _parts(wanted), strict=True):
            np.testing.assert_array_equal(one, other)


def _parts(item):
    return item if isinstance(item, tuple) else (item,)


def test_photos_come_as_they_are_from_workers_too(shapes_folder):
    samples = load(shapes_folder).samples[:3]
    alone, helped = (list(read_ahead(samples, workers)) for workers in (0, 1))
    assert [sample for sample, _ in helped] == list(samples)
    for (_, one), (_, other) in zip(alone, helped, strict=True):
        assert isinstance(other, np.ndarray)
        np.testing.assert_array_equal(one, other)


class Deadly(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


class Wrong(Deadly):
    def __getitem__(self, index):
        raise RuntimeError("something else")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes cannot be killed like this here")
def test_a_worker_that_is_killed_is_told_in_one_line():
    with pytest.raises(RunError, match="a process that reads photos was killed, perhaps for want of memory; set worke"):
        list(read_by(1, Deadly()))


def test_what_a_worker_raises_is_raised_as_it_is():
    with pytest.raises(RuntimeError, match="something else"):
        list(read_by(1, Wrong()))
