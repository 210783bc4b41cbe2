"""The classification network: backbone, global average pooling, one linear layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import TilesConfig
from tag2mask.data import Sample
from tag2mask.data.loading import photo_batches, tile_batches
from tag2mask.devices import half_precision
from tag2mask.distributed import copy_main, gather, is_main, share
from tag2mask.errors import DataError
from tag2mask.networks.backbones import LAST, Backbone, check_network
from tag2mask.networks.speed import folded_backbone
from tag2mask.networks.weights import load_tensors, load_weights, refusing, save_tensors


@dataclass
class Classified:
    """What the classifier sees in a batch.

    Attributes:
        logits: float N x C, one per foreground class.
        features: float N x D x h x w by layer name.
    """

    logits: Tensor
    features: dict[str, Tensor]


class Classifier(nn.Module):
    """Image-level classifier: logits = W GAP(T) + b, a sigmoid per class.

    Args:
        backbone: gives the feature maps; ``last`` is pooled.
        classes: names of the C foreground classes.
    """

    def __init__(self, backbone: Backbone, classes: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.classes = backbone, tuple(classes)
        self.head = nn.Linear(backbone.channels[LAST], len(classes))

    def forward(self, images: Tensor) -> Classified:
        """Classify images, N x 3 x H x W, RGB, 0..255."""
        return self.classify(self.backbone(images))

    def classify(self, features: dict[str, Tensor]) -> Classified:
        """Classify images by the backbone's features."""
        return Classified(self.head(features[LAST].mean((2, 3))), features)

    def activation(self, last: Tensor) -> Tensor:
        r"""Return the class activation maps, $M_c(u) = w_c^T t_u$ (Zhou et al. 2016, Eq. 2).

        Args:
            last: N x D x h x w, the feature map that is pooled.

        Returns:
            N x C x h x w.
        """
        return functional.conv2d(last, self.head.weight[:, :, None, None])

    def save(self, file: str | Path) -> None:
        """Write the network and how to build it as safetensors."""
        about = {
            "backbone": self.backbone.name,
            "layers": self.backbone.layers,
            "output_stride": self.backbone.output_stride,
            "classes": list(self.classes),
        }
        save_tensors(file, self.state_dict(), "a classifier", about)

    @classmethod
    def load(
        cls, file: str | Path, layers: Sequence[str] | None = None, output_stride: int | None = None
    ) -> Classifier:
        """Read what `save` wrote, in evaluation mode.

        Args:
            file: the file.
            layers: of the backbone to give; None for those that it was saved with.
            output_stride: of the backbone; None for the one that it was saved with.

        Raises:
            WeightsError: the file is missing, corrupt or not of a classifier.
        """
        tensors, about = load_tensors(file, "a classifier")
        with refusing(file):
            check_network(about["backbone"], tensors, file)
            stride = output_stride or about["output_stride"]
            backbone = Backbone(about["backbone"], layers or about["layers"], output_stride=stride, weights="random")
            classifier = cls(backbone, about["classes"])
            load_weights(classifier, tensors, str(file))
        return classifier.eval()


def targets_of(labels: Iterable[tuple[int, ...]], classes: int) -> Tensor:
    """Return image-level labels as float N x C of zeros and ones.

    >>> targets_of([(1, 3), ()], 3)
    tensor([[1., 0., 1.],
            [0., 0., 0.]])
    """
    rows = list(labels)
    targets = torch.zeros(len(rows), classes)
    for row, present in enumerate(rows):
        targets[row, [label - 1 for label in present]] = 1
    return targets


