"""Figure 1: the features of a class on the two leading components of its semantic subset."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tag2mask.data import ImageSet
from tag2mask.data.loading import photo_batches
from tag2mask.names import IGNORE
from tag2mask.networks.classifier import Classifier
from tag2mask.patterns import ClassPatterns
from tag2mask.patterns.collect import choose_subsets, collect_moments
from tag2mask.patterns.eigen import leading_eigenpairs
from tag2mask.patterns.moments import Moments
from tag2mask.reproduce.figures import Dots, Pixels

DOTS, PHOTOS = 2000, 40
"""How many positions are drawn, and from how many photos at the most."""


def class_dots(classifier: Classifier, data: ImageSet, patterns: Mapping[str, ClassPatterns], label: int) -> list[Dots]:
    r"""Return some positions of a class's photos on its two leading components, by layer.

    $((t_u - \bar t_c)^T \xi_1, (t_u - \bar t_c)^T \xi_2)$, where the components are those of the whole semantic
    subset and the first coordinate is the score of Eq. 3. True masks colour the dots and do nothing else.

    Args:
        classifier: gives the features of all layers; in evaluation mode.
        data: the training photos.
        patterns: by layer.
        label: of the class, 1..C.
    """
    first = next(iter(patterns.values()))
    names = dict(zip(patterns, classifier.backbone.layers, strict=True))
    subsets = choose_subsets(data, first.images_per_class, first.seed)
    subset = [sample for sample in data.samples if label in subsets.get(sample.name, ())]
    batches = photo_batches(subset, first.size, workers=first.workers, label="components")
    moments = collect_moments(classifier, batches, {sample.name: [label] for sample in subset})
    found = {layer: _components(moments[name, label], patterns[layer], label) for layer, name in names.items()}

    random.Random(first.seed).shuffle(subset)
    known = ((sample, truth) for sample in subset if (truth := data.truth(sample)) is not None)
    shown = {sample.name: (sample, truth) for sample, truth in islice(known, PHOTOS)}
    points: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    classes: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for samples, images in photo_batches([sample for sample, _ in shown.values()], first.size, workers=first.workers):
        with torch.inference_mode():
            features = classifier(images.to(classifier.head.weight.device)).features
        for layer, (mean, axes, _) in found.items():
            maps = features[names[layer]].cpu().permute(0, 2, 3, 1)
            points[layer].append(((maps - mean) @ axes).reshape(-1, 2).numpy())
            classes[layer] += [_at_positions(shown[s.name][1], maps.shape[1:3], label) for s in samples]
    return [
        _draw(layer, np.concatenate(points[layer]), np.concatenate(classes[layer]), found[layer][2], first.seed)
        for layer in patterns
    ]


def _components(moments: Moments, patterns: ClassPatterns, label: int) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Return the mean, the two leading components as columns, and their shares of the variance."""
    covariance = (moments.scatter / moments.count).cpu().numpy()
    values, vectors = leading_eigenpairs(covariance, 2)
    axes = torch.from_numpy(vectors.copy()).float()
    axes[:, 0] *= (axes[:, 0] @ patterns.directions_[label - 1]).sign()
    first, second = values / np.trace(covariance)
    return moments.mean.float().cpu(), axes, (float(first), float(second))


def _at_positions(truth: Pixels, size: tuple[int, int], label: int) -> Pixels:
    """Return at each position, row by row: 0 background, 1 the class, 2 another class, 255 ignored."""
    small = np.asarray(Image.fromarray(truth).resize(size[::-1], Image.Resampling.NEAREST)).ravel()
    return np.select([small == 0, small == label, small == IGNORE], [0, 1, IGNORE], 2).astype(np.uint8)


def _draw(layer: str, points: np.ndarray, truth: Pixels, explained: tuple[float, float], seed: int) -> Dots:
    kept = np.flatnonzero(truth != IGNORE)
    drawn = np.random.default_rng(seed).permutation(kept)[:DOTS]
    return Dots(layer, points[drawn], truth[drawn], explained)
