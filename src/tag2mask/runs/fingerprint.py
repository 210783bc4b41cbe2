"""The fingerprint of a run's data, and what has changed since a run was made: nothing old is passed off as new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from pydantic import BaseModel, TypeAdapter, ValidationError

from tag2mask.data import ImageSet
from tag2mask.data.decode import Levels
from tag2mask.data.text import read_json
from tag2mask.errors import RunError, few
from tag2mask.files import write_text
from tag2mask.progress import track
from tag2mask.threads import map_ahead

Stamp: TypeAlias = tuple[int, int] | tuple[int, int, str]
"""A file's size in bytes and time of last change in nanoseconds, and, but in runs of earlier versions, its checksum."""

GONE = (0, 0)
"""Of a file that is not there."""

_LEVELS: TypeAdapter[Levels | None] = TypeAdapter(Levels | None)


class Known(BaseModel):
    """What is known of a photo.

    Attributes:
        tags: names of its classes.
        photo: what is known of its file.
        mask: the same of its true mask, None where there is none.
        corrected: digest of the mask that a person has corrected, None where nobody has.
    """

    tags: tuple[str, ...]
    photo: Stamp
    mask: Stamp | None
    corrected: str | None = None


class Fingerprint(BaseModel):
    """What a run was made from.

    Attributes:
        classes: names of the foreground classes.
        train: the training photos by name.
        evaluation: the evaluation photos by name; None where these are the training photos.
        levels: by which all 16-bit photos are scaled (`ImageSet.levels`), new ones that are predicted too.
    """

    classes: tuple[str, ...]
    train: dict[str, Known]
    evaluation: dict[str, Known] | None
    levels: Levels | None = None


@dataclass(frozen=True)
class Changes:
    """How data differs from what a run was made from.

    Attributes:
        said: one line a kind of change.
        training: whether something differs that the classifier learns from: everything is done again.
        evaluated: whether the evaluation photos or their tags differ.
        stale: names of evaluation photos whose predictions are old.
        corrected: names of the photos whose corrected masks differ: what learns from corrections is done again.
    """

    said: tuple[str, ...] = ()
    training: bool = False
    evaluated: bool = False
    stale: frozenset[str] = frozenset()
    corrected: frozenset[str] = frozenset()


def fingerprint_of(
    train: ImageSet,
    evaluation: ImageSet,
    corrected: Mapping[str, str] | None = None,
    before: Fingerprint | None = None,
) -> Fingerprint:
    """Return the fingerprint of a run's data. Files are read, but for those that have not changed since ``before``.

    Args:
        train: the training photos.
        evaluation: the evaluation photos; may be the training photos themselves.
        corrected: digests of the training photos' corrected masks, by name.
        before: an earlier fingerprint.
    """
    earlier = (before.train, before.evaluation or {}) if before else ({}, {})
    return Fingerprint(
        classes=train.classes,
        train=_known(train, earlier[0], corrected or {}),
        evaluation=None if evaluation is train else _known(evaluation, earlier[1]),
        levels=train.levels,
    )


def read_fingerprint(file: Path) -> Fingerprint | None:
    """Return what `write_fingerprint` wrote, None where there is no file.

    Raises:
        RunError: the file is damaged.
    """
    if not file.exists():
        return None
    try:
        return Fingerprint.model_validate(read_json(file))
    except ValidationError:
        raise RunError(f"{file} is damaged; start a run in another folder") from None


def write_fingerprint(file: Path, fingerprint: Fingerprint) -> None:
    """Write a fingerprint as JSON, one photo a line, unless the file has it already."""
    if read_fingerprint(file) == fingerprint:
        return
    parts = [f'"{name}": {json.dumps(getattr(fingerprint, name))}' for name in ("classes", "levels")]
    for name in ("train", "evaluation"):
        photos: dict[str, Known] | None = getattr(fingerprint, name)
        lines = (f"{json.dumps(photo)}: {known.model_dump_json()}" for photo, known in (photos or {}).items())
        parts.append(f'"{name}": ' + ("null" if photos is None else "{\n" + ",\n".join(lines) + "\n}"))
    write_text(file, "{" + ",\n".join(parts) + "}\n")


def find_levels(file: Path) -> Levels | None:
    """Return the levels by which the 16-bit photos of a run were scaled, as `write_fingerprint` wrote them.

    Raises:
        RunError: the file is damaged.
    """
    values = read_json(file) if file.is_file() else {}
    try:
        return _LEVELS.validate_python(values.get("levels"))
    except (AttributeError, ValidationError):
        raise RunError(f"{file} is damaged: its levels are not two numbers; make it again") from None


