"""The files of photos and masks: found in a folder, named, and whether they can be read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from PIL import features

from tag2mask.data.decode import is_turned, photo_size
from tag2mask.errors import DataError

_READ = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_OTHER = (
    ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jxl", ".psd", ".svg", ".tga",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
)  # fmt: skip

PHOTO_SUFFIXES = (*_READ, ".avif") if features.check("avif") else _READ
"""What counts as a photo, in upper or lower case; AVIF where the installed Pillow reads it."""

UNREAD_SUFFIXES = _OTHER if ".avif" in PHOTO_SUFFIXES else (*_OTHER, ".avif")
"""Images that are not read: people are told, since they may think that these are among their photos."""

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
"""What counts as a true mask, in upper or lower case: formats that keep every value."""

RUN_FILE = "config.yaml"
"""What makes a folder a run's, whose masks and pictures are never data, if its first line names the package."""


def photos_by_name(root: Path) -> dict[str, Path]:
    """Return the files of the photos of a data folder by name, sorted by name.

    A name is the path within the folder without suffix. Hidden files, run folders and the folder's ``masks/`` are
    passed over; links are followed, each folder once.

    Raises:
        DataError: the folder is missing or has no photos, or two photos have one name.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such photo or folder; check the path")
    if is_run_folder(root):
        raise DataError(f"{root}: this is the folder of a run; give the folder of its photos")
    base = base_of(root)
    photos = _by_name(base, _files_below(base, PHOTO_SUFFIXES, leave_out=root / "masks"))
    if not photos:
        unread = unread_images(root)
        why = f" that can be read ({len(unread)} that cannot; {unread[0]})" if unread else ""
        raise DataError(f"{base}: no photos in this folder{why}; put some in ({', '.join(PHOTO_SUFFIXES)})")
    return photos


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
    """Return the masks (`MASK_SUFFIXES`) below a folder by name, as `photos_by_name`; none if there is no folder.

    Raises:
        DataError: two masks have one name.
    """
    return _by_name(folder, _files_below(folder, MASK_SUFFIXES))


def stray_masks(folder: Path, masks: Mapping[str, Path], photos: Mapping[str, Path]) -> tuple[str, ...]:
    """Return a note on each file in a folder of masks that is the mask of no photo."""
    strays = [file for name, file in masks.items() if name not in photos]
    return (*(f"{file}: a mask of no photo; give it its photo's name" for file in strays), *unread_masks(folder))


def unread_masks(folder: Path) -> tuple[str, ...]:
    """Return a note on each image in a folder of masks that is of no format of masks."""
    files = sorted(_files_below(folder, (*PHOTO_SUFFIXES, *UNREAD_SUFFIXES)))
    return tuple(
        f"{file}: {file.suffix.lower()} is not read as a mask; save it as PNG"
        for file in files
        if not file.name.lower().endswith(MASK_SUFFIXES)
    )


def unread_images(root: Path) -> tuple[str, ...]:
    """Return a note on each image of a data folder that `photos_by_name` passes over for its format."""
    files = unread_files(root)
    return tuple(f"{file}: {file.suffix.lower()} is not read; save the photo as JPEG or PNG" for file in files)


def unread_files(root: Path) -> list[Path]:
    """Return the images of a data folder that `photos_by_name` passes over for their format, sorted."""
    return sorted(_files_below(base_of(root), UNREAD_SUFFIXES, leave_out=root / "masks"))


def base_of(root: Path) -> Path:
    """Return the folder in a data folder that its photos are in and named from."""
    return next((root / name for name in ("photos", "images") if (root / name).is_dir()), root)


def is_run_folder(folder: Path) -> bool:
    """Return whether a folder is a run's."""
    try:
        with open(folder / RUN_FILE, "rb") as file:
            return file.read(9) == b"tag2mask:"
    except OSError:
        return False


def _by_name(base: Path, files: list[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for file in sorted(files):
        name = file.relative_to(base).with_suffix("").as_posix()
        if name in named:
            raise DataError(f"{base}: {named[name].name} and {file.name} have the same name; rename one of them")
        named[name] = file
    return dict(sorted(named.items()))


def _check_size(file: Path, wanted: tuple[int, int] | None) -> None:
    size = photo_size(file)
    if wanted and size != wanted:
        seen, listed = (f"{height} x {width}" for height, width in (size, wanted))
        raise DataError(
            f"{file}: {seen} pixels (height x width), but {listed} in the JSON"
            f"{turned_hint(file, wanted) or '; correct one of them'}"
        )


def turned_hint(photo: Path, size: tuple[int, ...]) -> str:
    """Return what to do where ``size``, height x width, is that of a photo before EXIF turns it; else nothing."""
    if size != photo_size(photo)[::-1] or not is_turned(photo):
        return ""
    return (
        ": the photo's EXIF orientation turns it by 90 degrees; turn the annotation too, or annotate a turned copy of"
        " the photo without EXIF"
    )


def _files_below(base: Path, suffixes: tuple[str, ...], leave_out: Path | None = None) -> list[Path]:
    """Return the files of such suffixes, in any case, that are not hidden and in no run folder below.

    Links are followed, each folder once.
    """
    files: list[Path] = []
    seen = set() if leave_out is None else {os.path.realpath(leave_out)}
    for folder, subfolders, names in os.walk(base, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (RUN_FILE in names and folder != str(base) and is_run_folder(Path(folder))):
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(folder, name) for name in names if not name.startswith(".") and name.lower().endswith(suffixes)]
    return files
