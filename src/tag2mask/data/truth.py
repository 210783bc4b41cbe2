"""What an image set must be before it is learnt from: enough photos of each class, and truth that can be scored."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tag2mask.data.decode import read_mask, write_mask
from tag2mask.data.image_set import ImageSet, Sample, no_truth
from tag2mask.errors import DataError, few
from tag2mask.names import IGNORE
from tag2mask.threads import map_ahead

ONLY_IGNORED = (
    "hold no other values than 0 and 255, and 255 means that a pixel is ignored; write the number of its class there:"
    " 1 for the first"
)
"""What is wrong with masks that paint their only class white."""


def trainable(image_set: ImageSet) -> ImageSet:
    """Return the set without the classes that no photo has, and say which; every other class needs two photos.

    Raises:
        DataError: a class has one photo, no class has any, or there are no photos at all.
    """
    check_not_empty(image_set)
    counts = image_set.images_per_class()
    source = image_set.labels_from or "the tags"
    rare = [f"{name!r} ({count})" for name, count in counts.items() if count == 1]
    used = [name for name, count in counts.items() if count]
    if rare or not used:
        raise DataError(
            f"{source}: too few photos to learn from: {few(rare) or 'no photo has a class'};"
            " give each class two photos or more, or take it out of the tags and the list of classes"
        )
    if len(used) == len(counts):
        return image_set
    bare = [repr(name) for name, count in counts.items() if not count]
    remark = f"left out, since no photo has them: {few(bare)} ({len(bare)} of {len(counts)} classes)"
    return replace(image_set.with_classes(used), remarks=(*image_set.remarks, remark))


def check_not_empty(image_set: ImageSet) -> None:
    """Check that there are photos.

    Raises:
        DataError: there are none.
    """
    if not image_set.samples:
        raise DataError(f"{image_set._source}: the image set has no photos; give it some")


def check_truth(image_set: ImageSet) -> None:
    """Check every true mask that is a file: size and values, as scoring would do after all the work.

    Raises:
        DataError: one cannot be read or is wrong, or all together show no class, only ignored pixels.
    """
    samples = [sample for sample in image_set.samples if sample.mask is not None]
    ignored = known = False
    for highest, has_ignored in map_ahead(partial(_values, image_set), samples):
        known, ignored = known or highest > 0, ignored or has_ignored
    if ignored and not known:
        first = samples[0].mask
        raise DataError(f"{first}: this and the {len(samples) - 1} other true masks {ONLY_IGNORED}")


def _values(image_set: ImageSet, sample: Sample) -> tuple[int, bool]:
    """Return the highest class in a photo's mask file, and whether pixels are ignored."""
    mask = image_set.mask_file(sample)
    return int(np.max(mask, where=mask != IGNORE, initial=0)), bool((mask == IGNORE).any())


def keep_truth(image_set: ImageSet, folder: Path) -> ImageSet:
    """Return the same set, whose drawn truth is written to ``folder`` once and read from there afterwards.

    It is drawn again where the file of the labels has changed since. Where labels are from no file, nothing can say
    whether the truth is as it was: it is drawn each time. Truth in mask files stays as it is.
    """
    source = Path(image_set.labels_from)
    if image_set.draw_truth is no_truth or not source.is_file():
        return image_set
    return replace(image_set, draw_truth=partial(_kept, image_set.draw_truth, folder, source.stat().st_mtime_ns))


def _kept(
    draw: Callable[[Sample], np.ndarray | None], folder: Path, of_labels: int, sample: Sample
) -> np.ndarray | None:
    """Return the kept mask if it was drawn from this state of the labels, whose time of change it then has."""
    file = folder / f"{sample.name}.png"
    if file.is_file() and file.stat().st_mtime_ns == of_labels:
        return read_mask(file)
    mask = draw(sample)
    if mask is not None:
        write_mask(file, mask)
        os.utime(file, ns=(of_labels, of_labels))
    return mask