def compare(before: Fingerprint | None, now: Fingerprint) -> Changes:
    """Return how data has changed; not at all where nothing is known of it before.

    >>> old, new = (Known(tags=(tag,), photo=(1, 1), mask=None) for tag in ("flower", "cow"))
    >>> before = Fingerprint(classes=("cow", "flower"), train={"a": old}, evaluation=None)
    >>> compare(before, before.model_copy(update={"train": {"a": new}})).said
    ('other tags: 1 training photo (a)',)
    """
    if before is None:
        return Changes()
    said: list[str] = []
    if before.classes != now.classes:
        said.append(f"other classes: {', '.join(before.classes)} before, {', '.join(now.classes)} now")
    if before.levels != now.levels:
        said.append(f"other levels of 16-bit photos: {before.levels} before, {now.levels} now")
    learnt = _differences(before.train, now.train, "training", said)
    masks = {name: known.corrected for name, known in before.train.items() if known.corrected}
    corrected = {name: known.corrected for name, known in now.train.items() if known.corrected}
    names = sorted(name for name in {*masks, *corrected} if masks.get(name) != corrected.get(name))
    if names:
        said.append(f"other corrected masks: {len(names)} training photo{'s'[: len(names) > 1]} ({few(names)})")
    seen = _differences(before.evaluation or {}, now.evaluation or {}, "evaluation", said)
    return Changes(
        tuple(said),
        training=(before.classes, before.levels) != (now.classes, now.levels) or any(learnt.values()),
        evaluated=any(seen.values()),
        stale=frozenset(seen["removed"]) | frozenset(seen["other files"]),
        corrected=frozenset(names),
    )


def _same(one: Stamp | None, other: Stamp | None) -> bool:
    """Return whether two files are the same: those of a copy have another time, but the same size and checksum."""
    if one is None or other is None:
        return one is other
    return one[:2] == other[:2] or (len(one) == len(other) == 3 and (one[0], one[2]) == (other[0], other[2]))


_KINDS: Mapping[str, Callable[[Known, Known], bool]] = {
    "other tags": lambda one, other: one.tags != other.tags,
    "other files": lambda one, other: not _same(one.photo, other.photo),
}


def _differences(
    before: Mapping[str, Known], now: Mapping[str, Known], which: str, said: list[str]
) -> dict[str, list[str]]:
    """Return the names of photos by kind of change, and say each kind; true masks that changed are only said."""
    both = [name for name in now if name in before]
    found = {
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
    }
    for kind, differ in _KINDS.items():
        found[kind] = [name for name in both if differ(before[name], now[name])]
    masks = [name for name in both if not _same(before[name].mask, now[name].mask)]
    for kind, names in (*found.items(), ("other true masks", masks)):
        if names:
            said.append(f"{kind}: {len(names)} {which} photo{'s'[: len(names) > 1]} ({few(names)})")
    return found


def _known(
    data: ImageSet, before: Mapping[str, Known], corrected: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Known]:
    names = data.classes
    earlier = {name: (known.photo, known.mask) for name, known in before.items()}
    files = [
        (file, known)
        for sample in data.samples
        for file, known in zip((sample.image, sample.mask), earlier.get(sample.name, (None, None)), strict=True)
    ]
    stamps = iter(_stamps(files))
    return {
        sample.name: Known(
            tags=tuple(names[label - 1] for label in sample.labels),
            photo=next(stamps) or GONE,
            mask=next(stamps),
            corrected=corrected.get(sample.name),
        )
        for sample in data.samples
    }


def _stamps(files: Sequence[tuple[Path | None, Stamp | None]]) -> list[Stamp | None]:
    """Return what is known of each file, given what was known of it before; None where there is no path."""
    found: list[Stamp | None] = [None if file is None else _stat(file) for file, _ in files]
    new = []
    for place, (file, before) in enumerate(files):
        if before is not None and before[:2] == found[place]:
            found[place] = before
        elif file is not None and found[place] != GONE:
            new.append((place, file))
    sums = map_ahead(lambda one: _checksum(one[1]), new)
    for (place, _), checksum in zip(new, track(sums, len(new), "checksums of files"), strict=True):
        size, time, *_ = found[place] or GONE
        found[place] = (size, time, checksum)
    return found


def _stat(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return GONE
    return stat.st_size, stat.st_mtime_ns


def _checksum(file: Path) -> str:
    """Return a checksum of a file's content; that of nothing where it cannot be read, which reading it will say."""
    found = hashlib.blake2b(digest_size=16)
    with suppress(OSError), file.open("rb") as opened:
        while part := opened.read(2**20):
            found.update(part)
    return found.hexdigest()
