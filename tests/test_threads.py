"""How many cores a process may use: affinity, control groups of both versions, and the processes beside it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tag2mask import threads
from tag2mask.threads import cgroup_limit, cores


def machine(root, groups, files):
    """Make ``/proc`` and ``/sys`` of a machine."""
    there = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in there.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/job/step\n", {"cpu.max": "9 1\n", "job/cpu.max": "200000 100000\n", "job/step/cpu.max": "max 1\n"}, 2),
        ("0::/of/the/machine/outside\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("4:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "3\n", "cpu,cpuacct/cpu.cfs_period_us": "1\n"}, 3),
        ("1:cpu:/docker/1f\n0::/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 2),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("2:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("nonsense\n\n", {"cpu.max": "\n"}, math.inf),
        ("0::/\n", {"cpu.max": "many 0\n"}, math.inf),
    ],
)
def test_the_limit_of_a_container(tmp_path, groups, files, limit):
    assert cgroup_limit(machine(tmp_path, groups, files)) == limit


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert cgroup_limit(tmp_path) == math.inf


def test_the_least_counts_and_processes_share_it(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "by_affinity", lambda: 8)
    assert cores(tmp_path) == 8
    root = machine(tmp_path, "0::/\n", {"cpu.max": "250000 100000\n"})
    assert cores(root) == 3
    monkeypatch.setattr(threads, "by_affinity", lambda: 2)
    assert cores(root) == 2
    for name, value in {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert cores(root) == 1


@pytest.mark.skipif(not shutil.which("taskset"), reason="there is no taskset here")
def test_a_process_bound_to_one_core():
    script = "import json; from tag2mask import threads as t, doctor; print(json.dumps([t.cores(), doctor._cores()]))"
    said = subprocess.run(
        ["taskset", "-c", "0", sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    here, row = json.loads(said.stdout)
    assert here == 1
    assert "1 of them for this process by taskset" in row or row == "1 cores"


def test_a_containers_limit_reaches_openmp(tmp_path):
    """It must be set before torch is imported."""
    script = (
        "import os, sys; from tag2mask import threads as t; t.by_affinity = lambda: 64; t.cgroup_limit = lambda _: 2;"
        "import tag2mask.cli; print(os.environ.get('OMP_NUM_THREADS'), 'torch' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=clean, check=True)
    assert said.stdout.split() == ["2", "False"]


def test_threads_at_work_do_not_divide_pytorchs():
    """Those that begin later, and this one, do."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        ahead = threads.map_ahead(lambda _: torch.get_num_threads(), range(5), workers=2)
        assert next(ahead) == 1
        assert torch.get_num_threads() == 3
        assert list(ahead) == [1] * 4
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
