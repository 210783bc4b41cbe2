"""Grad-CAM (Selvaraju et al. 2017): the classifier's gradients weigh the features of a layer.

There is no score for background: a position is background where no class of the photo's tags reaches a share of its
own maximum in the photo (``proxy.cam_thresholds``). Where several do, ``proxy.conflict`` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tag2mask.methods.base import Network
from tag2mask.methods.cam import Cam, normalised_cam
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.networks.classifier import Classifier


def grad_cam(logits: Tensor, maps: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    r"""Return Grad-CAM of the classes in each image's labels (Selvaraju et al. 2017, Eqs. 1 and 2).

    $\alpha_{ck} = \frac{1}{hw} \sum_u \frac{\partial y_c}{\partial f_k(u)}, \quad
    L_c(u) = \max\big(0, \sum_k \alpha_{ck} f_k(u)\big)$

    At the map that is pooled for the linear layer $\alpha_c = w_c / hw$: the positive part of CAM, scaled.

    Args:
        logits: float N x C, computed from ``maps`` with gradients, each image by itself.
        maps: float N x D x h x w, the features f of any layer.
        labels: class indices present in each image, 1..C; as many backward passes as the longest has.

    Returns:
        float N x C x h x w, >= 0; zero for classes that are not in the labels.
    """
    scores = maps.new_zeros(*logits.shape, *maps.shape[2:])
    for turn in range(max(map(len, labels), default=0)):
        rows = [row for row, present in enumerate(labels) if len(present) > turn]
        columns = [labels[row][turn] - 1 for row in rows]
        (gradient,) = torch.autograd.grad(logits[rows, columns].sum(), maps, retain_graph=True)
        weighted = torch.einsum("nd,ndhw->nhw", gradient.mean((2, 3)), maps.detach())
        scores[rows, columns] = weighted[rows].clamp_min(0)
    return scores


def grad_cam_scores(classifier: Classifier, images: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """Return the normalised Grad-CAM of each image's classes at the first layer of the classifier's backbone.

    Args:
        classifier: in evaluation mode.
        images: N x 3 x H x W, RGB, 0..255.
        labels: class indices present in each image, 1..C.

    Returns:
        float N x C x h x w, 0..1; zero for classes that are not in the labels.
    """
    return normalised_cam(_seen(classifier, images, labels))


def _seen(classifier: Classifier, images: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    seen = classifier(images.float().requires_grad_())
    return grad_cam(seen.logits, seen.features[classifier.backbone.layers[0]], labels)


class GradCam(Cam):
    """Grad-CAM at the last layer, as published, where it is CAM; ``patterns.layers`` takes it to another."""

    title = "Grad-CAM"
    settings: ClassVar[tuple[str, ...]] = (*Cam.settings, f"patterns.layers=[{LAST}]")
    options = (*Cam.options, "patterns.layers")

    def refusal(self, backbone: Backbone) -> str:
        """Refuse the inner layers of a transformer."""
        if not backbone.is_transformer or backbone.layers[0] == LAST:
            return ""
        return f"Grad-CAM of {backbone.name} is there for its last layer only; set patterns.layers=[last]"

    def see(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return Grad-CAM for scores and class activations alike, float N x C x h x w, >= 0."""
        return (_seen(network.classifier, images, labels),) * 2

    def look(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return scores and class activations alike, float N x C x h x w, 0..1."""
        return (self.of_photo(*self.see(network, images, labels), network),) * 2


METHOD = GradCam()
