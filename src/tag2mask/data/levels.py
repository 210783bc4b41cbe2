"""The range of a set's 16-bit photos: what of 0 to 65535 becomes 0 to 255."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from tag2mask.data.decode import Levels, count_values, is_deep, levels_of_counts, read_deep
from tag2mask.errors import DataError

_NEVER_DEEP = (".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_MOST = 64
"""Photos whose pixels are looked at, spread evenly over the set's."""


def levels_of(photos: Sequence[Path]) -> Levels | None:
    """Return the range of the pixels of a set's 16-bit photos, None where there is no such photo.

    It is from the 0.1st to the 99.9th percentile of all pixels, of 64 of these photos where there are more. A photo
    that cannot be read does not count.
    """
    deep = [photo for photo in photos if photo.suffix.lower() not in _NEVER_DEEP and _is_deep(photo)]
    chosen = deep if len(deep) <= _MOST else [deep[place * len(deep) // _MOST] for place in range(_MOST)]
    counts = np.zeros(2**16, np.int64)
    for photo in chosen:
        with suppress(DataError):
            counts += count_values(read_deep(photo))
    return levels_of_counts(counts) if counts.any() else None


def _is_deep(photo: Path) -> bool:
    try:
        return is_deep(photo)
    except DataError:
        return False
