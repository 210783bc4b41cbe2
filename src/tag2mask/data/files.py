"""Files that are whole or not there."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from tag2mask.errors import DataError

_UNFINISHED = re.compile(r"\..+\.\d+(\.tmp)?")
"""What a file is called while a process, whose number this is, writes it; see `tag2mask.data.write_mask` too."""


def write_text(file: Path, text: str) -> None:
    """Write a text file so that it is whole or not there.

    Raises:
        DataError: it cannot be written.
    """
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, content: bytes | memoryview) -> None:
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
        reason = error.strerror or error
        raise DataError(f"{file}: cannot be written ({reason}); free the disk or choose another folder") from None


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed had begun to write in a folder that no other process writes to."""
    for file in folder.rglob(".*"):
        if _UNFINISHED.fullmatch(file.name):
            file.unlink(missing_ok=True)


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
