"""Text files: lists and JSON, as people and their programs write them."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tag2mask.errors import DataError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class PlainXml(ElementTree.TreeBuilder):
    """Refuses a DOCTYPE: its entities can make gigabytes of a few lines."""

    def doctype(self, *_: str | None) -> None:
        """Raise ValueError."""
        raise ValueError("it has a DOCTYPE")


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
    """Read a text file: UTF-8, with or without a byte order mark, or UTF-16 with one (Excel's "Unicode text").

    Raises:
        DataError: the file cannot be read or is neither.
    """
    try:
        content = Path(path).read_bytes()
        return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save the file as UTF-8 (in Excel: CSV UTF-8)") from None
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
        raise DataError(f"{path}: not valid JSON ({reason}); fix or export the file again") from None
