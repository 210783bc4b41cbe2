r"""Multi-Cues (Roy and Todorovic 2017): a class's attention passed down, joined with the class's map, and smoothed.

Published and kept (as the abstract has it): a bottom-up cue, what the network computes for a class; a top-down cue, how
likely inner neurons are given the class; a lateral cue, messages between neighbouring neurons of a layer; a dense CRF
joins them.

- Bottom-up: $M_c(u) = w_c^T t_u$, CAM.
- Top-down, by excitation backprop (Zhang et al. 2016; `tag2mask.networks.excitation`):
  $P(j \mid i) = w_{ij}^+ a_j \,/ \sum_k w_{ik}^+ a_k$, $P(j) = \sum_i P(j \mid i) \, P(i)$, from the class down to
  the end of the stage of stride 16; $A_c(u)$ sums $P$ over the channels at u.
- Lateral, five times: $A_c(u) \leftarrow \sum_v k(u, v) A_c(v) \,/ \sum_v k(u, v)$ over the 3 x 3 positions around u,
  with $k = \max(0, \cos(f_u, f_v))$ of the layer's features.
- Joined: $\sqrt{\hat A_c \hat M_c}$, each by its maximum in the photo: the mean of the cues' log-likelihoods.

Replaced: VGG16 and the CRF as a recurrent network, learnt together, by the recipe's classifier and CRF as they are.
Equations, layer, messages and how the cues are joined are ours where the abstract does not give them. Background by the
shared rule, ``proxy.cam_thresholds``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from tag2mask.config import Recipe
from tag2mask.methods.base import Network
from tag2mask.methods.cam import Cam, normalised_cam
from tag2mask.networks.backbones import Backbone, stage_ends
from tag2mask.networks.excitation import attention, from_layer
from tag2mask.networks.speed import faster_copy
from tag2mask.resize import resize_like

STRIDE, MESSAGES = 16, 5
"""Stride of the stage at whose end attention is read; rounds of messages."""


def with_messages(maps: Tensor, features: Tensor, rounds: int = MESSAGES) -> Tensor:
    """Return maps in which each position has listened to those around it that have like features.

    Args:
        maps: float N x C x h x w.
        features: float N x D x h x w.
        rounds: of messages.
    """
    height, width = maps.shape[2:]

    def around(one: Tensor) -> list[Tensor]:
        wide = pad(one, (1, 1, 1, 1))
        return [wide[..., row : row + height, column : column + width] for row, column in product(range(3), range(3))]

    features = normalize(features, dim=1)
    like = torch.stack([(features * one).sum(1, keepdim=True).clamp_min(0) for one in around(features)])
    like /= like.sum(0).clamp_min(torch.finfo(like.dtype).tiny)
    for _ in range(rounds):
        maps = torch.stack([one * share for one, share in zip(around(maps), like, strict=True)]).sum(0)
    return maps


class MultiCues(Cam):
    """Attention after messages, joined with CAM, by its maximum in the photo."""

    title = "Multi-Cues"

    def layers(self, recipe: Recipe) -> list[str]:
        """Return where the stage of stride 16 ends."""
        return stage_ends(recipe.backbone.name, (STRIDE,))[-1:]

    def refusal(self, backbone: Backbone) -> str:
        """Refuse all but convolutional networks with stages whose activations are ReLUs."""
        if not backbone.is_transformer and stage_ends(backbone.name, (STRIDE,)) and _has_relus_alone(backbone):
            return ""
        return (
            f"Multi-Cues needs a convolutional network with stages and ReLUs, not {backbone.name}; "
            "choose another backbone or method"
        )

    def see(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return attention after messages, and class activations, float N x C x h x w each."""
        head = network.classifier.head.weight.detach()
        backbone = faster_copy(network.classifier.backbone, images.device, fused=False)
        start, last = from_layer(backbone, images)
        found = attention(start, last, head, labels)
        return with_messages(found, start.detach()), network.classifier.activation(last).detach()

    def of_photo(self, scores: Tensor, activation: Tensor, network: Network) -> Tensor:
        """Return the geometric mean of both cues' shares, by its maximum in the photo, 0..1."""
        return normalised_cam((normalised_cam(scores) * normalised_cam(resize_like(activation, scores))).sqrt())


def _has_relus_alone(backbone: Backbone) -> bool:
    kinds = {type(one) for one in backbone.modules() if "activation" in type(one).__module__}
    return kinds <= {nn.ReLU, nn.ReLU6}


METHOD = MultiCues()
