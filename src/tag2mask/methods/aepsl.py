"""AE-PSL (Wei et al. 2017): what a classifier finds is erased from the photos, and another finds what is left.

Published and kept: three rounds; in each a classifier learns on photos from which what the earlier ones found is
erased, that is, filled with the mean colour; what is found is where the class activation exceeds 20% of its maximum;
the rounds together are the object (adversarial erasing). The segmenter learns the photo's tags beside the masks and its
scores are weighted by them (prohibitive segmentation learning).

Replaced: VGG16, fine-tuned in each round, by the linear layer alone on the recipe's frozen backbone; the background of
a saliency detector (DRFI) by the shared rule, ``proxy.cam_thresholds``; the online auxiliary mask of prohibitive
learning by the recipe's own tag head, ``segmenter.tag_weight=1``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import Recipe
from tag2mask.data.loading import photo_batches
from tag2mask.distributed import copy_main, gather, is_main, share
from tag2mask.errors import DataError
from tag2mask.methods.base import Network
from tag2mask.methods.cam import Cam, normalised_cam
from tag2mask.networks.backbones import LAST
from tag2mask.networks.classifier import Classifier, fit_head, targets_of
from tag2mask.networks.speed import Features as Backbone
from tag2mask.networks.speed import folded_backbone
from tag2mask.resize import resize
from tag2mask.training.heads import Lesson

ROUNDS, FOUND = 3, 0.2
"""Rounds, and the share of the maximum above which a position is found."""


def erase(images: Tensor, maps: Tensor, labels: Sequence[Sequence[int]], colour: Tensor) -> Tensor:
    """Return images in which what the labels' maps find is filled with a colour.

    Args:
        images: float N x 3 x H x W.
        maps: float N x C x h x w, class activation maps.
        labels: class indices present in each image, 1..C.
        colour: float, 1 x 3 x 1 x 1.
    """
    present = targets_of(map(tuple, labels), maps.shape[1]).to(maps)[:, :, None, None]
    found = resize(normalised_cam(maps) * present, images.shape[2:]).amax(1, keepdim=True) > FOUND
    return torch.where(found, colour.to(images), images)


def rounds(
    backbone: Backbone, heads: Sequence[nn.Linear], images: Tensor, labels: Sequence[Sequence[int]], colour: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the features that each round's classifier sees and its class activation maps, the images once more erased.

    Args:
        backbone: gives the features ``last``.
        heads: of the rounds.
        images: N x 3 x H x W, RGB, 0..255.
        labels: class indices present in each image, 1..C.
        colour: what is erased is filled with, float 1 x 3 x 1 x 1.
    """
    left = images.float()
    for head in heads:
        features = backbone(left)[LAST]
        maps = functional.conv2d(features, head.weight[:, :, None, None])
        yield features, maps
        left = erase(left, maps, labels, colour)


class AePsl(Cam):
    """The larger of the rounds' maps, each by its own maximum."""

    title = "AE-PSL"
    settings: ClassVar[tuple[str, ...]] = (*Cam.settings, "segmenter.tag_weight=1")
    learns: ClassVar[bool] = True

    def build(self, classifier: Classifier, recipe: Recipe) -> nn.Module:
        """Return the classifiers of the rounds after the first."""
        size = classifier.head.in_features, classifier.head.out_features
        return nn.ModuleList(nn.Linear(*size) for _ in range(ROUNDS - 1))

    def learn(self, module: Any, lesson: Lesson) -> None:
        """Fit each round's linear layer on what the earlier ones leave of the photos."""
        classifier, recipe = lesson.classifier, lesson.recipe
        backbone, colour = folded_backbone(classifier.backbone), classifier.backbone.mean
        for turn, head in enumerate(module, 1):
            heads, mine = [classifier.head, *module[:turn]], list[tuple[list[tuple[int, ...]], Tensor]]()
            for samples, images in photo_batches(
                share(lesson.data.samples), recipe.patterns.size, workers=recipe.workers, strict=lesson.strict,
                label=f"erasing, round {turn + 1} of {ROUNDS}",
            ):  # fmt: skip
                labels = [sample.labels for sample in samples]
                with torch.no_grad():
                    *_, (features, _) = rounds(backbone, heads, images.to(colour.device), labels, colour)
                    mine.append((labels, features.float().mean((2, 3)).cpu()))
            parts = [part for theirs in gather(mine) for part in theirs]
            if not parts:
                raise DataError("none of the photos can be read; see the lines above")
            if is_main():
                targets = targets_of((one for labels, _ in parts for one in labels), len(classifier.classes))
                how = recipe.classifier
                pooled = torch.cat([features for _, features in parts])
                fit_head(
                    head, pooled, targets,
                    steps=how.epochs, learning_rate=how.learning_rate, weight_decay=how.weight_decay,
                )  # fmt: skip
            copy_main([head.weight.data, head.bias.data])

    def see(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the larger of the rounds' maps, and class activations, float N x C x h x w each."""
        heads, colour = [network.classifier.head, *network.learnt], network.classifier.backbone.mean
        with torch.inference_mode():
            found = [maps for _, maps in rounds(network.backbone, heads, images, labels, colour)]
            return torch.stack([normalised_cam(maps) for maps in found]).amax(0), found[0]


METHOD = AePsl()
