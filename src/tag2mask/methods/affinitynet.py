r"""AffinityNet (Ahn and Kwak 2018): class activation maps spread by a random walk with learnt affinities.

Published and kept: CAM with background $M_{bg} = (1 - \max_c M_c)^\alpha$; sure labels where it finds
a class with $\alpha$ = 4, and background with $\alpha$ = 24, both after a CRF; affinities from pairs of sure labels and
the walk, in `tag2mask.training.affinity`, radius 5, $\beta$ = 8, t = 256, $\alpha$ = 16.

Replaced: ResNet-38, fine-tuned twice, by the recipe's frozen backbone with a head of 32 channels on three layers
(authors: 448); the CRF of the sure labels runs on the map, with the parameters of SEC. Background is the paper's, which
needs no saliency; ``proxy.cam_thresholds`` says no more than which share means that background and a class are even.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tag2mask.config import Recipe
from tag2mask.crf import prepare
from tag2mask.methods.base import Features, Network
from tag2mask.methods.cam import AgainstBackground, against_background, normalised_cam
from tag2mask.names import IGNORE
from tag2mask.networks.backbones import LAST
from tag2mask.networks.classifier import Classifier
from tag2mask.resize import resize_like
from tag2mask.training.affinity import AffinityHead, learn_affinities, walk
from tag2mask.training.heads import Lesson, write_labels
from tag2mask.training.losses import refine

OF_CLASSES, OF_BACKGROUND, OF_WALK = 4.0, 24.0, 16.0
r"""$\alpha$ with which sure positions of classes, and of background, are found, and that of the walk."""


def with_background(maps: Tensor, power: float) -> Tensor:
    r"""Return maps with $M_{bg} = (1 - \max_c M_c)^\alpha$ before them, float (1 + L) x h x w.

    >>> with_background(torch.tensor([[[0.0, 0.5]]]), 2).tolist()
    [[[1.0, 0.25]], [[0.0, 0.5]]]
    """
    return torch.cat([(1 - maps.amax(0, keepdim=True)) ** power, maps])


def sure_labels(image: Tensor, maps: Tensor, labels: Sequence[int]) -> Tensor:
    """Return the label of each position where it is sure, else 255, uint8 h x w.

    Args:
        image: 3 x H x W, RGB, 0..255.
        maps: float L x h x w, class activation maps of the labels, 0..1.
        labels: class indices, 1..C.
    """
    names = torch.tensor([0, *labels])
    few, many = (
        names[refine(image[None], _shares(with_background(maps, power))[None])[0].argmax(0)]
        for power in (OF_CLASSES, OF_BACKGROUND)
    )
    sure = torch.where(few != 0, few, torch.where(many == 0, 0, IGNORE))
    return sure.to(torch.uint8)


def _shares(maps: Tensor) -> Tensor:
    return (maps + 1e-4) / (maps + 1e-4).sum(0, keepdim=True)


class AffinityNet(AgainstBackground):
    r"""After the walk, $M_c / (M_c + M_{bg} (1 - \tau) / \tau)$: above $\tau$ where the class exceeds background."""

    title = "AffinityNet"

    def build(self, classifier: Classifier, recipe: Recipe) -> nn.Module:
        """Return the head."""
        return AffinityHead([classifier.backbone.channels[layer] for layer in classifier.backbone.layers])

    def learn(self, module: Any, lesson: Lesson) -> None:
        """Train the affinities on sure labels, which are in a folder meanwhile."""
        folder, classifier = lesson.checkpoint.with_name("sure-labels"), lesson.classifier
        prepare()

        def sure(image: Tensor, features: Features, labels: Sequence[int]) -> Tensor:
            maps = normalised_cam(classifier.activation(features[LAST]))[:, [label - 1 for label in labels]]
            return sure_labels(image, resize_like(maps, features[classifier.backbone.layers[0]])[0].cpu(), labels)

        write_labels(lesson, folder, lesson.recipe.patterns.size, sure, "sure labels")
        learn_affinities(module, lesson, folder)
        shutil.rmtree(folder, ignore_errors=True)

    def see(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the classes' shares after the walk, and class activations, float N x C x h x w each."""
        even = network.recipe.proxy.cam_thresholds[1]
        with torch.inference_mode():
            features = network.backbone(images)
            activation = network.classifier.activation(features[LAST])
            alike = network.learnt([features[layer] for layer in network.backbone.layers])
            maps = resize_like(normalised_cam(activation), alike)
            scores = torch.zeros_like(maps)
            for row, present in enumerate(labels):
                columns = [label - 1 for label in present]
                if columns:
                    spread = walk(with_background(maps[row, columns], OF_WALK), alike[row])
                    scores[row, columns] = against_background(spread, even)
            return scores, activation


METHOD = AffinityNet()
