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

_SUFFIX = re.compile(r"\.[A-Za-z]{3,4}$")
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
            raise DataError(f"{source}: {taken[names[0]]!r} and {entry!r} name the same {what}; keep one of them")
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


def match_masks(lines: Iterable[str], masks: Mapping[str, Path], source: str | Path) -> list[str]:
    """Return the names of the masks in a list of masks or of their photos, whose lines are as for `words_or_lines`.

    Raises:
        DataError: as of `match_photos`.

    >>> match_masks(["photos/a.jpg", "b  1"], {"a": Path("masks/a.png"), "b": Path("masks/b.png")}, "val.txt")
    ['a', 'b']
    """
    full, short = _photo_keys(masks)
    entries = []
    for line in lines:
        forms = (line, line.split()[0], _SUFFIX.sub("", line), _SUFFIX.sub("", line.split()[0]))
        entries.append(next((form for form in forms if _candidates(form, masks, full, short)), line))
    return list(match_photos(dict.fromkeys(entries), masks, source, "mask").values())


def _candidates(entry: str, photos: Mapping[str, Path], full: Keys, short: Keys) -> list[str]:
    """Return the names of the photos that an entry may be of."""
    tail, key = _posix(entry), _key(entry)
    names = _as_written(tail, full.get(key, []), photos)
    names = names or _nearest_to(tail, [*full.get(key, []), *short.get(key, [])], photos)
    while not names and "/" in tail.strip("/"):  # folders that the entry has and the photos have not
        folder, _, tail = tail.lstrip("/").partition("/")
        inside = [name for name in full.get(_key(tail), []) if not _of_other_split(folder, photos[name], name)]
        names = _nearest_to(tail, inside, photos)
    return names


def _nearest_to(entry: str, names: Iterable[str], photos: Mapping[str, Path]) -> list[str]:
    """Return those of the names that are written as the entry; where none is, all of them."""
    names = list(dict.fromkeys(names))
    return _as_written(entry, names, photos) or names


def _as_written(entry: str, names: Iterable[str], photos: Mapping[str, Path]) -> list[str]:
    """Return the names that end as the entry does: sign by sign, else but for how accents are composed."""
    wholes = {name: f"/{_base(photos[name], name)}/{name}" for name in names}
    entries = {name: f"/{_without_suffix(entry, photos[name].suffix)}" for name in wholes}
    exact = [name for name in wholes if wholes[name].endswith((f"/{entry}", entries[name]))]
    return exact or [name for name in wholes if _composed(wholes[name]).endswith(_composed(entries[name]))]


def _without_suffix(entry: str, suffix: str) -> str:
    return entry[: -len(suffix)] if suffix and entry.casefold().endswith(suffix.casefold()) else entry


def _of_other_split(folder: str, photo: Path, name: str) -> bool:
    """Return whether an entry of ``test/1.jpg`` would be matched with ``train/1.jpg``."""
    base = _base(photo, name)
    return is_split(folder) and is_split(base) and folder.casefold() != base.casefold()


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
    return _composed(_composed(_posix(entry)).casefold())


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _hint(entry: str, known: list[str]) -> str:
    """Return the name that an entry may be a slip of the pen for: numbers are none, ``1_12`` is not ``1_13``."""
    digits = re.findall(r"\d+", entry)
    return nearest(entry, [name for name in known if re.findall(r"\d+", name) == digits])
