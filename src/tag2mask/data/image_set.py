"""The one plain thing that every stage reads: photos, their image-level labels, and truth where it exists."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import index
from pathlib import Path
from typing import overload

import numpy as np

from tag2mask.data.class_names import BACKGROUND, check_classes, check_known, class_indices, class_name, label_indices
from tag2mask.data.decode import Levels, photo_size, read_mask, read_photo
from tag2mask.data.levels import levels_of
from tag2mask.data.photo_names import check_photo_names
from tag2mask.data.photos import masks_by_name, readable, turned_hint
from tag2mask.data.split import divide
from tag2mask.errors import DataError, few
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
        levels: the 16-bit values that become 0 and 255 (`ImageSet.levels`); 8-bit photos do not need them.

    Raises:
        DataError: a label is not a whole number. Paths may be given as text, labels in any order.
    """

    name: str
    image: Path
    labels: tuple[int, ...] = ()
    mask: Path | None = None
    levels: Levels | None = None

    def __post_init__(self) -> None:
        """Turn text into paths, and put labels in order."""
        object.__setattr__(self, "image", Path(self.image))
        object.__setattr__(self, "mask", None if self.mask is None else Path(self.mask))
        try:
            object.__setattr__(self, "labels", tuple(sorted({index(label) for label in self.labels})))
        except TypeError:
            raise DataError(
                f"photo {self.name!r}: labels are a list of class numbers, not {self.labels!r};"
                " with names of classes use ImageSet.from_samples"
            ) from None

    def read(self, draft_size: int | None = None) -> np.ndarray:
        """Read the photo by `read_photo`, uint8 H x W x 3, scaled as its set if it has 16 bits.

        Raises:
            DataError: the photo cannot be read.
        """
        return read_photo(self.image, draft_size, self.levels)


def no_truth(sample: Sample) -> np.ndarray | None:
    """Return None: the ``draw_truth`` of sets whose truth, if any, lies in mask files."""
    return None


