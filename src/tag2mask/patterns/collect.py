"""One pass over the photos: draw the semantic subsets and add up their moments, over all processes."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from tag2mask.config import TilesConfig
from tag2mask.data import ImageSet, Sample
from tag2mask.data.loading import photo_batches, tile_batches
from tag2mask.devices import half_precision, with_float64
from tag2mask.distributed import gather, of_main, total, world
from tag2mask.networks.backbones import LAST
from tag2mask.networks.classifier import Classifier, targets_of
from tag2mask.networks.speed import folded_backbone
from tag2mask.patterns.moments import Moments
from tag2mask.patterns.orientation import EVIDENCE, evidence_maps, fit_evidence
from tag2mask.tiles import place_in

Batch: TypeAlias = tuple[Sequence[Sample], Tensor] | tuple[Sequence[Sample], Tensor, Tensor]
"""Photos and their pixels; or of tiles their photos, their pixels and their places."""


def batches_of(
    samples: Sequence[Sample], size: int, tiles: TilesConfig | None, *, workers: int, strict: bool
) -> Iterator[Batch]:
    """Yield batches of photos, or of their tiles with their places, for `collect_moments`."""
    if tiles is None:
        yield from photo_batches(samples, size, workers=workers, strict=strict, label="moments")
        return
    for sample, shape, some, images in tile_batches(
        samples, size, tiles, workers=workers, strict=strict, label="moments"
    ):
        yield [sample] * len(some), images, torch.tensor([place_in(shape, tile) for tile in some])


def choose_subsets(data: ImageSet, images_per_class: int, seed: int, rest: bool = False) -> dict[str, list[int]]:
    """Draw each class's semantic subset and return, by photo name, the classes that it is drawn for.

    A photo with two classes is in two subsets. The draw depends on the seed and the data alone.

    Args:
        data: photos with image-level labels.
        images_per_class: at most this many in a subset.
        seed: of the draw.
        rest: add what tells the photos without a class: 0 to every photo, -c to one of class c that is not drawn for
            it, and as many photos without any class as may be in a subset.
    """
    drawn: dict[str, list[int]] = defaultdict(list)

    def draw(names: list[str], label: int) -> list[str]:
        return (
            names
            if len(names) <= images_per_class
            else random.Random(f"{seed}/{label}").sample(names, images_per_class)
        )

    for label in range(1, len(data.classes) + 1):
        for name in draw(sorted(sample.name for sample in data.samples if label in sample.labels), label):
            drawn[name].append(label)
    if not rest:
        return drawn
    for name in draw(sorted(sample.name for sample in data.samples if not sample.labels), 0):
        drawn[name] = []
    for sample in data.samples:
        if sample.name in drawn:
            undrawn = (-label for label in sample.labels if label not in drawn[sample.name])
            drawn[sample.name] += [0, *undrawn]
    return drawn


def collect_moments(
    classifier: Classifier, batches: Iterable[Batch], subsets: dict[str, list[int]]
) -> dict[tuple[str, int], Moments]:
    """Run every photo once and return the moments by layer and class index.

    Args:
        classifier: in evaluation mode; its backbone's ``layers`` are used.
        batches: of photos, as `photo_batches` yields them, or of tiles with their places (`evidence_maps`).
        subsets: as `choose_subsets` returns them; class indices that are not positive have the activations of a
            photo's classes together as evidence.
    """
    moments: dict[tuple[str, int], Moments] = {}
    device, backbone = classifier.head.weight.device, folded_backbone(classifier.backbone)
    sums = with_float64(device)
    for samples, images, *places in batches:
        with torch.inference_mode(), half_precision(device):
            features = backbone(images.to(device))
            activation = classifier.activation(features[LAST]).float().to(sums)
            norm = features[LAST].float().norm(dim=1).to(sums)
        present = targets_of((sample.labels for sample in samples), activation.shape[1]).to(activation)
        together = torch.einsum("nchw,nc->nhw", activation, present)
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row, sample in enumerate(samples):
            alike[tuple(subsets[sample.name])].append(row)
        for labels, rows in alike.items():
            seen = (activation[rows, label - 1] if label > 0 else together[rows] for label in labels)
            evidence = torch.cat([evidence_maps(maps, norm[rows], *(one[rows] for one in places)) for maps in seen], 1)
            for layer in classifier.backbone.layers:
                maps = features[layer][rows].float().to(sums)
                new = Moments.of(
                    maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]),
                    fit_evidence(evidence, maps).permute(1, 0, 2, 3).flatten(1),
                )
                for label, part in zip(labels, new.per_class(len(labels)), strict=True):
                    key = (layer, label)
                    moments[key] = moments[key].update(part) if key in moments else part.copy()
    return moments


def merge_processes(
    moments: dict[tuple[str, int], Moments], channels: dict[str, int], device: torch.device
) -> dict[tuple[str, int], Moments]:
    r"""Return the moments of all processes together, the same in each; alone, return what came in.

    `Moments.merge` of many at once, in sums over processes p: $\bar t = \frac1K \sum_p K_p \bar t_p$, and
    $\sum_p \big( S_p + K_p (\bar t_p - \bar t)(\bar t_p - \bar t)^T \big)$.

    Args:
        moments: this process's, by layer and class index.
        channels: of each layer.
        device: where the network is.
    """
    if world() == 1:
        return moments
    for key in of_main(sorted({key for theirs in gather(list(moments)) for key in theirs})):
        if key not in moments:
            nothing = torch.zeros(1, channels[key[0]], device=with_float64(device))
            moments[key] = replace(Moments.of(nothing, nothing.new_zeros(len(EVIDENCE), 1)).copy(), count=0)
        mine = moments[key]
        count = int(total(torch.tensor(mine.count)))
        mean = total(mine.mean * (mine.count / count))
        delta = mine.mean - mean
        mine.scatter.addr_(delta, delta, alpha=mine.count)
        moments[key] = Moments(count, mean, total(mine.scatter), total(mine.cross), total(mine.energy))
    return moments
