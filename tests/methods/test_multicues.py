"""Multi-Cues and excitation backprop on cases worked by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tag2mask.config import load_recipe
from tag2mask.data import load, read_mask
from tag2mask.methods import load_method
from tag2mask.methods.base import Network
from tag2mask.methods.multicues import with_messages
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.excitation import TopDown, attention, from_layer
from tag2mask.networks.speed import faster_copy


def maps_of(*channels):
    return torch.tensor(channels, dtype=torch.float32)[None, :, None]


def won_by(start, computed, won):
    return torch.autograd.grad(computed, start, won)[0].flatten().tolist()


def test_inputs_win_by_their_excitation_of_a_class():
    start, weight = maps_of([2.0], [1.0]).requires_grad_(), torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    with TopDown():
        last = torch.nn.functional.conv2d(start, weight[:, :, None, None], torch.tensor([1.0, -0.5])).relu()
    assert last.flatten().tolist() == [5, 4.5]
    # Class 1 weighs these by 1 and 2: 5 and 9. Of the 5, x_1 = 2 has 2 / (2 + 2), x_2 = 1 the rest; x_1 has all 9.
    assert attention(start, last, torch.tensor([[1.0, 2.0], [-1.0, 0.0]]), [[1]])[0, :, 0, 0].tolist() == [14, 0]
    assert won_by(start, last, maps_of([5.0], [9.0])) == pytest.approx([11.5, 2.5])


def test_sums_means_and_activations_share_and_pass_on():
    start = maps_of([3.0, 1.0, -2.0, 9.0]).requires_grad_()
    with TopDown():
        joined = start[..., :1] + start[..., 1:2]
        alone = start[..., 1:2] + start[..., 2:3]
        mean = nn.AvgPool2d((1, 2))(start[..., :2])
        capped = nn.ReLU6(inplace=True)(start[..., 3:] * 1)
    assert (joined.item(), alone.item(), mean.item(), capped.item()) == (4, -1, 2, 6)
    found = [won_by(start, one, torch.ones_like(one)) for one in (joined, alone, mean, capped)]
    assert found == [[0.75, 0.25, 0, 0], [0, 1, 0, 0], [0.75, 0.25, 0, 0], [0, 0, 0, 1]]


def test_neighbours_that_are_alike_hear_each_other():
    features = maps_of([1.0, 2.0, -1.0, 0.0], [0.0, 0.0, 0.0, 5.0])
    maps = maps_of([8.0, 0.0, 3.0, 1.0])
    assert with_messages(maps, features, 1).flatten().tolist() == [4, 4, 3, 1]
    torch.testing.assert_close(with_messages(torch.ones(1, 2, 3, 4), torch.rand(1, 5, 3, 4)), torch.ones(1, 2, 3, 4))


def test_cues_are_joined_by_their_geometric_mean():
    attentive, activation = maps_of([4.0, 1.0, 0.0, 4.0]), maps_of([1.0, 9.0, 5.0, -1.0])
    found = load_method("multicues").of_photo(attentive, activation, SimpleNamespace())
    # 1 * 1/9, 1/4 * 1, 0, 0: their roots are 1/3 and 1/2
    torch.testing.assert_close(found.flatten(), torch.tensor([2 / 3, 1.0, 0.0, 0.0]))


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0"])
def test_a_network_computes_the_same_and_no_probability_is_made(name):
    layer = load_method("multicues").layers(load_recipe("fast", [f"backbone.name={name}"]))
    backbone = faster_copy(Backbone(name, layer, weights="random").eval(), torch.device("cpu"), fused=False)
    images = torch.rand(2, 3, 64, 96) * 255
    start, last = from_layer(backbone, images)
    wanted = backbone(images)
    torch.testing.assert_close(last, wanted["last"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(start, wanted[layer[0]])
    assert last.grad_fn is not None
    assert wanted["last"].grad_fn is None  # the hook is gone
    weight = torch.rand(3, last.shape[1]) - 0.3
    found = attention(start, last, weight, [[3, 1], [2]])
    excitation = torch.einsum("cd,ndhw->nc", weight.clamp_min(0), last.clamp_min(0)).detach()
    assert ((found.sum((2, 3)) > 0).tolist()) == [[True, False, True], [False, True, False]]
    assert (found.sum((2, 3)) <= excitation * 1.001).all()
    if name == "resnet10t":  # where no input is negative, nothing gets lost
        torch.testing.assert_close(found.sum((2, 3))[[0, 0, 1], [0, 2, 1]], excitation[[0, 0, 1], [0, 2, 1]])
    assert found.min() >= 0


def test_a_photo_is_seen_the_same_alone_and_among_others():
    layer = load_method("multicues").layers(load_recipe("fast", ["backbone.name=resnet10t"]))
    classifier = Classifier(Backbone("resnet10t", layer, weights="random"), ["a", "b"]).eval().requires_grad_(False)
    network, images = Network(classifier, classifier.backbone, [], load_recipe("fast")), torch.rand(3, 3, 64, 64) * 255
    labels, method = [(1,), (1, 2), ()], load_method("multicues")
    together, _ = method.look(network, images, labels)
    alone = torch.cat([method.look(network, images[i : i + 1], labels[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    assert together[0, 1].max() == 0 == together[2].max()


@pytest.mark.parametrize("tiles", ["null", "{side: 48, overlap: 16}"])
def test_masks_show_tags_and_background(command, shapes_folder, recipe_file, tmp_path, tiles):
    start = ("run", shapes_folder, "--out", tmp_path / "out", "--recipe", recipe_file, "--method", "multicues")
    network = ("--set", "backbone.name=resnet10t", "--set", f"tiles={tiles}")
    said = command(*start, *network, "--split", "train", "--until", "estimate")
    assert said.code == 0, said.err
    labels = {sample.name: set(sample.labels) for sample in load(shapes_folder).samples}
    seen = {file.stem: set(read_mask(file).flat) for file in (tmp_path / "out/proxy").glob("*.png")}
    assert len(seen) == 11
    assert all(values <= {0, *labels[name]} for name, values in seen.items())
    assert sum(len(values) > 1 for values in seen.values()) > 2  # the backbone is random


def test_networks_without_relus_alone_are_refused():
    refusal = load_method("multicues").refusal
    assert "Multi-Cues needs" in refusal(SimpleNamespace(is_transformer=True, name="vit_tiny_patch16_224"))
    assert "not mobilenetv3_small_100" in refusal(Backbone("mobilenetv3_small_100", output_stride=32, weights="random"))
    assert not refusal(Backbone("resnet10t", weights="random"))
    assert not refusal(Backbone("tf_efficientnet_lite0", weights="random"))
