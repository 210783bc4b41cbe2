"""Bilinear resizing, the same everywhere: positions are centres of pixels, corners are not aligned."""

from __future__ import annotations

import torch
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


def resizing(positions: int, length: int) -> Tensor:
    """Return the matrix that resizes ``positions`` values to ``length``, float length x positions, bilinear."""
    return resize(torch.eye(positions)[None, None], (length, positions))[0, 0]


def resize_part(maps: Tensor, size: tuple[int, int], rows: slice, columns: slice) -> Tensor:
    """Return a part of what `resize` gives, without the rest.

    Args:
        maps: float C x h x w.
        size: height and width of the whole.
        rows: of the part.
        columns: of the part.

    Returns:
        float C x rows x columns.

    >>> resize_part(torch.tensor([[[0.0, 4.0]]]), (1, 4), slice(0, 1), slice(1, 3)).tolist()
    [[[1.0, 3.0]]]
    """
    down, across = (
        resizing(*pair)[part]
        for pair, part in zip(zip(maps.shape[1:], size, strict=True), (rows, columns), strict=True)
    )
    return down.to(maps) @ maps @ across.to(maps).T


def resize_like(maps: Tensor, other: Tensor) -> Tensor:
    """Bring maps to the size of others, the last two axes being height and width, bilinear."""
    return resize(maps, other.shape[-2:])


def masks_like(masks: Tensor, maps: Tensor) -> Tensor:
    """Return masks, uint8 N x H x W, at the positions of maps, ... x h x w, int64 N x h x w, by the nearest pixel."""
    return functional.interpolate(masks[:, None].float(), maps.shape[-2:], mode="nearest-exact")[:, 0].long()
