"""The same networks, faster on a CPU: batch normalisation and activations folded into convolutions, oneDNN's slow paths
avoided.

Everything here works on a copy; the maths is the same, sums are rounded in another order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import deepcopy
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tag2mask.devices import half_precision
from tag2mask.errors import RunError, reason
from tag2mask.networks.backbones import Backbone

Features = Callable[[Tensor], dict[str, Tensor]]
Network = TypeVar("Network", bound=nn.Module)


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
        if input.device.type != "cpu":
            return Conv2dSame.forward(self, input)
        before, after = [], []
        for size, kernel, stride in zip(input.shape[2:], self.kernel_size, self.stride, strict=True):
            padding = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            before.append(padding // 2)
            after.append(padding - padding // 2)
        rows, columns = (last - first for first, last in zip(before, after, strict=True))
        weight = functional.pad(self.weight, (columns, 0, rows, 0)) if rows or columns else self.weight
        return self.convolve(input, weight, after)

    def convolve(self, input: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
        """Convolve with this kernel and as many zeros before and after."""
        return functional.conv2d(input, weight, self.bias, self.stride, padding, 1, self.groups)


class FusedConv(nn.Conv2d):
    """A convolution by oneDNN that does the activation after it, while its values are in the processor's cache.

    torch leaves 1 x 1 convolutions on one thread to a plain matrix product, which takes twice as long where it was
    measured. This calls what `torch.compile` calls, without a compiler; inference only.
    """

    activation: tuple[str, list[float]] = ("none", [])

    def forward(self, input: Tensor) -> Tensor:
        """Convolve N x C x H x W, float32."""
        return _fused(self, input, self.weight, list(self.padding))  # type: ignore[arg-type]


class FusedSamePadding(SamePadding):
    """`SamePadding` as `FusedConv` does it."""

    activation: tuple[str, list[float]] = ("none", [])

    def convolve(self, input: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
        """Convolve with this kernel and as many zeros before and after."""
        return _fused(self, input, weight, padding)


def _fused(conv: FusedConv | FusedSamePadding, input: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        input, weight, conv.bias, padding, conv.stride, conv.dilation, conv.groups, *conv.activation, ""
    )
    return output


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
        dilated = [one for one in self.folded.modules() if type(one) is nn.Conv2d and _is_dilated_depthwise(one)]
        for conv in dilated if dilated and _turns_round() else ():
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
    if backbone.mean.device.type != "cpu":
        return backbone
    faster = FoldedInTraining(backbone)
    return faster if _agree(faster, backbone) else backbone


def folded_backbone(backbone: Backbone) -> Backbone:
    """Return `faster_copy` of a backbone."""
    return faster_copy(backbone, backbone.mean.device)


def faster_copy(model: Network, device: torch.device, fused: bool = True) -> Network:
    """Return a copy for inference alone, with batch normalisations and, on a CPU, activations done by convolutions.

    Which those are is read from the order of modules and from what they hand on. Where that gives other results,
    returns less fast a copy, or the model itself.

    Args:
        model: in evaluation mode; it takes images N x 3 x H x W, 0..255.
        device: where it is.
        fused: let convolutions do activations too.
    """
    with torch.inference_mode(False), torch.no_grad():
        image = _ramp(device)
        wanted = model(image)
        faster = _folded(model)
        if not _same(faster(image), wanted):
            return model
        if fused and _has_fused(image):
            with suppress(Exception):  # the operation is private to torch: another one may have it otherwise
                fuse(faster, image)
                if _same(faster(image), wanted):
                    return faster
            return _folded(model)
        return faster


def _folded(model: Network) -> Network:
    folded = deepcopy(model).eval().requires_grad_(False)
    fold(folded)
    return folded


def compiled_copy(model: Network, device: torch.device, sides: Sequence[int]) -> Network:
    """Return a copy for inference alone by `torch.compile`, compiled for squares of each size.

    Args:
        model: in evaluation mode; it takes images N x 3 x H x W, 0..255.
        device: where it is.
        sides: of the squares in pixels.

    Raises:
        RunError: torch cannot compile here.
    """
    try:  # torch without a compiler, as on some systems, refuses at once
        compiled = torch.compile(faster_copy(model, device, fused=False), dynamic=False)
        with _packed(device), torch.inference_mode(), half_precision(device):
            for side in sides:
                compiled(torch.zeros(1, 3, side, side, device=device))
    except Exception as error:  # of torch's compiler, of the C++ compiler, of the operating system
        raise RunError(
            f"torch.compile does not work here ({reason(error)}); install a C++ compiler such as g++, "
            "or leave it out with --set inference.compile=false"
        ) from None
    return cast(Network, compiled)


def _packed(device: torch.device) -> AbstractContextManager[Any]:
    """Have weights in oneDNN's order in what is compiled for a CPU, where this torch can; without, there is no gain."""
    try:
        from torch._inductor import config  # not before it is needed: it imports much

        return config.patch(freezing=device.type == "cpu")
    except Exception:  # private to torch
        return nullcontext()


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


