"""Region-CAM on cases whose numbers are worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tag2mask.config import load_recipe
from tag2mask.data import load, read_mask
from tag2mask.methods import load_method
from tag2mask.methods.base import Network
from tag2mask.methods.regioncam import beyond_mean, propagate
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.networks.classifier import Classifier
from tag2mask.reproduce.methods import chosen_methods, methods_table

METHOD = load_method("regioncam")


def test_positions_send_by_the_squared_positive_cosine():
    features = torch.tensor([[1.0, -1.0, 0.0, 3.0], [0.0, 0.0, 2.0, 4.0]]).view(1, 2, 1, 4)
    maps = torch.tensor([4.0, 0.0, 0.0, 8.0]).view(1, 1, 1, 4)
    found = propagate(maps, features, (1, 4)).flatten()
    # the fourth has cosines 0.6, -0.6 and 0.8 to the others: likenesses 0.36, 0 and 0.64
    wanted = [(4 + 0.36 * 8) / 1.36, 0.0, 0.64 * 8 / 1.64, (0.36 * 4 + 8) / 2]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_the_coarser_map_sends_means_to_every_position():
    features = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]).view(1, 2, 1, 4)
    maps = torch.tensor([[2.0, 4.0, 0.0, 2.0], [0.0, 0.0, 5.0, 5.0]]).view(1, 2, 1, 4)
    assert propagate(maps, features, (1, 2))[0, :, 0].tolist() == [[3, 3, 1, 1], [0, 0, 5, 5]]


def test_many_positions_are_as_few(monkeypatch):
    maps, features = torch.rand(1, 2, 6, 5), torch.randn(1, 3, 6, 5)
    whole = propagate(maps, features, (3, 2))
    monkeypatch.setattr("tag2mask.methods.regioncam._ROWS", 7)
    torch.testing.assert_close(propagate(maps, features, (3, 2)), whole)


def test_an_even_map_is_beyond_its_mean_nowhere():
    assert not beyond_mean(torch.full((1, 1, 7, 7), 0.1) + 1e-7 * torch.rand(1, 1, 7, 7)).any()
    assert not beyond_mean(torch.zeros(1, 1, 2, 2)).any()


class TwoStages:
    """A classifier with given gradients: 2 channels, 4 positions, of which the first and third make the coarse map."""

    backbone = SimpleNamespace(layers=["fine", "coarse"])
    fine = torch.tensor([[[1.0, -5.0, 0.0, 2.0], [3.0, -1.0, 0.0, -9.0]], [[0.0] * 4] * 2])
    coarse = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 6.0], [-1.0, -1.0]]])

    def __call__(self, image):
        fine = image[:, :2]
        coarse = fine[..., ::2] * 1
        logits = (fine * self.fine[:, :, None]).sum((1, 2, 3)) + (coarse * self.coarse[:, :, None]).sum((1, 2, 3))
        return SimpleNamespace(logits=logits[None], features={"fine": fine, "coarse": coarse, LAST: coarse})

    def activation(self, maps):
        return maps


def test_gradients_say_where_and_stages_are_summed():
    image = torch.zeros(3, 1, 4)
    image[0, 0, :2], image[1, 0, 2:] = 1, 1
    network = Network(TwoStages(), None, [], load_recipe("balanced"))
    # The coarse gradient also reaches the fine positions 1 and 3.
    # Class 1: the fine SIM is 6, 0, 2, 2, so 3 and 2 are sent, all to what is alike; the coarse one is even.
    # Class 2: the fine SIM is 0, 0, 6, 0, so 0 and 3 are sent, shares 0, 0, 1, 1; the coarse one is 0 and 6,
    # at four positions 0, 0.25, 0.75, 1; the sum's maximum is 2.
    one, two = [1, 1, 0, 0], [0, 0.125, 0.875, 1]
    scores, _ = METHOD.look(network, torch.stack([image] * 3), [[1, 2], [2], []])
    assert scores[:, :, 0].tolist() == [[one, two], [[0] * 4, two], [[0] * 4, [0] * 4]]


def test_photos_are_looked_at_alone_and_the_pooled_map_adds_nothing():
    torch.manual_seed(0)
    layers = METHOD.layers(load_recipe("balanced", ["backbone.name=test_resnet"]))
    assert layers == ["layer1", "layer2", "layer3", "layer4"]
    classifier = Classifier(Backbone("test_resnet", layers, weights="random"), ("a", "b", "c")).eval()
    images = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    labels = [(2,), (1, 3), ()]
    network = Network(classifier, classifier.backbone, [], load_recipe("balanced"))
    together, _ = METHOD.look(network, images, labels)
    alone = torch.cat([METHOD.look(network, images[i : i + 1], labels[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    assert together.amax((2, 3)).tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert together.shape[2:] == (16, 24)
    seen = classifier(images[:1].float().requires_grad_())
    (gradient,) = torch.autograd.grad(seen.logits[0, 1], seen.features["layer4"])
    even = propagate(gradient.clamp_min(0).sum(1, keepdim=True), seen.features["layer4"].detach(), (4, 6))
    assert even.max() > 0
    assert not beyond_mean(even).any()


def test_layers_of_efficientnet():
    assert METHOD.layers(load_recipe("balanced")) == ["blocks.1", "blocks.2", "blocks.4", "blocks.6"]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_is_refused(name):
    said = METHOD.refusal(SimpleNamespace(is_transformer=True, name=name))
    assert said.startswith(f"Region-CAM needs a convolutional network with stages, not {name}; choose another")
    assert not METHOD.refusal(Backbone("test_resnet", weights="random"))


def test_masks_show_tags_and_background(command, shapes_folder, recipe_file, tmp_path):
    start = ("run", shapes_folder, "--out", tmp_path / "out", "--recipe", recipe_file, "--method", "regioncam")
    network = ("--set", "backbone.name=resnet10t", "--until", "estimate")
    said = command(*start, "--split", "train", "--eval-split", "val", *network)
    assert said.code == 0, said.err
    labels = {sample.name: set(sample.labels) for sample in load(shapes_folder).samples}
    seen = {file.stem: set(np.unique(read_mask(file)).tolist()) for file in (tmp_path / "out/proxy").glob("*.png")}
    assert len(seen) == 11
    assert all(values <= {0, *labels[name]} for name, values in seen.items())
    assert sum(len(values) > 1 for values in seen.values()) > 2  # the backbone is random


def test_its_row_in_table_2_has_no_published_figure():
    assert "regioncam" in chosen_methods([])
    found = {"proxy": {"miou": 48.0}, "prediction": {"miou": 50.0}, "seconds": {"estimate": 90.0}}
    (row,) = methods_table({"regioncam": found}, []).rows
    assert row == ("Region-CAM", "tags, no saliency", 48.0, 50.0, None, None, 1.5, "regioncam")
