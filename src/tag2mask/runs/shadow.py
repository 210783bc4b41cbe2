"""A run made anew beside itself: until all of it is done the run is as before, and then, at one moment, as after."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tag2mask.errors import RunError
from tag2mask.files import is_unfinished, share_file, write_text
from tag2mask.runs.lock import LOCK, locked

FOLDER = ".refining"
_DONE = "done"


def shadow_of(out: Path) -> Path:
    """Return where a run is made anew: a folder of its name, hidden in it."""
    return out / FOLDER / out.resolve().name


@contextmanager
def shadow(out: Path) -> Iterator[Path]:
    """Give a copy of a run folder to work in; what has become of it takes the run's place at the end, if all is well.

    Nothing that is in the copy is written into: files are replaced, so they are links where that can be. What a killed
    process left is removed. The run folder is to be locked.
    """
    finish(out)
    copy = shadow_of(out)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    copy.mkdir(parents=True)
    try:
        _link(out, copy)
        yield copy
        write_text(out / FOLDER / _DONE, "")  # the moment
        finish(out)
    finally:
        if not (out / FOLDER / _DONE).exists():
            shutil.rmtree(out / FOLDER, ignore_errors=True)


def is_done(out: Path) -> bool:
    """Return whether a run made anew is complete but has not taken its place, since a process was killed."""
    return (out / FOLDER / _DONE).exists()


def finish(out: Path) -> None:
    """Move what is complete to its place; do nothing where there is nothing complete."""
    if not is_done(out):
        return
    copy = shadow_of(out)
    if not copy.is_dir():  # the run folder was renamed since
        copy = next((folder for folder in (out / FOLDER).iterdir() if folder.is_dir()), copy)
    for entry in sorted(copy.iterdir()) if copy.is_dir() else ():
        target = out / entry.name
        if entry.name == LOCK or is_unfinished(entry):
            continue
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(entry, target)
    # What the copy no longer has, such as masks of photos that are gone, went with the folders above.
    shutil.rmtree(out / FOLDER, ignore_errors=True)


def drop(out: Path) -> None:
    """Remove what a killed process had not completed; the run folder is to be locked."""
    if not is_done(out):
        shutil.rmtree(out / FOLDER, ignore_errors=True)


def take_place(out: Path) -> None:
    """Finish what a killed process had completed, unless another process works in the run folder."""
    if is_done(out):
        with suppress(RunError), locked(out):
            finish(out)


def _link(source: Path, target: Path) -> None:
    """Link a folder's files, and those of its folders, but not what is hidden."""
    for entry in source.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            (target / entry.name).mkdir()
            _link(entry, target / entry.name)
        else:
            share_file(entry, target / entry.name)
