"""What is chosen from the data: each value, that it is kept, and that other data or a setting changes it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tag2mask.config import AffinityConfig, load_recipe
from tag2mask.data import ImageSet, Sample, load
from tag2mask.runs import auto
from tag2mask.runs.folder import Source, open_run, resume_run
from tag2mask.runs.stages import run_stages, stages_to_do

LEFT = ["patterns.size", "segmenter.size", "inference.scales", "proxy.cam_weight", "tiles"]


@pytest.fixture
def auto_recipe(recipe_file, tmp_path):
    file = tmp_path / "auto.yaml"
    file.write_text(recipe_file.read_text() + f"auto: {json.dumps(LEFT)}\n")
    return file


@pytest.fixture
def small_sizes(monkeypatch):
    monkeypatch.setattr(auto, "SIZES", (48, 160))


def of_labels(*labels):
    """An image set of photos with these labels, which nobody reads."""
    classes = [f"class {label}" for label in range(1, max(sum(labels, ())) + 1)]
    samples = [Sample(f"p{number}", f"p{number}.jpg", own) for number, own in enumerate(labels)]
    return ImageSet(classes, samples)


def chosen(data, **recipe):
    run = SimpleNamespace(train=data, recipe=load_recipe("fast", {"proxy.method": "cam", **recipe}))
    return {choice.key: choice.value for choice in auto.choices(run)}


def test_without_photos_to_compare_with_the_classifier_has_no_say():
    alike = chosen(of_labels((1, 2), (1, 2), (1, 2)))
    assert alike == {"proxy.cam_weight": 0, "patterns.contrast": 0, "patterns.whitening": 0}
    assert chosen(of_labels((1, 2), (1,), (1, 2)))["proxy.cam_weight"] == 1.5
    assert chosen(of_labels((1,), (1,), ()))["patterns.whitening"] == 1


def test_first_photos_have_each_class_and_some_without():
    data = of_labels(*[(1,)] * 900, *[(2,)] * 5, *[()] * 300)
    some = auto.first_photos(data, seed=3)
    counts = [sum(sample.labels == own for sample in some.samples) for own in ((1,), (2,), ())]
    assert counts == [32, 5, 32]
    assert some.samples == auto.first_photos(data, seed=3).samples != auto.first_photos(data, seed=4).samples


def test_finer_than_by_hand():
    scores = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [8, 8, 0, 0], [8, 8, 0, 0]])
    assert auto.finer_than(scores, 1) == 0
    assert auto.finer_than(scores, 2) == 0  # blocks of two keep every value
    assert auto.finer_than(scores[:, 1:3], 2) == pytest.approx(1 - (1 / 11))
    assert auto.finer_than(torch.ones(5, 5), 2) == 0


@given(st.integers(0, 2**31), st.integers(4, 12), st.integers(1, 4))
def test_finer_than_is_a_share(seed, side, block):
    scores = torch.randn(side, side, generator=torch.Generator().manual_seed(seed))
    same = auto.finer_than(5 - 3 * scores, block)
    assert auto.finer_than(scores, block) == pytest.approx(same, abs=1e-4)
    assert same <= 1


def test_looks_come_closer_while_photos_are_large_enough(tmp_path):
    def at(width, height):
        Image.new("L", (width, height)).save(tmp_path / "a.png")
        sample = Sample("a", str(tmp_path / "a.png"), (1,))
        return [tiles and (tiles.side, tiles.overlap) for tiles in auto.looks(ImageSet(["a"], [sample]))]

    assert at(256, 200) == []
    assert at(200, 264) == [None]
    assert at(320, 160) == [None]  # squares of the shorter side would be enlarged too much
    assert at(320, 640) == [(320, 80)]  # long: squares of the shorter side
    assert at(4000, 3000) == [None, (1500, 375), (750, 187), (375, 93)]


def test_a_run_keeps_what_was_chosen(auto_recipe, small_sizes, shapes, tmp_path, command):
    out = tmp_path / "out"
    arguments = ("run", shapes, "--out", out, "--recipe", auto_recipe, "--until", "discover")
    said = command(*arguments)
    assert said.code == 0, said.err
    assert "plan: Choose what the recipe leaves to the data." in said.err
    assert "proxy.cam_weight: 1.5 (there are photos without each class, 5 or more)" in said.err
    written = yaml.safe_load((out / "config.yaml").read_text())["recipe"]
    assert written["proxy"]["cam_weight"] == 1.5
    assert written["patterns"]["size"] == written["segmenter"]["size"] == written["inference"]["scales"][0]
    assert {choice["key"] for choice in json.loads((out / "plan.json").read_text())} == {*LEFT}
    again = command(*arguments)
    assert again.code == 0
    assert "nothing to do" in again.err
    assert yaml.safe_load((out / "config.yaml").read_text())["recipe"] == written
    (out / "plan.json").unlink()  # as if killed before the stage ended
    assert stages_to_do(resume_run(out), "discover") == ["plan"]


@pytest.mark.parametrize(("limit", "size"), [(-1.0, 160), (1.0, 48)])
def test_small_objects_are_seen_larger(monkeypatch, small_sizes, auto_recipe, shapes, tmp_path, limit, size):
    monkeypatch.setattr(auto, "SMALL", limit)
    run = open_run(tmp_path / "out", Source.of(shapes), load_recipe(auto_recipe))
    run_stages(run, "plan")
    recipe = resume_run(run.out).recipe
    assert (recipe.patterns.size, recipe.segmenter.size, recipe.inference.scales) == (size, size, [size])


@pytest.mark.parametrize(("limit", "power"), [(-1.0, None), (1.0, 5)])
def test_affinities_are_the_recipes_own_unless_objects_are_small(
    monkeypatch, small_sizes, recipe_file, shapes, tmp_path, limit, power
):
    monkeypatch.setattr(auto, "SMALL", limit)
    assert load_recipe("auto").proxy.affinity == AffinityConfig()  # what is chosen anew after none
    recipe = load_recipe(recipe_file, {"proxy.affinity": {"power": 5}}).model_copy(update={"auto": ["proxy.affinity"]})
    run = open_run(tmp_path / "out", Source.of(shapes), recipe)
    run_stages(run, "plan")
    found = resume_run(run.out).recipe.proxy.affinity
    assert found == (power and AffinityConfig(power=power))


def test_other_tags_are_another_plan(auto_recipe, small_sizes, shapes, tmp_path):
    recipe = load_recipe(
        auto_recipe, {"patterns.size": 48, "segmenter.size": 48, "inference.scales": [48], "tiles": None}
    )
    assert recipe.auto == ["proxy.cam_weight"]
    out, tags = tmp_path / "out", shapes / "tags.csv"
    before = tags.read_text()
    tags.write_text("image,labels\n" + "".join(f"p{number:02}.jpg,disc;square\n" for number in range(14)))
    run_stages(open_run(out, Source.of(shapes), recipe), "classify")
    assert resume_run(out).recipe.proxy.cam_weight == 0
    tags.write_text(before)
    run_stages(open_run(out, Source.of(shapes), recipe), "classify")
    assert resume_run(out).recipe.proxy.cam_weight == 1.5


def test_a_set_value_is_left_as_it_is(auto_recipe):
    recipe = load_recipe(auto_recipe, ["patterns.size=56", "tiles.side=64", "tiles.overlap=8"])
    assert recipe.auto == ["segmenter.size", "inference.scales", "proxy.cam_weight"]
    assert load_recipe("auto", ["seed=3"]).auto == load_recipe("auto").auto
    assert load_recipe("auto").model_dump(exclude={"name", "auto"}) == load_recipe("fast").model_dump(
        exclude={"name", "auto"}
    )


def test_other_settings_are_another_run(auto_recipe, small_sizes, shapes, tmp_path, command):
    arguments = ("run", shapes, "--out", tmp_path / "out", "--recipe", auto_recipe, "--until", "plan")
    assert command(*arguments).code == 0
    said = command(*arguments, "--set", "patterns.size=56")
    assert said.code == 2
    assert "recipe.auto" in said.err
    assert len(load(shapes)) == 14
