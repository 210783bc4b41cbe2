"""Benchmarks: those that need what few machines have run, in small, on a CPU; the ablation ends at `balanced`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.config import load_recipe
from tag2mask.data import load

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
    # The backbone is frozen, and masks drawn again teach nothing.
    unused = {"name": True, "segmenter": {"backbone_learning_rate", "redraw"}}
    assert rows[-1].model_dump(exclude=unused) == load_recipe("balanced").model_dump(exclude=unused)


def test_domains_on_a_few_photos(load_benchmark, shapes_folder, recipe_file, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    domains, file = load_benchmark("domains"), tmp_path / "domains.json"
    given = [str(shapes_folder), "--out", str(tmp_path), "--recipe", str(recipe_file), "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["domains.py", *given, "--no-prediction", "--no-ceiling", "--every", "2"])
    domains.main()
    [row] = json.loads(file.read_text("utf-8"))
    assert row["photos"] == 7
    assert "ceiling" not in row
    for name, signs in row["signs"].items():
        assert all(-1 <= value <= 1 for value in signs["correlation"].values())
        assert row["best"]["raw"]["iou"][name] > 0
    assert "| shapes | 7 | 0 |" in capsys.readouterr().out
    before = (tmp_path / "shapes/by-truth.json").stat().st_mtime_ns
    domains.main()  # nothing is done again
    assert (tmp_path / "shapes/by-truth.json").stat().st_mtime_ns == before


def test_the_end_and_the_threshold_that_truth_chooses(load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    domains = load_benchmark("domains")
    held = np.zeros((2, 2, len(domains.EDGES) - 1), np.int64)
    held[0] = 1  # the first component knows nothing
    held[1, 0, :40], held[1, 1, 40:] = 10, 10  # the class is at the second one's lower end
    choice = domains.choose(1, {("layer", 1): held, ("layer", 2): held[::-1]})
    assert choice == domains.Choice("layer", 1, -1, domains.EDGES[40], 1.0)
    assert domains.choose(1, {("layer", 1): held[:, :, ::-1]})[:4] == ("layer", 1, 1, domains.EDGES[-41])
    share = np.array([0.0, 0.5, 1.0])
    assert domains.correlation(3, share.sum(), -share.sum(), share @ share, share @ share, -share @ share) == -1


def test_smaller_sets_are_parts_of_larger_ones(load_benchmark, shapes_folder, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    take = load_benchmark("how_much_data").take
    samples = load(shapes_folder).samples
    sets = [set(take(samples, each, 0)) for each in (2, 4, 0)]
    assert sets[0] < sets[1] < sets[2] == {sample.name for sample in samples}
    for names, each in zip(sets, (2, 4), strict=False):
        shown = [label for sample in samples if sample.name in names for label in sample.labels]
        assert all(shown.count(label) >= each for label in (1, 2))
    assert take(samples, 2, 1) != take(samples, 2, 0)


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


def test_corrections_of_a_few_shapes(load_benchmark, a_run, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    script, file = load_benchmark("corrections"), tmp_path / "rows.json"
    given = ["--masks", "0", "1", "--choice", "random", "chosen", "--seeds", "0", "--ceiling", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["corrections.py", str(a_run), "--out", str(tmp_path / "out"), *given])
    script.main()
    rows = json.loads(file.read_text("utf-8"))
    assert [(row["choice"], row["masks"]) for row in rows] == [
        ("random", 0), ("random", 1), ("chosen", 0), ("chosen", 1), ("ceiling", 0)
    ]  # fmt: skip
    assert rows[0]["others"] == rows[2]["others"]
    assert 1 <= rows[1]["photos"] <= 2
    assert rows[1]["val"] is not None
    assert "| random | 1 |" in capsys.readouterr().out
    assert not (a_run / "corrected").exists()
    samples = script.resume_run(a_run).train.samples
    assert len(script.take(samples, 99)) == len(samples)


def test_corrections_measured_quickly(load_benchmark, a_run, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    script = load_benchmark("corrections_quick")
    given = ["--masks", "0", "1", "--choice", "random", "ceiling", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["corrections_quick.py", str(a_run), *given])
    script.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["choice"], row["masks"]) for row in rows] == [("random", 0), ("random", 1), ("ceiling", 0)]
    assert all(0 <= row[part] <= 100 for row in rows for part in ("others", "val"))
    assert len({row["others"] for row in rows}) > 1
