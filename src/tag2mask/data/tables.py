"""Tag tables: which tags each photo carries, in CSV or JSON as people and their programs write them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tag2mask.data.class_names import BACKGROUND, check_class_name, class_name
from tag2mask.data.matching import match_photos
from tag2mask.data.text import read_json, read_text
from tag2mask.errors import DataError, few, nearest

TABLE_NAMES = ("labels.csv", "tags.csv", "labels.tsv", "tags.tsv", "labels.json", "tags.json", "_classes.csv")
"""The tag tables looked for in a folder, in this order; Roboflow writes the last."""

_IMAGE = (
    "image", "images", "image_name", "image_path", "image_file", "image_id", "filename", "file_name", "file",
    "filepath", "file_path", "photo", "photos", "path", "img", "name",
)  # fmt: skip
_LABELS = ("labels", "label", "tags", "tag", "classes", "class", "class_name", "categories", "category")
"""What the columns may be called, in any case."""

_SEPARATORS = r"[;|,]"
_NO_TAG = frozenset(("nan", "<na>", "n/a", "#n/a", "null", "none"))
"""What programs write into a cell that is empty."""

_YES, _NO = frozenset(("1", "1.0", "true", "yes", "x")), frozenset(("0", "0.0", "false", "no", ""))
"""The cells of a table with one column a class."""

Rows = list[tuple[str, list[str]]]


class _Columns(NamedTuple):
    """Where a table has what: the photo's name, and the labels or, where that is None, one column a class."""

    image: int
    labels: int | None
    classes: tuple[int, ...]


def read_table(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read a tag table: which tags each photo carries.

    CSV is separated by ``,``, ``;``, TAB or ``|``, whichever parts its header. It has a column of photos (``image``,
    ``filename``, ``path``, ...) and one of tags (``labels``, ``label``, ``tags``, ``class``, ...), or one column a
    class, with 1 or 0 in it. If any ``;``, ``|`` or ``,`` occurs in the labels column, these separate the tags, and
    tags may contain spaces; else spaces do. A cell may also be a list as Python writes it, ``['dog', 'hot dog']``. JSON
    is ``{"a.jpg": ["dog", "person"]}`` or ``[{"image": "a.jpg", "labels": ["dog", "person"]}]``.

    Returns:
        the tags of each photo, of all its rows, without repetitions, as `class_name` gives them; none where the cells
        are empty.

    Raises:
        DataError: the file is missing or is not such a table.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".tsv", ".json"):
        raise DataError(f"{path}: a tag table is a .csv, .tsv or .json file; save it as one of these")
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    table: dict[str, dict[str, None]] = {}
    for image, tags in rows:
        if not image:
            raise DataError(f"{path}: a row has no photo name; fill the image column or remove the row")
        table.setdefault(image, {}).update(dict.fromkeys(class_name(tag) for tag in tags))
    if not table:
        raise DataError(f"{path}: the table has no rows; add one for each photo")
    for tag in {tag for tags in table.values() for tag in tags}:
        check_class_name(tag, path)
    return {image: tuple(tags) for image, tags in table.items()}


def table_tags(table: Path, photos: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    """Return the tags by photo's name that a table gives.

    Raises:
        DataError: the table is wrong or has tags for no photo.
    """
    rows = read_table(table)
    names = match_photos(rows, photos, table)
    return {names[entry]: tags for entry, tags in rows.items()}


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


def _csv_rows(path: Path) -> Rows:
    text = read_text(path)
    if text.casefold().startswith("sep="):  # a line for Excel
        text = text.partition("\n")[2]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), skipinitialspace=True, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not CSV ({error}); fix the line") from None
    if not rows:
        raise DataError(f"{path}: the table is empty; its first line must be image,labels")
    header = _without_empty_end(rows[0][1])
    cells = [[cell.strip() for cell in row] + [""] * (len(header) - len(row)) for _, row in rows[1:]]
    for (line, _), row in zip(rows[1:], cells, strict=True):
        if any(row[len(header) :]):
            raise DataError(
                f"{path}: line {line} has {len(_without_empty_end(row))} cells, not {len(header)}; quote tags that"
                " contain commas"
            )
    columns = _find_columns(header, cells, path)
    if columns.labels is None:
        return [(row[columns.image], _marked(header, row, columns.classes)) for row in cells]
    labels = columns.labels
    split = _tag_splitter([row[labels] for row in cells])
    return [(row[columns.image], split(row[labels])) for row in cells]


def _delimiter(text: str) -> str:
    """Return the sign that parts the header into columns of which one is the photos'."""
    header = next((line for line in text.splitlines() if line.strip()), "")[:10_000]
    for sign in ",;\t|":
        names = [_plain(name) for name in next(csv.reader([header], delimiter=sign, skipinitialspace=True), [])]
        if len(names) > 1 and any(name in _IMAGE for name in names):
            return sign
    return ","


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _without_empty_end(row: Sequence[str]) -> list[str]:
    """Return a row without the empty cells at its end."""
    filled = [place for place, cell in enumerate(row) if cell.strip()]
    return list(row[: filled[-1] + 1]) if filled else []