def train_head(
    classifier: Classifier,
    samples: Sequence[Sample],
    *,
    size: int,
    steps: int = 200,
    learning_rate: float = 1e-2,
    weight_decay: float = 1e-4,
    tiles: TilesConfig | None = None,
    workers: int = 1,
    strict: bool = False,
) -> None:
    """Fit the linear layer on the frozen backbone's pooled features of the photos and their mirror images.

    Args:
        classifier: its ``head`` is set in place.
        samples: the photos with their image-level labels; the backbone runs twice over each, no more.
        size: side of the square input in pixels.
        steps: as in `fit_head`.
        learning_rate: as in `fit_head`.
        weight_decay: as in `fit_head`.
        tiles: each photo's features are pooled over these; None for whole photos.
        workers: processes that decode.
        strict: raise for an unreadable photo instead of skipping it.
    """
    backbone, mine = folded_backbone(classifier.backbone), list[tuple[list[tuple[int, ...]], Tensor]]()
    for batch, features in pooled_features(
        backbone, share(samples), size, tiles, workers=workers, strict=strict, label="classifier", mirrored=True
    ):
        mine.append(([sample.labels for sample in batch] * 2, features))
    parts = [part for theirs in gather(mine) for part in theirs]
    if is_main():
        if not parts:
            raise DataError("none of the photos can be read; see the lines above")
        targets = targets_of((labels for rows, _ in parts for labels in rows), len(classifier.classes))
        pooled = torch.cat([features for _, features in parts])
        mine.clear()  # of many photos they take much memory
        parts.clear()
        fit_head(classifier.head, pooled, targets, steps=steps, learning_rate=learning_rate, weight_decay=weight_decay)
    copy_main([classifier.head.weight.data, classifier.head.bias.data])


def pooled_features(
    backbone: Backbone,
    samples: Sequence[Sample],
    size: int,
    tiles: TilesConfig | None,
    *,
    workers: int,
    strict: bool,
    label: str,
    mirrored: bool = False,
) -> Iterator[tuple[list[Sample], Tensor]]:
    """Yield photos with the mean of the deepest feature map over each, or over its tiles together.

    Args:
        backbone: in evaluation mode.
        samples: the photos.
        size: side of the square input in pixels.
        tiles: inputs are these; None for whole photos.
        workers, strict, label: as for `photo_batches`.
        mirrored: of the photos' mirror images too, after those of the photos.

    Yields:
        N photos and their features, float N x D or 2 N x D.
    """
    device = backbone.mean.device

    def mean(images: Tensor) -> Tensor:
        with torch.no_grad(), half_precision(device):
            both = torch.cat([images, images.flip(3)]) if mirrored else images
            return backbone(both.to(device))[LAST].float().mean((2, 3)).cpu()

    how: dict[str, Any] = {"workers": workers, "strict": strict, "label": label}
    if tiles is None:
        yield from ((batch, mean(images)) for batch, images in photo_batches(samples, size, **how))
        return
    for sample, parts in groupby(tile_batches(samples, size, tiles, **how), key=itemgetter(0)):
        means = torch.cat([mean(images).view(1 + mirrored, len(images), -1) for *_, images in parts], 1)
        yield [sample], means.mean(1)


def fit_head(
    head: nn.Linear,
    pooled: Tensor,
    targets: Tensor,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
) -> None:
    """Fit a linear layer alone on pooled features, by Adam on the whole set at once.

    Features are standardised for the fit and the result folded back into the layer, so that the layer
    applies to features as they are.

    Args:
        head: set in place.
        pooled: float N x D.
        targets: float N x C of zeros and ones.
        steps: of Adam.
        learning_rate: of Adam.
        weight_decay: decoupled, on the weights of standardised features.
    """
    mean, std = pooled.mean(0), pooled.std(0).clamp_min(1e-6)
    standard = (pooled - mean).div_(std)
    weight = torch.zeros(targets.shape[1], pooled.shape[1], requires_grad=True)
    bias = torch.logit(targets.mean(0).clamp(1e-3, 1 - 1e-3)).requires_grad_()
    groups = [{"params": [weight], "weight_decay": weight_decay}, {"params": [bias], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate)
    for _ in range(steps):
        loss = functional.binary_cross_entropy_with_logits(standard @ weight.T + bias, targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        head.weight.copy_(weight / std)
        head.bias.copy_(bias - (weight / std) @ mean)
