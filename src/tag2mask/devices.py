"""The device that computes: which one and why, and what it cannot do.

Nothing here is imported from torch before a device is asked for.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from tag2mask.errors import RunError

if TYPE_CHECKING:
    import torch

log = logging.getLogger("tag2mask")
VARIABLE = "TAG2MASK_DEVICE"
"""The environment variable that chooses the device where no option does."""

_chosen: str | None = None


class Found(NamedTuple):
    """The kind of accelerator that torch can use here, such as ``cuda`` or ``mps``, and their number."""

    kind: str
    number: int


def choose(name: str | None) -> None:
    """Compute on a device from here on, as ``--device`` says; None: as the environment says, or the best there is.

    Raises:
        RunError: there is no such device.
    """
    global _chosen
    _chosen = name
    if name is not None:
        device()


def device(local: int = 0, processes: int = 1) -> torch.device:
    """Return the device that this process computes on.

    Args:
        local: this process's number on this machine.
        processes: how many there are on this machine; each has an accelerator of its own.

    Raises:
        RunError: there is no such device, or there are more processes than accelerators.
    """
    import torch

    name, asked = asked_for()
    found = accelerators()
    if name == "cpu" or (not name and not found.number):
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if name and not (kind == found.kind and (not number or (number.isdecimal() and int(number) < found.number))):
        raise RunError(f"{asked} {name}: this machine has {_listed(found)}; name one of these")
    if processes > 1 and number:
        raise RunError(f"{asked} {name} is one device for {processes} processes; name {kind} without a number")
    if processes > found.number:
        raise RunError(f"{processes} processes for {found.number} GPUs; start one a GPU, or set {VARIABLE}=cpu")
    # "mps" has no numbers: a tensor that is sent to "mps" says that it is on "mps:0".
    return torch.device(found.kind, int(number or local)) if found.kind != "mps" else torch.device("mps")


def asked_for() -> tuple[str, str]:
    """Return the name of the device that was asked for, empty if none was, and by what."""
    if _chosen is not None:
        return _chosen.lower(), "--device"
    return os.environ.get(VARIABLE, "").strip().lower(), VARIABLE


def accelerators() -> Found:
    """Return what torch can compute on here besides the CPU; none: their number is 0."""
    import torch

    if torch.cuda.is_available():
        return Found("cuda", torch.cuda.device_count())
    if hasattr(torch, "accelerator") and torch.accelerator.is_available():
        here = torch.accelerator.current_accelerator()
        return Found(here.type, torch.accelerator.device_count()) if here is not None else Found("cpu", 0)
    if torch.backends.mps.is_available():
        return Found("mps", 1)
    return Found("cpu", 0)


def why() -> str:
    """Return why `device` is what it is."""
    name, asked = asked_for()
    if name:
        return f"{asked} says so"
    found = accelerators()
    return f"torch can use {_listed(found)}" if found.number else "torch can use no GPU here"


def half_type(where: torch.device) -> torch.dtype | None:
    """Return the 16-bit type of a forward pass on a device; None where it stays float32.

    bfloat16 only from compute capability 8 on: older GPUs emulate it, many times slower. Accelerators other than CUDA's
    (and ROCm's, which torch calls by that name) compute in float32.
    """
    import torch

    if where.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(where) >= (8, 0) else torch.float16


def half_precision(where: torch.device) -> torch.autocast:
    """Return the context of a forward pass on a device: in `half_type`, or as it is where there is none."""
    import torch

    dtype = half_type(where)
    return torch.autocast(where.type if dtype else "cpu", dtype, enabled=dtype is not None)


@cache
def with_float64(where: torch.device) -> torch.device:
    """Return the device itself where it has float64, else the CPU; Apple's GPUs and some of Intel's have none."""
    import torch

    try:
        torch.ones(2, dtype=torch.float64, device=where).sum().item()
    except (TypeError, RuntimeError):
        log.info("%s has no float64: class patterns are found on the CPU", where)
        return torch.device("cpu")
    return where


@cache
def with_antialias(where: torch.device) -> torch.device:
    """Return the device where photos are resized: itself if it is a CPU or CUDA's, else the CPU.

    Antialiased bilinear interpolation is missing on some others, and differs between versions of torch.
    """
    import torch

    if where.type in ("cpu", "cuda"):
        return where
    log.info("photos are resized on the CPU: %s has no antialiasing in all versions of torch", where)
    return torch.device("cpu")


def wait_for(where: torch.device) -> None:
    """Wait until a device has done all that it was given, before a clock is read."""
    import torch

    if where.type == "cuda":
        torch.cuda.synchronize(where)
    elif where.type != "cpu":
        getattr(torch, where.type).synchronize()


def _listed(found: Found) -> str:
    """Return the names of the devices, for a message.

    >>> _listed(Found("cuda", 2)), _listed(Found("cpu", 0)), _listed(Found("mps", 1))
    ('cpu, cuda:0 and cuda:1', 'cpu', 'cpu and mps')
    """
    numbered = [f"{found.kind}:{number}" for number in range(found.number)] if found.kind != "mps" else ["mps"]
    names = ["cpu", *numbered] if found.number else ["cpu"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