def _find_columns(header: list[str], cells: list[list[str]], path: Path) -> _Columns:
    """Return where the photos and tags are; a column of row numbers is passed over."""
    names = [_plain(name) for name in header]
    used = range(int(len(names) > 1 and _is_row_number(names, [row[0] for row in cells])), len(names))
    image = next((place for known in _IMAGE for place in used if names[place] == known), None)
    labels = next((place for known in _LABELS for place in used if names[place] == known), None)
    others = tuple(place for place in used if place not in (image, labels))
    if image is not None and labels is not None and not others:
        return _Columns(image, labels, ())
    if image is not None and labels is None and others and _is_one_hot(cells, others):
        return _Columns(image, None, others)
    unknown = [header[place].strip() for place in (others if image is not None else used)]
    raise _wrong_columns(unknown, header, path)


def _is_row_number(names: list[str], cells: list[str]) -> bool:
    """Return whether the first column, by its name or its cells, is of row numbers or ids: whole numbers, each once."""
    if names[0] in ("", "index", "unnamed:_0"):
        return True
    if names[0] in (*_IMAGE, *_LABELS) or not set(names) & set(_LABELS):  # with one column a class it may be a class
        return False
    return all(cell.isascii() and cell.isdigit() for cell in cells) and len(set(cells)) == len(cells)


def _is_one_hot(cells: list[list[str]], columns: Iterable[int]) -> bool:
    marks = _YES | _NO
    columns = list(columns)
    return any(cells) and all(row[place].casefold() in marks for row in cells for place in columns)


def _marked(header: list[str], row: list[str], columns: Iterable[int]) -> list[str]:
    """Return the classes that are marked in a row, the background if none is."""
    return [header[place].strip() for place in columns if row[place].casefold() in _YES] or [BACKGROUND]


def _wrong_columns(unknown: list[str], header: Sequence[str], path: Path) -> DataError:
    known = (*_IMAGE, *_LABELS)
    strange = [name for name in unknown if _plain(name) not in known]
    what = f"unknown columns {few([repr(name) for name in strange])}" if strange else f"columns {list(header)}"
    hint = nearest(strange[0], ("image", "labels")) if strange else ""
    return DataError(f"{path}: {what}; a tag table has the columns image,labels{hint}")


def _tag_splitter(cells: list[str]) -> Callable[[str], list[str]]:
    """Return the function that splits a labels cell of this table into tags."""
    plain = [cell for cell in cells if not _is_list(cell)]
    separators = _SEPARATORS if any(re.search(_SEPARATORS, cell) for cell in plain) else r"\s+"

    def split(cell: str) -> list[str]:
        if cell.casefold() in _NO_TAG:
            return []
        tags = _tags_of_list(cell) if _is_list(cell) else re.split(separators, cell)
        return [tag for tag in map(_unquoted, tags) if tag]

    return split


def _unquoted(tag: str) -> str:
    """Return a tag without the quotes around it.

    >>> _unquoted(' "hot dog" '), _unquoted("driver's seat")
    ('hot dog', "driver's seat")
    """
    tag = tag.strip()
    return tag[1:-1].strip() if len(tag) > 1 and tag[0] == tag[-1] and tag[0] in "\"'" else tag


def _is_list(cell: str) -> bool:
    return (len(cell) > 1 and cell[0] + cell[-1] in ("[]", "{}")) or (cell[:2] + cell[-1:] in ("(')", '(")'))


def _tags_of_list(cell: str) -> list[str]:
    """Return the tags of a cell that is a list, tuple or set as Python writes it, or its names without quotes.

    >>> _tags_of_list("['dog', 'hot dog']"), _tags_of_list("[dog, hot dog]")
    (['dog', 'hot dog'], ['dog', ' hot dog'])
    """
    inner = cell[1:-1]
    quoted = [match[2] for match in re.finditer(r"""(['"])(.*?)\1(?=[\s,;]|$)""", inner)]
    return quoted or re.split(_SEPARATORS if re.search(_SEPARATORS, inner) else r"\s+", inner)


def _json_rows(path: Path) -> Rows:
    data = read_json(path)
    if isinstance(data, dict):
        data = [{"image": image, "labels": labels} for image, labels in data.items()]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DataError(f'{path}: not a tag table; write {{"a.jpg": ["dog", "person"], ...}}')
    rows: Rows = []
    for row in data:
        columns = _find_columns(list(row) or [""], [], path)
        values = list(row.values())
        image, tags = values[columns.image], values[columns.labels or 0]
        if not isinstance(image, str) or not _is_text_list(tags):
            raise DataError(f'{path}: the tags of {image!r} must be a list of names, like ["dog", "person"]')
        rows.append((image.strip(), [tag.strip() for tag in tags]))
    return rows


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
