"""A made-up Apple GPU: tensors say they are on ``mps``, are computed on the CPU, and refuse what Apple's GPUs lack."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

MPS = torch.device("mps:0")


class Pretended(torch.Tensor):
    """A tensor that says it is on ``mps``; no gradients.

    What asks the device's driver before it is dispatched, which a torch without that driver refuses, has methods here.
    """

    @staticmethod
    def __new__(cls, inner):
        shape, strides, kind = inner.shape, inner.stride(), inner.dtype
        if kind == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        made = torch.Tensor._make_wrapper_subclass(cls, shape, strides=strides, dtype=kind, device=MPS)
        made.inner = inner
        return made

    def __float__(self):
        return float(self.inner)

    def __int__(self):
        return int(self.inner)

    def __bool__(self):
        return bool(self.inner)

    def __getitem__(self, index):
        return Pretended(self.inner[tree_map(on_cpu, index)])

    def __setitem__(self, index, value):
        self.inner[tree_map(on_cpu, index)] = on_cpu(value)

    def contiguous(self, **_):
        return Pretended(self.inner.contiguous())

    def nonzero(self):
        return Pretended(self.inner.nonzero())

    @classmethod
    def __torch_dispatch__(cls, function, types, given=(), named=None):
        return compute(function, given, named or {})


class AppleGpu(TorchDispatchMode):
    """While it is active, tensors can be made on ``mps`` and sent there."""

    def __torch_dispatch__(self, function, types, given=(), named=None):
        return compute(function, given, named or {})


def compute(function, given, named):
    """Do an operation on the CPU, and say that it was done on ``mps`` if that is where it was asked for."""
    inputs = tree_flatten((given, named))[0]
    asked = next((one for one in inputs if isinstance(one, torch.device)), None)
    there = asked.type == "mps" if asked else any(isinstance(one, Pretended) for one in inputs)
    if there and "bilinear2d_aa" in str(function):
        raise NotImplementedError(f"The operator '{function}' is not currently implemented for the MPS device")
    if there and (torch.float64 in inputs):
        raise TypeError("MPS has no float64")
    out = function(*tree_map(on_cpu, given), **tree_map(on_cpu, named))
    return tree_map(lambda one: Pretended(one) if there and isinstance(one, torch.Tensor) else one, out)


def on_cpu(value):
    if isinstance(value, Pretended):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) else value
