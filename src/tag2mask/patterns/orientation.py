"""Which end of a component is the object: the evidence that a pattern is oriented by. Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from tag2mask.resize import resize_like

EVIDENCE = ("activation", "centre")
"""What orients a pattern: the classifier's class activation, and a prior that objects stand in the centre."""

WEAK = 0.1
"""Correlation below which the evidence for a sign is called weak."""


def evidence_maps(activation: Tensor) -> Tensor:
    """Return the evidence for a class at each position, each map centred.

    Args:
        activation: float N x h x w, the class activation.

    Returns:
        float N x E x h x w in the order of `EVIDENCE`, zero mean per image and kind.
    """
    count, height, width = activation.shape
    rows = torch.linspace(-1, 1, height, device=activation.device)[:, None]
    columns = torch.linspace(-1, 1, width, device=activation.device)[None, :]
    centre = torch.exp(-2 * (rows**2 + columns**2)).expand(count, height, width)
    maps = torch.stack([activation, centre], 1)
    return maps - maps.mean((2, 3), keepdim=True)


def fit_evidence(evidence: Tensor, maps: Tensor) -> Tensor:
    """Bring evidence to the size of the feature map; the mean per image stays zero."""
    if evidence.shape[2:] == maps.shape[2:]:
        return evidence
    resized = resize_like(evidence, maps)
    return resized - resized.mean((2, 3), keepdim=True)
