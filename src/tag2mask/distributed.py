"""Several processes at one run, as torchrun or accelerate launch start them: who I am, my share, everyone's results.

Alone, every function here does nothing or returns what it was given, and nothing is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tag2mask import devices

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


def processes_here() -> int:
    """Return how many of the processes are on this machine."""
    return max(1, _given("LOCAL_WORLD_SIZE", 1))


def device() -> torch.device:
    """Return the device that this process computes on: that asked for, else an accelerator of its own, else the CPU.

    Raises:
        RunError: there is no such device, or there are more processes than accelerators.
    """
    return devices.device(_given("LOCAL_RANK", 0), processes_here())


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's share: every n-th item, from its own number on."""
    return items[rank() :: world()]


def gather(value: Item) -> list[Item]:
    """Return the values of all processes to the main one, by number; an empty list to the others."""
    if world() == 1:
        return [value]
    from torch.distributed import gather_object

    values: list[Any] | None = [None] * world() if is_main() else None
    gather_object(value, values, dst=0, group=_groups().cpu)
    return values or []


def of_main(value: Item) -> Item:
    """Return the main process's value to all."""
    if world() == 1:
        return value
    from torch.distributed import broadcast_object_list

    values = [value]
    broadcast_object_list(values, src=0, group=_groups().cpu)
    return values[0]


def total(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, in place."""
    if world() > 1:
        from torch.distributed import all_reduce

        _through_group(tensor, lambda part, group: all_reduce(part, group=group))
    return tensor


def copy_main(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite tensors with the main process's."""
    if world() > 1:
        from torch.distributed import broadcast

        for tensor in tensors:
            _through_group(tensor, lambda part, group: broadcast(part, src=0, group=group))


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
    if world() > 1 and _groups.cache_info().currsize:
        from torch.distributed import destroy_process_group

        if _groups().is_ours:
            destroy_process_group()


def _given(name: str, alone: int) -> int:
    """Return what torchrun put into the environment."""
    return int(os.environ.get(name, alone)) if "LOCAL_RANK" in os.environ else alone


class _Groups(NamedTuple):
    """Through which the processes talk.

    Attributes:
        cpu: with tensors on the CPU.
        cuda: with tensors on CUDA GPUs; None where nothing is computed there.
        is_ours: whether nobody in this process had met the others before.
    """

    cpu: Any
    cuda: Any
    is_ours: bool


@cache
def _groups() -> _Groups:
    """Meet the other processes, once."""
    from torch.distributed import init_process_group, is_initialized, is_nccl_available, new_group

    where, is_ours = device(), not is_initialized()
    if is_ours:
        init_process_group("gloo", timeout=_WAIT)
    cpu = new_group(backend="gloo", timeout=_WAIT)
    if where.type != "cuda":
        return _Groups(cpu, None, is_ours)
    import torch

    torch.cuda.set_device(where)  # NCCL asks for it
    return _Groups(cpu, new_group(backend="nccl", timeout=_WAIT) if is_nccl_available() else cpu, is_ours)


def _through_group(tensor: torch.Tensor, exchange: Callable[[torch.Tensor, Any], object]) -> None:
    """Exchange a tensor in place; from a device that no group knows, by way of the CPU."""
    groups = _groups()
    if tensor.is_cuda or tensor.device.type == "cpu":
        exchange(tensor, groups.cuda if tensor.is_cuda else groups.cpu)
        return
    copy = tensor.cpu()
    exchange(copy, groups.cpu)
    tensor.copy_(copy)
