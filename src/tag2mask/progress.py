"""Progress with the time left: a bar on a terminal, a line now and then in a log file, an object in JSON lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tag2mask.distributed import is_main

Item = TypeVar("Item")
console = Console(stderr=True)
log = logging.getLogger("tag2mask")
DETAILS = ("task", "done", "total", "seconds_left")
"""What a line of progress adds to a log record."""

_SECONDS_BETWEEN_LINES = 30.0


def track(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Yield ``items`` and show how many of ``total`` are done and how long the rest will take.

    Of several processes, only the main one shows its share. Where the package logs warnings only, nothing is shown.
    """
    if not is_main() or log.level > logging.INFO:
        yield from items
    else:
        yield from (_bar if sys.stderr.isatty() and not _formatted() else _lines)(items, total, label)


def duration(seconds: float) -> str:
    """Return a duration in words.

    >>> duration(42), duration(192), duration(7300)
    ('42 s', '3 min 12 s', '2 h 1 min')
    """
    minutes, left = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{left} s"
    return f"{minutes} min {left} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _bar(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    columns = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _lines(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said > _SECONDS_BETWEEN_LINES and done < total:
            said = now
            left = (now - start) / done * (total - done)
            line = f"{label}: {done} of {total}, {duration(left)} left"
            if _formatted():
                log.info(line, extra=dict(zip(DETAILS, (label, done, total, round(left)), strict=True)))
            else:
                print(f"  {line}", file=sys.stderr, flush=True)


def _formatted() -> bool:
    """Return whether a handler of the package has a format of its own, which progress must keep to."""
    return any(handler.formatter is not None for handler in log.handlers)
