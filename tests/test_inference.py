"""Scores averaged strip by strip, photos decoded smaller, batch normalisation folded: the same masks, faster."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from tag2mask import inference
from tag2mask.config import load_recipe
from tag2mask.data import photos_in, read_mask
from tag2mask.inference import average, forward, most_likely, predict_masks, probabilities_of
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.weights import load_tensors, save_tensors

LABELS = [None, [], [2], [1, 4]]


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return SegmentationNetwork("resnet10t", ["a", "b"], weights="random").eval()


def made_logits(sides=(5, 9), classes=6):
    return [4 * torch.randn(classes, side, side, generator=torch.Generator().manual_seed(side)) for side in sides]


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("size", [(30, 41), (1, 50), (3, 2), (9, 9)])
def test_strips_together_are_the_average_at_the_photos_size(monkeypatch, size, labels):
    """Against torch's own interpolation; also where the photo is smaller than the map."""
    logits = made_logits()
    kept = logits if labels is None else [one[[0, *labels]] for one in logits]
    wanted = sum(functional.interpolate(one[None], size, mode="bilinear")[0].softmax(0) for one in kept) / 2
    monkeypatch.setattr(inference, "_STRIP", 4 * size[1] * len(kept[0]))
    strips = list(average(logits, size, labels))
    assert [rows.start for rows, _ in strips] == list(range(0, size[0], 4))
    torch.testing.assert_close(torch.cat([strip for _, strip in strips]).permute(2, 0, 1), wanted, rtol=1e-4, atol=1e-6)
    whole = probabilities_of(logits, size, labels)
    assert whole.shape == (6, *size)
    np.testing.assert_allclose(whole.sum(0), 1, rtol=1e-4)
    np.testing.assert_array_equal(most_likely(logits, size, labels), whole.argmax(0))


def test_background_weighs_less_and_probabilities_still_sum_to_one():
    logits = [torch.log(torch.tensor([0.6, 0.25, 0.15])).view(3, 1, 1)]
    whole = probabilities_of(logits, (2, 2), background_weight=0.5)
    np.testing.assert_allclose(whole[:, 0, 0], np.array([0.3, 0.25, 0.15]) / 0.7, rtol=1e-5)
    assert (most_likely(logits, (2, 2), background_weight=0.4) == 1).all()


def test_inference_mode_does_not_leak_out_of_the_strips():
    for _ in average(made_logits(), (8, 8)):
        assert not torch.is_inference_mode_enabled()


def test_photos_forwarded_together_are_as_one_by_one(segmenter):
    random = np.random.default_rng(0)
    photos = [random.integers(0, 256, (height, 60, 3)).astype(np.uint8) for height in (40, 90)]
    for together, photo in zip(forward(segmenter, photos, [32, 64]), photos, strict=True):
        [alone] = forward(segmenter, [photo], [32, 64])
        for mine, wanted in zip(together, alone, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("crf", [True, False])
def test_a_large_photo_is_decoded_small_where_no_crf_looks_at_its_pixels(segmenter, tmp_path, monkeypatch, crf):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(coarse).resize((720, 480), Image.Resampling.BICUBIC).save(tmp_path / "photos/a.jpg")
    seen = []
    monkeypatch.setattr(
        inference, "forward", lambda network, photos, *how: seen.append(photos) or forward(network, photos, *how)
    )
    settings = ["inference.scales=[48]", "inference.background_weight=1", "workers=0"]
    recipe = load_recipe("fast", [*settings, *([] if crf else ["inference.crf=null"])])
    assert predict_masks(segmenter, photos_in(tmp_path / "photos"), tmp_path / "masks", recipe) == 1
    mask = read_mask(tmp_path / "masks/a.png")
    assert mask.shape == (480, 720)
    assert seen[0][0].shape == ((480, 720, 3) if crf else (120, 180, 3))
    if not crf:
        with Image.open(tmp_path / "photos/a.jpg") as photo:
            [logits] = forward(segmenter, [np.asarray(photo)], [48])
        assert (mask == most_likely(logits, (480, 720), None)).mean() > 0.99


def seasoned(segmenter):
    """Give batch normalisations statistics of their own, as training does."""
    for module in segmenter.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return segmenter


def count(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "vgg11_bn", "densenet121"])
def test_batch_normalisation_is_folded_into_convolutions(name):
    stride = 32 if name == "densenet121" else 16
    segmenter = seasoned(SegmentationNetwork(name, ["a"], weights="random", output_stride=stride)).eval()
    before = count(segmenter)
    faster = segmenter.folded()
    images = 255 * torch.rand(2, 3, 96, 80)
    with torch.inference_mode():
        torch.testing.assert_close(faster(images), segmenter(images), rtol=1e-3, atol=1e-5)
    assert count(faster) < 0.6 * before
    assert count(segmenter) == before


class Apart(nn.Module):
    """Registered like a convolution with its batch normalisation, but they work side by side."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, features):
        return self.conv(features[0]) + self.norm(features[0])


def test_a_network_that_would_say_something_else_is_left_as_it_is(segmenter):
    strange = copy.deepcopy(segmenter)
    strange.head = Apart(strange.backbone.channels[strange.backbone.layers[0]])
    seasoned(strange)
    assert strange.folded() is strange
    assert isinstance(strange.head.norm, nn.BatchNorm2d)


def test_a_copy_of_a_backbone_keeps_its_features_to_itself():
    first = Backbone("resnet10t", ["layer4.0"], weights="random")
    second = copy.deepcopy(first)
    assert second(torch.zeros(1, 3, 64, 64))["layer4.0"].shape[0] == 1
    assert first._seen == {}


def test_the_light_head_does_without_the_widest_convolution(tmp_path):
    """And a file that still holds it is read."""
    segmenter = SegmentationNetwork("tf_efficientnet_lite0", ["a"], weights="random").eval()
    assert not any("conv_head" in name for name in segmenter.state_dict())
    assert any("conv_head" in name for name in Backbone("tf_efficientnet_lite0", weights="random").state_dict())
    segmenter.save(tmp_path / "segmenter.safetensors")
    tensors, about = load_tensors(tmp_path / "segmenter.safetensors", "a segmenter")
    old = {**tensors, "backbone.model.conv_head.weight": torch.zeros(1280, 320, 1, 1)}
    save_tensors(tmp_path / "old.safetensors", old, "a segmenter", about)
    image = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(SegmentationNetwork.load(tmp_path / "old.safetensors")(image), segmenter(image))
