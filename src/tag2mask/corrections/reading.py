"""Corrections read for a run: which photos they are of, what was changed, and what contradicts the tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tag2mask.corrections.formats import READERS, Found, sniff, table_in
from tag2mask.data import Sample, photo_size, read_mask
from tag2mask.data.class_names import check_known
from tag2mask.data.decode import mask_image
from tag2mask.data.matching import match_photos
from tag2mask.data.photos import turned_hint
from tag2mask.data.tables import read_table
from tag2mask.data.truth import ONLY_IGNORED
from tag2mask.errors import DataError, few, nearest
from tag2mask.exports.pieces import Pieces
from tag2mask.exports.polygons import components
from tag2mask.names import IGNORE, CorrectionFormat
from tag2mask.progress import track
from tag2mask.runs.corrected import digest_of, shown_in
from tag2mask.runs.folder import Run
from tag2mask.threads import map_ahead

Mask = NDArray[np.uint8]

KEPT, TINY = 0.9, 20
"""A component of a mask is unchanged where this IoU of it is left; one of fewer pixels may have been left out."""


@dataclass(frozen=True)
class Contradiction:
    """A corrected mask and the tags of its photo, which differ.

    Attributes:
        photo: its name.
        untagged: classes that the mask shows and the tags do not name.
        unseen: classes that the tags name and the mask does not show.
        tags: what the mask says.
    """

    photo: str
    untagged: tuple[str, ...]
    unseen: tuple[str, ...]
    tags: tuple[str, ...]

    def __str__(self) -> str:
        """Return it in a line."""
        parts = [f"its mask shows {few(list(self.untagged))}, which its tags do not name"] if self.untagged else []
        parts += [f"its tags name {few(list(self.unseen))}, which its mask does not show"] if self.unseen else []
        return f"{self.photo}: {'; '.join(parts)}"


@dataclass(frozen=True)
class Corrected:
    """A corrected mask: its PNG file's content, and `digest_of` it."""

    png: bytes
    digest: str


@dataclass
class Reading:
    """What was read.

    Attributes:
        format: of the files.
        masks: corrected masks by photo's name.
        tags: corrected tags by photo's name.
        as_exported: names of photos whose masks nobody has changed.
        contradictions: of corrected masks and tags.
    """

    format: str
    masks: dict[str, Corrected] = field(default_factory=dict)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    as_exported: list[str] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)


def read(run: Run, path: Path, format: str = CorrectionFormat.AUTO, *, take_all: bool = False) -> Reading:
    """Read corrections for a run; nothing is written.

    Args:
        run: the run.
        path: file or folder of corrections.
        format: one of `CorrectionFormat`.
        take_all: masks that are as exported are corrections too: a person has looked at them.

    Raises:
        DataError: there are none, or one is wrong: of another size, an unknown class, a photo that is not among the
            run's training photos.
    """
    if format not in list(CorrectionFormat):
        raise DataError(f"--format {format}: choose {', '.join(CorrectionFormat)}{nearest(format, CorrectionFormat)}")
    chosen = sniff(path) if format == CorrectionFormat.AUTO else CorrectionFormat(format)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder of corrections; check the path")
    reading = Reading(str(chosen))
    samples = {sample.name: sample for sample in run.train.samples}
    table = table_in(path) if chosen == CorrectionFormat.TAGS or path.is_dir() else None
    if table is not None:
        reading.tags = _tags(run, table, samples)
    if chosen == CorrectionFormat.TAGS:
        if table is None:
            raise DataError(f"{path}: no tag table in this folder; add tags.csv")
        return reading
    classes = {name: index for index, name in enumerate(run.train.classes, 1)}
    found = list(READERS[chosen](path, classes))
    if not found and not reading.tags:
        raise DataError(f"{path}: no annotated photo in it; correct some, save or submit them, and export again")
    named = _match(run, found, samples)
    folders = _masks_of(run)

    def look(item: tuple[str, Found]) -> tuple[str, Mask, bool]:
        name, one = item
        mask = _drawn(one, samples[name])
        return name, mask, not take_all and _is_known(run, name, mask, folders)

    values: set[int] = set()
    for name, mask, known in track(map_ahead(look, named.items()), len(named), "corrections"):
        before = run.corrections.masks.get(name)
        if known and before is None:
            reading.as_exported.append(name)
            continue
        if known and before is not None:  # it is taken already, its tags perhaps not
            mask = read_mask(before)
        else:
            reading.masks[name] = Corrected(_as_png(mask), digest_of(mask))
        values |= set(np.unique(mask).tolist())
        labels = reading.tags.get(name) or _names(samples[name].labels, run.train.classes)
        if contradiction := _contradiction(name, labels, mask, run.train.classes):
            reading.contradictions.append(contradiction)
    if IGNORE in values and values <= {0, IGNORE}:
        raise DataError(f"{path}: these masks {ONLY_IGNORED}")
    return reading


def is_as_exported(mask: Mask, before: Mask) -> bool:
    """Return whether a mask is another one up to what is lost when masks become polygons.

    It differs next to outlines only, and no component of `TINY` pixels or more has gone. What exports leave out as
    specks may be there or not.

    Args:
        mask: uint8 H x W, read from annotations.
        before: uint8 H x W, of the run.

    >>> before = np.pad(np.ones((20, 20), np.uint8), 4)
    >>> is_as_exported(np.pad(np.ones((20, 19), np.uint8), ((4, 4), (4, 5))), before)
    True
    >>> is_as_exported(np.zeros_like(before), before)
    False
    """
    if mask.shape != before.shape:
        return False
    if not (mask != before).any():
        return True
    before = np.where(before == IGNORE, 0, before).astype(np.uint8)  # no annotation is made of these
    return _differs_by_outlines(mask, before) or _differs_by_outlines(mask, _without_specks(before))


