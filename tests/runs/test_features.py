"""Feature maps that several trainings of a run see are computed once, and gone at the end."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm import create_model

from tag2mask.api import predict_photos
from tag2mask.config import load_recipe
from tag2mask.data import read_mask
from tag2mask.methods.base import Method
from tag2mask.networks import kept
from tag2mask.networks.backbones import pyramid_layers
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.kept import KeptFeatures, kept_folder
from tag2mask.runs.confidence import read_confidences
from tag2mask.runs.features import shared_features
from tag2mask.runs.folder import Source, open_run, resume_run
from tag2mask.runs.stages import redo_stage, run_stages
from tag2mask.runs.tasks import photo_sets

SETTINGS = (
    "classifier.train=head", "classifier.epochs=2",
    "segmenter.train_from=last", "segmenter.crop=1", "segmenter.epochs=3", "segmenter.retrain=1",
    "segmenter.head=light", "segmenter.size=64", "patterns.size=64", "patterns.output_stride=16",
    "segmenter.output_stride=16", "inference.scales=[64]", "proxy.affinity={epochs: 2, shows: 1}",
)  # fmt: skip


@pytest.fixture
def seen(monkeypatch):
    """Count how often each photo and each mirror image is seen to keep what comes of it."""
    times, see = Counter(), KeptFeatures._see

    def counted(self, sample, side, mirrored):
        times[sample.name, mirrored] += 1
        return see(self, sample, side, mirrored)

    monkeypatch.setattr(KeptFeatures, "_see", counted)
    return times


def begun(folder, shapes_folder, recipe_file, *settings, eval_split="val"):
    torch.manual_seed(0)
    weights = folder.with_suffix(".safetensors")
    save_file(create_model("test_resnet", num_classes=0).state_dict(), weights)
    recipe = load_recipe(recipe_file, [f"backbone.weights={weights}", *SETTINGS, *settings])
    return open_run(folder, Source.of(shapes_folder, split="train", eval_split=eval_split), recipe)


def weights(run):
    return SegmentationNetwork.load(run.segmenter_file).state_dict()


def test_a_photo_is_seen_once_by_affinities_and_both_trainings(tmp_path, shapes_folder, recipe_file, seen):
    run = begun(tmp_path / "run", shapes_folder, recipe_file)
    run_stages(run, "retrain")
    assert set(seen.values()) == {1}
    assert {name for name, mirrored in seen if not mirrored} == {sample.name for sample in run.train.samples}
    assert any(mirrored for _, mirrored in seen)
    assert kept_folder(run.out).is_dir()
    before = seen.copy()
    run_stages(resume_run(run.out), "predict")
    assert seen == before
    assert [folder.name for folder in kept_folder(run.out).iterdir()] == ["scores"]
    run_stages(resume_run(run.out))
    assert not kept_folder(run.out).exists()


def test_masks_of_the_training_photos_themselves_are_predicted_from_what_was_seen(
    tmp_path, shapes_folder, recipe_file, seen
):
    run = begun(tmp_path / "run", shapes_folder, recipe_file, eval_split=None)
    run_stages(run)
    assert set(seen.values()) == {1}
    done, _ = predict_photos(run.out, shapes_folder, tmp_path / "again", split="train")
    assert done == len(run.train)
    for file in (tmp_path / "again").glob("*.png"):
        assert np.mean(read_mask(file) == read_mask(run.out / "predictions" / file.name)) > 0.99


def test_confidence_does_not_look_at_training_photos_again(tmp_path, shapes_folder, recipe_file, monkeypatch):
    run = begun(tmp_path / "run", shapes_folder, recipe_file)
    run_stages(run, "evaluate")
    looked, look = [], Method.look

    def counted(self, network, images, labels):
        looked.append(len(images))
        return look(self, network, images, labels)

    monkeypatch.setattr(Method, "look", counted)
    run_stages(resume_run(run.out))
    assert sum(looked) == len(run.evaluation)
    kept = [read_confidences(run, photos) for photos in photo_sets(run)]
    redo_stage(run, "report")
    assert sum(looked) == 2 * len(run.evaluation) + len(run.train)
    for before, photos in zip(kept, photo_sets(run), strict=True):
        after = read_confidences(run, photos)
        assert after == {name: [pytest.approx(one, abs=2e-4) for one in some] for name, some in before.items()}


def test_a_run_that_goes_on_teaches_the_same(tmp_path, shapes_folder, recipe_file):
    whole = begun(tmp_path / "whole", shapes_folder, recipe_file)
    run_stages(whole, "retrain")
    parts = begun(tmp_path / "parts", shapes_folder, recipe_file)
    run_stages(parts, "relate")
    files = sorted(kept_folder(parts.out).rglob("*.safetensors"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-9])
    run_stages(resume_run(parts.out), "retrain")
    other = weights(parts)
    assert all(np.array_equal(value, other[name]) for name, value in weights(whole).items())


@pytest.mark.parametrize(
    "setting", ["segmenter.retrain=0", "segmenter.train_from=layer4", "tiles={side: 64, overlap: 16}", "full disk"]
)
def test_nothing_is_kept_where_it_is_seen_once_or_has_no_room(
    tmp_path, shapes_folder, recipe_file, seen, monkeypatch, setting
):
    if setting == "full disk":
        monkeypatch.setattr(kept, "disk_usage", lambda _: type("", (), {"free": 1000}))
    run = begun(tmp_path / "run", shapes_folder, recipe_file, *([] if setting == "full disk" else [setting]))
    run_stages(run, "retrain")
    assert not seen
    assert {folder.name for folder in kept_folder(run.out).glob("*")} <= {"scores"}


def test_nothing_is_kept_beside_a_gpu(tmp_path, shapes_folder, recipe_file, monkeypatch):
    run = begun(tmp_path / "run", shapes_folder, recipe_file)
    run_stages(run, "classify")
    classifier = Classifier.load(run.classifier_file, pyramid_layers("test_resnet"), 16)
    assert shared_features(run, classifier)
    monkeypatch.setattr(type(run), "device", torch.device("cuda"))
    assert shared_features(run, classifier.to("meta")) is None
