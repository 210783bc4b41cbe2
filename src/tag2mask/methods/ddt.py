"""DDT (Wei et al. 2017): one pattern over the whole image set, the object common to it, without classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from tag2mask.data import ImageSet
from tag2mask.errors import DataError
from tag2mask.methods.base import PUBLISHED, Features, Method, Network
from tag2mask.methods.cam import normalised_cam
from tag2mask.networks.backbones import LAST, resolve_layer
from tag2mask.networks.classifier import Classifier
from tag2mask.patterns.eigen import find_pattern
from tag2mask.patterns.estimator import ClassPatterns, moments_of
from tag2mask.resize import resize_like

TIE = 1e-3
"""Standard deviations that a class's CAM adds at most: it breaks ties, no more."""


def discover_ddt(
    classifier: Classifier, data: ImageSet, patterns: Sequence[ClassPatterns], strict: bool = False
) -> None:
    r"""Fit one pattern over the descriptors of all tagged photos and set it as that of every class.

    $\bar t = \frac1K \sum_u t_u, \quad \Sigma = \frac1K \sum_u (t_u - \bar t)(t_u - \bar t)^T, \quad
    p(u) = (t_u - \bar t)^T \xi$ with $\xi$ the eigenvector of the largest eigenvalue; p(u) > 0 is the object.

    The class is not DDT's to say: Algorithm 1 gives the object to a photo's only tag, and with several tags
    leaves it uncertain (or, with ``conflict: strongest``, `ddt_scores` decides). The sign, which the paper
    leaves open, is found as for class patterns, from the activations of a photo's classes together.

    Args:
        classifier: gives features and class activations; in evaluation mode.
        data: photos with image-level labels.
        patterns: one a layer, set in place; the first one's size holds for all.
        strict: raise for an unreadable photo instead of skipping it.

    Raises:
        DataError: no photo can be read.
    """
    subsets = {sample.name: [0] for sample in data.samples if sample.labels}
    moments = moments_of(classifier, data, subsets, patterns[0], strict)
    for fitted in patterns:
        layer = resolve_layer(fitted.layer, classifier.backbone.name, classifier.backbone.model)
        if (layer, 0) not in moments:
            raise DataError("none of the photos can be read; see the lines above")
        pattern = find_pattern(moments[layer, 0], fitted.components)
        fitted.keep(classifier, data.classes, [pattern] * len(data.classes))


def ddt_scores(patterns: ClassPatterns, features: dict[str, Tensor]) -> Tensor:
    """Return p(u) in standard deviations for every class, ties in favour of the class of the largest CAM.

    Args:
        patterns: as `discover_ddt` sets them.
        features: float N x D x h x w by layer name, as the patterns' classifier gives them.

    Returns:
        float N x C x h x w.
    """
    return broken_ties(patterns.score_features(features), patterns.classifier_.activation(features[LAST]))


def broken_ties(scores: Tensor, activation: Tensor) -> Tensor:
    """Return scores with ties in favour of the class of the largest CAM, float N x C x h x w as they are."""
    return scores + TIE * resize_like(normalised_cam(activation), scores)


def largest_component(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep the largest 8-connected region that is not background, as DDT does, and make the rest background.

    >>> largest_component(np.array([[3, 0, 0, 2], [3, 255, 0, 0]], np.uint8)).tolist()
    [[3, 0, 0, 0], [3, 255, 0, 0]]
    """
    regions, count = ndimage.label(mask != 0, np.ones((3, 3)))
    if count < 2:
        return mask
    return np.where(regions == 1 + np.bincount(regions.ravel())[1:].argmax(), mask, 0).astype(np.uint8)


class Ddt(Method):
    """DDT at the recipe's first layer."""

    title = "DDT"
    settings = (*PUBLISHED, "proxy.conflict=ignore", "proxy.sharpness=3")
    options = ("proxy.threshold", "patterns.layers", "patterns.components")

    def fit(self, classifier: Classifier, data: ImageSet, patterns: Sequence[ClassPatterns], strict: bool) -> None:
        """Find the one pattern of all photos."""
        discover_ddt(classifier, data, patterns, strict)

    def score(self, features: Features, activation: Tensor, network: Network) -> Tensor:
        """Return float N x C x h x w, in standard deviations."""
        return network.patterns[0].score_features(features)

    def of_photo(self, scores: Tensor, activation: Tensor, network: Network) -> Tensor:
        """Let CAM, whose maximum in a photo is 1, break ties."""
        return broken_ties(scores, activation)

    def finish(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Keep the largest region."""
        return largest_component(mask)


METHOD = Ddt()
