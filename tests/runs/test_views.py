"""Views: photos seen by another backbone and at another size, their scores averaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from tag2mask.config import load_recipe
from tag2mask.data.loading import as_tensor, square
from tag2mask.methods import load_method
from tag2mask.runs import estimate, tasks
from tag2mask.runs import plan as planning
from tag2mask.runs.folder import Source, open_run, read_metrics, resume_run
from tag2mask.runs.stages import redo_stage, run_stages, stages_to_do
from tag2mask.runs.views import views_of

VIEWS = "patterns.views=[{size: 128}, {backbone: {name: resnet10t, weights: random}}]"


@pytest.fixture(scope="module")
def seen(shapes_folder, recipe_file, tmp_path_factory):
    """A run of three views until its proxy masks; read only."""
    run = open_run(
        tmp_path_factory.mktemp("views") / "run", Source.of(shapes_folder), load_recipe(recipe_file, [VIEWS])
    )
    run_stages(run, "estimate")
    return run


def test_scores_are_the_mean_of_the_views(seen):
    sample = next(sample for sample in seen.train.samples if len(sample.labels) == 2)
    networks = [estimate.load_network(view) for view in views_of(seen)]
    [(_, photo, scores, activation, _)] = estimate.looks(seen, networks, [sample])
    method, alone = load_method("patterns"), []
    for size, network in zip((seen.recipe.patterns.size, 128, seen.recipe.patterns.size), networks, strict=True):
        image = as_tensor(square(photo, size))[None]
        alone.append(method.look(network, image, [sample.labels]))
    finest = max((one for one, _ in alone), key=lambda one: one.shape[-1]).shape[-2:]
    for found, maps in zip((scores, activation), zip(*alone, strict=True), strict=True):
        resized = [functional.interpolate(one, finest, mode="bilinear") for one in maps]
        np.testing.assert_allclose(found, torch.stack(resized).mean(0)[0], atol=1e-5)
    assert np.abs(alone[0][0][0].numpy() - alone[2][0][0].numpy()).max() > 0.1  # the backbones differ


def test_a_view_of_the_same_backbone_shares_its_classifier(seen):
    files = {file.relative_to(seen.out).as_posix() for file in seen.out.rglob("*.safetensors")}
    own = {"view-3/classifier.safetensors"}
    assert files == {
        "classifier.safetensors",
        *own,
        *(f"{at}patterns.safetensors" for at in ("", "view-2/", "view-3/")),
    }


def test_the_lowest_confidence_of_all_views_counts(seen):
    found = [tasks._patterns_of(view)[0].about() for view in views_of(seen)]
    for name, about in read_metrics(seen.out)["patterns"].items():
        assert about["confidence"] == min(one[name]["confidence"] for one in found)


def test_what_is_there_stays_and_what_is_missing_is_found(seen, tmp_path):
    assert stages_to_do(resume_run(seen.out), "estimate") == []
    file = seen.out / "view-2/patterns.safetensors"
    before = {one: one.stat().st_mtime_ns for one in seen.out.rglob("*.safetensors")}
    whole = file.read_bytes()
    file.unlink()
    assert "discover" in stages_to_do(resume_run(seen.out), "estimate")
    run_stages(resume_run(seen.out), "discover")
    assert len(file.read_bytes()) == len(whole)
    assert [one for one in before if one.stat().st_mtime_ns != before[one]] == [file]
    redo_stage(resume_run(seen.out), "discover")
    changed = [one for one in before if one.stat().st_mtime_ns != before[one]]
    assert sorted(one.name for one in changed) == ["patterns.safetensors"] * 3


def test_the_plan_names_the_views(seen):
    assert "first masks also from views by test_resnet at 128 px, resnet10t at 96 px" in planning.plan(seen)


def test_views_by_tiles(shapes_folder, recipe_file, tmp_path):
    settings = [VIEWS, "tiles={side: 48, overlap: 8}"]
    run = open_run(tmp_path / "run", Source.of(shapes_folder), load_recipe(recipe_file, settings))
    run_stages(run, "estimate")
    assert len(list((run.out / "proxy").glob("*.png"))) == len(run.train)


def test_a_published_method_has_one_view(shapes_folder, recipe_file, tmp_path):
    run = open_run(tmp_path / "run", Source.of(shapes_folder), load_recipe(recipe_file, [VIEWS, "proxy.method=cam"]))
    assert views_of(run) == [run]


def test_a_view_of_an_unknown_backbone_is_refused(shapes_folder, recipe_file, tmp_path, command):
    views = "patterns.views=[{backbone: {name: resnet81, weights: random}}]"
    given = ("run", shapes_folder, "--out", tmp_path / "run", "--recipe", recipe_file, "--set", views)
    said = command(*given)
    assert said.code == 2
    assert "resnet81" in said.err
    assert not (tmp_path / "run").exists()
    assert json.dumps(said.err).count("\\n") == 1
