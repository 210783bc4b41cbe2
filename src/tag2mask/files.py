"""Files and folders that are whole or not there: written under another name first, then renamed."""

from __future__ import annotations

import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tag2mask.errors import DataError

_UNFINISHED = re.compile(r"\.tag2mask-[0-9a-f]+-\d+\.tmp")
_TRIES = 10
"""How often a file is renamed over one that Windows says is in use, a tenth of a second apart."""


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Give the name to write a file or folder under; it takes its place once all has gone well.

    Missing parent folders are made.

    Raises:
        DataError: it cannot be written.
    """
    path = Path(os.path.abspath(path))
    # The name itself may be as long as a name can be; the number is the process's.
    unfinished = path.with_name(f".tag2mask-{zlib.crc32(os.fsencode(path.name)):08x}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        if unfinished.is_dir() and path.is_dir():
            path.rmdir()
        _rename(unfinished, path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be written ({reason}); free the disk or choose another folder") from None
    finally:
        with suppress(OSError):
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()


def write_text(file: str | Path, text: str) -> None:
    """Write a UTF-8 text file.

    Raises:
        DataError: it cannot be written.
    """
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: str | Path, content: bytes | memoryview) -> None:
    """Write a file.

    Raises:
        DataError: it cannot be written.
    """
    with whole(file) as unfinished:
        unfinished.write_bytes(content)


def is_unfinished(path: Path) -> bool:
    """Return whether a name is one that a file has while it is written.

    >>> is_unfinished(Path(".tag2mask-0123abcd-42.tmp")), is_unfinished(Path(".backup.2024"))
    (True, False)
    """
    return _UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes had begun to write in a folder that no other process writes to."""
    for path in [path for path in folder.rglob(".tag2mask-*") if is_unfinished(path)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def share_file(source: Path, target: Path) -> None:
    """Put a file in a second place, without using the space twice where that can be.

    Neither place sees what happens at the other: this package never writes into a file that is there.

    Raises:
        DataError: it cannot be written.
    """
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        with whole(target) as unfinished:
            shutil.copyfile(source, unfinished)


def absolute(given: str | Path | None) -> str | None:
    """Return the absolute path of a file that is there; a name that a reader knows, such as a split's, as it is."""
    if given is None:
        return None
    return str(Path(given).resolve()) if os.path.isfile(given) else str(given)


def _rename(unfinished: Path, path: Path) -> None:
    for left in reversed(range(_TRIES)):
        try:
            unfinished.replace(path)
            return
        except PermissionError:  # on Windows, while another program reads the file
            if os.name != "nt" or not left:
                raise
            time.sleep(0.1)
