"""Segmentation networks: DeepLab-LargeFOV as in the paper's experiments, and a light head for any timm encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.errors import WeightsError
from tag2mask.names import Head
from tag2mask.networks.backbones import LAST, Backbone, check_network, pyramid_layers
from tag2mask.networks.speed import compiled_copy, faster_copy
from tag2mask.networks.weights import load_tensors, load_weights, refusing, save_tensors
from tag2mask.resize import resize_like


class SegmentationNetwork(nn.Module):
    """A backbone and a head that gives a logit per class at every position; class 0 is background.

    Args:
        backbone: timm model name.
        classes: names of the C foreground classes.
        head: ``largefov`` or ``light``.
        output_stride: of the backbone.
        weights: as for `Backbone`.
        tags: with a `TagHead`, whose log-probability of a class in the photo is added to the class's logits.

    >>> segmenter = SegmentationNetwork("resnet18", ["cat", "dog"], weights="random").eval()
    >>> segmenter(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 3, 8, 8])
    """

    def __init__(
        self,
        backbone: str,
        classes: Sequence[str],
        *,
        head: str = Head.LIGHT,
        output_stride: int = 16,
        weights: str = "auto",
        tags: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.head_name = tuple(classes), str(head)
        deeplab = head == Head.LARGEFOV
        layers = [LAST] if deeplab else pyramid_layers(backbone)
        self.backbone = Backbone(backbone, layers, output_stride=output_stride, weights=weights, deeplab=deeplab)
        if LAST not in layers:
            self.backbone.leave_out_tail()
        channels = [self.backbone.channels[layer] for layer in self.backbone.layers]
        count = len(classes) + 1
        self.head: nn.Module = (
            LargeFov(channels[-1], count, vgg=self.backbone.family.is_vgg) if deeplab else LightHead(channels, count)
        )
        self.tags = TagHead(channels[-1], len(classes)) if tags else None

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, N x (C + 1) x h x w, for images N x 3 x H x W, RGB, 0..255."""
        return self.decode(self.backbone(images))

    def decode(self, features: dict[str, Tensor]) -> Tensor:
        """Return logits from the backbone's features."""
        return self.decode_with_tags(features)[0]

    def decode_with_tags(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        r"""Return logits, and those of the photo's tags, N x C, where there is a `TagHead`.

        $z_c(u) + \log \sigma(t_c)$: a class that the photo as a whole does not show wins nowhere in it.
        """
        logits, tags = self.decode_apart(features)
        return logits if tags is None else with_tags(logits, tags), tags

    def decode_apart(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return logits that know nothing of the tags, and the tags' logits, N x C, where there is a `TagHead`."""
        maps = [features[layer] for layer in self.backbone.layers]
        return self.head(maps), None if self.tags is None else self.tags(maps[-1])

    def folded(self, compile_for: Sequence[int] | None = None) -> SegmentationNetwork:
        """Return a copy for inference by `tag2mask.networks.speed.faster_copy`.

        Args:
            compile_for: sides of inputs; given, the copy is `tag2mask.networks.speed.compiled_copy`'s.

        Raises:
            WeightsError: the logits contain NaN or infinite values.
            RunError: torch cannot compile here.
        """
        device = self.backbone.mean.device
        with torch.inference_mode():
            if not self(torch.zeros(1, 3, 64, 64, device=device)).isfinite().all():
                raise WeightsError("the segmenter's scores contain NaN or infinite values: its weights are damaged")
        return faster_copy(self, device) if compile_for is None else compiled_copy(self, device, compile_for)

    def save(self, file: str | Path) -> None:
        """Write the network and how to build it as safetensors."""
        about = {
            "backbone": self.backbone.name,
            "classes": list(self.classes),
            "head": self.head_name,
            "output_stride": self.backbone.output_stride,
            "tags": self.tags is not None,
        }
        if self.head_name == Head.LARGEFOV:
            about["as_deeplab"] = True
        save_tensors(file, self.state_dict(), "a segmenter", about)

    @classmethod
    def load(cls, file: str | Path) -> SegmentationNetwork:
        """Read what `save` wrote, in evaluation mode.

        Raises:
            WeightsError: the file is missing, corrupt or not of a segmenter.
        """
        tensors, about = load_tensors(file, "a segmenter")
        with refusing(file):
            check_network(about["backbone"], tensors, file)
            if not about.pop("as_deeplab", about["head"] != Head.LARGEFOV):  # the same weights would predict otherwise
                raise WeightsError(f"{file} is of an earlier LargeFOV; delete it to train again")
            segmenter = cls(**about, weights="random")
            load_weights(segmenter, tensors, str(file))
        return segmenter.eval()


def with_tags(logits: Tensor, tags: Tensor) -> Tensor:
    """Return logits, N x (C + 1) x h x w, with the log-probability of each tag in those of its class.

    Args:
        logits: N x (C + 1) x h x w.
        tags: their logits, N x C.
    """
    present = functional.pad(functional.logsigmoid(tags), (1, 0))  # background is
    return logits + present[:, :, None, None]


class TagHead(nn.Module):
    """The photo's tags from its deepest feature map; they are known for certain, as masks are not.

    Args:
        channels: of the map.
        classes: number of logits.
        width: channels inside.
    """

    def __init__(self, channels: int, classes: int, width: int = 768) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.BatchNorm2d(channels, affine=False), *_convolution(channels, width))
        self.classify = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, classes))
        self.stays = False

    def freeze(self) -> None:
        """Stay as it is in further training."""
        self.stays = True
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> TagHead:
        """Stay in evaluation mode if frozen."""
        return super().train(mode and not self.stays)

    def forward(self, deepest: Tensor) -> Tensor:
        """Return logits, N x C."""
        logits: Tensor = self.classify(self.see(deepest).mean((2, 3)))
        return logits


