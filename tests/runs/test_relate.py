"""Affinities of neighbouring positions: learnt, used, kept, and made again."""

import shutil

import numpy as np
import pytest
import torch

from tag2mask.config import AffinityConfig, load_recipe
from tag2mask.data import read_mask
from tag2mask.runs.estimate import estimate_mask, tagged_scores
from tag2mask.runs.folder import Source, open_run, resume_run
from tag2mask.runs.learnt import relate_positions
from tag2mask.runs.relate import small_mask
from tag2mask.runs.stages import run_stages

AFFINITY = "proxy.affinity={epochs: 3, shows: 1}"


def masks_of(run):
    return {file.name: read_mask(file) for file in sorted((run / "proxy").glob("*.png"))}


def begun(folder, shapes_folder, recipe_file, *settings):
    """Return a run whose proxy masks have been drawn."""
    recipe = load_recipe(recipe_file, [AFFINITY, *settings])
    run = open_run(folder, Source.of(shapes_folder, split="train"), recipe)
    run_stages(run, "estimate")
    return run.out


@pytest.fixture(scope="module")
def related(shapes_folder, recipe_file, tmp_path_factory):
    """A run up to its proxy masks; read only."""
    return begun(tmp_path_factory.mktemp("relate") / "run", shapes_folder, recipe_file)


def test_a_walk_carries_a_score_to_where_positions_are_alike_and_no_further():
    recipe = load_recipe("fast", ["proxy.affinity={}", "proxy.peak_share=0", "proxy.share_per_skew=0"])
    alike = torch.zeros(1, 1, 8)
    alike[..., 4:] = 9  # exp(-9) to the power 8: nothing crosses
    scores = np.full((1, 1, 8), -1, np.float32)
    scores[0, 0, 0], scores[0, 0, 7] = 8, -99  # which counts as no lower than -1.5
    found = tagged_scores(scores, [1], recipe, alike=alike)
    assert found.shape == (1, 1, 8)
    np.testing.assert_allclose(found[0, 0, :4], (8 - 3) / 4, atol=1e-4)
    np.testing.assert_allclose(found[0, 0, 4:], (-1.5 - 3) / 4, atol=1e-4)
    assert (tagged_scores(scores, [1], recipe) == scores).all()


def test_small_masks_are_those_of_the_photo_where_the_object_is_plain():
    recipe = load_recipe("fast")
    photo = np.full((300, 400, 3), 40, np.uint8)
    photo[60:240, 200:] = 220
    scores = np.where(photo[None, ::10, ::10, 0] > 100, 3, -1).astype(np.float32)
    found = small_mask(photo, scores, (1,), recipe, None)
    whole = estimate_mask(photo, scores, (1,), recipe)
    assert found.shape == whole.shape
    assert (found != whole).mean() < 0.01


def test_masks_are_others_with_affinities_and_what_they_were_learnt_from_is_gone(related, finished_run):
    assert (related / "affinities.safetensors").exists()
    assert not (related / "by-scores").exists()
    assert not list(related.glob("*checkpoint*"))
    with_, without = masks_of(related), masks_of(finished_run)
    assert with_.keys() == without.keys()
    assert any((with_[name] != without[name]).any() for name in with_)


def test_the_same_run_again_does_nothing_and_a_repeated_stage_removes_the_masks(related, tmp_path, command):
    run = shutil.copytree(related, tmp_path / "run")
    before, at = masks_of(run), (run / "affinities.safetensors").stat().st_mtime_ns
    run_stages(resume_run(run), "estimate")
    assert (run / "affinities.safetensors").stat().st_mtime_ns == at
    assert "estimate" in command("relate", run).out
    assert (run / "affinities.safetensors").stat().st_mtime_ns > at
    assert not (run / "proxy").exists()
    run_stages(resume_run(run), "estimate")
    after = masks_of(run)
    assert all((after[name] == before[name]).all() for name in before)


def test_a_run_that_was_killed_goes_on_where_it_stopped(related, shapes_folder, recipe_file, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tag2mask.runs.relate.relate_positions", killed)
        with pytest.raises(KeyboardInterrupt):
            begun(tmp_path / "run", shapes_folder, recipe_file)
        drawn = sorted((tmp_path / "run/by-scores").iterdir())
        assert len(drawn) == len(masks_of(related))
        drawn[0].unlink()
        times = {file.name: file.stat().st_mtime_ns for file in drawn[1:]}
        with pytest.raises(KeyboardInterrupt):
            begun(tmp_path / "run", shapes_folder, recipe_file)
    assert {file.name: file.stat().st_mtime_ns for file in drawn[1:]} == times
    after, before = masks_of(begun(tmp_path / "run", shapes_folder, recipe_file)), masks_of(related)
    assert all((after[name] == before[name]).all() for name in before)


@pytest.mark.parametrize(("shows", "times"), [(1, 1), (33, 1), (66, 2), (100, 3)])
def test_few_photos_are_shown_more_often(related, shows, times, tmp_path, monkeypatch):
    lessons = []
    monkeypatch.setattr("tag2mask.runs.learnt.learn_affinities", lambda head, lesson, masks: lessons.append(lesson))
    run = resume_run(shutil.copytree(related, tmp_path / "run"))
    how = run.recipe.proxy.model_copy(update={"affinity": AffinityConfig(epochs=3, shows=shows)})
    run.recipe = run.recipe.model_copy(update={"proxy": how})
    relate_positions(run, tmp_path)
    assert len(run.train) == 11
    assert [lesson.times for lesson in lessons] == [times]


def test_an_unreadable_photo_is_said_once(shapes_folder, recipe_file, tmp_path, command):
    data = shutil.copytree(shapes_folder, tmp_path / "shapes")
    photo = min((data / "photos").iterdir())
    run = begun(tmp_path / "run", data, recipe_file)
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    run_stages(resume_run(run), "discover")  # takes up that a photo has changed
    assert command("relate", run).err.count("skipped") == 1
    assert command("estimate", run).code == 0
    assert f"{photo.stem}.png" not in masks_of(run)


def test_a_missing_or_damaged_file_is_said_in_a_line(related, tmp_path, command):
    run = shutil.copytree(related, tmp_path / "run")
    (run / "affinities.safetensors").write_bytes(b"nothing")
    damaged = command("estimate", run)
    assert damaged.code == 2
    assert "affinities.safetensors" in damaged.err
    (run / "affinities.safetensors").unlink()
    missing = command("estimate", run)
    assert missing.code == 2
    assert "relate" in missing.err


def test_tiles_have_no_affinities(shapes_folder, recipe_file, tmp_path, command):
    run = begun(tmp_path / "run", shapes_folder, recipe_file, "tiles={side: 48, overlap: 8}")
    assert not (run / "affinities.safetensors").exists()
    assert command("relate", run).code == 2


def test_views_share_the_affinities_of_the_first(shapes_folder, recipe_file, tmp_path):
    run = begun(tmp_path / "run", shapes_folder, recipe_file, "patterns.views=[{size: 96}]")
    assert [file.parent.name for file in run.rglob("affinities.safetensors")] == ["run"]
    assert len(masks_of(run)) > 0
