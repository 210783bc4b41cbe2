"""Brush masks as Label Studio keeps them: run lengths of RGBA values, packed bit by bit (thi.ng's rle-pack)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tag2mask.errors import DataError

_WORD = 8
_SIZES = (3, 4, 8, 16)
"""Bits of the length of a run; which one is used stands before it."""
_CHANNELS = 4


def encode_brush(inside: NDArray[np.bool_]) -> list[int]:
    """Return the packed run lengths of a brush mask.

    Args:
        inside: bool H x W.

    Returns:
        Bytes, 0 to 255.

    >>> encode_brush(np.ones((1, 2), bool))
    [0, 0, 0, 8, 57, 27, 252, 255, 224]
    """
    flat = inside.ravel()
    bounds = np.flatnonzero(np.diff(flat, prepend=~flat[:1], append=~flat[-1:]))
    lengths, values = _CHANNELS * np.diff(bounds), 255 * flat[bounds[:-1]].astype(np.int64)
    longest = 2 ** _SIZES[-1]
    parts = -(-lengths // longest)
    values, whole = np.repeat(values, parts), np.full(parts.sum(), longest)
    whole[np.cumsum(parts) - 1] = lengths - (parts - 1) * longest
    size = np.searchsorted(2 ** np.array(_SIZES), whole)
    bits = np.array(_SIZES)[size]
    codes = ((4 + size) << bits | (whole - 1)) << _WORD | values  # a run (1), which size (2), its length, its value
    head = [(_CHANNELS * flat.size, 32), (_WORD - 1, 5), *((each - 1, 4) for each in _SIZES)]
    return _packed(
        np.concatenate([np.array([code for code, _ in head]), codes]),
        np.concatenate([np.array([width for _, width in head]), 3 + bits + _WORD]),
    )


def decode_brush(packed: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Return a brush mask of packed run lengths: the pixels that are not transparent, bool H x W.

    Args:
        packed: bytes, 0 to 255.
        height: of the photo in pixels.
        width: of the photo in pixels.

    Raises:
        DataError: these are no run lengths of a photo of that size.

    >>> decode_brush(encode_brush(np.eye(2, dtype=bool)), 2, 2).tolist()
    [[True, False], [False, True]]
    """
    try:
        stream = _Bits(bytes(list(packed)))  # bytes(n) would be n zeros
        count, word = stream.take(32), 1 + stream.take(5)
        sizes = [1 + stream.take(4) for _ in _SIZES]
        if count != height * width * _CHANNELS or word != _WORD:
            raise DataError(
                f"the brush mask has {count} values of {word} bits, a photo of {height} x {width} pixels has "
                f"{height * width * _CHANNELS} of {_WORD}; export it again"
            )
        values = np.empty(count, np.uint8)
        at = 0
        while at < count:
            is_run = stream.take(1)
            end = at + 1 + stream.take(sizes[stream.take(2)])
            if end > count:
                raise ValueError("a run beyond the end")
            values[at:end] = stream.take(_WORD) if is_run else stream.bytes(end - at)
            at = end
    except (ValueError, TypeError, IndexError):
        raise DataError("the brush mask is cut off or damaged; export it again") from None
    return values.reshape(height, width, _CHANNELS)[..., -1] > 0


def _packed(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> list[int]:
    """Return numbers of so many bits each, one after the other, as bytes."""
    ends = np.cumsum(widths)
    shifts = np.repeat(ends, widths) - 1 - np.arange(ends[-1])
    return np.packbits(((np.repeat(codes, widths) >> shifts) & 1).astype(np.uint8)).tolist()


class _Bits:
    """Bytes that are read bit by bit."""

    def __init__(self, content: bytes) -> None:
        self.bits = np.unpackbits(np.frombuffer(content, np.uint8))
        self.content, self.at = content, 0

    def take(self, count: int) -> int:
        """Return the number in the next bits."""
        first, end = self.at, self.at + count
        if end > len(self.bits):
            raise IndexError
        self.at = end
        whole = int.from_bytes(self.content[first // 8 : -(-end // 8)], "big")
        return (whole >> (-end % 8)) & ((1 << count) - 1)

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """Return the next bytes."""
        first, self.at = self.at, self.at + _WORD * count
        if self.at > len(self.bits):
            raise IndexError
        return np.packbits(self.bits[first : self.at])
