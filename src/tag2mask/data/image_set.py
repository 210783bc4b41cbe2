"""The one plain thing that every stage reads: photos, their image-level labels, and truth where it exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from tag2mask.data.decode import photo_size, read_mask, write_mask
from tag2mask.errors import DataError
from tag2mask.names import IGNORE
from tag2mask.notebook import html_table


@dataclass(frozen=True)
class Sample:
    """One photo.

    Attributes:
        name: unique in its set; the mask of the photo is ``name + ".png"``. Relative, POSIX separators,
            no suffix (``"2007_000033"``, ``"cats/0001"``).
        image: the photo's file.
        labels: sorted indices of the classes present, 1 to C (0 is background and never listed); empty
            where the labels are not known or the photo shows background only.
        mask: the true mask's file, uint8 palette PNG, or None.
    """

    name: str
    image: Path
    labels: tuple[int, ...] = ()
    mask: Path | None = None


def no_truth(sample: Sample) -> np.ndarray | None:
    """Return None: the ``draw_truth`` of sets whose truth, if any, lies in mask files."""
    return None


@dataclass(frozen=True)
class ImageSet:
    """Photos with image-level labels.

    Attributes:
        classes: names of the C foreground classes; class index i is ``classes[i - 1]``, 0 is background.
        samples: the photos, sorted by name.
        skipped: what was left out, one entry a photo or table row: ``"photos/x.jpg: cannot be read"``.
        draw_truth: how to make the truth of a sample whose ``mask`` is None (COCO draws it from polygons).
        labels_from: where the labels were read, in words (``"labels.csv"``, ``"class folders"``).
        remarks: what else is worth knowing, such as how the set differs from the published one.
        origin: the path, tag table and split that `tag2mask.load` was given, so that a run's folder can say them.
    """

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[str, ...] = ()
    draw_truth: Callable[[Sample], np.ndarray | None] = field(default=no_truth, compare=False)
    labels_from: str = ""
    remarks: tuple[str, ...] = ()
    origin: tuple[str, str | None, str | None] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def truth(self, sample: Sample) -> np.ndarray | None:
        """Return the true mask of ``sample``, or None where there is none.

        Returns:
            uint8 H x W of the photo's size, 0..C, 255 ignored.

        Raises:
            DataError: the mask cannot be read, is of another size than the photo or has an unknown class.
        """
        if sample.mask is None:
            return self.draw_truth(sample)
        mask = read_mask(sample.mask)
        _check_mask(mask, sample, len(self.classes))
        return mask

    def with_samples(self, samples: tuple[Sample, ...]) -> ImageSet:
        """Return the same set with other photos."""
        return replace(self, samples=samples, origin=None)

    def labelled(self) -> ImageSet:
        """Return the same set without the photos that carry no label."""
        return self.with_samples(tuple(sample for sample in self.samples if sample.labels))

    def images_per_class(self) -> dict[str, int]:
        """Return how many photos carry each class's label (the size of its semantic subset)."""
        counts = [0] * len(self.classes)
        for sample in self.samples:
            for label in sample.labels:
                counts[label - 1] += 1
        return dict(zip(self.classes, counts, strict=True))

    def _repr_html_(self) -> str:
        """Return a table for a notebook: how many photos carry each class's label."""
        left_out = f", {len(self.skipped)} left out" if self.skipped else ""
        caption = (
            f"{len(self)} photos of {len(self.classes)} classes, tags from {self.labels_from or 'Python'}{left_out}"
        )
        return html_table(caption, ("class", "photos"), self.images_per_class().items())


def keep_truth(image_set: ImageSet, folder: Path) -> ImageSet:
    """Return the same set, whose drawn truth is written to ``folder`` once and read from there afterwards.

    It is drawn again where the file of the labels is newer than the mask. Truth in mask files stays as it is.
    """
    source = Path(image_set.labels_from)
    changed = source.stat().st_mtime if source.is_file() else 0.0
    return replace(image_set, draw_truth=partial(_kept, image_set.draw_truth, folder, changed))


