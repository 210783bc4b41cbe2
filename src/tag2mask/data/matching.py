"""Entries of tables and lists, and the photos that they are of."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from tag2mask.errors import DataError, few, nearest

SPLIT_FOLDERS = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "train2017", "val2017", "test2017")
)
"""Folders of these names, in any case, are parts of a data set: they are not classes."""

Keys = Mapping[str, list[str]]


def is_split(folder: str) -> bool:
    """Return whether a folder is named as a part of a data set.

    >>> is_split("Train"), is_split("trains")
    (True, False)
    """
    return folder.casefold() in SPLIT_FOLDERS


def find_list(split: str | Path, folders: Iterable[Path]) -> Path:
    """Return the file of a split: ``<split>.txt`` in one of the folders, or a path to any file.

    Raises:
        DataError: there is no such file; the message names the nearest split that there is.
    """
    folders = list(folders)
    for path in (*(folder / f"{split}.txt" for folder in folders), Path(split)):
        if os.path.isfile(path):  # unlike Path.is_file, it takes names that no file can have
            return path
    known = sorted(
        {path.stem for folder in folders for path in folder.glob("*.txt")} - {"classes"},
    )
    there = f"there is {few(known, 6)}{nearest(str(split), known)}" if known else "there is no list of photos"
    raise DataError(f"{split}: no such split in {few([str(folder) for folder in folders])}; {there}")


def match_photos(
    entries: Iterable[str], photos: Mapping[str, Path], source: str | Path, what: str = "photo"
) -> dict[str, str]:
    """Match the entries of a table or list with photos.

    An entry may have the photo's suffix or not, its sub-folder or not where that leaves no doubt, and any folders
    before these, as an absolute path of another machine has. Upper and lower case, the kind of separator and how
    accents are composed make no difference, except between photos that differ in nothing else.

    Args:
        entries: as written in the file ``source``.
        photos: files of the photos by name.
        source: where the entries are from, for messages.
        what: what the files are.

    Returns:
        the photo's name of each entry.

    Raises:
        DataError: an entry is no photo's, may be one of several photos', or two are one photo's.
    """
    full, short = _photo_keys(photos)
    found: dict[str, str] = {}
    unknown: list[str] = []
    taken: dict[str, str] = {}
    for entry in entries:
        names = _candidates(entry, photos, full, short)
        if not names:
            unknown.append(entry)
        elif len(names) > 1:
            many = few([repr(name) for name in names])
            raise DataError(f"{source}: {entry!r} may be {many}; write its sub-folder too")
        elif taken.setdefault(names[0], entry) != entry:
            raise DataError(f"{source}: {taken[names[0]]!r} and {entry!r} are one {what}; keep one of them")
        else:
            found[entry] = names[0]
    if unknown:
        which = few([repr(entry) for entry in unknown])
        raise DataError(
            f"{source}: no {what} for {len(unknown)} of the entries: {which}; add the {what}s or remove the entries"
            f"{_hint(unknown[0], list(full)[:10_000])}"
        )
    return found


def words_or_lines(lines: Iterable[str], photos: Mapping[str, Path]) -> list[str]:
    """Return the entries of a list: whole lines or, as in VOC's lists, their first words, whichever a photo has.

    >>> photos = {name: Path(f"x/{name}.jpg") for name in ("my photo", "2007_000032")}
    >>> words_or_lines(["my photo", "2007_000032  1", "my cat"], photos)
    ['my photo', '2007_000032', 'my cat']
    """
    full, short = _photo_keys(photos)
    entries = []
    for line in lines:
        first, key = line.split()[0], _key(line)
        as_word = first != line and not full.get(key) and not short.get(key)
        entries.append(first if as_word and _candidates(first, photos, full, short) else line)
    return list(dict.fromkeys(entries))


def _candidates(entry: str, photos: Mapping[str, Path], full: Keys, short: Keys) -> list[str]:
    """Return the names of the photos that an entry may be of; those that are written exactly so, where there are."""
    key = _key(entry)
    written = _posix(entry)
    names = full.get(key) or short.get(key) or []
    while not names and "/" in key.strip("/"):
        folder, _, key = key.lstrip("/").partition("/")
        written = written.lstrip("/").partition("/")[2]
        names = [name for name in full.get(key, []) if not _of_other_split(folder, photos[name], name)]
    if len(names) < 2:
        return names
    return [name for name in names if _is_written(written, name, photos[name])] or names


def _of_other_split(folder: str, photo: Path, name: str) -> bool:
    """Return whether an entry of ``test/1.jpg`` would be matched with ``train/1.jpg``."""
    base = _base(photo, name)
    return is_split(folder) and is_split(base) and folder.casefold() != base.casefold()


def _is_written(entry: str, name: str, photo: Path) -> bool:
    whole = f"/{_base(photo, name)}/{name}"
    return any(path.endswith(f"/{entry}") for path in (whole, whole + photo.suffix))


def _photo_keys(photos: Mapping[str, Path]) -> tuple[Keys, Keys]:
    """Return the photos' names by what may be written for them: in full, and with fewer or more folders."""
    full: defaultdict[str, list[str]] = defaultdict(list)
    short: defaultdict[str, list[str]] = defaultdict(list)
    for name, file in photos.items():
        for entry in (name, name + file.suffix):
            full[_key(entry)].append(name)
            for other in {PurePosixPath(entry).name, f"{_base(file, name)}/{entry}"}:
                short[_key(other)].append(name)
    return full, short


def _base(photo: Path, name: str) -> str:
    """Return the name of the folder that a photo's name starts in."""
    depth = name.count("/")
    return photo.parents[depth].name if depth < len(photo.parents) else ""


def _posix(entry: str) -> str:
    return PurePosixPath(entry.replace("\\", "/")).as_posix()


def _key(entry: str) -> str:
    """Return an entry as compared."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", _posix(entry)).casefold())


def _hint(entry: str, known: list[str]) -> str:
    """Return the name that an entry may be a slip of the pen for: numbers are none, ``1_12`` is not ``1_13``."""
    digits = re.findall(r"\d+", entry)
    return nearest(entry, [name for name in known if re.findall(r"\d+", name) == digits])
