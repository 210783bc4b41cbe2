"""Photos that are in memory already: Pillow images and arrays, taken as their files would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tag2mask.data.decode import (
    MAX_PIXELS,
    PHOTO_FORMATS,
    Levels,
    count_values,
    levels_of_counts,
    pixels_of,
    read_photo,
    refused,
    scaled_by,
)
from tag2mask.errors import DataError

Photo: TypeAlias = str | Path | Image.Image | NDArray[Any]
"""What `as_photo` takes."""


def as_photo(photo: Photo, levels: Levels | None = None) -> NDArray[np.uint8]:
    """Return a photo, given as a file, a Pillow image or an array, as `read_photo` does.

    Args:
        photo: a file; a Pillow image, which is treated as its file would be (but Pillow gives 8 bits of 16-bit
            colours); or an array: H x W x 3 (RGB), H x W x 4 (RGBA, laid over white), H x W or H x W x 1 (grey), uint8
            or uint16. Other dtypes are refused, because their range is unknown.
        levels: of 16-bit photos, as for `read_photo`.

    Returns:
        uint8 H x W x 3, RGB.

    Raises:
        DataError: it is not a photo, or cannot be read.

    >>> as_photo(np.full((2, 4), 7, np.uint8)).shape
    (2, 4, 3)
    """
    if isinstance(photo, (str, Path)):
        return read_photo(photo, levels=levels)
    if isinstance(photo, np.ndarray):
        photo = _image_of(photo, levels)
        if isinstance(photo, np.ndarray):
            return photo
    if not isinstance(photo, Image.Image):
        raise DataError(f"a photo is a file, a Pillow image or an array, not {type(photo).__name__}; give one of these")
    with refused("the image in memory", PHOTO_FORMATS, "photo"):
        return pixels_of(photo, "the image in memory", None, levels)


def _image_of(photo: NDArray[Any], levels: Levels | None) -> Image.Image | NDArray[np.uint8]:
    """Return an array as an image, or as it is where it is uint8 H x W x 3."""
    shape = " x ".join(map(str, photo.shape))
    if photo.dtype not in (np.uint8, np.uint16):
        known = " (of 0 to 1: (255 * photo).round().astype('uint8'))" if photo.dtype.kind == "f" else ""
        raise DataError(f"the photo is a {photo.dtype} array {shape}; give uint8, 0 to 255, or uint16{known}")
    if photo.ndim == 3 and photo.shape[2] == 1:
        photo = photo[:, :, 0]
    if photo.ndim not in (2, 3) or (photo.ndim == 3 and photo.shape[2] not in (3, 4)) or not photo.size:
        raise DataError(
            f"the photo is an array {shape}; give height x width x 3 (RGB), x 4 (RGBA) or height x width (grey), "
            "and several photos as a list"
        )
    if photo.shape[0] * photo.shape[1] > MAX_PIXELS:
        raise DataError(f"the photo is an array {shape}, more than {MAX_PIXELS // 1_000_000} million pixels; shrink it")
    if photo.dtype == np.uint16:
        colours = photo if photo.ndim == 2 else photo[..., :3]
        scaled = scaled_by(colours, levels or levels_of_counts(count_values(colours)))
        photo = scaled if photo.ndim == 2 else np.dstack([scaled, (photo[..., 3:] >> 8).astype(np.uint8)])
    return photo if photo.ndim == 3 and photo.shape[2] == 3 else Image.fromarray(np.ascontiguousarray(photo))
