"""Files and folders that are whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tag2mask.errors import DataError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give the name to write a file or folder under first; it takes its place once all has gone well.

    Raises:
        DataError: it cannot be written.
    """
    path = Path(os.path.abspath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and path.is_dir():
            path.rmdir()
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        elif temporary.is_file():
            temporary.unlink()
