"""The lock of a run folder: one command at a time works in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tag2mask.data.loading import end_if_started_again
from tag2mask.distributed import is_main
from tag2mask.errors import DataError, RunError

LOCK = ".lock"
"""The file that a process holds while it works in a run folder."""


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from working in a run folder; the processes of one run work in it together.

    Raises:
        RunError: another process works in it.
    """
    end_if_started_again()
    if not is_main():
        yield
        return
    folder_was_there = out.is_dir()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK, timeout=0, is_singleton=True)
        lock.acquire()
    except Timeout:
        raise RunError(f"another process works in {out}; wait until it ends, or choose another folder") from None
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}); choose another folder") from None
    try:
        yield
    finally:
        lock.release()
        if not folder_was_there and not any(path.name != LOCK for path in out.iterdir()):
            with suppress(OSError):  # another process has come meanwhile
                (out / LOCK).unlink(missing_ok=True)  # nothing came of it
                out.rmdir()
