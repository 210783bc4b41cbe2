"""Image sets: photos with image-level labels, read from a folder, a VOCdevkit or a COCO JSON."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tag2mask.data.coco import instances_file, load_coco
from tag2mask.data.decode import Photo, as_photo, photo_size, read_mask, read_photo, voc_palette, write_mask
from tag2mask.data.folder import load_folder, photos_in
from tag2mask.data.image_set import (
    ImageSet,
    Sample,
    check_mask_sizes,
    check_trainable,
    few,
    keep_truth,
    summary,
)
from tag2mask.data.tables import find_table
from tag2mask.data.voc import load_voc, voc_root
from tag2mask.errors import DataError

__all__ = [
    "ImageSet",
    "Photo",
    "Sample",
    "as_photo",
    "check_mask_sizes",
    "check_trainable",
    "keep_truth",
    "load",
    "load_coco",
    "load_folder",
    "load_voc",
    "photo_size",
    "photos_in",
    "read_mask",
    "read_photo",
    "summary",
    "voc_palette",
    "write_mask",
]


def load(
    path: str | Path,
    labels: str | Path | None = None,
    split: str | Path | None = None,
    strict: bool = False,
) -> ImageSet:
    """Load an image set of any kind.

    A ``.json`` file is COCO's (`load_coco`), as is a folder without a tag table that has ``instances.json``
    or, for a split, ``instances_<split>.json``, there or in ``annotations/``. A folder with ``JPEGImages``
    is VOC's (`load_voc`). Any other folder is one of photos (`load_folder`).

    Args:
        path: the folder or JSON.
        labels: where the tags come from, if not from where the reader looks by itself.
        split: the list of photos to use. None: all.
        strict: unreadable photos are an error, not left out.

    Raises:
        DataError: something is wrong with the data; the message says what, where, and how to mend it.
    """
    table, names = (None if one is None else str(one) for one in (labels, split))
    return replace(_load(Path(path), labels, split, strict), origin=(str(Path(path).resolve()), table, names))


def _load(path: Path, labels: str | Path | None, split: str | Path | None, strict: bool) -> ImageSet:
    if not os.path.exists(path):
        raise DataError(f"{path}: no such folder or file; check the path")
    if path.is_dir() and voc_root(path):
        return load_voc(path, labels, split, strict)
    if path.is_dir() and (labels or find_table(path, None) or not _instances(path, split)):
        return load_folder(path, labels, split, strict)
    if labels:
        raise DataError(f"{labels}: a COCO JSON has its own labels; leave the tag table out")
    if path.is_file() and path.suffix.lower() != ".json":
        raise DataError(f"{path}: neither a folder of photos nor a COCO JSON; give one of these")
    return load_coco(_instances(path, split) or path, split, strict=strict)


def _instances(folder: Path, split: str | Path | None) -> Path | None:
    """Return a folder's COCO JSON, None if it has none at all."""
    found = instances_file(folder, split) or instances_file(folder, None)
    others = sorted([*folder.glob("instances_*.json"), *folder.glob("annotations/instances_*.json")])
    if found is None and others:
        splits = few([repr(path.stem.removeprefix("instances_")) for path in others])
        raise DataError(f"{folder}: COCO files of the splits {splits}; name one of them or give one of the files")
    return found
