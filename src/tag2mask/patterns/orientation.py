"""Which end of a component is the object: the evidence that a pattern is oriented by. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.resize import resize_like

EVIDENCE = ("activation", "centre")
"""What orients a pattern: the classifier's class activation, and a prior that objects stand in the centre."""

WEAK = 0.1
"""Correlation below which the evidence for a sign is called weak."""


def evidence_maps(activation: Tensor, places: Tensor | None = None) -> Tensor:
    """Return the evidence for a class at each position, each map centred.

    Args:
        activation: float N x h x w, the class activation.
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
    maps = torch.stack([activation, centre], 1)
    return maps - maps.mean((2, 3), keepdim=True)


def fit_evidence(evidence: Tensor, maps: Tensor) -> Tensor:
    """Bring evidence to the size of the feature map; the mean per image stays zero."""
    if evidence.shape[2:] == maps.shape[2:]:
        return evidence
    resized = resize_like(evidence, maps)
    return resized - resized.mean((2, 3), keepdim=True)
