"""Which end of a component is the object: the evidence that a pattern is oriented by. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.resize import resize_like

EVIDENCE = ("activation", "norm", "centre")
"""What orients a pattern: the classifier's class activation, the length of the deepest descriptors (where a network
sees something that it knows), and a prior that objects stand in the centre."""

WEIGHTS = (3.0, 3.0, 2.3)
"""Of each evidence in the logarithm of the odds: a logistic regression, without an intercept, of the true end of about
1,000 candidate directions on their evidence (VOC's every sixth training photo and generated photos)."""

SURE = 0.9
"""Confidence from which on a sign is taken without a word."""


def log_odds(evidence: Tensor) -> Tensor:
    """Return the logarithm of the odds that the end which evidence speaks for is the object.

    Args:
        evidence: float ... x E, correlations in the order of `EVIDENCE`.
    """
    return evidence @ torch.tensor(WEIGHTS, dtype=evidence.dtype)


def trust_in_classifier(present: int, absent: int) -> float:
    """Return how much its class activation can know, 0 to 1: nothing where no photo, or every photo, has the class.

    Args:
        present: photos with the class.
        absent: photos without it.
    """
    fewer = min(present, absent)
    return fewer / (fewer + 3)


def evidence_maps(activation: Tensor, norm: Tensor, places: Tensor | None = None) -> Tensor:
    """Return the evidence for a class at each position, each map centred.

    Args:
        activation: float N x h x w, the class activation.
        norm: float N x h x w, the length of the deepest descriptors.
        places: float N x 4, where a tile lies in its photo: its first and last row and its first and last column, the
            photo's being -1 and 1. None for whole photos.

    Returns:
        float N x E x h x w in the order of `EVIDENCE`, zero mean per image and kind.
    """
    count, height, width = activation.shape
    if places is None:
        places = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    top, bottom, left, right = places.to(activation.device).expand(count, 4).T[:, :, None]
    rows = top + (bottom - top) * torch.linspace(0, 1, height, device=activation.device)
    columns = left + (right - left) * torch.linspace(0, 1, width, device=activation.device)
    centre = torch.exp(-2 * (rows[:, :, None] ** 2 + columns[:, None] ** 2))
    maps = torch.stack([activation, norm.to(activation), centre], 1)
    return maps - maps.mean((2, 3), keepdim=True)


def fit_evidence(evidence: Tensor, maps: Tensor) -> Tensor:
    """Bring evidence to the size of the feature map; the mean per image stays zero."""
    if evidence.shape[2:] == maps.shape[2:]:
        return evidence
    resized = resize_like(evidence, maps)
    return resized - resized.mean((2, 3), keepdim=True)
