"""Annotations that come back: kept in the run folder at once, learnt from in the background."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from tag2mask.data import write_mask
from tag2mask.errors import RunError, reason
from tag2mask.runs.folder import resume_run

log = logging.getLogger("tag2mask")

WAITING, TAKEN = ".corrections-waiting", ".corrections-taken"
"""Folders in a run: masks that came, and those that a refinement works on. After a kill the next start takes both."""

Masks = Mapping[str, NDArray[np.uint8]]


class Corrections:
    """Corrected masks of a run's training photos, and the one refinement at a time that learns from them.

    Args:
        run: the run folder.
        done: called when a refinement has ended well.
    """

    def __init__(self, run: Path, done: Callable[[], None]) -> None:
        self.run, self._done = run, done
        self._moving = threading.Lock()
        self._calls: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name="refine").start()

    @cached_property
    def photos(self) -> dict[str, Path]:
        """The training photos by name.

        Raises:
            UserError: there is no run, or its photos cannot be found.
        """
        if not (self.run / "config.yaml").is_file():
            raise RunError(f"{self.run} is no run folder: it can predict, but not learn from corrections")
        return {sample.name: sample.image for sample in resume_run(self.run).train.samples}

    def take_up(self) -> None:
        """Learn from what an earlier server left."""
        if any(_masks(self.run / folder) for folder in (WAITING, TAKEN)):
            self.refine_in_background({})

    def refine_in_background(self, masks: Masks) -> None:
        """Keep corrected masks and start to learn from them; those that come meanwhile are next.

        Args:
            masks: uint8 H x W by the photos' names.
        """
        with self._moving:
            for name, mask in masks.items():
                write_mask(self.run / WAITING / f"{name}.png", mask)
        self._calls.put(None)

    def _work(self) -> None:
        while True:
            self._calls.get()
            try:
                if self._collect() and refine(self.run, self.run / TAKEN):
                    shutil.rmtree(self.run / TAKEN)
                    self.__dict__.pop("photos", None)  # the run may have changed
                    self._done()
            except Exception as error:  # the next annotation tries again
                log.warning("corrections wait in %s: %s", self.run, reason(error))

    def _collect(self) -> int:
        """Move the masks that wait to those that are taken; return how many there are."""
        with self._moving:
            for file in _masks(self.run / WAITING):
                target = self.run / TAKEN / file.relative_to(self.run / WAITING)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
        return len(_masks(self.run / TAKEN))


def refine(run: Path, masks: Path) -> bool:
    """Do ``tag2mask refine`` in a process of its own, so that predictions go on whatever becomes of it.

    Args:
        run: the run folder.
        masks: folder of corrected masks, named as the photos.

    Returns:
        Whether it ended well; if not, why was said.
    """
    log.info("learning from corrected masks in %s", masks)
    command = [
        sys.executable,
        "-m",
        "tag2mask",
        "--quiet",
        "refine",
        str(run),
        str(masks),
        "--format",
        "png",
        "--yes",
        "--all",  # a person has submitted each of them
    ]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if any(map(str.isalnum, line))]
        log.warning(
            "corrections stay in %s: %s", masks, said[-1].strip("│ ") if said else f"exit code {ended.returncode}"
        )
    return not ended.returncode


def _masks(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*.png") if not file.name.startswith(".")]
