"""Many items through one function, in threads: for work that runs outside Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from tag2mask.distributed import threads

In = TypeVar("In")
Out = TypeVar("Out")


def map_ahead(function: Callable[[In], Out], items: Iterable[In], workers: int | None = None) -> Iterator[Out]:
    """Yield ``function(item)`` in order; items are taken at most two a worker ahead.

    Args:
        function: called in one of the threads.
        items: taken one by one, in the thread that asks for results.
        workers: threads; one per core that is this process's if not given.

    >>> list(map_ahead(lambda x: x * x, range(5), workers=2))
    [0, 1, 4, 9, 16]
    """
    workers = workers or threads()
    source = iter(items)
    waiting: deque[Future[Out]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            for item in islice(source, 2 * workers - len(waiting)):
                waiting.append(pool.submit(function, item))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