def check_trainable(image_set: ImageSet) -> None:
    """Check that every class has the two photos that a class pattern needs at the least.

    Raises:
        DataError: a class has one photo or none.
    """
    rare = [f"{name!r} ({count})" for name, count in image_set.images_per_class().items() if count < 2]
    if rare:
        raise DataError(
            f"{image_set.labels_from or 'the tags'}: too few photos to learn from: {few(rare)};"
            " give each class two photos or more, or take it out of the tags and the list of classes"
        )


def summary(image_set: ImageSet) -> str:
    """Return a few lines on what was read: photos, classes, photos per class, and what was left out.

    >>> photos = (Sample("a", Path("a.jpg"), (1,)), Sample("b", Path("b.jpg"), (1, 2)))
    >>> print(summary(ImageSet(("cat", "dog"), photos, labels_from="tags.csv")))
    2 photos of 2 classes, tags from tags.csv
    1 with one tag, 1 with several, 0 with none (background only)
    photos per class:
      cat  2  dog  1
    """
    tags = [len(sample.labels) for sample in image_set.samples]
    one, none = tags.count(1), tags.count(0)
    source = f", tags from {image_set.labels_from}" if image_set.labels_from else ""
    lines = [
        f"{len(tags)} photos of {len(image_set.classes)} classes{source}",
        f"{one} with one tag, {len(tags) - one - none} with several, {none} with none (background only)",
        "photos per class:",
        *_columns(image_set.images_per_class()),
    ]
    if image_set.skipped:
        lines += [f"left out: {len(image_set.skipped)}", *(f"  {note}" for note in image_set.skipped[:3])]
    if len(image_set.skipped) > 3:
        lines.append(f"  and {len(image_set.skipped) - 3} more")
    return "\n".join([*lines, *image_set.remarks])


def few(items: list[str], most: int = 3) -> str:
    """Return the first items and how many more there are, for a message of one line.

    >>> few(["'a'", "'b'", "'c'", "'d'", "'e'"])
    "'a', 'b', 'c' and 2 more"
    """
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


def check_mask_sizes(image_set: ImageSet) -> None:
    """Check from the files' headers that every mask is of its photo's size.

    Raises:
        DataError: one is not, or is no image file.
    """
    for sample in image_set.samples:
        if sample.mask is not None:
            _check_size(photo_size(sample.mask), sample)


def _kept(draw: Callable[[Sample], np.ndarray | None], folder: Path, since: float, sample: Sample) -> np.ndarray | None:
    file = folder / f"{sample.name}.png"
    if file.is_file() and file.stat().st_mtime > since:
        return read_mask(file)
    mask = draw(sample)
    if mask is not None:
        write_mask(file, mask)
    return mask


def _check_size(mask_size: tuple[int, ...], sample: Sample) -> None:
    size = photo_size(sample.image)
    if mask_size != size:
        seen = f"{mask_size[0]} x {mask_size[1]} pixels (height x width)"
        raise DataError(
            f"{sample.mask}: the mask has {seen}, its photo {sample.image.name} {size[0]} x {size[1]};"
            " save the mask at the photo's size"
        )


def _check_mask(mask: np.ndarray, sample: Sample, class_count: int) -> None:
    _check_size(mask.shape, sample)
    highest = int(np.max(mask, where=mask != IGNORE, initial=0))
    if highest > class_count:
        raise DataError(
            f"{sample.mask}: class index {highest}, but there are {class_count} classes;"
            " use 0 for background, 1 to the number of classes, 255 for ignored pixels"
        )


def _columns(counts: dict[str, int], width: int = 80) -> list[str]:
    """Return ``name  count`` cells in columns, read along the lines, within ``width`` where names allow."""
    wide = max((len(name) for name in counts), default=0)
    digits = max((len(str(count)) for count in counts.values()), default=0)
    cells = [f"  {name:<{wide}}  {count:>{digits}}" for name, count in counts.items()]
    per_line = max(1, width // (wide + digits + 4))
    return ["".join(cells[start : start + per_line]) for start in range(0, len(cells), per_line)]