def _without_specks(mask: Mask) -> Mask:
    """Return a mask as exports write it unless told otherwise: background where a speck is."""
    kept = np.zeros_like(mask)
    for one in Pieces().of(mask):
        place = slice(one.top, one.top + one.inside.shape[0]), slice(one.left, one.left + one.inside.shape[1])
        kept[place][one.inside] = one.label
    return kept


def _differs_by_outlines(mask: Mask, before: Mask) -> bool:
    differs = mask != before
    near = ndimage.maximum_filter(before, 3) != ndimage.minimum_filter(before, 3)
    if (differs & ~near).any():
        return False
    for one in components(before, TINY):
        place = slice(one.top, one.top + one.inside.shape[0]), slice(one.left, one.left + one.inside.shape[1])
        if np.count_nonzero((mask[place] == one.label) & one.inside) < KEPT * np.count_nonzero(one.inside):
            return False
    return True


def _masks_of(run: Run) -> list[Path]:
    """Return the folders of masks of the training photos that a person may have been given."""
    predictions = [run.out / "predictions"] if run.evaluation is run.train else []
    return [*predictions, run.refined_masks, run.retrain_masks, run.out / "proxy"]


def _is_known(run: Run, name: str, mask: Mask, folders: Iterable[Path]) -> bool:
    """Return whether a mask is the photo's corrected one, or one that the run has made or once made.

    Where a photo has a corrected mask, a mask that the run now makes of it is that one.
    """
    corrected = run.corrections.masks.get(name)
    files = [folder / f"{name}.png" for folder in (*folders, *run.corrections.earlier)]
    files = [file for file in files if file.exists()] + ([] if corrected is None else [corrected])
    return any(is_as_exported(mask, read_mask(file)) for file in files)


def _drawn(found: Found, sample: Sample) -> Mask:
    """Return the mask that a file says, at the size of its photo."""
    height, width = photo_size(sample.image)
    if found.size is not None and tuple(found.size) != (height, width):
        raise DataError(
            f"{found.source}: {found.photo!r} is {found.size[0]} x {found.size[1]} pixels there (height x width), its"
            f" photo {height} x {width}{turned_hint(sample.image, found.size) or '; annotate the photo of the run'}"
        )
    try:
        return found.draw(height, width)
    except DataError as error:  # of brushes and COCO's segmentations, which do not know the file
        raise DataError(f"{found.source}: {found.photo!r}: {error}") from None
    except ValueError as error:
        raise DataError(f"{found.source}: {found.photo!r}: {error}; correct it and export it again") from None


def _match(run: Run, found: list[Found], samples: Mapping[str, Sample]) -> dict[str, Found]:
    """Return what was found by the names of the run's photos."""
    photos = {name: sample.image for name, sample in samples.items()}
    named: dict[str, Found] = {}
    for one in found:
        name = _name_of(one, photos)
        if name is None:
            raise DataError(_unknown(run, one, photos))
        if name in named:
            raise DataError(f"{one.source}: photo {name!r} has two annotations; keep one of them")
        named[name] = one
    return named


def _name_of(one: Found, photos: Mapping[str, Path]) -> str | None:
    """Return the photo that an annotation is of; None where it is of none."""
    for entry in dict.fromkeys((one.photo, one.other)):
        if entry in photos:
            return entry
        try:
            return match_photos([entry], photos, one.source)[entry] if entry else None
        except DataError:
            continue
    return None


def _unknown(run: Run, one: Found, photos: Mapping[str, Path]) -> str:
    others = {sample.name: sample.image for sample in run.evaluation.samples}
    if _name_of(one, others) is not None:
        return (
            f"{one.source}: {one.photo!r} is a photo that the run is scored on, which must teach nothing; leave it out,"
            f" and correct training photos (tag2mask next {run.out})"
        )
    hint = nearest(one.photo, list(photos)[:10_000])
    return f"{one.source}: {one.photo!r} is not among the training photos of {run.out}; leave it out{hint}"


def _tags(run: Run, table: Path, samples: Mapping[str, Sample]) -> dict[str, tuple[str, ...]]:
    """Return the tags of a table that differ from the run's."""
    rows = read_table(table)
    names = match_photos(rows, {name: sample.image for name, sample in samples.items()}, table)
    known = dict.fromkeys(run.train.classes, 0)
    check_known(sorted({tag for tags in rows.values() for tag in tags}), known, table, "the run's classes")
    classes = run.train.classes
    told = {names[entry]: tags for entry, tags in rows.items()}
    return {
        name: tags
        for name, tags in told.items()
        if set(tags) - {"background"} != set(_names(samples[name].labels, classes))
    }


def _names(labels: Iterable[int], classes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(classes[label - 1] for label in labels)


def _contradiction(name: str, tags: Iterable[str], mask: Mask, classes: tuple[str, ...]) -> Contradiction | None:
    """Return how a mask and tags differ; what may be under pixels of 255 is not missed."""
    shown, tagged = set(_names(shown_in(mask), classes)), set(tags) - {"background"}
    unseen = set() if (mask == IGNORE).any() else tagged - shown
    untagged = shown - tagged
    if not unseen and not untagged:
        return None
    now = tuple(sorted((tagged | shown) - unseen)) or ("background",)
    return Contradiction(name, tuple(sorted(untagged)), tuple(sorted(unseen)), now)


def _as_png(mask: Mask) -> bytes:
    file = BytesIO()
    mask_image(mask).save(file, "PNG")
    return file.getvalue()
