"""Two processes at one run, started by torchrun: the same results as one; what fails ends all, saying so once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from tag2mask import distributed
from tag2mask.data import read_mask
from tag2mask.errors import RunError
from tag2mask.training.loop import fit

SPLITS = ("--split", "train", "--eval-split", "val")


def torchrun(*command, count=2):
    """Start a command in some processes and return what has become of it."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [*start, *map(str, command)], capture_output=True, text=True, env=environment, timeout=500, check=False
    )


class Numbers(Dataset):
    """Seven items whose losses are means over different numbers of values; the third cannot be read."""

    def __init__(self):
        random = torch.Generator().manual_seed(0)
        self.inputs, self.targets = torch.randn(7, 3, generator=random), torch.randn(7, 4, generator=random)
        for index, target in enumerate(self.targets):
            target[: index % 4] = torch.nan

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return index, "broken.jpg: no photo" if index == 2 else (self.inputs[index], self.targets[index])


def trained(folder, short_of_memory=False):
    """Train on them in batches of three; return weights and the sizes of what went through the network."""
    torch.manual_seed(distributed.rank())  # the main process's weights count
    model = nn.Linear(3, 4)
    seen = []

    def loss(model, inputs, targets):
        seen.append(len(inputs))
        if short_of_memory and len(inputs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        known = ~targets.isnan()
        return (model(inputs) - targets)[known].square().mean()

    fit(
        model, Numbers(), loss, torch.optim.AdamW(model.parameters(), lr=0.1), epochs=3, batch_size=3,
        schedule="poly", seed=0, workers=0, checkpoint=folder / "checkpoint.pt", label="numbers",
        weigh=lambda batch: sum(int((~target.isnan()).sum()) for _, target in batch),
    )  # fmt: skip
    return torch.cat([model.weight.detach().flatten(), model.bias.detach()]).tolist(), seen


def work(folder):
    """Do what each of the processes does in the first test, and write down what comes out."""
    rank = distributed.rank()
    distributed.barrier()
    exchanged = {
        "share": [distributed.share(list(range(5))), distributed.share(("a",))],
        "gather": distributed.gather({"rank": rank}),
        "of_main": distributed.of_main(rank),
        "total": distributed.total(torch.tensor([1.0, rank])).tolist(),
    }
    weights, seen = trained(folder, short_of_memory=rank == 0)
    (folder / f"{rank}.json").write_text(json.dumps(exchanged | {"weights": weights, "seen": seen}))
    distributed.leave()


def test_exchanges_and_a_training_in_two_processes(tmp_path):
    """One of them is short of memory; the steps are those of one process alone."""
    said = torchrun(__file__, tmp_path)
    assert said.returncode == 0, said.stderr
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert main["share"] == [[0, 2, 4], ["a"]]
    assert other["share"] == [[1, 3], []]
    assert (main["gather"], other["gather"]) == ([{"rank": 0}, {"rank": 1}], [])
    assert (main["of_main"], other["of_main"]) == (0, 0)
    assert main["total"] == other["total"] == [2.0, 1.0]
    assert main["weights"] == other["weights"]
    (tmp_path / "alone").mkdir()
    alone, seen = trained(tmp_path / "alone")
    np.testing.assert_allclose(main["weights"], alone, rtol=1e-5, atol=1e-6)
    assert main["seen"][:3] == [2, 1, 1]
    assert max(seen) == 3
    assert 1 <= said.stderr.count("broken.jpg") <= 2  # in three epochs, once by each process that had to read it


def test_memory_that_runs_out_halves_what_goes_through_at_once(tmp_path, caplog):
    (tmp_path / "short").mkdir()
    short, seen = trained(tmp_path / "short", short_of_memory=True)
    whole, _ = trained(tmp_path)
    np.testing.assert_allclose(short, whole, rtol=1e-5, atol=1e-6)
    assert max(seen) == 3
    assert set(seen[1:]) == {1}
    said = [record.message for record in caplog.records if "memory" in record.message]
    assert said == ["not enough memory for 3 photos at once: 1 from here on, in the same batches"]


def test_memory_for_not_even_one_photo_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Linear, "forward", lambda *_: torch.empty(2**60))  # more than there is anywhere
    with pytest.raises(RunError, match="not enough memory to train on one photo at a time"):
        trained(tmp_path)


