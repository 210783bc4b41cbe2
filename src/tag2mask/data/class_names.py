"""Names of classes: how tags are read, numbered and checked."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tag2mask.errors import DataError, few, nearest

BACKGROUND = "background"
"""The tag of a photo that shows none of the classes."""

LONGEST_NAME = 200
"""Characters of a class's name."""

_JOINERS = dict.fromkeys((0x200C, 0x200D))


def class_name(text: str) -> str:
    """Return a tag as it is compared: accents composed (NFC), no spaces around, one spelling of the background.

    >>> class_name(" Dog "), class_name("__Background__")
    ('Dog', 'background')
    """
    name = unicodedata.normalize("NFC", text.strip())
    return BACKGROUND if name.strip("_").casefold() == BACKGROUND else name


def class_list(names: Iterable[str], source: str | Path) -> tuple[str, ...]:
    """Return the names of a list of classes, without the background.

    Raises:
        DataError: a name cannot be a class's or occurs twice, or there is none, or there are more than 254.
    """
    listed = [class_name(name) for name in names]
    for name in listed:
        check_class_name(name, source)
    return tuple(class_indices((name for name in listed if name != BACKGROUND), source))


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
        raise DataError(f"{source}: no class except background; name at least one")
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
            raise DataError(f"{source}: {name!r} is not the name of a class; write it as text")
        check_class_name(name, source)
        if class_name(name) == BACKGROUND:
            raise DataError(f"{source}: {name!r} is always 0; remove it from the classes, which start at 1")


def check_known(tags: Iterable[str], classes: Mapping[str, int], source: str | Path, listed: str) -> None:
    """Check that the tags are of the listed classes or the background.

    Raises:
        DataError: a tag is not; the message names the nearest class.
    """
    for tag in tags:
        if tag not in classes and tag != BACKGROUND:
            hint = nearest(tag, classes) or "; fix one of the two"
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


def case_remarks(photos: Mapping[str, int]) -> list[str]:
    """Return a remark on classes whose names differ in upper and lower case only, given how many photos each has.

    >>> case_remarks({"Dog": 3, "dog": 12, "cat": 4})
    ["classes that differ in case only: 'Dog' (3), 'dog' (12); if these are one class, write them alike"]
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, count in photos.items():
        groups[name.casefold()].append(f"{name!r} ({count})")
    alike = [", ".join(group) for group in groups.values() if len(group) > 1]
    if not alike:
        return []
    more = f" and {len(alike) - 1} more such" if len(alike) > 1 else ""
    return [f"classes that differ in case only: {alike[0]}{more}; if these are one class, write them alike"]
