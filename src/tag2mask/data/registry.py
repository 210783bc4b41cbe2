"""Readers of data: what each must have, and which one reads a folder or file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from tag2mask.data.image_set import ImageSet
from tag2mask.errors import DataError
from tag2mask.files import absolute
from tag2mask.names import reader_names

Place: TypeAlias = "str | Path | None"


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of data. A reader is a file in ``readers/`` with an instance of it, ``READER``.

    Attributes:
        order: readers are asked in this order; one of special data comes before one that takes any folder.
        sniff: given ``(path, labels, split)``, whether the data is of this kind; the path exists.
        load: given ``(path, labels, split, strict)``, reads it. It raises DataError with one line: what is wrong,
            in which file, how to fix it.
    """

    order: int
    sniff: Callable[[Path, Place, Place], bool]
    load: Callable[[Path, Place, Place, bool], ImageSet]


def readers() -> list[Reader]:
    """Return all readers in the order in which they are asked.

    >>> [reader.load.__name__ for reader in readers()]
    ['load_voc', 'load_instances', 'load_folder']
    """
    found: list[Reader] = [import_module(f"tag2mask.data.readers.{name}").READER for name in reader_names()]
    return sorted(found, key=lambda reader: reader.order)


def load(
    path: str | Path,
    labels: str | Path | None = None,
    split: str | Path | None = None,
    strict: bool = False,
) -> ImageSet:
    """Load an image set of any kind.

    A folder with ``JPEGImages`` is VOC's (`load_voc`). A ``.json`` file is COCO's (`load_coco`), as is a folder
    without a tag table that has ``instances.json`` or, for a split, ``instances_<split>.json``, there or in
    ``annotations/``. Any other folder is one of photos (`load_folder`).

    Args:
        path: the folder or JSON.
        labels: source of the tags; None for the default of the kind of data.
        split: list of photos to use; None for all.
        strict: raise an error for unreadable photos instead of leaving them out.

    Raises:
        DataError: the data are wrong; the message says what, in which file, and how to fix it.
    """
    place = Path(path)
    if not os.path.exists(place):
        raise DataError(f"{place}: no such folder or file; check the path")
    reader = next((reader for reader in readers() if reader.sniff(place, labels, split)), None)
    if reader is None:
        raise DataError(f"{place}: neither a folder of photos nor a COCO JSON; give one of these")
    data = reader.load(place, labels, split, strict)
    return replace(data, origin=(str(place.resolve()), absolute(labels), absolute(split))).with_levels()
