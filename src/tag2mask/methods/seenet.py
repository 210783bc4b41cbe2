r"""SeeNet (Hou et al. 2018): a second branch looks where the first has not, and a third keeps it off the background.

Published and kept: branch A finds attention $M_A$; branch B sees features times a ternary mask, 0 where
$M_A > \delta_h = 0.7$ of its maximum, -1 where $M_A < \delta_l = 0.05$, 1 between (C-ReLU); branch C, with B's weights,
sees those where $M_B < (\delta_h + \delta_l) / 2$, and has to tell no class; the larger of A's and B's maps counts, and
the larger of that and the mirror image's. Maps have a bias; their mean is the class score.

Replaced: VGG16, fine-tuned, by the recipe's frozen backbone, and the two convolutions of each branch (512 channels) by
one (64). The background of a saliency detector by the shared rule, ``proxy.cam_thresholds``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tag2mask.config import Recipe
from tag2mask.methods.base import Features, Network
from tag2mask.methods.cam import Cam, normalised_cam
from tag2mask.networks.backbones import LAST, pyramid_layers
from tag2mask.networks.classifier import Classifier, targets_of
from tag2mask.training.heads import Lesson, learn_on_features, narrowed, prior, seeing, tag_loss

HIGH, LOW = 0.7, 0.05
r"""$\delta_h$ and $\delta_l$, shares of the maximum of an attention map."""


def ternary(attention: Tensor) -> Tensor:
    r"""Return the mask of branch B, -1 for background, 0 for what is erased, 1 for the rest.

    Args:
        attention: float N x h x w, 0..1, $M_A$.

    Returns:
        float N x 1 x h x w.

    >>> ternary(torch.tensor([[[0.0, 0.5, 0.9]]])).tolist()
    [[[[-1.0, 1.0, 0.0]]]]
    """
    return ((attention <= HIGH).float() - 2 * (attention < LOW).float())[:, None]


def attention(maps: Tensor, labels: Tensor) -> Tensor:
    """Return the largest of the labels' maps, each by its own maximum, float N x h x w, 0..1; without gradient.

    Args:
        maps: float N x C x h x w.
        labels: float N x C of zeros and ones.
    """
    return (normalised_cam(maps.detach().float()) * labels[:, :, None, None]).amax(1)


class SelfErasing(nn.Module):
    """The branches on one feature map.

    Args:
        channels: of the feature map.
        classes: number of maps of a branch.
        width: channels inside a branch.
    """

    def __init__(self, channels: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.narrow = narrowed(channels, width)
        self.first = nn.Sequential(seeing(width, width), nn.Dropout(0.5), nn.Conv2d(width, classes, 1))
        self.second = nn.Sequential(seeing(width, width), nn.Conv2d(width, classes, 1))

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the class activation maps of A, B and C, N x C x h x w each.

        Args:
            features: N x D x h x w.
            labels: float N x C of zeros and ones; whose attention is erased.
        """
        seen = self.narrow(features)
        first = self.first(seen)
        second = self.second(seen * ternary(attention(first, labels)))
        behind = (attention(second, labels) < (HIGH + LOW) / 2).float()[:, None]
        return first, second, self.second(seen * behind)


class SeeNet(Cam):
    """The largest of two branches' maps and those of the mirror image, each by its own maximum."""

    title = "SeeNet"
    learns: ClassVar[bool] = True

    def layers(self, recipe: Recipe) -> list[str]:
        """Return the deepest stage."""
        return pyramid_layers(recipe.backbone.name)[-1:]

    def build(self, classifier: Classifier, recipe: Recipe) -> nn.Module:
        """Return the branches."""
        return SelfErasing(classifier.backbone.channels[classifier.backbone.layers[0]], len(classifier.classes))

    def learn(self, module: Any, lesson: Lesson) -> None:
        """Train A and B to tell the labels and C to tell none."""
        (layer,) = lesson.classifier.backbone.layers

        def loss(model: Any, features: Features, labels: Tensor) -> Tensor:
            first, second, third = model(features[layer], labels)
            return tag_loss(first, labels) + tag_loss(second, labels) + tag_loss(third, torch.zeros_like(labels))

        for branch in (module.first, module.second):
            branch[-1].bias.data.copy_(prior(lesson))
        learn_on_features(module, lesson, loss)

    def see(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the largest of A's and B's maps and those of the mirror images, and class activations.

        Both are float N x C x h x w.
        """
        with torch.inference_mode():
            features = network.backbone(images)
            activation = network.classifier.activation(features[LAST])
            present = targets_of(map(tuple, labels), activation.shape[1]).to(activation)
            mirrored = _found(network, network.backbone(images.flip(3)), present).flip(3)
            return torch.maximum(_found(network, features, present), mirrored), activation


def _found(network: Network, features: Features, present: Tensor) -> Tensor:
    first, second, _ = network.learnt(features[network.backbone.layers[0]], present)
    return torch.maximum(normalised_cam(first), normalised_cam(second))


METHOD = SeeNet()
