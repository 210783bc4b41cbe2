"""Class patterns (Luo and Yang 2020), with what a recipe adds to them: several layers, class activation maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from tag2mask.config import Recipe
from tag2mask.methods.base import Features, Method
from tag2mask.methods.cam import normalised_cam
from tag2mask.patterns import ClassPatterns
from tag2mask.resize import resize_like


class Patterns(Method):
    """The mean of the layers' scores, each in deviations of its class, and ``proxy.cam_weight`` times CAM."""

    title = "class patterns"
    options = ("threshold", "peak_share", "cam_weight", "activation_weight")

    def score(
        self, features: Features, activation: Tensor, patterns: Sequence[ClassPatterns], recipe: Recipe
    ) -> Tensor:
        """Return float N x C x h x w, in standard deviations."""
        weights = np.asarray(recipe.patterns.layer_weights or [1.0] * len(patterns))
        weights = weights / weights.sum()
        maps = [float(w) * fitted.score_features(features) for w, fitted in zip(weights, patterns, strict=True)]
        if recipe.proxy.cam_weight:
            maps.append(recipe.proxy.cam_weight * normalised_cam(activation))
        return sum((resize_like(one, maps[0]) for one in maps[1:]), start=maps[0])


METHOD = Patterns()
