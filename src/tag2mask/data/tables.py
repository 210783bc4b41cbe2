"""Tag tables (CSV or JSON), lists of photos, and the matching of their entries with photo files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tag2mask.errors import DataError, few, nearest

TABLE_NAMES = ("labels.csv", "tags.csv", "labels.json", "tags.json")
"""The tag tables looked for in a folder, in this order."""

BACKGROUND = "background"
"""The tag of a photo that shows none of the classes."""

LONGEST_NAME = 200
"""Characters of a class's name."""

_JOINERS = dict.fromkeys((0x200C, 0x200D))
_COLUMNS = ("image", "labels")


def read_table(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read a tag table: which tags each photo carries.

    CSV has the header ``image,labels``. If any ``;``, ``|`` or ``,`` occurs in the labels column, these
    separate the tags, and tags may contain spaces; else spaces do. JSON is
    ``{"a.jpg": ["dog", "person"]}`` or ``[{"image": "a.jpg", "labels": ["dog", "person"]}]``.

    Returns:
        the tags of each photo as written, without repetitions; none where the cell is empty.

    Raises:
        DataError: the file is missing or is not such a table, or names a photo twice.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".json"):
        raise DataError(f"{path}: a tag table is a .csv or .json file; save it as one of these")
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    table: dict[str, tuple[str, ...]] = {}
    for image, tags in rows:
        if not image:
            raise DataError(f"{path}: a row has no photo name; fill the image column or remove the row")
        if image in table:
            raise DataError(f"{path}: {image!r} has two rows; put all its tags in one")
        table[image] = tuple(dict.fromkeys(tags))
    if not table:
        raise DataError(f"{path}: the table has no rows; add one for each photo")
    for tag in {tag for tags in table.values() for tag in tags}:
        check_class_name(tag, path)
    return table