def fuse(model: nn.Module, image: Tensor) -> None:
    """Let each convolution do the activation that takes its output and nothing else, in place.

    Args:
        model: in evaluation mode, float32, on a CPU.
        image: what the model is called with, to see which activation takes what.
    """
    for activation, conv in _activations(model, image):
        kind = ("relu", []) if type(activation) is nn.ReLU else ("hardtanh", [0.0, 6.0])
        conv.activation = kind  # type: ignore[assignment]
        activation.__class__ = nn.Identity
    for module in model.modules():
        if type(module) is SamePadding:
            module.__class__ = FusedSamePadding
        elif type(module) is nn.Conv2d and not isinstance(module.padding, str) and module.padding_mode == "zeros":
            module.__class__ = FusedConv


def _activations(model: nn.Module, image: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Return the ReLUs that are called once, with what a convolution gave unchanged, and those convolutions."""
    given: dict[int, tuple[nn.Module, Tensor, int]] = {}
    taken: dict[nn.Module, list[nn.Module | None]] = {}

    def gives(conv: nn.Module, _: Any, output: Tensor) -> None:
        given[id(output)] = conv, output, output._version

    def takes(activation: nn.Module, inputs: tuple[Tensor]) -> None:
        conv, _, version = given.get(id(inputs[0]), (None, None, 0))
        taken.setdefault(activation, []).append(conv if inputs[0]._version == version else None)

    hooks = []
    for module in model.modules():
        if type(module) in (nn.Conv2d, SamePadding):
            hooks.append(module.register_forward_hook(gives))
        elif type(module) in (nn.ReLU, nn.ReLU6):
            hooks.append(module.register_forward_pre_hook(takes))
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return [(one, convs[0]) for one, convs in taken.items() if len(convs) == 1 and convs[0] is not None]


def _turns_round() -> bool:
    """Return whether `DilatedDepthwise` learns what a convolution does: it calls what is private to torch."""
    inputs = [torch.linspace(-1, 1, 50).view(1, 2, 5, 5), torch.linspace(1, 2, 18).view(2, 1, 3, 3)]
    try:
        with torch.enable_grad():
            image, weight = (one.requires_grad_() for one in inputs)
            both = (
                functional.conv2d(image, weight, None, 1, 2, 2, 2),
                _TurnedRound.apply(image, weight, None, [2, 2], [2, 2]),
            )
            wanted, found = (torch.autograd.grad(maps.square().sum(), inputs) for maps in both)
        return all(is_same(*pair) for pair in zip(found, wanted, strict=True))
    except Exception:
        return False


def _has_fused(image: Tensor) -> bool:
    try:
        on_cpu = image.device.type == "cpu" and torch.backends.mkldnn.is_available()
        return on_cpu and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    except Exception:  # private to torch
        return False


def is_same(found: Tensor, wanted: Tensor) -> bool:
    """Return whether two results differ by rounding alone."""
    return torch.allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def _agree(faster: Features, backbone: Backbone) -> bool:
    image = _ramp(backbone.mean.device)
    with torch.inference_mode():
        wanted, found = backbone(image), faster(image)
    return _same(found, wanted)


def _ramp(device: torch.device) -> Tensor:
    return torch.linspace(0, 255, 3 * 64 * 64).view(1, 3, 64, 64).to(device)


def _same(found: Tensor | dict[str, Tensor], wanted: Tensor | dict[str, Tensor]) -> bool:
    if isinstance(wanted, Tensor):
        return is_same(cast(Tensor, found), wanted)
    return all(is_same(cast(dict[str, Tensor], found)[layer], maps) for layer, maps in wanted.items())


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
