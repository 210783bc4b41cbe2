"""Proxy masks: the scores of a photo's classes by a method, Algorithm 1, and the CRF on the photos that it is for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tag2mask.config import Recipe
from tag2mask.crf import dense_crf, prepare
from tag2mask.data import Sample, write_mask
from tag2mask.data.loading import as_tensor, read_ahead, square, squares_of
from tag2mask.distributed import barrier, is_main, share
from tag2mask.inference import without_mask
from tag2mask.methods import load_method
from tag2mask.methods.base import Method, Network
from tag2mask.names import IGNORE, CrfUse
from tag2mask.networks.backbones import pyramid_layers
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.speed import folded_backbone
from tag2mask.patterns import ClassPatterns
from tag2mask.progress import duration, track
from tag2mask.proxy import assign, beyond_peak_share, score_probabilities, settle
from tag2mask.resize import resize_like, resize_part
from tag2mask.runs.choices import Evidence, add_photo, as_offsets, chosen
from tag2mask.runs.corrected import corrected_mask
from tag2mask.runs.folder import Run, check_classes
from tag2mask.runs.learnt import has_affinities, load_affinities, load_learnt
from tag2mask.runs.scores import scores_to_keep
from tag2mask.runs.views import views_of
from tag2mask.threads import map_ahead
from tag2mask.tiles import parts_of, tiles_of
from tag2mask.training.affinity import walk

log = logging.getLogger("tag2mask")
Job: TypeAlias = tuple[Sample, NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32], Tensor | None]
"""A photo, its scores, its class activations, and features whose likeness is the affinity of positions."""

SHARES = 0.2
"""What counts as a standard deviation in scores that are shares of a maximum."""

LOWEST = -1.5
"""Standard deviations below its threshold from which on a score is as low as can be, before a random walk."""

_TOGETHER = 8
"""Photos that go through the network at once."""


def estimate(run: Run) -> None:
    """Write the training photos' proxy masks (Algorithm 1) to ``proxy/``; corrected masks stand there as they are."""
    method, recipe, corrections = load_method(run.recipe.proxy.method), run.recipe, run.corrections
    networks, kept = load_networks(run), scores_to_keep(run)
    prepare_crf(recipe.proxy.crf != CrfUse.NONE)
    choices = choose(run, networks) if corrections.masks else {}
    shifts = as_offsets(choices, run.train.classes)

    def write(job: Job) -> None:
        sample, photo, scores, activation, alike = job
        if kept:
            kept.write(sample, torch.from_numpy(scores), torch.from_numpy(activation))
        mask = method.finish(estimate_mask(photo, scores, sample.labels, recipe, activation, shifts, alike))
        write_mask(run.out / "proxy" / f"{sample.name}.png", mask)

    todo = without_mask(share(run.train.samples), run.out / "proxy")
    for sample in todo:
        if sample.name in corrections.masks:
            write_mask(run.out / "proxy" / f"{sample.name}.png", corrected_mask(sample, corrections, len(shifts)))
    todo = [sample for sample in todo if sample.name not in corrections.masks]
    seen = looks(run, networks, todo, kept.labels if kept else None)
    for _ in track(map_ahead(write, seen), len(todo), "proxy masks"):
        pass


def choose(run: Run, networks: Sequence[Network]) -> dict[str, dict[str, float]]:
    """Return, and record as ``corrections``, what the corrected masks choose for each class."""
    how, corrections, classes = run.recipe.refine, run.corrections, run.train.classes
    spread = how.spread * (SHARES if load_method(run.recipe.proxy.method).in_shares else 1)
    evidence = {label: Evidence() for label in range(1, len(classes) + 1)}
    samples = [sample for sample in run.train.samples if sample.name in corrections.masks and sample.labels]
    seen = looks(run, networks, samples)
    for sample, _, scores, activation, alike in track(seen, len(samples), "corrected photos"):
        tagged = tagged_scores(scores, sample.labels, run.recipe, activation, alike=alike)
        mask = corrected_mask(sample, corrections, len(classes))
        add_photo(evidence, tagged, sample.labels, mask, spread)
    choices = chosen(evidence, classes, spread, how.temperature)
    run.record("corrections", {"photos": len(corrections.masks), "thresholds": choices})
    return choices


