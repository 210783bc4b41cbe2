"""Photos and mask files in, arrays out; and mask files written so that none is ever half there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from tag2mask.data.signatures import what_it_is
from tag2mask.errors import DataError
from tag2mask.files import whole

Levels: TypeAlias = tuple[int, int]
"""The 16-bit values that become 0 and 255; what lies between is scaled, what lies outside is cut."""

MAX_PIXELS = 178_956_970
"""Photos of more pixels than this are refused (the limit at which Pillow too speaks of a bomb)."""

_BASIC = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
PHOTO_FORMATS = (*_BASIC, "AVIF") if features.check("avif") else _BASIC
"""What is tried on a photo, by its content. Never all that Pillow knows: EPS would start Ghostscript."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPABLE = ("RGB;16", "RGBX;16", "RGBA;16")
"""Colours of 16 bits of which Pillow reads either byte."""

_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 274, 256, 257


def read_photo(path: str | Path, draft_size: int | None = None, levels: Levels | None = None) -> np.ndarray:
    """Read a photo as it is meant to be seen.

    EXIF orientation is applied (in a PNG, where it stands before the pixels). Transparency is laid over
    white; grey, palette, CMYK and 1-bit become RGB; 16 bits are scaled to 8 by ``levels``. Of several frames the
    first is read. Colour profiles are not applied.

    Args:
        path: JPEG, PNG, WebP, BMP, TIFF or GIF, known by its content, not by its suffix.
        draft_size: if given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster,
            but never with a side below this (unless the photo itself is smaller).
        levels: of 16-bit photos, the values that become 0 and 255: those of the photo's set (`ImageSet.levels`), so
            that all its photos are scaled alike. None: those of the photo alone. 8-bit photos are read as they are.

    Returns:
        uint8 H x W x 3, RGB.

    Raises:
        DataError: the file is missing, truncated, corrupt, too large, or has pixels that are no photo's.
    """
    with _opened(path, PHOTO_FORMATS) as image:
        if draft_size is not None:
            image.draft(None, (draft_size, draft_size))
        return pixels_of(image, path, _low_bytes(path, image), levels)


def pixels_of(
    image: Image.Image, name: str | Path, low_bytes: NDArray[np.uint8] | None, levels: Levels | None
) -> NDArray[np.uint8]:
    """Return the pixels of an opened image as `read_photo` does.

    Args:
        image: need not be loaded yet.
        name: what it is called in errors.
        low_bytes: of 16-bit colours, of which Pillow gives the high bytes.
        levels: of 16-bit photos.
    """
    orientation = _orientation(image)
    image.load()
    if image.format == "TIFF":  # Pillow may have turned it while loading
        orientation = _orientation(image)
    turn = _TURNS.get(orientation)
    rgb = _to_rgb(image, name, low_bytes, levels)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def is_deep(path: str | Path) -> bool:
    """Return whether a photo has 16 bits a value, from its header alone.

    Raises:
        DataError: the file is missing, too large, or its header is no photo's.
    """
    with _opened(path, PHOTO_FORMATS) as image:
        return image.mode.startswith("I") or _is_16_bit_colour(image)


def read_deep(path: str | Path) -> np.ndarray:
    """Read the values of a 16-bit photo that `is_deep`, without its transparency.

    Returns:
        uint16 H x W or H x W x channels.

    Raises:
        DataError: as of `read_photo`.
    """
    with _opened(path, PHOTO_FORMATS) as image:
        low_bytes = _low_bytes(path, image)
        image.load()
        return _deep_values(image, path, low_bytes)


