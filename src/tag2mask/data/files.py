"""Files that are whole or not there."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tag2mask.errors import DataError


def write_text(file: Path, text: str) -> None:
    """Write a text file so that it is whole or not there.

    Raises:
        DataError: it cannot be written.
    """
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there.

    Raises:
        DataError: it cannot be written.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{file}: cannot be written ({error.strerror or error}); choose another folder") from None


def share_file(source: Path, target: Path) -> None:
    """Put a file in a second place, whole or not there; without using the space twice where that can be.

    Neither place sees what happens at the other: this package never writes into a file that is there.
    """
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(source, temporary)
        temporary.replace(target)
