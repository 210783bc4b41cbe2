"""How many cores this process may use, and many items through one function in threads outside Python's lock."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tag2mask.distributed import processes_here

In = TypeVar("In")
Out = TypeVar("Out")


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: its share of those that affinity and the container's limit leave.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    return max(1, math.ceil(min(by_affinity(), cgroup_limit(root))) // processes_here())


def by_affinity() -> int:
    """Return how many cores the process may run on, as ``taskset`` or a scheduler sets it."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_limit(root: Path = Path("/")) -> float:
    """Return how many cores' time the process's control groups grant, the least of all above it; infinite if no limit.

    Of both versions: ``cpu.max`` (2), ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` (1). In a container the path that
    ``/proc/self/cgroup`` names may be one of the machine outside; then the folders above it that are there count.
    """
    limits = [math.inf]
    for line in _words(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
        else:
            continue
        for mount in mounts:
            group = Path(path.lstrip("/"))
            limits += [_limit(root / mount / folder) for folder in (group, *group.parents)]
    return min(limits)


def _limit(group: Path) -> float:
    """Return the limit of one control group, in cores."""
    words = " ".join(_words(group / "cpu.max")).split()
    words = words or [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
    try:
        quota, period = map(int, words)
    except ValueError:  # "max", or no such files
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _words(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").split("\n")[:-1]
    except (OSError, ValueError):
        return []


def map_ahead(function: Callable[[In], Out], items: Iterable[In], workers: int | None = None) -> Iterator[Out]:
    """Yield ``function(item)`` in order; items are taken at most two a worker ahead.

    PyTorch does not divide the work of one of these threads once more: they would wait for each other.

    Args:
        function: called in one of the threads.
        items: taken one by one, in the thread that asks for results.
        workers: threads; one per core that is this process's if not given.

    >>> list(map_ahead(lambda x: x * x, range(5), workers=2))
    [0, 1, 4, 9, 16]
    """
    import torch

    workers = workers or cores()
    source = iter(items)
    waiting: deque[Future[Out]] = deque()
    in_pytorch = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        while True:
            for item in islice(source, 2 * workers - len(waiting)):
                waiting.append(pool.submit(function, item))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(in_pytorch)  # for threads that begin later; it holds for each and for the next