@dataclass(frozen=True)
class ImageSet:
    """Photos with image-level labels: a sequence of `Sample`; a slice of it is an image set.

    Attributes:
        classes: names of the C foreground classes; class index i is ``classes[i - 1]``, 0 is background.
        samples: the photos; those that `tag2mask.load` reads are sorted by name.
        skipped: what was left out, one entry per photo or table row: ``"photos/x.jpg: cannot be read"``.
        draw_truth: function that draws the true mask of a sample whose ``mask`` is None (COCO: from polygons).
        labels_from: source of the labels (in words,``"labels.csv"``, ``"class folders"``).
        remarks: further notes, such as differences from the published set.
        origin: the path, tag table and split that `tag2mask.load` was given, so that a run's folder can say them.
        mask_values: what each value of a mask file counts as, 0 for background first; None: as it is (`with_classes`).

    Raises:
        DataError: a label is not in 1 to C, a class is invalid or occurs twice, or photos have names that masks cannot
            have (`photo_names.check_photo_names`).
    """

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[str, ...] = ()
    draw_truth: Callable[[Sample], np.ndarray | None] = field(default=no_truth, compare=False)
    labels_from: str = ""
    remarks: tuple[str, ...] = ()
    origin: tuple[str, str | None, str | None] | None = field(default=None, compare=False)
    mask_values: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check classes, names and labels."""
        if isinstance(self.classes, str):
            raise DataError(f"classes are a list of names, not the text {self.classes!r}; write [{self.classes!r}]")
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "samples", tuple(self.samples))
        check_classes(self.classes, self._source)
        check_photo_names([sample.name for sample in self.samples])
        for sample in self.samples:
            if sample.labels and not 1 <= sample.labels[0] <= sample.labels[-1] <= len(self.classes):
                wrong = sample.labels[0] if sample.labels[0] < 1 else sample.labels[-1]
                raise DataError(
                    f"photo {sample.name!r} has the label {wrong}, but labels start at 1 and the {len(self.classes)}"
                    f" classes go up to {len(self.classes)}; give {self.classes[0]!r} the number 1 (0 is background)"
                )

    @classmethod
    def from_samples(
        cls,
        samples: Iterable[tuple[str | Path, str | Iterable[str]]],
        classes: Iterable[str] | None = None,
        masks: str | Path | Iterable[str | Path | None] | None = None,
        *,
        strict: bool = False,
    ) -> ImageSet:
        """Make an image set from photos and their tags.

        The name of a photo is its path in the folder common to all, without suffix.

        Args:
            samples: photo and tags of each: ``[("a.jpg", ["dog"]), ("b.jpg", ["cat", "dog"]), ("c.jpg", [])]``.
            classes: names of the classes, in order. None: the tags, sorted.
            masks: the true masks: a folder with ``<name>.png``, or a list with a file or None for each photo.
            strict: unreadable photos are an error, not left out.

        Raises:
            DataError: a tag is not among the classes, a mask is missing, no photo can be read, or two have one name.
        """
        rows = [(Path(photo), (tags,) if isinstance(tags, str) else tuple(tags)) for photo, tags in samples]
        if not rows:
            raise DataError("no photos were given; give a list of photos and their tags")
        if strange := [tag for _, tags in rows for tag in tags if not isinstance(tag, str)]:
            raise DataError(f"tags are names of classes, not {strange[0]!r}; make Sample objects of class numbers")
        named = _names([photo for photo, _ in rows])
        tags_of = {name: tuple(class_name(tag) for tag in tags) for name, (_, tags) in zip(named, rows, strict=True)}
        used = {tag for tags in tags_of.values() for tag in tags} - {BACKGROUND}
        names = class_indices(sorted(used) if classes is None else map(class_name, classes), "the tags")
        check_known(sorted(used), names, "the tags", "the classes")
        kept, notes = readable(named, strict)
        made = make_samples(kept, tags_of, names, _masks_of(masks, named))
        return cls(tuple(names), made, notes).with_levels()

    @property
    def levels(self) -> Levels | None:
        """The 16-bit values that become 0 and 255, the same for all photos of the set; None if no photo has 16 bits."""
        return next((sample.levels for sample in self.samples if sample.levels), None)

    @property
    def _source(self) -> str:
        return self.labels_from or "the tags"

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        """Return the photos one after the other."""
        return iter(self.samples)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> ImageSet: ...
    def __getitem__(self, place: int | slice) -> Sample | ImageSet:
        """Return the photo at a place, or the set of the photos of a slice."""
        return self.with_samples(self.samples[place]) if isinstance(place, slice) else self.samples[place]

    def truth(self, sample: Sample) -> np.ndarray | None:
        """Return the true mask of ``sample``, or None where there is none.

        Returns:
            uint8 H x W of the photo's size, 0..C, 255 ignored.

        Raises:
            DataError: the mask cannot be read, is of another size than the photo or has an unknown class.
        """
        if sample.mask is not None:
            mask = self.mask_file(sample)
            return mask if self.mask_values is None else _renumbered(mask, self.mask_values)
        drawn = self.draw_truth(sample)
        if drawn is not None:
            _check_mask(drawn, sample, len(self.classes))
        return drawn

    def mask_file(self, sample: Sample) -> np.ndarray:
        """Return the checked contents of a sample's mask file, uint8 H x W; raises as `truth`."""
        assert sample.mask is not None
        mask = read_mask(sample.mask)
        _check_mask(mask, sample, len(self.classes if self.mask_values is None else self.mask_values[1:]))
        return mask

    def with_classes(self, classes: Iterable[str]) -> ImageSet:
        """Return the same set with some of its classes, in the order given; all others become background.

        Raises:
            DataError: the set has no such class.
        """
        classes = tuple(classes)
        if classes == self.classes:
            return self
        check_known(classes, dict.fromkeys(self.classes, 0), self._source, "the classes")
        number = {name: index for index, name in enumerate(classes, 1)}
        values = (0, *(number.get(name, 0) for name in self.classes))
        samples = (replace(one, labels=tuple(values[n] for n in one.labels if values[n])) for one in self.samples)
        return replace(
            self,
            classes=classes,
            samples=tuple(samples),
            draw_truth=self.draw_truth if self.draw_truth is no_truth else partial(_drawn, self.draw_truth, values),
            mask_values=values if self.mask_values is None else tuple(values[value] for value in self.mask_values),
        )

    def with_samples(self, samples: tuple[Sample, ...]) -> ImageSet:
        """Return the same set with other photos."""
        return replace(self, samples=samples, origin=None)

    def with_levels(self, levels: Levels | None = None) -> ImageSet:
        """Return the same set with 16-bit photos scaled by ``levels``, or by the range of the set if None."""
        return replace(self, samples=scaled_alike(self.samples, levels))

    def split(self, share: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """Return two sets of about ``share`` and ``1 - share`` of the photos, with all classes in both where possible.

        Args:
            share: of the first set, between 0 and 1.
            seed: of the random split; the same seed gives the same split.

        Raises:
            DataError: the share is not between 0 and 1, or there are fewer than two photos.
        """
        if not 0 < share < 1 or len(self) < 2:
            raise DataError(
                f"{len(self)} photos cannot be split at {share}; take a share between 0 and 1 of two photos or more"
            )
        first = divide([sample.labels for sample in self.samples], share, seed)
        one = tuple(sample for sample, is_first in zip(self.samples, first, strict=True) if is_first)
        other = tuple(sample for sample, is_first in zip(self.samples, first, strict=True) if not is_first)
        return self.with_samples(one), self.with_samples(other)

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


def make_samples(
    photos: Mapping[str, Path],
    tags: Mapping[str, Iterable[str]],
    classes: Mapping[str, int],
    masks: Mapping[str, Path],
) -> tuple[Sample, ...]:
    """Return a sample of each photo, with its mask where there is one; all by name."""
    return tuple(
        Sample(name, file, label_indices(tags[name], classes), masks.get(name)) for name, file in photos.items()
    )


def scaled_alike(samples: Sequence[Sample], levels: Levels | None = None) -> tuple[Sample, ...]:
    """Return photos that are all scaled by the same levels.

    Args:
        samples: the photos.
        levels: of 16-bit photos, the values that become 0 and 255. None: those that a photo has already, else the
            range of these photos' pixels (`levels_of`).
    """
    levels = levels or next((sample.levels for sample in samples if sample.levels), None)
    levels = levels or levels_of([sample.image for sample in samples])
    return tuple(samples) if levels is None else tuple(replace(sample, levels=levels) for sample in samples)


def _renumbered(mask: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Return a mask whose values count as others; 255 stays."""
    table = np.full(256, IGNORE, np.uint8)
    table[: len(values)] = values
    return table[mask]


def _drawn(draw: Callable[[Sample], np.ndarray | None], values: Sequence[int], sample: Sample) -> np.ndarray | None:
    mask = draw(sample)
    return None if mask is None else _renumbered(mask, values)


def _names(photos: Sequence[Path]) -> dict[str, Path]:
    """Return photos by name: their paths within the folder that all are in, without suffix."""
    full = [Path(os.path.abspath(photo)) for photo in photos]
    try:
        base = os.path.commonpath([photo.parent for photo in full])
    except ValueError:
        raise DataError("the photos are on several drives; make Sample objects with names of your own") from None
    names = [photo.relative_to(base).with_suffix("").as_posix() for photo in full]
    check_photo_names(names)
    return dict(zip(names, photos, strict=True))


def _masks_of(masks: str | Path | Iterable[str | Path | None] | None, names: Iterable[str]) -> dict[str, Path]:
    """Return the masks by name that `ImageSet.from_samples` was given."""
    if isinstance(masks, (str, Path)):
        if not Path(masks).is_dir():
            raise DataError(f"{masks}: no such folder of masks; check the path")
        return masks_by_name(Path(masks))
    if masks is None:
        return {}
    names, files = list(names), [None if mask is None else Path(mask) for mask in masks]
    if len(files) != len(names):
        raise DataError(f"{len(files)} masks for {len(names)} photos; give one for each, None where there is none")
    if missing := [str(file) for file in files if file is not None and not file.is_file()]:
        raise DataError(f"{few(missing)}: no such mask; check the path")
    return {name: file for name, file in zip(names, files, strict=True) if file is not None}


def _check_size(mask_size: tuple[int, ...], sample: Sample) -> None:
    size = photo_size(sample.image)
    if mask_size != size:
        seen = f"{mask_size[0]} x {mask_size[1]} pixels (height x width)"
        raise DataError(
            f"{_truth_of(sample)} has {seen}, its photo {sample.image.name} {size[0]} x {size[1]}"
            f"{turned_hint(sample.image, mask_size) or '; save the mask at the size of its photo'}"
        )


def _truth_of(sample: Sample) -> str:
    return f"{sample.image}: the drawn truth" if sample.mask is None else f"{sample.mask}: the mask"


def _check_mask(mask: np.ndarray, sample: Sample, class_count: int) -> None:
    _check_size(mask.shape, sample)
    highest = int(np.max(mask, where=mask != IGNORE, initial=0))
    if highest > class_count:
        raise DataError(
            f"{sample.mask or sample.image}: class index {highest}, but there are {class_count} classes;"
            " use 0 for background, 1 to the number of classes, 255 for ignored pixels"
        )
