"""Class patterns (Luo and Yang 2020), with what a recipe adds to them: several layers, class activation maps."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tag2mask.methods.base import OF_PATTERNS, Features, Method, Network
from tag2mask.methods.cam import normalised_cam
from tag2mask.resize import resize_like


class Patterns(Method):
    """The mean of the layers' scores, each in deviations of its class, and ``proxy.cam_weight`` times CAM."""

    title = "class patterns"
    many_layers = True
    options = (
        *OF_PATTERNS, "patterns.whitening", "patterns.flip", "patterns.layer_weights", "patterns.views",
        "proxy.threshold", "proxy.peak_share", "proxy.share_per_skew", "proxy.cam_weight", "proxy.activation_weight",
        "proxy.affinity",
    )  # fmt: skip

    def score(self, features: Features, activation: Tensor, network: Network) -> Tensor:
        """Return float N x C x h x w, in standard deviations."""
        patterns, recipe = network.patterns, network.recipe
        weights = np.asarray(recipe.patterns.layer_weights or [1.0] * len(patterns))
        weights = weights / weights.sum()
        maps = [float(w) * fitted.score_features(features) for w, fitted in zip(weights, patterns, strict=True)]
        return sum((resize_like(one, maps[0]) for one in maps[1:]), start=maps[0])

    def of_photo(self, scores: Tensor, activation: Tensor, network: Network) -> Tensor:
        """Add CAM, whose maximum in a photo is 1."""
        weight = network.recipe.proxy.cam_weight
        return scores + resize_like(weight * normalised_cam(activation), scores) if weight else scores


METHOD = Patterns()
