r"""MCOF (Wang et al. 2018): what regions of a class have in common finds more of its regions, in turn with a segmenter.

Published and kept: seeds are superpixels where the class activation map is high; a region classifier learns from them
and, told the photo's tags, labels all superpixels (bottom-up); a segmenter learns from these and its masks are the next
seeds (top-down); and so on.

Filled in, as the text could not be read: superpixels are basins of a watershed of the grey photo, from a grid of
markers where it is even; a region is classified by what its positions have in common, the mean of their logits,

$z_c(R) = \frac{1}{|R|} \sum_{u \in R} z_c(u)$;

two rounds, the second of which ends with the regions.

Replaced: VGG16, fine-tuned for both networks, by the recipe's frozen backbone with a head of 64 channels for each of
its deeper layers: of positions alone for regions, with a dilated convolution for the segmenter, and by the recipe's
segmenter for the last. Saliency, by which the first regions were refined, by the shared rule: seeds are a class above
20% of its maximum and background below 5%; at the end a class is what exceeds background by ``proxy.cam_thresholds``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.config import Recipe
from tag2mask.methods.base import Features, Network
from tag2mask.methods.cam import SEED_SHARES, AgainstBackground, against_background, normalised_cam
from tag2mask.names import IGNORE
from tag2mask.networks.backbones import LAST
from tag2mask.networks.classifier import Classifier
from tag2mask.resize import masks_like, resize, resize_like
from tag2mask.training.heads import Lesson, learn_on_features, narrowed, seeing, write_labels

ROUNDS, ACROSS, WIDTH, DILATION = 2, 14, 64, 4
"""Rounds; superpixels across a photo; channels of each layer in a head; dilation of the segmenter's convolution."""


