"""The files of photos: found in a folder, named, and whether they can be read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tag2mask.data.decode import photo_size
from tag2mask.errors import DataError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""What counts as a photo, in upper or lower case."""

UNREAD_SUFFIXES = (
    ".heic", ".heif", ".avif", ".jfif", ".jp2", ".jxl", ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf",
)  # fmt: skip
"""Images that are not read: people are told, since they may think that these are among their photos."""


def photos_by_name(root: Path) -> dict[str, Path]:
    """Return the files of the photos of a data folder by name, sorted by name.

    A name is the path within the folder without suffix. Hidden files and the folder's ``masks/`` are
    passed over; links are followed, each folder once.

    Raises:
        DataError: the folder is missing or has no photos, or two photos have one name.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; check the path")
    base = _base(root)
    photos: dict[str, Path] = {}
    for file in sorted(_files_below(base, PHOTO_SUFFIXES, leave_out=root / "masks")):
        name = file.relative_to(base).with_suffix("").as_posix()
        if name in photos:
            raise DataError(f"{base}: {photos[name].name} and {file.name} have one name; rename one of them")
        photos[name] = file
    if not photos:
        raise DataError(f"{base}: no photos in this folder; put some in ({', '.join(PHOTO_SUFFIXES)})")
    return dict(sorted(photos.items()))


def readable(
    photos: Mapping[str, Path],
    strict: bool,
    sizes: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the photos whose headers can be read, and a note on each of the others.

    Args:
        photos: files by name.
        strict: a photo that cannot be read is an error.
        sizes: height and width that photos must have, by name.

    Raises:
        DataError: no photo can be used, or, if ``strict``, one cannot.
    """
    kept: dict[str, Path] = {}
    notes: list[str] = []
    for name, file in photos.items():
        try:
            _check_size(file, sizes.get(name))
            kept[name] = file
        except DataError as error:
            if strict:
                raise
            notes.append(str(error))
    if not kept:
        raise DataError(f"none of the {len(notes)} photos can be used; the first is {notes[0]}")
    return kept, tuple(notes)


def masks_by_name(folder: Path) -> dict[str, Path]:
    """Return the PNG files of a folder of masks and its sub-folders by name, as `photos_by_name`; none if no folder."""
    files = _files_below(folder, (".png",))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(files)}


def stray_masks(folder: Path, masks: Mapping[str, Path], photos: Mapping[str, Path]) -> tuple[str, ...]:
    """Return a note on each file in a folder of masks that is the mask of no photo."""
    others = _files_below(folder, (*PHOTO_SUFFIXES, *UNREAD_SUFFIXES))
    strays = [file for name, file in masks.items() if name not in photos]
    others = sorted(file for file in others if file.suffix.lower() != ".png")
    return (
        *(f"{file}: a mask of no photo; give it its photo's name" for file in strays),
        *(f"{file}: a mask that is no PNG; save it as PNG" for file in others),
    )


def unread_images(root: Path) -> tuple[str, ...]:
    """Return a note on each image of a data folder that `photos_by_name` passes over for its format."""
    files = sorted(_files_below(_base(root), UNREAD_SUFFIXES, leave_out=root / "masks"))
    return tuple(f"{file}: {file.suffix} is not read; save the photo as JPEG or PNG" for file in files)


def _base(root: Path) -> Path:
    return next((root / name for name in ("photos", "images") if (root / name).is_dir()), root)


def _check_size(file: Path, wanted: tuple[int, int] | None) -> None:
    size = photo_size(file)
    if wanted and size != wanted:
        seen, listed = (f"{height} x {width}" for height, width in (size, wanted))
        raise DataError(f"{file}: {seen} pixels (height x width), but {listed} in the JSON; correct one of them")


def _files_below(base: Path, suffixes: tuple[str, ...], leave_out: Path | None = None) -> list[Path]:
    """Return the files of such suffixes, in any case, that are not hidden; links are followed, each folder once."""
    files: list[Path] = []
    seen = set() if leave_out is None else {os.path.realpath(leave_out)}
    for folder, subfolders, names in os.walk(base, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(folder, name) for name in names if not name.startswith(".") and name.lower().endswith(suffixes)]
    return files