@pytest.fixture(scope="module")
def run_by_two(shapes_folder, recipe_file, tmp_path_factory):
    """A whole run by two processes: what they said, and the run folder; read only."""
    out = tmp_path_factory.mktemp("two") / "run"
    said = torchrun("-m", "tag2mask", "run", shapes_folder, "--out", out, "--recipe", recipe_file, *SPLITS)
    assert said.returncode == 0, said.stderr
    return said, out


def test_two_processes_find_the_patterns_of_one(run_by_two, finished_run):
    mine, alone = (load_file(run / "patterns.safetensors") for run in (run_by_two[1], finished_run))
    for name in ("means", "directions", "spectra", "variances", "evidence"):
        wanted = alone[f"patterns.{name}"]
        np.testing.assert_allclose(mine[f"patterns.{name}"], wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    torch.testing.assert_close(mine["classifier.head.weight"], alone["classifier.head.weight"], rtol=1e-3, atol=1e-5)


def test_two_processes_write_the_masks_of_one(run_by_two, finished_run):
    for file in (finished_run / "proxy").iterdir():
        assert (read_mask(run_by_two[1] / "proxy" / file.name) == read_mask(file)).mean() > 0.999


def test_one_process_gets_the_masks_and_scores_of_two(run_by_two, command, shapes_folder, recipe_file, tmp_path):
    """Given the same segmenter: every mask to the byte, every confusion matrix to the pixel."""
    out = Path(shutil.copytree(run_by_two[1], tmp_path / "run"))
    shutil.rmtree(out / "predictions")
    assert command("run", shapes_folder, "--out", out, "--recipe", recipe_file, *SPLITS).code == 0
    assert sorted(file.name for file in (out / "predictions").iterdir()) == ["p04.png", "p09.png", "p13.png"]
    for file in (out / "predictions").iterdir():
        assert file.read_bytes() == (run_by_two[1] / "predictions" / file.name).read_bytes()
    mine, theirs = (json.loads((run / "metrics.json").read_text()) for run in (out, run_by_two[1]))
    for name in ("proxy", "retrain", "prediction"):
        assert mine[name] == theirs[name]
        assert mine[name]["images"] == (3 if name == "prediction" else 11)


def test_only_the_main_process_speaks_and_writes(run_by_two, finished_run):
    said, out = run_by_two
    assert said.stdout.count("everything is in") == 1
    assert said.stdout.count("stages: classify") == 1
    assert said.stderr.count("classify: done in") == 1
    assert said.stderr.count("segmenter: epoch 2 of 2") == 1
    assert "Traceback" not in said.stderr
    mine, alone = ({file.relative_to(run) for file in run.rglob("*")} for run in (out, finished_run))
    assert mine == alone


def test_what_fails_in_one_process_ends_all_and_is_said_once(finished_run, shapes, tmp_path):
    """The photo is in the second one's share; the first waits for it, and must not wait for ever."""
    broken = sorted((shapes / "photos").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:900])
    arguments = ("predict", finished_run, shapes / "photos", "--out", tmp_path / "masks", "--strict")
    said = torchrun("-m", "tag2mask", *arguments)
    assert said.returncode != 0
    lines = [line for line in said.stderr.splitlines() if line.startswith("tag2mask: ")]
    assert len(lines) == 1, said.stderr
    assert broken.name in lines[0]
    assert said.stdout == ""
    assert said.stderr.count("Traceback (most") == 1, said.stderr  # torchrun's own, at the end


def test_a_variable_that_a_cluster_sets_is_no_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert (distributed.world(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert distributed.gather("mine") == ["mine"]
    assert distributed.of_main("mine") == "mine"
    assert distributed.first_to_fail()


def test_more_processes_than_gpus(monkeypatch):
    for name in ("LOCAL_RANK", "RANK"):
        monkeypatch.setenv(name, "2")
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RunError, match="3 processes for 2 GPUs"):
        distributed.device()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert distributed.device() == torch.device("cuda:2")


def test_alone_nothing_is_imported():
    script = "import sys, tag2mask.cli, tag2mask.distributed as d; d.barrier(); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert said.stdout == "False\n", said.stderr


if __name__ == "__main__":
    work(Path(sys.argv[1]))