class LargeFov(nn.Module):
    """The layers of DeepLab-LargeFOV after the last stage, with the large field of view of a 3 x 3 dilated by 12.

    VGG16 (Chen et al. 2015, train.prototxt of DeepLab-LargeFOV): an average pool ``pool5a`` of 3 x 3 with stride 1,
    then ``fc6``, ``fc7`` and ``fc8``. Ours: fc6 and fc7 are initialised at random, not from VGG16's.

    Other networks: one 3 x 3 convolution to the classes. DeepLab's ResNet-101 (Chen et al. 2018) has no fc6 and fc7:
    its train.prototxt sums four such layers dilated by 6, 12, 18 and 24 (``fc1_voc12_c0`` to ``_c3``) on ``res5c``.
    LargeFOV is one field of view instead of four; that its dilation is VGG16's 12 is our reading.

    Args:
        channels: of the deepest feature map.
        classes: number of logits.
        vgg: whether the network is VGG.
    """

    def __init__(self, channels: int, classes: int, *, vgg: bool) -> None:
        super().__init__()
        classify = nn.Conv2d(1024, classes, 1) if vgg else nn.Conv2d(channels, classes, 3, padding=12, dilation=12)
        nn.init.normal_(classify.weight, std=0.01)
        nn.init.zeros_(classify.bias)  # type: ignore[arg-type]
        before = (
            nn.AvgPool2d(3, stride=1, padding=1),
            nn.Conv2d(channels, 1024, 3, padding=12, dilation=12), nn.ReLU(inplace=True), nn.Dropout(0.5),
            nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True), nn.Dropout(0.5),
        ) if vgg else ()  # fmt: skip
        self.layers = nn.Sequential(*before, classify)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits from the deepest feature map."""
        logits: Tensor = self.layers(features[-1])
        return logits


class LightHead(nn.Module):
    """A small decoder: standardised deep features seen with some context, joined with finer ones.

    Args:
        channels: of the finer feature map and of the deep ones.
        classes: number of logits.
        width: channels inside.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int = 192) -> None:
        super().__init__()
        fine, *deep = channels
        self.deep = nn.Sequential(
            nn.BatchNorm2d(sum(deep), affine=False),
            *_convolution(sum(deep), width),
            nn.Dropout2d(0.1),
            *_convolution(width, width, kernel=3, dilation=2),
        )
        self.fine = nn.Sequential(nn.BatchNorm2d(fine, affine=False), *_convolution(fine, 32))
        self.decode = nn.Sequential(*_convolution(width + 32, 128, kernel=3), nn.Conv2d(128, classes, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits at the size of the finer feature map."""
        fine, *deep = features
        seen = self.deep(torch.cat([resize_like(one, deep[-1]) for one in deep], 1))
        logits: Tensor = self.decode(torch.cat([resize_like(seen, fine), self.fine(fine)], 1))
        return logits


def _convolution(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