def looks(
    run: Run,
    networks: Sequence[Network],
    samples: Sequence[Sample],
    concerned: Callable[[Sample], Sequence[int]] | None = None,
) -> Iterator[Job]:
    """Yield photos with the scores and class activations of their tags, or of the classes concerned.

    Those of several views are averaged.
    """
    method, recipe = load_method(run.recipe.proxy.method), run.recipe
    photos = read_ahead(samples, recipe.workers, run.strict)
    for sample, photo in photos if recipe.tiles else ():
        views = [look_at_tiles(network, method, photo, sample.labels) for network in networks]
        scores, activation = (_mean([one[None] for one in maps])[0].cpu().numpy() for maps in zip(*views, strict=True))
        yield sample, photo, scores, activation, None
    while chunk := list(islice(photos, _TOGETHER)):
        labels = [concerned(sample) if concerned else sample.labels for sample, _ in chunk]
        views, alike = [], None
        for network in networks:
            squares = torch.stack([as_tensor(square(photo, network.recipe.patterns.size)) for _, photo in chunk])
            squares = squares.to(run.device)
            views.append(method.look(network, squares, labels))
            alike = network.alike(squares) if alike is None else alike
        scores, activations = (_mean(maps).cpu().numpy() for maps in zip(*views, strict=True))
        likenesses = [None] * len(chunk) if alike is None else alike.float().cpu()
        for (sample, photo), *maps in zip(chunk, scores, activations, likenesses, strict=True):
            yield sample, photo, *maps


def _mean(maps: Sequence[Tensor]) -> Tensor:
    """Return the mean of maps, float N x C x h x w each, at the size of the finest."""
    finest = max(maps, key=lambda one: one.shape[-1])
    return torch.stack([resize_like(one, finest) for one in maps]).mean(0) if len(maps) > 1 else finest


