"""Bilinear resizing, the same everywhere: positions are centres of pixels, corners are not aligned."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def resize(maps: Tensor, size: tuple[int, ...], *, antialias: bool = False) -> Tensor:
    """Bring maps to another size, bilinear.

    Args:
        maps: float N x C x h x w.
        size: height and width.
        antialias: average over what a position of a smaller map covers.

    Returns:
        float N x C x H x W.

    >>> import torch
    >>> resize(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).tolist()
    [[[[0.0, 1.0, 3.0, 4.0]]]]
    """
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=antialias)


def resize_like(maps: Tensor, other: Tensor) -> Tensor:
    """Bring maps to the size of others, the last two axes being height and width, bilinear."""
    return resize(maps, other.shape[-2:])
