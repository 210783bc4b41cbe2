"""What a person has corrected in a run: masks and tags in ``corrected/``, which are truth from then on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tag2mask.data import ImageSet, Sample, read_mask
from tag2mask.data.class_names import check_known, class_indices, label_indices
from tag2mask.data.photos import masks_by_name
from tag2mask.data.tables import read_table
from tag2mask.errors import RunError
from tag2mask.files import share_file, write_bytes, write_text
from tag2mask.names import IGNORE

FOLDER = "corrected"
EARLIER = ".earlier"
"""The folder in it of masks that the run made before: a person may still hold annotations made from them."""

MOST_EARLIER = 20
_TAGS = "tags.json"


@dataclass(frozen=True)
class Corrections:
    """Corrections of a run's training photos.

    Attributes:
        masks: files of the corrected masks by photo's name.
        tags: corrected tags by photo's name.
        earlier: folders of masks that the run made before it learnt from these.
    """

    masks: Mapping[str, Path] = field(default_factory=dict)
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    earlier: tuple[Path, ...] = ()

    def digests(self) -> dict[str, str]:
        """Return what changes when a corrected mask does, by photo's name."""
        return {name: digest_of(read_mask(file)) for name, file in self.masks.items()}


def has_masks(out: Path) -> bool:
    """Return whether a run folder has corrected masks."""
    return bool(masks_by_name(out / FOLDER))


def read_corrections(out: Path, names: Container[str]) -> Corrections:
    """Return the corrections in a run folder; empty where there are none.

    Args:
        out: the run folder.
        names: of the photos whose corrected masks count.

    Raises:
        DataError: the table of corrected tags is damaged.
    """
    folder = out / FOLDER
    tags = read_table(folder / _TAGS) if (folder / _TAGS).is_file() else {}
    masks = {name: file for name, file in masks_by_name(folder).items() if name in names}
    earlier = sorted((folder / EARLIER).iterdir()) if (folder / EARLIER).is_dir() else ()
    return Corrections(masks, tags, tuple(earlier))


def write_corrections(out: Path, corrections: Corrections, new: Mapping[str, bytes]) -> None:
    """Write corrections into a run folder that has none.

    Args:
        out: the run folder.
        corrections: mask files are linked where that can be.
        new: content of the PNG files of further masks, which replace these, by photo's name.
    """
    folder = out / FOLDER
    for name, file in corrections.masks.items():
        if name not in new:
            _share(file, folder / f"{name}.png")
    for name, content in new.items():
        write_bytes(folder / f"{name}.png", content)
    for number, masks in enumerate(corrections.earlier[-MOST_EARLIER:], 1):
        for name, file in masks_by_name(masks).items():
            _share(file, folder / EARLIER / f"{number:02}" / f"{name}.png")
    if corrections.tags:
        lines = (f"{json.dumps(photo)}: {json.dumps(tags)}" for photo, tags in sorted(corrections.tags.items()))
        write_text(folder / _TAGS, "{\n" + ",\n".join(lines) + "\n}\n")


def _share(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    share_file(file, target)


def with_tags(data: ImageSet, tags: Mapping[str, tuple[str, ...]]) -> ImageSet:
    """Return a set whose photos have corrected tags where there are some.

    Raises:
        DataError: a tag is none of the set's classes.
    """
    if not tags:
        return data
    indices = class_indices(data.classes, FOLDER)
    check_known(sorted({tag for some in tags.values() for tag in some}), indices, f"{FOLDER}/{_TAGS}", "the classes")
    samples = (
        replace(one, labels=label_indices(tags[one.name], indices)) if one.name in tags else one for one in data.samples
    )
    return replace(data, samples=tuple(samples))


def corrected_mask(sample: Sample, corrections: Corrections, classes: int) -> NDArray[np.uint8]:
    """Return the corrected mask of a photo, uint8 H x W.

    Raises:
        RunError: it has a class that is not the run's.
    """
    mask = read_mask(corrections.masks[sample.name])
    if np.max(mask, where=mask != IGNORE, initial=0) > classes:
        raise RunError(f"{corrections.masks[sample.name]}: a class that the run has not; read the correction again")
    return mask


def shown_in(mask: NDArray[np.uint8]) -> tuple[int, ...]:
    """Return the classes that a mask shows, sorted.

    >>> shown_in(np.array([[0, 3, 255, 1]], np.uint8))
    (1, 3)
    """
    return tuple(int(value) for value in np.unique(mask) if value not in (0, IGNORE))


def digest_of(mask: NDArray[np.uint8]) -> str:
    """Return a text that is another one for another mask, uint8 H x W."""
    return hashlib.sha256(f"{mask.shape}".encode() + mask.tobytes()).hexdigest()[:16]
