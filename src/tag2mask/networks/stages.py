"""Where the last stage of a network is, from timm's own description and from what its modules give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def as_map(model: Any, output: Any) -> Tensor | None:
    """Return what a module of a network gives as N x D x h x w; None where that is no map.

    >>> as_map(nn.Identity(), torch.zeros(1, 5, 2, 3)).shape, as_map(nn.Identity(), torch.zeros(1, 6, 5))
    (torch.Size([1, 5, 2, 3]), None)
    """
    if not isinstance(output, Tensor) or output.dim() != 4:
        return None
    return output.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else output


def last_blocks(model: Any, last: str) -> tuple[str, str, str] | None:
    """Return the first block of the last stage, the next one or its last, and what global average pooling sees.

    timm says where the stage before ends (``feature_info``). What stands after that in the same sequence, gives maps
    of the deepest size and has parts of its own is a stage or a block of one.

    Args:
        model: on the meta device, at output stride 32.
        last: what the map that pooling sees is called where more follows the last block, such as a wide convolution.

    Returns:
        module names, or ``last``; None where timm names no stages or the network gives no map.
    """
    info = [stage["module"] for stage in getattr(model, "feature_info", [])]
    stages = _Stages(model)
    if len(info) < 2 or stages.pooled is None:
        return None
    found = stages.after(info[-2], until=info[-1]) or stages.after(info[-2])
    blocks = [block for stage in found for block in stages.blocks(stage)]
    if not blocks:
        return None
    if stages.outputs[blocks[-1]] is not stages.last:
        return blocks[0], found[-1], last
    return blocks[0], blocks[min(1, len(blocks) - 1)], blocks[-1]


class _Stages:
    """What the modules of a network give for a photo of the size that it was made for."""

    def __init__(self, model: Any) -> None:
        self.model, self.outputs = model.eval(), dict[str, Any]()
        hooks = [
            module.register_forward_hook(lambda _, inputs, output, name=name: self.outputs.__setitem__(name, output))
            for name, module in model.named_modules()
        ]
        try:
            with torch.no_grad():
                self.last = model.forward_features(torch.zeros(1, *model.pretrained_cfg["input_size"], device="meta"))
        except Exception:  # each network refuses in its own way
            self.last = None
        for hook in hooks:
            hook.remove()
        self.pooled = as_map(model, self.last)

    def after(self, module: str, until: str = "") -> list[str]:
        """Return the parts of the deepest size that stand after a module in its sequence, or in that around it."""
        while module:
            around, _, _ = module.rpartition(".")
            parts = self.children(around)
            parts = parts[parts.index(module) + 1 :]
            parts = [part for part in parts[: parts.index(until) + 1 if until in parts else None] if self.is_part(part)]
            if parts and (not around or isinstance(self.model.get_submodule(around), (nn.Sequential, nn.ModuleList))):
                return parts
            module = around
        return []

    def blocks(self, stage: str) -> list[str]:
        """Return the blocks of a stage, as wide as it is; itself where it has none."""
        module = self.model.get_submodule(stage)
        if isinstance(module, nn.Sequential):
            return self.alike(stage, stage) or [stage]
        inside = [name for name in self.children(stage) if _is_sequence(self.model.get_submodule(name))]
        found = max((self.alike(sequence, stage) for sequence in inside), key=len, default=[])
        everything = self.alike(stage, stage)
        return found or (everything if len(everything) == len(self.children(stage)) else []) or [stage]

    def alike(self, sequence: str, stage: str) -> list[str]:
        """Return the parts of a sequence that are as wide as a stage."""
        width = self.width(stage)
        return [name for name in self.children(sequence) if self.is_part(name) and self.width(name) == width]

    def is_part(self, name: str) -> bool:
        """Return whether a module gives a map of the deepest size and is more than one operation."""
        given, module = as_map(self.model, self.outputs.get(name)), self.model.get_submodule(name)
        if given is None or self.pooled is None or given.shape[2:] != self.pooled.shape[2:]:
            return False
        return any(True for _ in module.children()) and not isinstance(module, (_NormBase, nn.LayerNorm))

    def width(self, name: str) -> int:
        given = as_map(self.model, self.outputs[name])
        return 0 if given is None else given.shape[1]

    def children(self, name: str) -> list[str]:
        return [f"{name}.{child}".strip(".") for child, _ in self.model.get_submodule(name).named_children()]


def _is_sequence(module: nn.Module) -> bool:
    return isinstance(module, (nn.Sequential, nn.ModuleList))
