"""Photos too small for what is to be done with them."""

from __future__ import annotations

from collections.abc import Sequence

from tag2mask.config import TilesConfig
from tag2mask.data.decode import photo_size
from tag2mask.data.image_set import Sample
from tag2mask.errors import DataError

LEAST = 32
"""Pixels of the longer side: one position of a backbone's deepest map."""


def check_photo_sizes(samples: Sequence[Sample], tiles: TilesConfig | None = None) -> None:
    """Check from the files' headers that there is a photo to see something in, and one that a tile fits in.

    The first such photo ends the search. A photo that cannot be read counts as one; reading it says so.

    Args:
        samples: the photos.
        tiles: of the recipe.

    Raises:
        DataError: all photos are smaller.
    """
    least = LEAST if tiles is None else max(LEAST, tiles.side)
    largest = (0, 0)
    for sample in samples:
        try:
            largest = max(largest, photo_size(sample.image), key=lambda size: (max(size), min(size)))
        except DataError:
            return
        if max(largest) >= least:
            return
    height, width = largest
    if not samples:
        return
    if max(largest) < LEAST:
        raise DataError(
            f"the photos are too small: the largest, of {width} x {height} pixels, is less than {LEAST} pixels long; "
            "give larger ones"
        )
    raise DataError(
        f"tiles of {least} px are larger than the photos (largest {width} x {height}); choose a smaller tiles.side, "
        "such as half the longer side of a photo, or leave tiles out"
    )
