"""What a recipe leaves to the data (`auto`), chosen before anything is trained: each value with its reason."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.config import AffinityConfig, TilesConfig, with_values
from tag2mask.data import ImageSet, photo_size
from tag2mask.distributed import barrier, gather, is_main, of_main, share
from tag2mask.errors import DataError
from tag2mask.files import write_text
from tag2mask.methods import load_method
from tag2mask.names import Teaching
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.classifier import Classifier, train_head
from tag2mask.patterns import ClassPatterns
from tag2mask.runs.folder import Run, write_config

log = logging.getLogger("tag2mask")

SIZES = (328, 656)
"""Sides of the square that a whole photo, or a tile, is seen as: for large and for small objects."""

ENLARGED = 2.5
"""By how much a photo may be enlarged: more shows nothing new."""

LONG = 1.5
"""Photos whose sides differ by this factor or more are not squashed into a square where objects are small."""

TENTH = 10
"""What is finer than this part of the side of what is seen is detail."""

SMALL = 0.28
"""Objects are small where more than this share of their scores' variance is detail."""

LOOKED_AT, A_CLASS = 64, 6
"""Photos that the first look is at, and at least so many of each class."""

ENOUGH = 400
"""Photos of a class from which a pattern is found that is nearly that of all (docs/results.md)."""


class Choice(NamedTuple):
    """A value for a parameter of the recipe, and why."""

    key: str
    value: Any
    reason: str


def plan(run: Run) -> None:
    """Choose what the recipe leaves to the data, say why, and write it to ``config.yaml`` and ``plan.json``."""
    chosen = [choice for choice in choices(run) if choice.key in run.recipe.auto]
    for key, value, reason in chosen:
        log.info("%s: %s (%s)", key, json.dumps(value), reason)
    run.recipe = with_values(run.recipe, {choice.key: choice.value for choice in chosen})
    if is_main():
        write_config(run)  # before the file that ends the stage
        write_text(run.out / "plan.json", json.dumps([choice._asdict() for choice in chosen], indent=2) + "\n")
    barrier()


def choices(run: Run) -> Iterator[Choice]:
    """Yield a value for every parameter that can be left to the data."""
    data = run.train
    counts = data.images_per_class()
    if all(count == len(data) for count in counts.values()):
        why = "every photo has every class, so there is nothing to compare them with"
        yield from (Choice(key, 0.0, why) for key in ("proxy.cam_weight", "patterns.contrast", "patterns.whitening"))
    else:
        least = min(len(data) - count for count in counts.values())
        why = f"there are photos without each class, {least} or more" if least else "there are photos without a class"
        yield Choice("proxy.cam_weight", 1.5, why)
        yield Choice("patterns.contrast", 0.3, why)
        yield Choice("patterns.whitening", 1.0, why)
    if load_method(run.recipe.proxy.method).finds_patterns:
        yield from sizes(run)


def sizes(run: Run) -> Iterator[Choice]:
    """Yield how large photos, or their tiles, are to the networks, from first looks at some of them."""
    classifier, size, tiles, why = None, SIZES[0], None, "photos are too small for a closer look"
    for closer, parts in enumerate(looks(run.train)):
        if parts and (run.recipe.segmenter.method != Teaching.PLAIN or load_method(run.recipe.proxy.method).learns):
            break  # they need whole photos
        some = first_photos(run.train, run.recipe.seed, closer)
        classifier = classifier or first_classifier(run, some)
        found = detail(run, classifier, some, parts)
        if found <= SMALL and size == SIZES[0]:
            why = f"objects seem large: {found:.0%} of what scores vary by is finer than a tenth of the side"
        if found <= SMALL:
            break
        size, tiles = SIZES[1], parts
        why = f"objects seem small: {found:.0%} of what scores vary by is finer than a tenth of the side that is seen"
    yield Choice("patterns.size", size, why)
    yield Choice("segmenter.size", size, "as patterns.size")
    yield Choice("inference.scales", [size], "as patterns.size")
    yield Choice("tiles", tiles and tiles.model_dump(), why)
    if size == SIZES[0]:
        walk = run.recipe.proxy.affinity or AffinityConfig()
        yield Choice("proxy.affinity", walk.model_dump(), "objects are large enough for a random walk")
    else:
        yield Choice("proxy.affinity", None, "a random walk would lose what is small")