def table_tags(table: Path, photos: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    """Return the tags by photo's name that a table gives.

    Raises:
        DataError: the table is wrong or has tags for no photo.
    """
    rows = read_table(table)
    names = match_photos(rows, photos, table)
    return {names[entry]: tags for entry, tags in rows.items()}


def read_list(path: str | Path) -> list[str]:
    """Read a text file of one entry a line; blank lines are passed over.

    Raises:
        DataError: the file is missing, not UTF-8, or has no entries.
    """
    entries = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not entries:
        raise DataError(f"{path}: the list is empty; write one entry a line")
    return entries


def read_text(path: str | Path) -> str:
    """Read a UTF-8 text file, with or without a byte order mark.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the file's name") from None


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a key that stands twice in one object is an error.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise DataError(f"{path}: {twice!r} occurs twice; merge the two")
        return record

    try:
        return json.loads(read_text(path), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "numbers or nesting out of bounds"
        raise DataError(f"{path}: not valid JSON ({reason}); mend or export the file again") from None


def find_table(folder: Path, labels: str | Path | None) -> Path | None:
    """Return the tag table that ``labels`` names (as a path or within the folder), or the folder's own.

    Raises:
        DataError: ``labels`` names no file.
    """
    if labels is None:
        return next((folder / name for name in TABLE_NAMES if (folder / name).is_file()), None)
    for path in (Path(labels), folder / labels):
        if os.path.isfile(path):
            return path
    raise DataError(f"{labels}: no such tag table, here or in {folder}; check the file's name")


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


def match_photos(entries: Iterable[str], photos: Mapping[str, Path], source: Path) -> dict[str, str]:
    """Match the entries of a table or list with photos.

    An entry may have the photo's suffix or not, and its sub-folder or not where that leaves no doubt.

    Args:
        entries: as written in the file ``source``.
        photos: files of the photos by name.

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
        names = full.get(key := _key(entry)) or short.get(key) or []
        if len(names) > 1:  # of names that differ in how accents are composed, the one as written
            names = [name for name in names if entry in (name, name + photos[name].suffix)] or names
        if not names:
            unknown.append(entry)
        elif len(names) > 1:
            many = few([repr(name) for name in names])
            raise DataError(f"{source}: {entry!r} may be {many}; write the photo's sub-folder too")
        elif taken.setdefault(names[0], entry) != entry:
            raise DataError(f"{source}: {taken[names[0]]!r} and {entry!r} are one photo; keep one of them")
        else:
            found[entry] = names[0]
    if unknown:
        hint = nearest(unknown[0], list(full)[:10_000])
        which = few([repr(entry) for entry in unknown])
        raise DataError(
            f"{source}: no photo for {len(unknown)} of the entries: {which}; add the photos or remove the entries{hint}"
        )
    return found


def check_tagged(names: Iterable[str], tags: Mapping[str, tuple[str, ...]], source: str) -> None:
    """Check that each photo has tags.

    Raises:
        DataError: some photo has none.
    """
    bare = [repr(name) for name in names if not tags.get(name)]
    if bare:
        raise DataError(
            f"{source}: no tags for {len(bare)} of the photos: {few(bare)};"
            f" add their tags ('{BACKGROUND}' where none of the classes is shown) or remove the photos"
        )


def label_indices(tags: Iterable[str], classes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the sorted class indices of the tags; the background is none.

    >>> label_indices(["dog", "background", "cat"], {"cat": 1, "dog": 2})
    (1, 2)
    """
    return tuple(sorted({classes[tag] for tag in tags if tag != BACKGROUND}))


def class_indices(classes: Iterable[str], source: str | Path) -> dict[str, int]:
    """Return the index, from 1, of each class in the order given.

    Raises:
        DataError: no class, more than 254 of them, or one twice.
    """
    classes = list(classes)
    indices = {name: index for index, name in enumerate(classes, 1)}
    if not classes:
        raise DataError(f"{source}: no class but the background; name at least one")
    if len(classes) > 254:
        raise DataError(f"{source}: {len(classes)} classes, but an 8-bit mask holds 254; merge some")
    if len(indices) < len(classes):
        twice = next(name for name in indices if classes.count(name) > 1)
        raise DataError(f"{source}: class {twice!r} occurs twice; remove one of them")
    return indices


def check_classes(classes: Iterable[str], source: str | Path) -> None:
    """Check the names of an image set's classes.

    Raises:
        DataError: `class_indices` or `check_class_name` refuses them, or the background is among them.
    """
    for name in class_indices(classes, source):
        if not isinstance(name, str):
            raise DataError(f"{source}: {name!r} is no name of a class; write it as text")
        check_class_name(name, source)
        if name == BACKGROUND:
            raise DataError(f"{source}: {BACKGROUND!r} is always 0; take it out of the classes, whose first is 1")


def check_known(tags: Iterable[str], classes: Mapping[str, int], source: str | Path, listed: str) -> None:
    """Check that the tags are of the listed classes or the background.

    Raises:
        DataError: a tag is not; the message names the nearest class.
    """
    for tag in tags:
        if tag not in classes and tag != BACKGROUND:
            hint = nearest(tag, classes) or "; mend one of the two"
            raise DataError(f"{source}: tag {tag!r} is not among {listed}{hint}")


def check_class_name(name: str, source: str | Path) -> None:
    """Check that a class name can be printed on one line; what joins or parts letters and emoji may be in it.

    Raises:
        DataError: it is empty, too long or has unprintable characters.
    """
    if not name.translate(_JOINERS) or len(name) > LONGEST_NAME or not name.translate(_JOINERS).isprintable():
        raise DataError(
            f"{source}: {name[:LONGEST_NAME]!r} cannot be the name of a class; use printable characters,"
            f" {LONGEST_NAME} at most"
        )


def _csv_rows(path: Path) -> list[tuple[str, list[str]]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not CSV ({error}); mend the line") from None
    if not rows:
        raise DataError(f"{path}: the table is empty; its first line must be image,labels")
    header = [name.strip() for name in rows[0][1]]
    _check_columns(header, path)
    for line, row in rows[1:]:
        if len(row) != len(_COLUMNS):
            raise DataError(f"{path}: line {line} has {len(row)} cells, not 2; quote tags that contain commas")
    image, labels = (header.index(name) for name in _COLUMNS)
    split = _tag_splitter([row[labels] for _, row in rows[1:]])
    return [(row[image].strip(), split(row[labels])) for _, row in rows[1:]]


def _tag_splitter(cells: list[str]) -> Callable[[str], list[str]]:
    """Return the function that splits a labels cell of this table into tags."""
    separators = r"[;|,]" if any(re.search(r"[;|,]", cell) for cell in cells) else r"\s+"

    def split(cell: str) -> list[str]:
        return [tag.strip() for tag in re.split(separators, cell) if tag.strip()]

    return split


def _json_rows(path: Path) -> list[tuple[str, list[str]]]:
    data = read_json(path)
    if isinstance(data, dict):
        data = [{"image": image, "labels": labels} for image, labels in data.items()]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DataError(f'{path}: not a tag table; write {{"a.jpg": ["dog", "person"], ...}}')
    for row in data:
        _check_columns(list(row), path)
        tags = row["labels"]
        if not isinstance(row["image"], str) or not _is_text_list(tags):
            raise DataError(f'{path}: the tags of {row["image"]!r} must be a list of names, like ["dog", "person"]')
    return [(row["image"].strip(), [tag.strip() for tag in row["labels"]]) for row in data]


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_columns(header: list[str], path: Path) -> None:
    if sorted(header) == sorted(_COLUMNS):
        return
    unknown = [name for name in header if name not in _COLUMNS]
    what = f"unknown columns {few([repr(name) for name in unknown])}" if unknown else f"columns {header}"
    hint = nearest(unknown[0], _COLUMNS) if unknown else ""
    raise DataError(f"{path}: {what}; a tag table has the columns image,labels{hint}")


def _photo_keys(photos: Mapping[str, Path]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the photos' names by what may be written for them: in full, and with fewer or more folders."""
    full: defaultdict[str, list[str]] = defaultdict(list)
    short: defaultdict[str, list[str]] = defaultdict(list)
    for name, file in photos.items():
        base = file.parents[name.count("/")].name
        for entry in (name, name + file.suffix):
            full[_key(entry)].append(name)
            for other in {PurePosixPath(entry).name, f"{base}/{entry}"}:
                short[_key(other)].append(name)
    return full, short


def _key(entry: str) -> str:
    """Return an entry as compared: Windows separators, ``./`` and decomposed accents make no difference."""
    return unicodedata.normalize("NFC", PurePosixPath(entry.replace("\\", "/")).as_posix())