class LayersHead(nn.Module):
    """Logits of background and the classes from several feature maps, at the size of the first.

    Args:
        channels: of the feature maps.
        classes: how many, without background.
        dilation: of a convolution of 3 x 3 on them; 0 for none, so that each position is judged alone.
    """

    def __init__(self, channels: Sequence[int], classes: int, dilation: int = 0) -> None:
        super().__init__()
        width = WIDTH * len(channels)
        self.parts = nn.ModuleList(narrowed(size, WIDTH) for size in channels)
        self.around = seeing(width, WIDTH, dilation=dilation) if dilation else nn.Identity()
        self.judge = nn.Conv2d(WIDTH if dilation else width, classes + 1, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return float N x (1 + C) x h x w."""
        seen = [part(one) for part, one in zip(self.parts, maps, strict=True)]
        return self.judge(self.around(torch.cat([seen[0], *(resize_like(one, seen[0]) for one in seen[1:])], 1)))


def superpixels(image: Tensor, across: int = ACROSS) -> Tensor:
    """Return the number of each position's superpixel, int64 h x w, for every second row and column of a photo.

    Args:
        image: 3 x H x W, RGB, 0..255.
        across: superpixels in a row and in a column, where there is room for them.
    """
    half = functional.avg_pool2d(image[None].float(), 2)[0].cpu().numpy()
    across = min(across, *half.shape[1:])
    steep = np.max([ndimage.gaussian_gradient_magnitude(channel, 1.0) for channel in half], 0)
    rows, columns = (np.arange(size) * across // size for size in steep.shape)
    cells = rows[:, None] * across + columns
    markers = np.zeros(steep.shape, np.int32)
    for number, place in enumerate(ndimage.minimum_position(steep, cells, range(across**2)), 1):
        markers[place] = number
    grey = ndimage.gaussian_filter(half.mean(0), 0.5)  # the transform sees differences of neighbours itself
    basins = ndimage.watershed_ift(np.clip(grey, 0, 255).astype(np.uint8), markers)
    # In some photos scipy leaves a few pixels out; they go to the superpixel of their cell.
    return torch.from_numpy(np.where(basins > 0, basins - 1, cells).astype(np.int64))


def over_regions(maps: Tensor, regions: Tensor) -> Tensor:
    """Return maps in which each region has its mean, float K x h x w.

    Args:
        maps: float K x h' x w', resized to the regions.
        regions: int64 h x w, 0 and up.

    >>> over_regions(torch.tensor([[[1.0, 3.0, 5.0]]]), torch.tensor([[0, 0, 1]])).tolist()
    [[[2.0, 2.0, 5.0]]]
    """
    flat = resize(maps[None].float().cpu(), regions.shape)[0].flatten(1)
    which = regions.flatten()
    count = torch.bincount(which).clamp_min(1)
    sums = torch.zeros(len(flat), len(count)).index_add_(1, which, flat)
    return (sums / count)[:, which].view(len(flat), *regions.shape)


def seeds(shares: Tensor, labels: Sequence[int]) -> Tensor:
    """Return the label of each position: of the largest share if it is above 0.2, 0 where all are below 0.05, else 255.

    Args:
        shares: float L x h x w, of the labels.
        labels: class indices, 1..C.

    >>> seeds(torch.tensor([[[0.0, 0.1, 0.3, 0.4]], [[0.0, 0.0, 0.9, 0.0]]]), [3, 7]).tolist()
    [[0, 255, 7, 3]]
    """
    low, high = SEED_SHARES
    largest, which = shares.max(0)
    found = torch.tensor(labels)[which]
    return torch.where(largest > high, found, torch.where(largest < low, 0, IGNORE)).to(torch.uint8)


def labelled(
    model: nn.Module, layers: Sequence[str], image: Tensor, features: Features, labels: Sequence[int]
) -> Tensor:
    """Return what a photo's superpixels are, given its labels, uint8 h x w.

    Args:
        model: a `LayersHead`.
        layers: that it looks at.
        image: 3 x H x W, RGB, 0..255.
        features: float 1 x D x h x w by layer.
        labels: class indices, 1..C.
    """
    names = torch.tensor([0, *labels])
    logits = model([features[layer] for layer in layers])[0, names]
    return names[over_regions(logits, superpixels(image)).argmax(0)].to(torch.uint8)


def region_loss(layers: Sequence[str], model: Any, features: Features, masks: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of a `LayersHead` and masks, uint8 N x H x W, over positions that are not 255."""
    found = model([features[layer] for layer in layers]).float()
    small = masks_like(masks, found)
    summed = functional.cross_entropy(found, small, ignore_index=IGNORE, reduction="sum")
    return summed / (small != IGNORE).sum().clamp_min(1)


class Mcof(AgainstBackground):
    r"""$p_c / (p_c + p_{bg} (1 - \tau) / \tau)$ of superpixels: above $\tau$ where the class exceeds background."""

    title = "MCOF"

    def build(self, classifier: Classifier, recipe: Recipe) -> nn.Module:
        """Return the region classifier."""
        channels = [classifier.backbone.channels[layer] for layer in classifier.backbone.layers]
        return LayersHead(channels, len(classifier.classes))

    def learn(self, module: Any, lesson: Lesson) -> None:
        """Train the region classifier on seeds, which are in a folder meanwhile, in turn with a segmenter."""
        classifier, size, layers = lesson.classifier, lesson.recipe.segmenter.size, lesson.classifier.backbone.layers
        folder = lesson.checkpoint.with_name("regions")
        channels = [classifier.backbone.channels[layer] for layer in layers]

        def by_maps(image: Tensor, features: Features, labels: Sequence[int]) -> Tensor:
            shares = normalised_cam(classifier.activation(features[LAST]))[0, [label - 1 for label in labels]]
            return seeds(over_regions(shares, superpixels(image)), labels)

        write_labels(lesson, folder, size, by_maps, "seeds")
        parts: list[tuple[nn.Module, str]] = [(module, "regions")]
        for _ in range(ROUNDS - 1):
            segmenter = LayersHead(channels, len(classifier.classes), DILATION).to(classifier.head.weight.device)
            parts += [(segmenter, "segmenter of regions"), (module, "regions")]
        steps = [
            replace(lesson, checkpoint=lesson.checkpoint.with_stem(f"{lesson.checkpoint.stem}-{number}"), label=label)
            for number, (_, label) in enumerate(parts)
        ]
        for (model, label), step in zip(parts, steps, strict=True):
            learn_on_features(model, step, partial(region_loss, layers), folder)
            if step is not steps[-1]:
                write_labels(lesson, folder, size, partial(labelled, model, layers), label, lesson.kept)
        shutil.rmtree(folder, ignore_errors=True)

    def see(self, network: Network, images: Tensor, labels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the classes' shares of superpixels, and class activations, float N x C x h x w each."""
        even = network.recipe.proxy.cam_thresholds[1]
        with torch.inference_mode():
            features = network.features(images)
            activation = network.classifier.activation(features[LAST])
            found = network.learnt([features[layer] for layer in network.backbone.layers])
            scores = []
            for image, logits, present in zip(images, found, labels, strict=True):
                regions = superpixels(image)
                scores.append(torch.zeros(len(logits) - 1, *regions.shape))
                if present:
                    shares = over_regions(logits[[0, *present]], regions).softmax(0)
                    scores[-1][[label - 1 for label in present]] = against_background(shares, even)
            return torch.stack(scores).to(activation), activation


METHOD = Mcof()
