"""What photos can be named: a photo's masks are files of its name, on every machine that a run is taken to."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from platform import system

from tag2mask.errors import DataError, few

_NOT_ON_WINDOWS = frozenset('<>:"|?*') | {chr(code) for code in range(32)}
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}


def check_photo_names(names: Sequence[str]) -> None:
    """Check that each photo's mask is a file of its own, in the folder of masks, on this machine.

    Raises:
        DataError: a name is empty, leads out of a folder or occurs twice, or this system has no such file names.
    """
    for name in names:
        if not _stays_inside(name):
            raise DataError(
                f"{name!r} cannot be the name of a photo, whose masks are named after it;"
                " use a relative name with / between folders, without .. and \\"
            )
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise DataError(f"two photos have the name {twice!r}, but masks are named after photos; rename one of them")
    here = system()
    if here == "Windows" and (bad := [name for name in names if not _fits_windows(name)]):
        raise DataError(
            f"Windows cannot store files with the names of {len(bad)} photos: {few(_quoted(bad))}; rename these photos"
        )
    if here in ("Windows", "Darwin") and (pairs := _same_but_for_case(names)):
        raise DataError(
            f"{few(_quoted(pairs[0]))} differ only in upper and lower case or accents: their masks would be the same"
            " file on this system; rename one of them"
        )


def name_remarks(names: Iterable[str]) -> list[str]:
    """Return a remark on names whose masks cannot be taken to every system.

    >>> name_remarks(["a", "12:30", "A"])
    ["masks of 1 photo cannot be stored on Windows: '12:30'", "masks of 'A', 'a' are one file on Windows and macOS"]
    """
    names = list(names)
    bad = [name for name in names if not _fits_windows(name)]
    remarks = [f"masks of {len(bad)} photo{'s'[: len(bad) > 1]} cannot be stored on Windows: {few(_quoted(bad))}"]
    same = _same_but_for_case(names)
    more = f", and {len(same) - 1} more such" if len(same) > 1 else ""
    return (remarks if bad else []) + [
        f"masks of {few(_quoted(pair))} are one file on Windows and macOS{more}" for pair in same[:1]
    ]


def _stays_inside(name: object) -> bool:
    if not isinstance(name, str) or "\\" in name or "\0" in name:
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def _fits_windows(name: str) -> bool:
    parts = f"{name}.png".split("/")
    return not any(
        part[-1] in ". " or part.partition(".")[0].rstrip().upper() in _DEVICES or not _NOT_ON_WINDOWS.isdisjoint(part)
        for part in parts
    )


def _same_but_for_case(names: Iterable[str]) -> list[list[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[unicodedata.normalize("NFC", name).casefold()].append(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _quoted(names: Iterable[str]) -> list[str]:
    return [repr(name) for name in names]
