"""CAM (Zhou et al. 2016): the classifier's linear layer at every position.

There is no score for background: a position is background where no class of the photo's tags reaches a share of its
own maximum in the photo (``proxy.cam_thresholds``). Where several do, ``proxy.conflict`` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tag2mask.config import Recipe
from tag2mask.methods.base import PUBLISHED, Features, Method, Network
from tag2mask.networks.backbones import Backbone, pyramid_layers, stage_ends
from tag2mask.networks.classifier import Classifier

SEED_SHARES = (0.05, 0.2)
"""Shares of the maximum below which seeds are background, and above which they are a class."""

SEEDS = (f"proxy.cam_thresholds={list(SEED_SHARES)}", "proxy.crf=none", "segmenter.crop=1")
"""What seeds that grow in training need: room between the classes and the background, whole photos."""


def normalised_cam(activation: Tensor) -> Tensor:
    r"""Return $\max(M_c, 0) / \max_u M_c(u)$ for each image and class, as is usual in this field.

    Args:
        activation: float N x C x h x w, as `Classifier.activation` or `grad_cam` gives it.

    Returns:
        float N x C x h x w, 0..1; all zero where a class is positive nowhere.
    """
    positive = activation.clamp_min(0)
    return positive / positive.amax((2, 3), keepdim=True).clamp_min(torch.finfo(positive.dtype).tiny)


def against_background(maps: Tensor, even: float) -> Tensor:
    r"""Return $M_c / (M_c + M_{bg} (1 - \tau) / \tau)$, which exceeds $\tau$ where a class exceeds background.

    Args:
        maps: float (1 + L) x h x w, background first, >= 0.
        even: $\tau$.

    Returns:
        float L x h x w, 0..1.

    >>> against_background(torch.tensor([[[0.5, 0.5]], [[0.5, 0.25]]]), 0.2).tolist()
    [[[0.20000000298023224, 0.1111111119389534]]]
    """
    classes = maps[1:]
    return classes / (classes + maps[:1] * (1 - even) / even).clamp_min(1e-12)


class Cam(Method):
    """The maximum of each class's map in the photo is 1."""

    title = "class activation maps (CAM)"
    settings: ClassVar[tuple[str, ...]] = (
        *PUBLISHED,
        "proxy.conflict=strongest",
        "proxy.sharpness=10",
        "proxy.cam_thresholds=[0.2, 0.2]",
    )
    finds_patterns = False
    in_shares = True
    options: ClassVar[tuple[str, ...]] = ("proxy.cam_thresholds",)

    def score(self, features: Features, activation: Tensor, network: Network) -> Tensor:
        """Return float N x C x h x w, the class activation."""
        return activation

    def of_photo(self, scores: Tensor, activation: Tensor, network: Network) -> Tensor:
        """Return shares of the maximum in the photo, 0..1."""
        return normalised_cam(scores)


class AgainstBackground(Cam):
    """A method that learns from a finer layer and deeper ones, and finds background itself."""

    learns: ClassVar[bool] = True

    def layers(self, recipe: Recipe) -> list[str]:
        """Return a finer layer, whose size the scores may have, and deeper ones."""
        return pyramid_layers(recipe.backbone.name)

    def of_photo(self, scores: Tensor, activation: Tensor, network: Network) -> Tensor:
        """Return the scores, which are of `against_background`, as they are."""
        return scores


class OfStages(Cam):
    """A method that looks at the ends of a convolutional network's stages, one image at a time.

    Attributes:
        strides: of the stages.
    """

    strides: ClassVar[tuple[int, ...]]

    def layers(self, recipe: Recipe) -> list[str]:
        """Return where the stages end."""
        return stage_ends(recipe.backbone.name, self.strides)

    def refusal(self, backbone: Backbone) -> str:
        """Refuse transformers, and networks whose stages are not known."""
        if not backbone.is_transformer and stage_ends(backbone.name, self.strides):
            return ""
        return (
            f"{self.title} needs a convolutional network with stages, not {backbone.name}; "
            "choose another backbone or method"
        )

    def see(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return scores and class activations, float N x C x h x w each."""
        seen = [self.see_one(network.classifier, image[None], one) for image, one in zip(images, labels, strict=True)]
        scores, activation = (torch.cat(part) for part in zip(*seen, strict=True))
        return scores, activation

    def see_one(self, classifier: Classifier, image: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the scores and class activations of an image, 1 x 3 x H x W, float 1 x C x h x w each."""
        raise NotImplementedError


METHOD = Cam()