def look_at_tiles(
    network: Network, method: Method, photo: NDArray[np.uint8], labels: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return a photo's scores and class activations from its tiles, float C x h x w each."""
    recipe, (height, width, _) = network.recipe, photo.shape
    assert recipe.tiles is not None
    tiles = tiles_of((height, width), recipe.tiles)
    device = network.backbone.mean.device
    some = (tiles[start : start + _TOGETHER] for start in range(0, len(tiles), _TOGETHER))
    seen = ((part, squares_of(photo, recipe.patterns.size, part).to(device)) for part in some)
    return method.look_at_tiles(network, (height, width), seen, labels)


def load_networks(run: Run, *, spread: bool = True) -> list[Network]:
    """Return what each view looks at photos with; with ``spread`` the first has the learnt affinities, if any."""
    first, *others = views_of(run)
    return [load_network(first, spread and has_affinities(run)), *map(load_network, others)]


def load_network(run: Run, spread: bool = False) -> Network:
    """Return what the recipe's proxy method looks at photos with, on the run's device.

    Args:
        run: the run, or one of its views.
        spread: with the learnt affinities.
    """
    method, stride = load_method(run.recipe.proxy.method), run.recipe.patterns.output_stride
    if method.finds_patterns:
        patterns = [ClassPatterns.load(file) for file in run.patterns_files]
        classifier, file = patterns[0].classifier_, run.patterns_files[0]
    else:
        patterns, file = [], run.classifier_file
        classifier = Classifier.load(file, method.layers(run.recipe), stride)
    check_classes(run, classifier.classes, file)
    classifier.to(run.device).requires_grad_(False)
    learnt = load_learnt(run, classifier).to(run.device) if method.learns else None
    backbone, affinities = classifier.backbone, None
    if spread:
        fine = pyramid_layers(run.recipe.backbone.name)
        backbone = Classifier.load(run.classifier_file, [*backbone.layers, *fine], stride).backbone.to(run.device)
        affinities = load_affinities(run, [backbone.channels[layer] for layer in backbone.layers[-len(fine) :]])
    return Network(classifier, folded_backbone(backbone), patterns, run.recipe, learnt, affinities)


def estimate_mask(
    photo: NDArray[np.uint8],
    scores: NDArray[np.float32],
    labels: Sequence[int],
    recipe: Recipe,
    activation: NDArray[np.float32] | None = None,
    shifts: NDArray[np.float32] | None = None,
    alike: Tensor | None = None,
) -> NDArray[np.uint8]:
    """Return a photo's proxy mask as the recipe says: Algorithm 1, then the CRF on the images it is for.

    Args:
        photo: uint8 H x W x 3, RGB.
        scores: float32 C x h x w, in standard deviations or shares of the maximum (`ProxyConfig`).
        labels: the image-level labels.
        recipe: its ``proxy`` and ``crf`` are used.
        activation: float32 C x h x w, class activations in logits, for ``proxy.activation_weight``.
        shifts: float32 C, added to each class's threshold; None for none.
        alike: float D x h' x w', features whose likeness is the affinity of positions; None for no random walk.

    Returns:
        uint8 H x W.
    """
    height, width, _ = photo.shape
    mask = np.zeros((height, width), np.uint8)
    if not labels:
        return mask
    tagged = tagged_scores(scores, labels, recipe, activation, shifts, alike) + np.float32(level(recipe))
    if alike is not None and recipe.proxy.affinity is not None:
        recipe = recipe.model_copy(update={"crf": recipe.proxy.affinity.crf})
    for seen, kept, inner in parts_of((height, width), recipe.tiles):
        present = resize_part(torch.from_numpy(tagged), (height, width), *seen).numpy()
        mask[kept] = _assigned(photo[seen], present, labels, recipe)[inner]
    return mask


def tagged_scores(
    scores: NDArray[np.float32],
    labels: Sequence[int],
    recipe: Recipe,
    activation: NDArray[np.float32] | None = None,
    shifts: NDArray[np.float32] | None = None,
    alike: Tensor | None = None,
) -> NDArray[np.float32]:
    """Return the scores of a photo's classes beyond their thresholds, float32 L x h x w, or L x h' x w' after a walk.

    Args:
        scores, labels, recipe, activation, shifts, alike: as of `estimate_mask`; there is at least one label.
    """
    how, method = recipe.proxy, load_method(recipe.proxy.method)
    rows = [label - 1 for label in labels]
    tagged = scores[rows]
    if "proxy.peak_share" in method.options:
        tagged = beyond_peak_share(tagged, how.peak_share, how.share_per_skew)
    tagged = tagged - np.float32(level(recipe))
    if shifts is not None:
        tagged = tagged - shifts[rows, None, None]
    if how.activation_weight and activation is not None and "proxy.activation_weight" in method.options:
        tagged = settle(tagged, activation[rows], how.activation_weight)
    if alike is not None and how.affinity is not None:
        fine = resize_like(torch.from_numpy(tagged)[None], alike[None])[0].clamp_min(LOWEST)
        tagged = walk(fine, alike, power=how.affinity.power, steps=how.affinity.steps).numpy()
    return tagged


def level(recipe: Recipe) -> float:
    """Return the threshold from which on a class is present, the same for all classes."""
    return recipe.proxy.cam_thresholds[1] if load_method(recipe.proxy.method).in_shares else recipe.proxy.threshold


def _assigned(
    photo: NDArray[np.uint8], present: NDArray[np.float32], labels: Sequence[int], recipe: Recipe
) -> NDArray[np.uint8]:
    """Return the mask of a photo or of a part of it from its classes' scores beyond their peaks, float32 L x H x W."""
    how, crf, method = recipe.proxy, recipe.crf, load_method(recipe.proxy.method)
    background, threshold = how.cam_thresholds if method.in_shares else (how.threshold, how.threshold)
    mask = assign(present, labels, threshold=threshold, conflict=how.conflict, background=background)
    if how.crf == CrfUse.NONE or (how.crf == CrfUse.SINGLE and len(labels) > 1):
        return mask
    start = score_probabilities(present, threshold=threshold, sharpness=how.sharpness)
    side = None if recipe.tiles else crf.side
    refined = dense_crf(photo, start, gaussian=crf.gaussian, bilateral=crf.bilateral, steps=crf.steps, side=side)
    return np.where(mask == IGNORE, mask, np.asarray([0, *labels], np.uint8)[refined.argmax(0)])


def prepare_crf(needed: bool) -> None:
    """Compile the CRF, or load what was compiled, if it is needed."""
    if needed and is_main():
        log.info("dense CRF ready in %s (compiled once on a machine, then loaded)", duration(prepare()))
    barrier()
