"""Benchmarks: those that need what few machines have run, in small, on a CPU; the ablation ends at `balanced`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.config import load_recipe

SCRIPTS = sorted(file.stem for file in (Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.skipif(sys.platform == "win32", reason="some measure by Python's module resource")
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_imported_and_says_what_it_takes(load_benchmark, name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")  # one takes from another
    threads = torch.get_num_threads()
    script = load_benchmark(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        script.main()
    torch.set_num_threads(threads)
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.fixture
def gpu(load_benchmark):
    return load_benchmark("gpu")


def test_what_a_gpu_reaches(gpu, tmp_path, monkeypatch, capsys):
    file, name = tmp_path / "gpu.json", "luo2020-voc-vgg16"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--tiny", "--recipes", name, "--json", str(file)])
    gpu.main()
    found = json.loads(file.read_text("utf-8"))
    parts = ["classifier, training", "segmenter, training", "discovery", "prediction"]
    assert [row["part"] for row in found["rows"]] == parts
    assert all(row["images a second"] > 0 for row in found["rows"])
    [times] = found["times"]
    assert times["photos"] == 10582
    assert times["hours, eight GPUs at best"] == pytest.approx(times["hours, one GPU"] / 8, abs=0.01)
    assert f"| {name} | discovery | 64 px, stride 8 |" in capsys.readouterr().out


def test_the_hours_of_a_run(gpu):
    recipe = gpu.load_recipe("luo2020-voc-resnet101")
    rates = {"classifier, training": 100, "segmenter, training": 10, "discovery": 50, "prediction": 20}
    seconds = 10 * 1000 / 100 + 2 * 1000 / 50 + 2 * 20 * 1000 / 10 + (1000 + 200) / 20
    assert gpu.hours(recipe, rates, 1000, 200) == pytest.approx(seconds / 3600)


def test_all_switches_of_the_ablation_together_are_balanced(load_benchmark):
    rows = [recipe for _, recipe in load_benchmark("ablation").recipes()]
    assert len({row.model_dump_json() for row in rows}) == len(rows)
    unused = {"name": True, "segmenter": {"backbone_learning_rate"}}  # the backbone is frozen
    assert rows[-1].model_dump(exclude=unused) == load_recipe("balanced").model_dump(exclude=unused)


def test_the_pattern_of_some_photos_beside_that_of_all(load_benchmark, shapes_folder, tmp_path, monkeypatch, capsys):
    script, file = load_benchmark("subset_size"), tmp_path / "rows.json"
    small = ["--set", "backbone={name: resnet10t, weights: random}", "--set", "patterns.size=64", "--set", "workers=0"]
    monkeypatch.setattr(
        sys, "argv", ["subset_size.py", str(shapes_folder), *small, "--sizes", "2", "8", "--json", str(file)]
    )
    script.main()
    rows = json.loads(file.read_text("utf-8"))
    assert [(row["class"], row["photos"], list(row["cosine"])) for row in rows] == [
        ("disc", 9, ["2", "8"]),
        ("square", 9, ["2", "8"]),
    ]
    assert all(0 < row["cosine"]["2"] <= 1 and row["cosine"]["8"] > 0.95 for row in rows)
    assert "disc" in capsys.readouterr().out


def test_the_pattern_is_the_leading_component(load_benchmark):
    gathered, random = load_benchmark("subset_size").Gathered(), np.random.default_rng(0)
    descriptors = random.standard_normal((60, 5)) * [1, 1, 6, 1, 1] + 3
    for part in np.split(descriptors, 3):
        gathered.add(part)
    component = np.linalg.svd(descriptors - descriptors.mean(0))[2][0]
    assert abs(gathered.pattern() @ component) == pytest.approx(1)
