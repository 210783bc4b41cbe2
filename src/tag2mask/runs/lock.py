"""The lock of a run folder: one command at a time works in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tag2mask.data.loading import end_if_started_again
from tag2mask.distributed import is_main
from tag2mask.errors import DataError, RunError

log = logging.getLogger("tag2mask")
LOCK = ".lock"
"""The file that a process holds while it works in a run folder."""


@contextmanager
def locked(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from working in a run folder; the processes of one run work in it together.

    Args:
        out: the folder; made if it is not there.
        wait: wait until no other process works in it.

    Raises:
        RunError: another process works in it, and ``wait`` is not set.
    """
    end_if_started_again()
    if not is_main():
        yield
        return
    folder_was_there = out.is_dir()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = _acquired(out, wait)
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


def _acquired(out: Path, wait: bool) -> FileLock:
    lock = FileLock(out / LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        if not wait:
            raise
        log.info("another process works in %s: waiting until it is done", out)
        lock.acquire(timeout=-1)
    return lock
