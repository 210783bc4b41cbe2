"""The same networks, faster on a CPU: batch normalisation folded into convolutions, and what oneDNN is slow at avoided.

Everything here works on a copy; the maths is the same, sums are rounded in another order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tag2mask.networks.backbones import Backbone

Features = Callable[[Tensor], dict[str, Tensor]]


class DilatedDepthwise(nn.Conv2d):
    """A dilated depthwise convolution that keeps the size; the gradient of its input is faster.

    oneDNN has no fast backward pass for it. That gradient is the output's, convolved with the kernel turned round
    by 180 degrees: a forward pass.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve N x C x H x W."""
        output: Tensor = _TurnedRound.apply(input, self.weight, self.bias, self.padding, self.dilation)
        return output


class SamePadding(Conv2dSame):  # type: ignore[misc]
    """TensorFlow's padding without a padded copy: on a CPU a side that lacks one gets a zero in the kernel instead."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve N x C x H x W."""
        if input.is_cuda:
            return Conv2dSame.forward(self, input)
        before, after = [], []
        for size, kernel, stride in zip(input.shape[2:], self.kernel_size, self.stride, strict=True):
            padding = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            before.append(padding // 2)
            after.append(padding - padding // 2)
        rows, columns = (last - first for first, last in zip(before, after, strict=True))
        weight = functional.pad(self.weight, (columns, 0, rows, 0)) if rows or columns else self.weight
        return functional.conv2d(input, weight, self.bias, self.stride, after, 1, self.groups)


class _TurnedRound(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], dilation: list[int]
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return functional.conv2d(input, weight, bias, 1, padding, dilation, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        channels, wanted = len(weight), ctx.needs_input_grad
        of_input = None
        if wanted[0]:
            turned = weight.flip(2, 3)
            of_input = functional.conv2d(gradient, turned, None, 1, ctx.padding, ctx.dilation, channels)
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient, input, weight, [channels], [1, 1], ctx.padding, ctx.dilation, False, [0, 0], channels,
            [False, wanted[1], wanted[2]],
        )  # fmt: skip
        return of_input, of_weight, of_bias, None, None


class FoldedInTraining:
    r"""A backbone called with its batch normalisations, which are fixed, multiplied into the convolutions before them.

    $\gamma (w * x - \mu) / \sigma + \beta = (\gamma w / \sigma) * x + (\beta - \gamma \mu / \sigma)$, so no pass over
    the feature maps is spent on them, forward or backward. What is frozen is multiplied once, what learns at every
    call: gradients reach the backbone's own parameters.

    Args:
        backbone: its parameters are read at each call.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.folded = deepcopy(backbone).requires_grad_(False)
        fold(self.folded)
        for conv in self.folded.modules():
            if type(conv) is nn.Conv2d and _is_dilated_depthwise(conv):
                conv.__class__ = DilatedDepthwise
        learning = {name: one for name, one in backbone.named_parameters() if one.requires_grad}
        pairs = {
            f"{path}.{name}": (conv, norm)
            for path, parent in backbone.named_modules()
            for (name, conv), (_, norm) in _pairs(parent)
        }
        norms = [norm for _, norm in pairs.values()]
        of_norms = {id(parameter) for norm in norms for parameter in norm.parameters()}
        self.alone = {name: one for name, one in learning.items() if id(one) not in of_norms}
        self.pairs = {
            name: (conv, norm)
            for name, (conv, norm) in pairs.items()
            if any(one.requires_grad for part in (conv, norm) for one in part.parameters())
        }

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return what the backbone does."""
        weights: dict[str, Tensor] = dict(self.alone)
        for name, (conv, norm) in self.pairs.items():
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
            weights[f"{name}.weight"] = conv.weight * scale[:, None, None, None]
            weights[f"{name}.bias"] = norm.bias + bias * scale
        features: dict[str, Tensor] = functional_call(self.folded, weights, (images,))
        return features


def features_in_training(backbone: Backbone) -> Features:
    """Return what gives a backbone's features fastest while it learns: on a GPU, or where in doubt, itself."""
    if backbone.mean.is_cuda:
        return backbone
    faster = FoldedInTraining(backbone)
    return faster if _agree(faster, backbone) else backbone


def folded_backbone(backbone: Backbone) -> Backbone:
    """Return a copy for inference with its batch normalisations folded; where in doubt, the backbone itself."""
    faster = deepcopy(backbone).eval()
    fold(faster)
    return faster if _agree(faster, backbone) else backbone


def fold(model: nn.Module) -> None:
    """Multiply batch normalisations into the convolutions before them, in place.

    Which those are is read from the order of the modules: compare what comes out (`is_same`).
    """
    for parent in list(model.modules()):
        for (name, conv), (after, norm) in list(_pairs(parent)):
            setattr(parent, name, fuse_conv_bn_eval(conv, norm))
            setattr(parent, after, getattr(norm, "act", nn.Identity()))  # timm's has the activation inside
    for module in model.modules():
        if type(module) is Conv2dSame and module.dilation == (1, 1):
            module.__class__ = SamePadding


def is_same(found: Tensor, wanted: Tensor) -> bool:
    """Return whether two results differ by rounding alone."""
    return torch.allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def _agree(faster: Features, backbone: Backbone) -> bool:
    image = torch.linspace(0, 255, 3 * 64 * 64).view(1, 3, 64, 64).to(backbone.mean.device)
    with torch.inference_mode():
        wanted, found = backbone(image), faster(image)
    return all(is_same(found[layer], maps) for layer, maps in wanted.items())


def _pairs(parent: nn.Module) -> Iterator[tuple[tuple[str, nn.Conv2d], tuple[str, Any]]]:
    """Yield the convolutions among a module's children that a batch normalisation follows, and that."""
    for (name, conv), (after, norm) in pairwise(list(parent.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.affine:
            yield (name, conv), (after, norm)


def _is_dilated_depthwise(conv: nn.Conv2d) -> bool:
    if isinstance(conv.padding, str) or conv.stride != (1, 1) or conv.dilation == (1, 1):
        return False
    sides = zip(conv.padding, conv.dilation, conv.kernel_size, strict=True)
    keeps_size = all(2 * padding == dilation * (side - 1) for padding, dilation, side in sides)
    return keeps_size and conv.groups == conv.in_channels == conv.out_channels
