"""The compared systems as a user runs them: one flag, the same run folder, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from tag2mask.config import load_recipe
from tag2mask.data import load, loading, read_mask, read_photo
from tag2mask.errors import DataError, RecipeError, WeightsError
from tag2mask.methods import method_settings
from tag2mask.methods.cam import normalised_cam
from tag2mask.names import method_names
from tag2mask.networks.classifier import Classifier
from tag2mask.proxy import proxy_mask
from tag2mask.runs.estimate import estimate_mask
from tag2mask.runs.folder import Source, open_run, resume_run
from tag2mask.runs.stages import run_stages
from tag2mask.training.datasets import MaskedPhotos


@pytest.fixture
def run_method(command, finished_run, shapes_folder, recipe_file, tmp_path):
    """Run a method on the classifier of the finished run, or on one of another network; return the run folder."""

    def call(method, *arguments, network="test_resnet"):
        out = tmp_path / method
        start = ("run", shapes_folder, "--out", out, "--recipe", recipe_file, "--split", "train", "--eval-split", "val")
        start = (*start, "--set", f"backbone.name={network}")
        assert command(*start, "--method", method, *arguments, "--until", "classify").code == 0
        if network == "test_resnet":
            shutil.copy(finished_run / "classifier.safetensors", out)
        said = command(*start, "--method", method, *arguments)
        assert said.code == 0, said.err
        return out

    return call


def values(folder):
    return {file.stem: set(np.unique(read_mask(file)).tolist()) for file in folder.glob("*.png")}


@pytest.mark.parametrize("method", ["sec", "dsrg"])
def test_training_on_seeds_end_to_end(run_method, shapes_folder, method):
    out = run_method(method, network="resnet10t")  # wide enough to tell both ends of the seeds' thresholds
    recipe = yaml.safe_load((out / "config.yaml").read_text())["recipe"]
    assert recipe["segmenter"]["method"] == method
    assert recipe["proxy"]["cam_thresholds"] == [0.05, 0.2]
    retrained = ["segmenter-retrained.safetensors"] if method == "dsrg" else []
    wanted = ["classifier.safetensors", *retrained, "segmenter.safetensors"]
    assert sorted(file.name for file in out.glob("*.safetensors")) == wanted
    labels = {sample.name: set(sample.labels) for sample in load(shapes_folder).samples}
    found = values(out / "proxy")
    assert len(found) == 11
    assert all({0, 255} <= seen <= {0, 255, *labels[name]} for name, seen in found.items())
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["prediction"]["images"] == 3
    # Background alone scores about 28.
    assert metrics["prediction"]["miou"] > 29


@pytest.mark.parametrize("method", ["cam", "gradcam", "ddt"])
def test_proxy_masks_of_another_method(run_method, method):
    out = run_method(method, "--set", "patterns.layers=[layer3.0, layer2.0]", "--until", "estimate")
    found = ["patterns.safetensors"] if method == "ddt" else []  # of the first layer alone
    assert [file.name for file in out.glob("patterns*")] == found
    unsure = {name for name, seen in values(out / "proxy").items() if 255 in seen}
    several = {sample.name for sample in resume_run(out).train.samples if len(sample.labels) > 1}
    assert unsure <= (several if method == "ddt" else set())
    if method == "ddt":
        assert unsure


def test_cam_masks_are_the_positions_above_a_share_of_the_maximum(run_method, shapes_folder):
    out = run_method("cam", "--until", "estimate")
    classifier = Classifier.load(out / "classifier.safetensors", ["last"], 16)
    for sample in load(shapes_folder, split="train").samples[::3]:
        square = loading.as_tensor(loading.square(read_photo(sample.image), 96))[None]
        with torch.no_grad():
            cam = normalised_cam(classifier.activation(classifier(square).features["last"]))[0].numpy()
        mask = read_mask(out / f"proxy/{sample.name}.png")
        wanted = proxy_mask(cam, sample.labels, mask.shape, threshold=0.2, conflict="strongest")
        assert (mask == wanted).mean() > 0.999


def test_an_uncertain_band_stays_uncertain_after_the_crf():
    settings = ["proxy.method=cam", "proxy.cam_thresholds=[0.25, 0.75]", "proxy.crf=all", "proxy.conflict=strongest"]
    scores = np.zeros((2, 1, 9), np.float32)
    scores[1] = np.linspace(0, 1, 9)
    recipe = load_recipe("fast", settings)
    photo = np.zeros((1, 9, 3), np.uint8)
    found = estimate_mask(photo, scores, [2], recipe)
    assert found.shape == (1, 9)
    assert (found[0] == 255).tolist() == [False] * 3 + [True] * 4 + [False] * 2
    plain = estimate_mask(photo, scores, [2], load_recipe("fast", [*settings, "proxy.crf=none"]))
    assert plain.tolist() == [[0, 0, 0, 255, 255, 255, 255, 2, 2]]


@pytest.mark.parametrize("method", ["cam", "gradcam", "ddt"])
def test_what_is_ours_has_no_part_in_other_methods_even_if_it_is_asked_for(method):
    random = np.random.default_rng(0)
    scores, activation = random.random((2, 3, 6, 8), np.float32) - np.float32(0.3)
    photo = np.zeros((12, 16, 3), np.uint8)
    masks = [
        estimate_mask(photo, scores, [1, 3], load_recipe("fast", method_settings(method, settings)), activation)
        for settings in ([], ["proxy.peak_share=0.5", "proxy.activation_weight=0.5", "proxy.cam_weight=2"])
    ]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("name", method_names())
def test_methods_are_settings_that_later_ones_change(name):
    recipe = load_recipe("fast", method_settings(name))
    assert recipe.proxy.method == name
    assert recipe.segmenter.method == {"sec": "sec", "dsrg": "dsrg", "emadapt": "em"}.get(name, "plain")
    assert load_recipe("fast", method_settings(name, ["segmenter.retrain=2", "seed=5"])).segmenter.retrain == 2
    if name == "patterns":
        assert recipe == load_recipe("fast")


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        ("gradcan", [], "no method 'gradcan'; did you mean 'gradcam'? (methods: aepsl, affinitynet, cam, dcsm, "),
        ("sec", ["segmenter.crop=0.4"], "'segmenter.crop' is 0.4: sec, dsrg and em need 1"),
        ("cam", ["proxy.cam_thresholds=[0.5, 0.2]"], "'proxy.cam_thresholds'"),
        ("cam", ["proxy.method=camm"], "'proxy.method'"),
    ],
)
def test_what_a_method_cannot_be(method, settings, says):
    with pytest.raises(RecipeError) as error:
        load_recipe("fast", method_settings(method, settings))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_method_ends_in_one_line(command, shapes_folder, tmp_path):
    said = command("run", shapes_folder, "--out", tmp_path / "out", "--method", "sce")
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    assert "did you mean 'sec'?" in said.err
    assert not (tmp_path / "out").exists()


def test_grad_cam_inside_a_transformer_is_refused_before_anything_is_written(shapes_folder, recipe_file, tmp_path):
    settings = ["backbone.name=vit_tiny_patch16_224", "patterns.layers=[blocks.5]"]
    recipe = load_recipe(recipe_file, method_settings("gradcam", settings))
    with pytest.raises(WeightsError, match=r"patterns\.layers=\[last\]"):
        open_run(tmp_path / "run", Source(str(shapes_folder)), recipe)
    assert not (tmp_path / "run").exists()


def test_retraining_is_plain(finished_run, shapes_folder, recipe_file, tmp_path, monkeypatch):
    seen = []

    def train(segmenter, samples, masks, how, **rest):
        seen.append((masks.name, how.method))

    monkeypatch.setattr("tag2mask.runs.tasks.train_segmenter", train)
    recipe = load_recipe(recipe_file, method_settings("dsrg", ["segmenter.retrain=1"]))
    run = open_run(tmp_path / "run", Source(str(shapes_folder), None, "val"), recipe)
    shutil.copy(finished_run / "classifier.safetensors", run.out)
    run_stages(run, "retrain")
    assert seen == [("proxy", "dsrg"), ("retrain", "plain")]


def test_without_readable_photos_there_is_no_object(shapes, finished_run, recipe_file, tmp_path):
    run = open_run(tmp_path / "run", Source(str(shapes), None, "val"), load_recipe(recipe_file, method_settings("ddt")))
    shutil.copy(finished_run / "classifier.safetensors", run.out)
    for sample in run.train.samples:
        sample.image.write_bytes(sample.image.read_bytes()[:900])
    with pytest.raises(DataError, match="none of the photos can be read"):
        run_stages(run, "discover")


def test_masked_photos_come_whole_with_their_labels(shapes):
    data = load(shapes)
    data.samples[3].image.write_bytes(b"")
    photos = MaskedPhotos(data.samples, data.samples[0].mask.parent, 2, 48, crop=1.0)
    photo, mask, labels = photos[13][1]
    assert photo.shape == (3, 48, 48)
    assert set(mask.unique().tolist()) == {0, 1, 2}
    assert labels.tolist() == [1, 1]
    assert photos[0][1][2].tolist() == [1, 0]
    assert "p03.jpg" in photos[3][1]
