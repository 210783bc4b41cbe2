"""Learnt affinities of neighbouring positions, and what a random walk with them makes of scores (Ahn and Kwak 2018).

Any code can use them: `AffinityHead` on feature maps, taught by masks in which 255 is not known (`learn_affinities`),
gives features whose likeness is the affinity (`walk`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.names import IGNORE
from tag2mask.resize import masks_like, resize_like
from tag2mask.training.heads import Lesson, learn_on_features

RADIUS, POWER, STEPS = 5, 8, 256
r"""$\gamma$, $\beta$ and t of the paper: neighbours are nearer than this; affinities to this power; so many steps."""

_SMALL = 1e-5


class AffinityHead(nn.Module):
    """Features in which positions of one object are alike, from several feature maps, at the size of the first.

    Args:
        channels: of the feature maps.
        width: of what becomes of each.
    """

    def __init__(self, channels: Sequence[int], width: int = 32) -> None:
        super().__init__()
        self.count = len(channels)
        self.parts = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(size, affine=False),
                nn.Conv2d(size, width, 1, bias=False),
                nn.GroupNorm(8, width),
                nn.ELU(),
            )
            for size in channels
        )
        self.join = nn.Conv2d(width * len(channels), width, 1, bias=False)
        nn.init.xavier_uniform_(self.join.weight, gain=4)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return float N x width x h x w."""
        seen = [part(one) for part, one in zip(self.parts, maps, strict=True)]
        return functional.elu(self.join(torch.cat([seen[0], *(resize_like(one, seen[0]) for one in seen[1:])], 1)))


def neighbours(maps: Tensor, radius: int = RADIUS) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield maps at all pairs of positions that are less than a radius apart, each pair once, an offset at a time.

    Args:
        maps: ... x h x w.
        radius: in positions.

    >>> [(a.tolist(), b.tolist()) for a, b in neighbours(torch.tensor([[1, 2], [3, 4]]), 2)]
    [([[1], [3]], [[2], [4]]), ([[2]], [[3]]), ([[1, 2]], [[3, 4]]), ([[1]], [[4]])]
    """
    height, width = maps.shape[-2:]
    for down in range(min(radius, height)):
        for across in range(1 - radius if down else 1, radius):
            if down**2 + across**2 < radius**2 and abs(across) < width:
                left, right = max(0, -across), max(0, across)
                here = maps[..., : height - down, left : width - right]
                yield here, maps[..., down:, right : width - left]


def affinity(here: Tensor, there: Tensor) -> Tensor:
    r"""Return $W_{ij} = \exp(-\|f_i - f_j\|_1)$, with the mean over channels as in the authors' code.

    Args:
        here: float N x D x h x w.
        there: the same.

    Returns:
        float N x h x w, 0..1.
    """
    return (-(here - there).abs().mean(1)).exp()


def affinity_loss(features: Tensor, masks: Tensor, radius: int = RADIUS) -> Tensor:
    r"""Return $\frac14 L^+_{bg} + \frac14 L^+_{fg} + \frac12 L^-$ (weights of the authors' code).

    $L^+ = -\text{mean} \log W_{ij}$ over neighbours of one label, background and classes apart;
    $L^- = -\text{mean} \log (1 - W_{ij})$ over those of two. Where a label is not known a pair does not count.

    Args:
        features: float N x D x h x w.
        masks: int N x h x w, 255 for what is not known.
        radius: in positions.
    """
    features = features.float()  # in half precision counts would overflow
    sums, counts = features.new_zeros(3), features.new_zeros(3)
    pairs = zip(neighbours(features, radius), neighbours(masks, radius), strict=True)
    for (here, there), (one, other) in pairs:
        alike = affinity(here, there)
        known, same = (one != IGNORE) & (other != IGNORE), one == other
        losses = (-(alike + _SMALL).log(), -(alike + _SMALL).log(), -(1 + _SMALL - alike).log())
        kinds = (known & same & (one == 0), known & same & (one != 0), known & ~same)
        sums = sums + torch.stack([(loss * kind).sum() for loss, kind in zip(losses, kinds, strict=True)])
        counts = counts + torch.stack([kind.sum() for kind in kinds])
    weights = torch.tensor([0.25, 0.25, 0.5], device=sums.device)
    return (weights * sums / counts.clamp_min(1)).sum()


def learn_affinities(head: AffinityHead, lesson: Lesson, masks: Path) -> None:
    """Train a head, in place, on masks.

    Args:
        head: on the layers of the lesson's classifier.
        lesson: the photos, and how to train.
        masks: folder of one palette PNG a photo, 255 where the label is not known.
    """
    layers = lesson.classifier.backbone.layers

    def loss(model: Any, features: dict[str, Tensor], masks: Tensor, labels: Tensor) -> Tensor:
        seen = model([features[layer] for layer in layers])
        return affinity_loss(seen, masks_like(masks, seen))

    learn_on_features(head, lesson, loss, masks)


def walk(scores: Tensor, features: Tensor, radius: int = RADIUS, power: float = POWER, steps: int = STEPS) -> Tensor:
    r"""Return scores after a random walk, $T^t M$ with $T = D^{-1} W^{\circ \beta}$.

    Args:
        scores: float K x h x w.
        features: float D x h x w, as `AffinityHead` gives them.
        radius: in positions.
        power: $\beta$; larger is more careful.
        steps: t.

    Returns:
        float K x h x w.
    """
    height, width = scores.shape[1:]
    places = torch.arange(height * width).view(height, width)
    near, far, alike = [places.flatten()], [places.flatten()], [torch.ones(height * width)]
    pairs = zip(neighbours(places, radius), neighbours(features.float().cpu()[None], radius), strict=True)
    for (one, other), (here, there) in pairs:
        weight = affinity(here, there)[0].flatten() ** power
        near += [one.flatten(), other.flatten()]
        far += [other.flatten(), one.flatten()]
        alike += [weight, weight]
    rows, columns, weights = (torch.cat(part).numpy() for part in (near, far, alike))
    matrix = sparse.csr_matrix((weights, (rows, columns)), shape=(height * width,) * 2)
    matrix = sparse.diags_array(1 / np.asarray(matrix.sum(1)).ravel()) @ matrix
    spread = scores.detach().float().cpu().flatten(1).T.contiguous().numpy()
    for _ in range(steps):
        spread = matrix @ spread
    return torch.from_numpy(np.ascontiguousarray(spread.T)).view_as(scores).to(scores)
