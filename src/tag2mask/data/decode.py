"""Photos and mask files in, arrays out; and mask files written so that none is ever half there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tag2mask.errors import DataError
from tag2mask.files import whole

MAX_PIXELS = 178_956_970
"""Photos of more pixels than this are refused (the limit at which Pillow too speaks of a bomb)."""

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""What is tried on a photo, by its content. Never all that Pillow knows: EPS would start Ghostscript."""

Photo: TypeAlias = str | Path | Image.Image | NDArray[Any]
"""What `as_photo` takes."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 274, 256, 257


def read_photo(path: str | Path, draft_size: int | None = None) -> np.ndarray:
    """Read a photo as it is meant to be seen.

    EXIF orientation is applied (in a PNG, where it stands before the pixels). Transparency is laid over
    white; grey, palette, CMYK and 1-bit become RGB; 16-bit grey is divided by 257, so that 65535 is 255.
    Of several frames the first is read. Colour profiles are not applied.

    Args:
        path: JPEG, PNG, WebP, BMP, TIFF or GIF, known by its content, not by its suffix.
        draft_size: if given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster,
            but never with a side below this (unless the photo itself is smaller).

    Returns:
        uint8 H x W x 3, RGB.

    Raises:
        DataError: the file is missing, truncated, corrupt, too large, or has pixels that are no photo's.
    """
    with _opened(path, PHOTO_FORMATS) as image:
        if draft_size is not None:
            image.draft(None, (draft_size, draft_size))
        return _pixels(image, path)


def as_photo(photo: Photo) -> NDArray[np.uint8]:
    """Return a photo as `read_photo` gives it, whatever it is given as.

    Args:
        photo: a file; a Pillow image, which is treated as its file would be; or an array: uint8 H x W x 3 (RGB),
            H x W x 4 (RGBA, laid over white), H x W or H x W x 1 (grey), or uint16 H x W (16-bit grey). Other dtypes
            are refused, since nothing says what range they have.

    Returns:
        uint8 H x W x 3, RGB.

    Raises:
        DataError: it is no photo, or cannot be read.

    >>> as_photo(np.full((2, 4), 7, np.uint8)).shape
    (2, 4, 3)
    """
    if isinstance(photo, (str, Path)):
        return read_photo(photo)
    if isinstance(photo, np.ndarray):
        photo = _image_of(photo)
        if isinstance(photo, np.ndarray):
            return photo
    if not isinstance(photo, Image.Image):
        raise DataError(f"a photo is a file, a Pillow image or an array, not {type(photo).__name__}; give one of these")
    with _refused("the image in memory", PHOTO_FORMATS, "photo"):
        return _pixels(photo, "the image in memory")


def _image_of(photo: NDArray[Any]) -> Image.Image | NDArray[np.uint8]:
    """Return an array as an image, or as it is where it is uint8 H x W x 3."""
    shape = " x ".join(map(str, photo.shape))
    if photo.dtype != np.uint8 and not (photo.dtype == np.uint16 and photo.ndim == 2):
        known = " (of 0 to 1: (255 * photo).round().astype('uint8'))" if photo.dtype.kind == "f" else ""
        raise DataError(f"the photo is a {photo.dtype} array {shape}; give uint8, 0 to 255{known}")
    if photo.ndim == 3 and photo.shape[2] == 1:
        photo = photo[:, :, 0]
    if photo.ndim not in (2, 3) or (photo.ndim == 3 and photo.shape[2] not in (3, 4)) or not photo.size:
        raise DataError(
            f"the photo is an array {shape}; give height x width x 3 (RGB), x 4 (RGBA) or height x width (grey), "
            "and several photos as a list"
        )
    if photo.shape[0] * photo.shape[1] > MAX_PIXELS:
        raise DataError(f"the photo is an array {shape}, more than {MAX_PIXELS // 1_000_000} million pixels; shrink it")
    return photo if photo.ndim == 3 and photo.shape[2] == 3 else Image.fromarray(np.ascontiguousarray(photo))


def _pixels(image: Image.Image, name: str | Path) -> NDArray[np.uint8]:
    orientation = _orientation(image)
    image.load()
    if image.format == "TIFF":  # Pillow may have turned it while loading
        orientation = _orientation(image)
    turn = _TURNS.get(orientation)
    rgb = _to_rgb(image, name)
    return np.array(rgb if turn is None else rgb.transpose(turn))


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


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask: class indices, 0 for background, 255 for ignored pixels.

    A palette PNG gives its indices whatever their colours, a grey PNG its values, a 1-bit PNG 0 and 1.
    An RGB PNG is read by the colours of `voc_palette`.

    Args:
        path: a PNG file.

    Returns:
        uint8 H x W.

    Raises:
        DataError: the file is missing, corrupt or no PNG, or has colours or values that are no class.
    """
    with _opened(path, ("PNG",), what="mask") as image:
        image.load()
        if image.mode in ("RGB", "RGBA"):
            return _indices_of_colours(np.asarray(image.convert("RGB")), path)
        values = np.array(image)
    if values.ndim != 2 or values.max() > 255:
        raise DataError(f"{path}: a mask must have one 8-bit class index a pixel; save it as a palette or grey PNG")
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
    """Open an image file; what goes wrong inside is `_refused`."""
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file; check the name of the {what}")
    with _refused(path, formats, what), Image.open(path, formats=formats) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield image


@contextmanager
def _refused(path: str | Path, formats: tuple[str, ...], what: str) -> Iterator[None]:
    """Turn whatever goes wrong while an image is read into a DataError of one line."""
    try:
        yield
    except DataError:
        raise
    except Image.DecompressionBombError:
        limit = MAX_PIXELS // 1_000_000
        raise DataError(f"{path}: more than {limit} million pixels; make a smaller copy of the {what}") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on corrupt bytes
        reason = _why_unreadable(error, formats)
        raise DataError(f"{path}: the {what} cannot be read ({reason}); replace the file or remove it") from None


def _why_unreadable(error: Exception, formats: tuple[str, ...]) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no " + ", ".join(formats) + " file"
    return (isinstance(error, OSError) and error.strerror) or "truncated or corrupt"


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or where it makes no sense."""
    try:
        # Not image.getexif(): that of a PNG decodes all pixels to look for what comes after them.
        value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # a photo with broken EXIF is still a photo
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    """Return the image in mode RGB."""
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image), path)
    if image.mode == "F":
        raise DataError(f"{path}: pixels are floating-point numbers; save the photo with 8 or 16 bits")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # which copies even what is RGB
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _from_16_bit(values: np.ndarray, path: str | Path) -> Image.Image:
    """Return grey values 0 to 65535 as RGB, 65535 becoming 255."""
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{path}: grey values lie outside 0 to 65535; save the photo with 8 or 16 bits")
    grey = ((values.astype(np.int32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


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
