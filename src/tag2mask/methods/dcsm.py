r"""DCSM (Shimoda and Yanai 2016): gradients of one class less those of others, at several layers.

Published and kept: guided backpropagation from a class's score, summed over positions, to inner feature maps,
$M^c_i(u) = \max_k |\partial y_c / \partial f_{i,k}(u)|$; layers of strides 4, 8 and 16; from each map those of the
other candidate classes are taken, four candidates at least; each difference by its maximum through $\tanh(3 x)$, summed
over other classes and layers.

Replaced: the fine-tuned VGG16, three layers of each stride and three sizes of the photo by the recipe's classifier, the
last layer of each stride and one size. Candidates are the photo's tags, then the classes of the largest scores (the
authors predict them). Background by the shared rule, ``proxy.cam_thresholds``, on shares of the sum's maximum; the
authors put the sum through tanh once more, which changes no order of positions or classes, and take background from the
largest map. Activations other than ReLU are not guided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tag2mask.methods.cam import OfStages
from tag2mask.networks.backbones import LAST
from tag2mask.networks.classifier import Classifier
from tag2mask.resize import resize_like

SLOPE, CANDIDATES = 3.0, 4


@contextmanager
def guided(model: nn.Module) -> Iterator[None]:
    """Let only positive gradients pass ReLUs meanwhile (guided backpropagation, Springenberg et al. 2015)."""

    def see(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp_min(0))

    hooks = [one.register_forward_hook(see) for one in model.modules() if isinstance(one, (nn.ReLU, nn.ReLU6))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def candidates(logits: Tensor, labels: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the classes of each image that are compared, 1..C: its labels, then those of the largest scores.

    >>> candidates(torch.tensor([[0.0, 5.0, 4.0, 3.0, 2.0]]), [[1]])
    [[1, 2, 3, 4]]
    """
    ranked = (1 + logits.argsort(1, descending=True)).tolist()
    return [
        [*present, *(one for one in order if one not in present)][: max(len(present), CANDIDATES)]
        for order, present in zip(ranked, labels, strict=True)
    ]


def differences(maps: Tensor) -> Tensor:
    r"""Return how much each map exceeds the others, $\sum_{c' \ne c} \max(0, \tanh(3 (M^c - M^{c'}) / \max_u))$.

    Args:
        maps: float K x h x w, of a layer.

    Returns:
        float K x h x w, >= 0.

    >>> differences(torch.tensor([[[4.0, 1.0]], [[0.0, 2.0]]])).gt(0.9).tolist()
    [[[True, False]], [[False, True]]]
    """
    less = maps[:, None] - maps[None]
    most = less.amax((2, 3), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    return (SLOPE * less / most).tanh().clamp_min(0).sum(1)


class Dcsm(OfStages):
    """The sum of all differences by its maximum in the photo."""

    title = "DCSM"
    strides = (4, 8, 16)  # the gradient at the map that is pooled is the same everywhere

    def see_one(self, classifier: Classifier, image: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the sum of the differences, and class activations, float 1 x C x h x w each."""
        with torch.enable_grad(), guided(classifier.backbone):
            seen = classifier(image.float().requires_grad_())
            layers = [seen.features[layer] for layer in classifier.backbone.layers]
            (compared,) = candidates(seen.logits.detach(), [labels])
            gradients = [torch.autograd.grad(seen.logits[0, one - 1], layers, retain_graph=True) for one in compared]
        activation = classifier.activation(seen.features[LAST]).detach()
        scores = activation.new_zeros(1, activation.shape[1], *layers[0].shape[2:])
        for of_layer in zip(*gradients, strict=True):
            found = differences(torch.cat(of_layer).abs().amax(1))[None, : len(labels)]
            scores[:, [label - 1 for label in labels]] += resize_like(found, scores)
        return scores, activation


METHOD = Dcsm()