def count_values(values: np.ndarray) -> np.ndarray:
    """Return how often each 16-bit value occurs among some four million of them, int 65536."""
    return np.bincount(values.ravel()[:: 1 + values.size // 2**22], minlength=2**16)


def levels_of_counts(counts: np.ndarray) -> Levels:
    """Return the 0.1st and the 99.9th percentile of 16-bit values, given how often each occurs, int 65536.

    >>> levels_of_counts(np.bincount(np.arange(1000, 5000), minlength=2**16))
    (1003, 4995)
    """
    below = counts.cumsum()
    low, high = (int(np.searchsorted(below, share * below[-1])) for share in (0.001, 0.999))
    return low, high


def photo_size(path: str | Path) -> tuple[int, int]:
    """Return ``(height, width)`` of a photo as `read_photo` gives it, from the file's header alone.

    Raises:
        DataError: the file is missing, too large, or its header is no photo's.
    """
    with _opened(path, PHOTO_FORMATS) as image:
        width, height = image.size
        if image.format == "TIFF":
            # Pillow's releases differ in whether a TIFF's size is given before or after turning.
            tags = image.tag_v2  # type: ignore[attr-defined]
            width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
        return (width, height) if _orientation(image) >= 5 else (height, width)


def is_turned(path: str | Path) -> bool:
    """Return whether a photo's EXIF orientation swaps its height and width.

    Raises:
        DataError: the file is missing, too large, or its header is no photo's.
    """
    with _opened(path, PHOTO_FORMATS) as image:
        return _orientation(image) >= 5


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask: class indices, 0 for background, 255 for ignored pixels.

    A palette image gives its indices whatever their colours, a grey one its values, a 1-bit one 0 and 1.
    An RGB image is read by the colours of `voc_palette`.

    Args:
        path: a PNG, BMP or TIFF file.

    Returns:
        uint8 H x W.

    Raises:
        DataError: the file is missing, corrupt or of another format, or has colours or values that are no class.
    """
    with _opened(path, ("PNG", "BMP", "TIFF"), what="mask") as image:
        image.load()
        if image.mode in ("RGB", "RGBA"):
            return _indices_of_colours(np.asarray(image.convert("RGB")), path)
        values = np.array(image)
    if values.ndim != 2 or values.max() > 255:
        raise DataError(f"{path}: a mask must have one 8-bit class number per pixel; save it as a palette or grey PNG")
    return values.astype(np.uint8)


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a mask as a palette PNG in the colours of `voc_palette`.

    It is whole or not there (`tag2mask.files.whole`).

    Args:
        path: the file to write, ``*.png``.
        mask: uint8 H x W.

    Raises:
        ValueError: the mask is not a uint8 H x W array.
        DataError: the file cannot be written.
    """
    image = mask_image(mask)
    with whole(path) as unfinished:
        image.save(unfinished, format="PNG")


def mask_image(mask: np.ndarray) -> Image.Image:
    """Return a mask, uint8 H x W, as an image with the palette of `voc_palette`.

    Raises:
        ValueError: the mask is not a uint8 H x W array.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"a mask is a uint8 array H x W, not {mask.dtype} {mask.shape}")
    image = Image.fromarray(mask)
    image.putpalette(voc_palette().tobytes())
    return image


def voc_palette() -> np.ndarray:
    """Return the PASCAL VOC colours, uint8 256 x 3.

    The bits of an index, from the lowest, are dealt in turn to red, green and blue, filling each from the
    highest bit down.

    >>> voc_palette()[[0, 1, 15, 255]].tolist()
    [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = (index >> (3 * place + channel)) & 1
            palette[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return palette


@contextmanager
def _opened(path: str | Path, formats: tuple[str, ...], what: str = "photo") -> Iterator[Image.Image]:
    """Open an image file; what goes wrong inside is `refused`."""
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file; check the name of the {what}")
    with refused(path, formats, what), Image.open(path, formats=formats) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield image


@contextmanager
def refused(path: str | Path, formats: tuple[str, ...], what: str) -> Iterator[None]:
    """Turn whatever goes wrong while an image is read into a DataError of one line."""
    try:
        yield
    except DataError:
        raise
    except Image.DecompressionBombError:
        limit = MAX_PIXELS // 1_000_000
        raise DataError(f"{path}: more than {limit} million pixels; make a smaller copy of the {what}") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on corrupt bytes
        reason = _why_unreadable(error, path, formats)
        raise DataError(f"{path}: the {what} cannot be read ({reason}); replace the file or remove it") from None


def _why_unreadable(error: Exception, path: str | Path, formats: tuple[str, ...]) -> str:
    if isinstance(error, UnidentifiedImageError):
        return what_it_is(path) or "no " + ", ".join(formats) + " file"
    return (isinstance(error, OSError) and error.strerror) or "truncated or corrupt"


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or where it makes no sense."""
    try:
        # Not image.getexif(): that of a PNG decodes all pixels to look for what comes after them.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # a photo with broken EXIF is still a photo
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, path: str | Path, low_bytes: np.ndarray | None, levels: Levels | None) -> Image.Image:
    """Return the image in mode RGB."""
    if image.mode.startswith("I") or low_bytes is not None:
        values = _deep_values(image, path, low_bytes)
        scaled = scaled_by(values, levels or levels_of_counts(count_values(values)))
        if not image.has_transparency_data or low_bytes is None:
            return Image.fromarray(scaled).convert("RGB")
        alpha = image.convert("RGBA").getchannel("A")
        image = Image.fromarray(scaled).convert("RGBA")
        image.putalpha(alpha)
    if image.mode == "F":
        raise DataError(f"{path}: pixels are floating-point numbers; save the photo with 8 or 16 bits")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # which copies even what is RGB
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _deep_values(image: Image.Image, path: str | Path, low_bytes: np.ndarray | None) -> np.ndarray:
    """Return the 16-bit values of an image that is loaded: grey, or colours of which it has the high bytes."""
    values = np.asarray(image)
    if low_bytes is not None:
        return (values.astype(np.uint16) << 8 | low_bytes)[..., :3]
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{path}: grey values lie outside 0 to 65535; save the photo with 8 or 16 bits")
    return values.astype(np.uint16)


def scaled_by(values: np.ndarray, levels: Levels) -> np.ndarray:
    """Return 16-bit values as uint8: the levels become 0 and 255, what lies between is rounded."""
    low, high = levels[0], max(levels[1], levels[0] + 1)
    table = (np.arange(2**16) - low) * (255 / (high - low))
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[values]


def _is_16_bit_colour(image: Image.Image) -> bool:
    return image.mode in ("RGB", "RGBA") and any(";16" in _raw_mode(tile) for tile in _tiles(image))


def _low_bytes(path: str | Path, image: Image.Image) -> np.ndarray | None:
    """Return the low bytes of a 16-bit colour image, None if it is none.

    Pillow reads 16-bit colours as their high bytes. Told that the file has the other order of bytes, it reads the low
    ones as these. Of grey with transparency it reads no low bytes: they are 0.
    """
    if not _is_16_bit_colour(image):
        return None
    if any(_raw_mode(tile)[:-1] not in _SWAPPABLE for tile in _tiles(image)):
        return np.zeros((1, 1, 1), np.uint8)
    with _opened(path, PHOTO_FORMATS) as other:
        swapped: Any = other
        swapped.tile = [_other_byte_order(tile) for tile in _tiles(other)]
        return np.asarray(other)


def _tiles(image: Any) -> list[Any]:
    """Return how the parts of an image lie in its file, as Pillow has it."""
    return list(image.tile)


def _raw_mode(tile: Any) -> str:
    """Return how the values lie in the file, by Pillow's name: ``RGB;16B`` is 16 bits, high byte first."""
    args = tile[3]
    return str(args if isinstance(args, str) else args[0] if args else "")


def _other_byte_order(tile: Any) -> Any:
    codec, extents, offset, args = tile
    mode = _raw_mode(tile)
    order = mode[-1] if mode[-1] != "N" else sys.byteorder[0].upper()  # N is the machine's own
    mode = mode[:-1] + {"L": "B", "B": "L"}[order]
    changed = (codec, extents, offset, mode if isinstance(args, str) else (mode, *args[1:]))
    return type(tile)(*changed) if hasattr(tile, "_fields") else changed


@lru_cache(maxsize=1)
def _sorted_colour_codes() -> tuple[np.ndarray, np.ndarray]:
    codes = _colour_codes(voc_palette())
    order = np.argsort(codes)
    return codes[order], order.astype(np.uint8)


def _colour_codes(rgb: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(rgb.astype(np.int64), -1, 0)
    codes: np.ndarray = (red << 16) | (green << 8) | blue
    return codes


def _indices_of_colours(rgb: np.ndarray, path: str | Path) -> np.ndarray:
    """Return the index in the VOC palette of each pixel's colour, uint8 H x W."""
    codes, indices = _sorted_colour_codes()
    mask = np.empty(rgb.shape[:2], np.uint8)
    for row, colours in enumerate(rgb):  # the codes of a large mask at once would take gigabytes
        wanted = _colour_codes(colours)
        at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        strange = codes[at] != wanted
        if strange.any():
            colour = tuple(int(value) for value in colours[strange][0])
            raise DataError(
                f"{path}: colour {colour} is not in the VOC palette; save the mask as a palette or grey PNG"
            )
        mask[row] = indices[at]
    return mask
