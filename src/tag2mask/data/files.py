"""Text files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from tag2mask.errors import DataError


def write_text(file: Path, text: str) -> None:
    """Write a text file so that it is whole or not there.

    Raises:
        DataError: it cannot be written.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, "utf-8")
        temporary.replace(file)
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror or error}); choose another folder") from None