def looks(data: ImageSet) -> Iterator[TilesConfig | None]:
    """Yield what to see at `SIZES[1]`, ever closer: photos or their tiles, none enlarged more than `ENLARGED` times.

    First whole photos, or squares of their shorter side where they are `LONG`; then tiles of half that side, and so on.
    """
    shapes = []
    for sample in data.samples[:: 1 + len(data) // LOOKED_AT]:
        with suppress(DataError):
            shapes.append(photo_size(sample.image))
    if not shapes:
        return
    longer, shorter = (int(median(map(of, shapes))) for of in (max, min))
    least = SIZES[1] / ENLARGED
    if longer >= LONG * shorter and shorter >= least:
        side = shorter
    else:
        side = shorter // 2
        if longer >= least:
            yield None
    while side >= least:
        yield TilesConfig(side=side, overlap=side // 4)
        side //= 2


def first_photos(data: ImageSet, seed: int, closer: int = 0) -> ImageSet:
    """Return some photos: so many of each class, and half of `LOOKED_AT` without any.

    Args:
        data: the training photos, two of each class or more.
        seed: of the draw.
        closer: which look they are for; half as many for each after the first, as there are ever more tiles.
    """
    samples = list(data.samples)
    random.Random(seed).shuffle(samples)
    each = max(2, max(A_CLASS, LOOKED_AT // len(data.classes)) >> closer)
    counts, drawn = Counter[int](), []
    for sample in samples:
        kinds = sample.labels or (0,)
        if any(counts[kind] < (each if kind else LOOKED_AT // 2 >> closer) for kind in kinds):
            counts.update(kinds)
            drawn.append(sample)
    return data.with_samples(tuple(drawn))


def first_classifier(run: Run, some: ImageSet) -> Classifier:
    """Return a classifier of the recipe's frozen backbone and first layer, trained on some photos."""
    recipe, how = run.recipe, run.recipe.patterns
    torch.manual_seed(recipe.seed)
    backbone = Backbone(
        recipe.backbone.name, how.layers[:1], output_stride=how.output_stride, weights=recipe.backbone.weights
    )
    classifier = Classifier(backbone, some.classes).eval().to(run.device)
    train_head(classifier, some.samples, size=SIZES[0], workers=recipe.workers, strict=run.strict)
    return classifier


def detail(run: Run, classifier: Classifier, some: ImageSet, tiles: TilesConfig | None) -> float:
    """Return what share of the variance of pattern scores is finer than a tenth of the side of what is seen, 0 to 1.

    Args:
        run: its recipe's first layer is used.
        classifier: of the recipe's backbone.
        some: photos with image-level labels.
        tiles: what is seen; None for whole photos.
    """
    recipe, how = run.recipe, run.recipe.patterns
    patterns = ClassPatterns(
        recipe.backbone.name, how.layers[0], weights=recipe.backbone.weights, size=SIZES[1],
        output_stride=how.output_stride, contrast=how.contrast, whitening=how.whitening, tiles=tiles,
        seed=recipe.seed, workers=recipe.workers,
    ).fit(some, classifier)  # fmt: skip
    block = max(1, SIZES[1] // how.output_stride // TENTH)
    tagged = [sample for sample in some.samples if sample.labels]
    mine = [
        (label, finer_than(scores[label - 1], block))
        for sample, scores in patterns.scores_of(share(tagged), strict=run.strict, label="first look")
        for label in sample.labels
    ]
    shares = [pair for theirs in gather(mine) for pair in theirs]
    by_class = [fmean(share for label, share in shares if label == one) for one in {label for label, _ in shares}]
    return of_main(fmean(by_class) if by_class else 0.0)


def finer_than(scores: Tensor, block: int) -> float:
    """Return the share of the variance of scores, float h x w, that is lost in the means of blocks, 0 to 1.

    >>> import torch
    >>> stripes = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).repeat(2, 2)
    >>> finer_than(stripes, 1), finer_than(stripes, 2)
    (0.0, 1.0)
    """
    height, width = (side // block * block for side in scores.shape)
    whole = scores[None, :height, :width]
    variance = float(whole.var(correction=0))
    return 1 - float(functional.avg_pool2d(whole, block).var(correction=0)) / variance if variance else 0.0
