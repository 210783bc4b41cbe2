"""Segmentation networks (METHOD 6): DeepLab-LargeFOV, and a light head for any timm encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.networks.backbones import LAST, Backbone, pyramid_layers
from tag2mask.networks.weights import load_tensors, load_weights, refusing, save_tensors


class Segmenter(nn.Module):
    """A backbone and a head that gives a logit per class at every position; class 0 is background.

    Args:
        backbone: timm model name.
        classes: names of the C foreground classes.
        head: ``largefov`` or ``light``.
        output_stride: of the backbone.
        weights: as for `Backbone`.

    >>> segmenter = Segmenter("resnet18", ["cat", "dog"], weights="random").eval()
    >>> segmenter(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 3, 8, 8])
    """

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str],
        *,
        head: Literal["largefov", "light"] = "light",
        output_stride: int = 16,
        weights: str = "auto",
    ) -> None:
        super().__init__()
        self.classes, self.head_name = tuple(classes), head
        layers = [LAST] if head == "largefov" else pyramid_layers(backbone)
        self.backbone = Backbone(backbone, layers, output_stride=output_stride, weights=weights)
        channels = [self.backbone.channels[layer] for layer in self.backbone.layers]
        count = len(classes) + 1
        self.head: nn.Module = LargeFov(channels[-1], count) if head == "largefov" else LightHead(channels, count)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, N x (C + 1) x h x w, for images N x 3 x H x W, RGB, 0..255."""
        features = self.backbone(images)
        logits: Tensor = self.head([features[layer] for layer in self.backbone.layers])
        return logits

    def save(self, file: str | Path) -> None:
        """Write the network and how to build it as safetensors."""
        about = {
            "backbone": self.backbone.name,
            "classes": list(self.classes),
            "head": self.head_name,
            "output_stride": self.backbone.output_stride,
        }
        save_tensors(file, self.state_dict(), "a segmenter", about)

    @classmethod
    def load(cls, file: str | Path) -> Segmenter:
        """Read what `save` wrote, in evaluation mode.

        Raises:
            WeightsError: the file is missing, corrupt or not of a segmenter.
        """
        tensors, about = load_tensors(file, "a segmenter")
        with refusing(file):
            segmenter = cls(**about, weights="random")
            load_weights(segmenter, tensors, str(file))
        return segmenter.eval()


class LargeFov(nn.Module):
    """DeepLab-CRF-LargeFOV's fc6 (3 x 3, dilated by 12), fc7 and fc8 (Chen et al. 2015)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        classify = nn.Conv2d(1024, classes, 1)
        nn.init.normal_(classify.weight, std=0.01)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 1024, 3, padding=12, dilation=12), nn.ReLU(inplace=True), nn.Dropout(0.5),
            nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True), nn.Dropout(0.5),
            classify,
        )  # fmt: skip

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits from the deepest feature map."""
        logits: Tensor = self.layers(features[-1])
        return logits


class LightHead(nn.Module):
    """A small decoder: deep features seen at several dilations and as a whole, joined with finer ones.

    Args:
        channels: of the finer and of the deepest feature map.
        classes: number of logits.
        width: channels inside.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int = 128) -> None:
        super().__init__()
        fine, deep = channels
        self.reduce = _convolution(deep, width, 1)
        self.views = nn.ModuleList([_separable(width, width, dilation) for dilation in (1, 3, 6)])
        self.whole = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True))
        self.join = _convolution(5 * width, width, 1)
        self.fine = _convolution(fine, 32, 1)
        self.decode = nn.Sequential(_separable(width + 32, width, 1), nn.Dropout2d(0.1))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits at the size of the finer feature map."""
        fine, deep = features
        deep = self.reduce(deep)
        whole = self.whole(deep.mean((2, 3)))[:, :, None, None].expand_as(deep)
        joined = self.join(torch.cat([deep, whole, *(view(deep) for view in self.views)], 1))
        joined = functional.interpolate(joined, fine.shape[2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.classify(self.decode(torch.cat([joined, self.fine(fine)], 1)))
        return logits


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )


def _separable(inputs: int, outputs: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False),
        *_convolution(inputs, outputs, 1),
    )
