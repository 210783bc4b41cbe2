r"""Region-CAM (Cai and Abhayaratne 2025): gradients say where a class is, features say how far it reaches.

Published and kept: gradients and features are used apart, at every stage of the network. Gradients give the semantic
information map of stage l (SIM), the sum over channels of their positive parts,
$S^c_l(u) = \sum_k \max(0, \partial y_c / \partial f_{l,k}(u))$. Features then propagate it (SIP).

Filled in, as the paper's equation of the propagation could not be read: positions v of the deepest stage's map send the
SIM to the positions u of the stage's own map, by how alike their features are,

$R^c_l(u) = \frac{\sum_v A_l(u, v) \, S^c_l(v)}{\sum_v A_l(u, v)}, \quad A_l(u, v) = \max(0, \cos(f_l(u), f_l(v)))^2$.

The part of R above its mean is divided by its maximum, and the stages are summed. A stage whose gradient is the same
everywhere, as at the map that is pooled, adds nothing. Background by the shared rule, ``proxy.cam_thresholds``, on
shares of the sum's maximum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from tag2mask.methods.cam import OfStages, normalised_cam
from tag2mask.networks.backbones import LAST
from tag2mask.networks.classifier import Classifier
from tag2mask.resize import resize_like

POWER = 2

_ROWS = 4096
"""Positions whose likenesses are in memory at once."""


def semantic_map(gradient: Tensor) -> Tensor:
    r"""Return $S(u) = \sum_k \max(0, g_k(u))$, float 1 x 1 x h x w, of a gradient, float 1 x D x h x w.

    >>> semantic_map(torch.tensor([[[[1.0, -2.0]], [[3.0, -1.0]]]])).tolist()
    [[[[4.0, 0.0]]]]
    """
    return gradient.clamp_min(0).sum(1, keepdim=True)


def propagate(maps: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
    r"""Return $R(u) = \sum_v A(u, v) S(v) / \sum_v A(u, v)$, with $A(u, v) = \max(0, \cos(f(u), f(v)))^2$.

    Args:
        maps: float 1 x K x h x w, the semantic information maps S of K classes.
        features: float 1 x D x h x w, the features f; u is every position.
        size: height and width of the coarser map, of means of S and f, whose positions are v.

    Returns:
        float 1 x K x h x w; zero where u is like no v.
    """
    senders = normalize(adaptive_avg_pool2d(features, size).flatten(2)[0], dim=0)
    sent = adaptive_avg_pool2d(maps, size).flatten(2)[0]
    tiny = torch.finfo(maps.dtype).tiny
    found = []
    for some in normalize(features.flatten(2)[0], dim=0).split(_ROWS, dim=1):
        likeness = (senders.T @ some).clamp_min(0) ** POWER
        found.append(sent @ likeness / likeness.sum(0).clamp_min(tiny))
    return torch.cat(found, 1).view(1, -1, *features.shape[2:])


def beyond_mean(maps: Tensor) -> Tensor:
    """Return what exceeds the mean of each map, as a share of its maximum, float N x K x h x w, 0..1.

    A map is even, and the result zero, where it differs from its mean by no more than rounding.

    Args:
        maps: float N x K x h x w, >= 0.

    >>> beyond_mean(torch.tensor([[[[0.0, 2.0, 6.0, 8.0]]]])).tolist()
    [[[[0.0, 0.0, 0.5, 1.0]]]]
    """
    mean = maps.mean((2, 3), keepdim=True)
    more = maps - mean
    return normalised_cam(torch.where(more > 1e-4 * mean, more, 0.0))


class RegionCam(OfStages):
    """The sum over the stages by its maximum in the photo."""

    title = "Region-CAM"
    strides = (4, 8, 16, 32)

    def see_one(self, classifier: Classifier, image: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the sum over the stages, and class activations, float 1 x C x h x w each."""
        with torch.enable_grad():
            seen = classifier(image.float().requires_grad_())
            stages = [seen.features[layer] for layer in classifier.backbone.layers]
            gradients = [torch.autograd.grad(seen.logits[0, one - 1], stages, retain_graph=True) for one in labels]
        activation = classifier.activation(seen.features[LAST]).detach()
        scores = activation.new_zeros(1, activation.shape[1], *stages[0].shape[2:])
        height, width = stages[-1].shape[2:]
        # Without labels there are no gradients.
        for features, of_stage in zip(stages, zip(*gradients, strict=True), strict=False):
            found = torch.cat([semantic_map(gradient) for gradient in of_stage], 1)
            found = beyond_mean(propagate(found, features.detach(), (height, width)))
            scores[:, [label - 1 for label in labels]] += resize_like(found, scores)
        return scores, activation


METHOD = RegionCam()
