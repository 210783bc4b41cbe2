r"""MDC (Wei et al. 2018): a classifier that looks with several dilations, whose class activation maps are averaged.

Published and kept: four blocks, one convolution of 3 x 3 each with dilations 1, 3, 6 and 9 on the last stage, each with
a global average pooling and a classification loss of its own; $H = H_0 + \frac{1}{n_d} \sum_i H_i$. A map has the
bias of its block, so that its mean is the class score (as in SeeNet; the paper does not say).

Replaced: VGG16, fine-tuned, by the recipe's frozen backbone, so that the blocks (64 channels, not 512) alone learn;
the background of a saliency detector by the shared rule, ``proxy.cam_thresholds``. Its online training of the
segmenter is the recipe's with ``segmenter.retrain=1``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tag2mask.config import Recipe
from tag2mask.methods.base import Features, Network
from tag2mask.methods.cam import Cam
from tag2mask.networks.backbones import pyramid_layers
from tag2mask.networks.classifier import Classifier
from tag2mask.training.heads import Lesson, learn_on_features, narrowed, prior, seeing, tag_loss

RATES = (1, 3, 6, 9)
"""Dilations in positions of a map of stride 16; the first is $H_0$."""


class DilatedBlocks(nn.Module):
    """A block for each dilation, each with a linear layer to the classes at every position.

    Args:
        channels: of the feature map.
        classes: number of maps of each block.
        width: channels inside a block.
        rates: dilations.
    """

    def __init__(self, channels: int, classes: int, width: int = 64, rates: tuple[int, ...] = RATES) -> None:
        super().__init__()
        self.narrow = narrowed(channels, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(seeing(width, width, dilation=rate), nn.Conv2d(width, classes, 1)) for rate in rates
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the class activation maps of each block, R x N x C x h x w, of a map, N x D x h x w."""
        seen = self.narrow(features)
        return torch.stack([block(seen) for block in self.blocks])


def fused(maps: Tensor) -> Tensor:
    r"""Return $H_0 + \frac{1}{n_d} \sum_{i=1}^{n_d} H_i$, float N x C x h x w.

    Args:
        maps: float R x N x C x h x w, those of dilation 1 first.

    >>> fused(torch.tensor([1.0, 2.0, 6.0]).view(3, 1, 1, 1, 1)).item()
    5.0
    """
    return maps[0] + maps[1:].mean(0)


class Mdc(Cam):
    """Class activation maps of several dilations, the positive part of their sum by its maximum."""

    title = "MDC"
    learns: ClassVar[bool] = True

    def layers(self, recipe: Recipe) -> list[str]:
        """Return the deepest stage."""
        return pyramid_layers(recipe.backbone.name)[-1:]

    def build(self, classifier: Classifier, recipe: Recipe) -> nn.Module:
        """Return the blocks."""
        return DilatedBlocks(classifier.backbone.channels[classifier.backbone.layers[0]], len(classifier.classes))

    def learn(self, module: Any, lesson: Lesson) -> None:
        """Train each block to tell the labels."""
        (layer,) = lesson.classifier.backbone.layers

        def loss(model: Any, features: Features, labels: Tensor) -> Tensor:
            return torch.stack([tag_loss(maps, labels) for maps in model(features[layer])]).sum()

        for block in module.blocks:
            block[1].bias.data.copy_(prior(lesson))
        learn_on_features(module, lesson, loss)

    def score(self, features: Features, activation: Tensor, network: Network) -> Tensor:
        """Return float N x C x h x w, the sum before it is divided by its maximum."""
        return fused(network.learnt(features[network.backbone.layers[0]]))


METHOD = Mdc()
