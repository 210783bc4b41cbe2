r"""Excitation backprop (Zhang et al. 2016): which neurons of an inner layer win, given a class.

For inputs $a_j \ge 0$ of a neuron i with weights $w_{ij}$: $P(j \mid i) = w_{ij}^+ a_j \,/ \sum_k w_{ik}^+ a_k$ and
$P(j) = \sum_i P(j \mid i) \, P(i)$; negative inputs, which the paper does not have, win nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tag2mask.networks.backbones import LAST, Backbone

SMALLEST = 1e-12
"""Excitation below which a neuron passes nothing down."""

PASSED_ON = ("batch_norm", "relu", "relu_", "relu6", "hardtanh")
"""Functions whose output hands its probability to the input at the same place."""


class TopDown(TorchFunctionMode):
    """Have probabilities for gradients in what is computed meanwhile from a tensor that requires them.

    Convolutions, mean pooling and sums share a neuron's probability among its inputs by their excitation; activations
    pass it on. Values do not change.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute one function."""
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if not any(isinstance(one, Tensor) and one.requires_grad for one in args):
            return func(*args, **kwargs)
        if name in PASSED_ON:
            with torch.no_grad():
                output = func(args[0].clone(), *args[1:], **kwargs)  # some work in place
            return args[0] + (output - args[0]).detach()
        if name == "conv2d":
            weight = args[1].detach().clamp_min(0)
            return _excited(func, args, kwargs, 1, lambda x: func(x, weight, None, *args[3:], **kwargs))
        if name == "avg_pool2d":
            return _excited(func, args, kwargs, 1, lambda x: func(x, *args[1:], **kwargs))
        if name in ("add", "add_", "__iadd__") and isinstance(args[1], Tensor):
            return _excited(torch.add, args, kwargs, 2, torch.add)
        return func(*args, **kwargs)


def _excited(
    func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], count: int, excite: Callable[..., Any]
) -> Tensor:
    with torch.no_grad():
        output = func(*args, **kwargs)
    result: Tensor = _Excite.apply(output, excite, *args[:count])
    return result


class _Excite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, excite: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        ctx.excite = excite
        return output.clone()

    @staticmethod
    def backward(ctx: Any, won: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        with torch.enable_grad():
            inputs = [one.detach().clamp_min(0).requires_grad_() for one in ctx.saved_tensors]
            excitation = ctx.excite(*inputs)
        each = torch.where(excitation > SMALLEST, won / excitation.clamp_min(SMALLEST), 0).detach()
        shares = torch.autograd.grad(excitation, inputs, each)
        return None, None, *(one.detach() * share for one, share in zip(inputs, shares, strict=True))


def attention(start: Tensor, last: Tensor, weight: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    r"""Return how likely positions are given a class, $A_c(u) = \sum_k P(k, u)$, times the class's excitation.

    That factor, $\sum_{k,u} w_{ck}^+ t_{ku}$, makes tiles of a photo comparable; within a photo it changes nothing.

    Args:
        start: float N x D' x h' x w', of an inner layer.
        last: float N x D x h x w, the pooled map, computed from ``start`` in `TopDown`.
        weight: float C x D, of the linear layer.
        labels: class indices present in each image, 1..C; as many backward passes as the longest has.

    Returns:
        float N x C x h' x w', >= 0; zero for classes that are not in the labels.
    """
    found = start.new_zeros(len(start), len(weight), *start.shape[2:])
    for turn in range(max(map(len, labels), default=0)):
        rows = [row for row, present in enumerate(labels) if len(present) > turn]
        columns = [labels[row][turn] - 1 for row in rows]
        won = torch.zeros_like(last)
        won[rows] = weight[columns, :, None, None].clamp_min(0) * last[rows].detach().clamp_min(0)
        (likely,) = torch.autograd.grad(last, start, won, retain_graph=True)
        found[rows, columns] = likely[rows].sum(1)
    return found


def from_layer(backbone: Backbone, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map of the backbone's first layer and, computed from it in `TopDown`, the pooled one.

    Args:
        backbone: best without batch normalisations: their scales then count among the weights.
        images: N x 3 x H x W, RGB, 0..255.

    Returns:
        float N x D' x h' x w' and N x D x h x w.
    """
    starts: list[Tensor] = []

    def begin(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        starts.append(output.detach().requires_grad_())
        return starts[-1]

    hook = backbone.model.get_submodule(backbone.layers[0]).register_forward_hook(begin)
    try:
        with torch.enable_grad(), TopDown():
            last = backbone(images)[LAST]
    finally:
        hook.remove()
    return starts[-1], last
