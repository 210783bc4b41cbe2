"""Several processes at one run, as torchrun or accelerate launch start them: who I am, my share, everyone's results.

Alone, every function here does nothing or returns what it was given, and nothing is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from tag2mask.errors import RunError

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
_WAIT = timedelta(days=7)
"""How long one process may wait for another that works; where one dies, torchrun ends all at once."""


def world() -> int:
    """Return how many processes there are."""
    return _given("WORLD_SIZE", 1)


def rank() -> int:
    """Return this process's number, from 0."""
    return _given("RANK", 0)


def is_main() -> bool:
    """Return whether this is the process that speaks and writes what all share."""
    return rank() == 0


def threads() -> int:
    """Return how many cores this process may use: its share of the machine's."""
    return max(1, (os.cpu_count() or 1) // _given("LOCAL_WORLD_SIZE", 1))


def device() -> torch.device:
    """Return this process's GPU where there is one, else the CPU.

    Raises:
        RunError: there are more processes than GPUs.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    local, gpus = _given("LOCAL_WORLD_SIZE", 1), torch.cuda.device_count()
    if local > gpus:
        raise RunError(f"{local} processes for {gpus} GPUs; start one a GPU, or set CUDA_VISIBLE_DEVICES= for none")
    return torch.device("cuda", _given("LOCAL_RANK", 0))


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's share: every n-th item, from its own number on."""
    return items[rank() :: world()]


def gather(value: Item) -> list[Item]:
    """Return the values of all processes to the main one, by number; an empty list to the others."""
    if world() == 1:
        return [value]
    from torch.distributed import gather_object

    values: list[Any] | None = [None] * world() if is_main() else None
    gather_object(value, values, dst=0, group=_group())
    return values or []


def of_main(value: Item) -> Item:
    """Return the main process's value to all."""
    if world() == 1:
        return value
    from torch.distributed import broadcast_object_list

    values = [value]
    broadcast_object_list(values, src=0, group=_group())
    return values[0]


def total(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, in place."""
    if world() > 1:
        from torch.distributed import all_reduce

        group = _group()
        all_reduce(tensor, group=None if tensor.is_cuda else group)
    return tensor


def copy_main(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite tensors with the main process's."""
    if world() > 1:
        from torch.distributed import broadcast

        group = _group()
        for tensor in tensors:
            broadcast(tensor, src=0, group=None if tensor.is_cuda else group)


def barrier() -> None:
    """Wait until all processes are here."""
    of_main(None)
    gather(None)


def first_to_fail() -> bool:
    """Return whether no other process has failed before: that one says why, the others end with it."""
    if world() == 1:
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=5))
        return store.add(f"tag2mask/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except RuntimeError:
        return True


def leave() -> None:
    """Part from the other processes at the end."""
    if world() > 1 and _group.cache_info().currsize:
        from torch.distributed import destroy_process_group

        destroy_process_group()


def _given(name: str, alone: int) -> int:
    """Return what torchrun put into the environment."""
    return int(os.environ.get(name, alone)) if "LOCAL_RANK" in os.environ else alone


@cache
def _group() -> Any:
    """Meet the other processes, once, and return the group through which they talk without a GPU."""
    from accelerate import PartialState
    from torch.distributed import new_group

    PartialState(cpu=device().type == "cpu", timeout=_WAIT)
    return new_group(backend="gloo", timeout=_WAIT)
