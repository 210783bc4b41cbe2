"""Confidence of a run's masks: its photos are looked at for scores that are rare in photos without the class."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tag2mask.data import Sample
from tag2mask.data.loading import photo_batches, read_ahead
from tag2mask.errors import RunError
from tag2mask.files import write_bytes
from tag2mask.methods import load_method
from tag2mask.methods.base import Network
from tag2mask.names import CrfUse
from tag2mask.progress import track
from tag2mask.report import PhotoSet
from tag2mask.report.confidence import RARE, Confidence, Map, Mask, agreement, confidence_of, judged, rarity, region_of
from tag2mask.runs.estimate import estimate_mask, load_network, look_at_tiles
from tag2mask.runs.folder import Run, read_metrics
from tag2mask.runs.scores import KeptScores, photos_without

COLUMNS = ("image", "class", "confidence", "area", "masks")
"""Of ``confidence.csv``."""

POSITIONS = 512
"""Positions of each photo without a class that tell which of its scores are rare, at most."""


Confidences = dict[str, list[Confidence]]
"""Of the classes in each photo's final mask, by the photo's name."""


@dataclass(frozen=True)
class _Region:
    """A class in a photo's final mask: how much of each position it covers, and the class's scores there."""

    label: int
    area: float
    agreed: float | None
    region: Map
    scores: npt.NDArray[np.float16]


def confidence_file(run: Run) -> Path:
    """Return the table of the confidences of a run's masks."""
    return run.out / "confidence.csv"


def confidences_of(run: Run, sets: Sequence[PhotoSet]) -> list[Confidences]:
    """Return for each set the confidences of the classes in each photo's final mask, by the photo's name.

    A photo with a mask is looked at once, unless its scores are kept; in memory are those of the classes concerned.

    Args:
        run: its classifier and, if it finds some, its patterns are there.
        sets: the training photos, then the evaluation photos if they are others.

    Raises:
        DataError: a mask is not of its photo or run.
    """
    network, classes = load_network(run), run.train.classes
    without = photos_without(run)
    usual: list[list[Map]] = [[] for _ in classes]
    found = [
        {sample.name: regions for sample, regions in _look(run, network, photos, without if not place else {}, usual)}
        for place, photos in enumerate(sets)
    ]
    bounds = [float(np.quantile(np.concatenate(some), RARE)) if some else None for some in usual]
    patterns = read_metrics(run.out).get("patterns") or {}
    signs = [float((patterns.get(name) or {}).get("confidence", 1.0)) for name in classes]

    def judge(one: _Region) -> Confidence:
        bound = bounds[one.label - 1]
        rare = None if bound is None else rarity(one.region, one.scores.astype(np.float32), bound)
        value = confidence_of(one.area, rare, one.agreed, signs[one.label - 1])
        return Confidence(one.label, value, one.area)

    return [{name: [judge(one) for one in regions] for name, regions in of_set.items()} for of_set in found]


def write_confidences(run: Run, sets: Sequence[PhotoSet], confidences: Sequence[Confidences]) -> None:
    """Write ``confidence.csv``: a line for each photo and class, the lowest confidence first.

    Raises:
        DataError: it cannot be written.
    """
    rows = [
        (one.value, name, photos.data.classes[one.label - 1], one.area, photos.final.name)
        for photos, of_set in zip(sets, confidences, strict=True)
        for name, of_photo in of_set.items()
        for one in of_photo
    ]
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for value, name, label, area, masks in sorted(rows):
        writer.writerow((name, label, f"{value:.4f}", f"{area:.6f}", masks))
    write_bytes(confidence_file(run), text.getvalue().encode("utf-8", "replace"))


def read_confidences(run: Run, photos: PhotoSet) -> Confidences:
    """Return what `write_confidences` wrote of a set of photos; nothing where there is no such file.

    Raises:
        RunError: the file is damaged.
    """
    file, found = confidence_file(run), Confidences()
    if not file.is_file():
        return found
    labels = {name: label for label, name in enumerate(photos.data.classes, 1)}
    try:
        for row in csv.DictReader(StringIO(file.read_text("utf-8"))):
            if row["masks"] == photos.final.name:
                one = Confidence(labels[row["class"]], float(row["confidence"]), float(row["area"]))
                found.setdefault(row["image"], []).append(one)
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{file} is damaged; tag2mask report {run.out} writes it again") from None
    return found


def with_corrected(run: Run, confidences: Confidences) -> Confidences:
    """Return the confidences of the training photos, 1 where a person has corrected the mask."""
    masks = run.corrections.masks
    return {
        name: [one._replace(value=1.0) for one in some] if name in masks else some for name, some in confidences.items()
    }


def _look(
    run: Run, network: Network, photos: PhotoSet, without: dict[str, list[int]], usual: list[list[Map]]
) -> Iterator[tuple[Sample, list[_Region]]]:
    """Yield each photo that has masks with the classes to judge; add to ``usual`` the scores of ``without``."""
    with_masks = [sample for sample in photos.data.samples if (photos.final / f"{sample.name}.png").exists()]
    for sample, scores, activation in _scores(run, network, with_masks, without, f"confidence, {photos.name} photos"):
        masks = photos.masks(sample)
        final = masks["prediction" if "prediction" in photos.folders else "proxy"]
        for label in without.get(sample.name, ()):
            positions = scores[label - 1].flatten()
            usual[label - 1].append(positions[:: -(-len(positions) // POSITIONS)].float().cpu().numpy())
        regions, labels = [], judged(sample.labels, final)
        if "prediction" not in masks:
            first = None
        else:
            first = masks["proxy"] if "proxy" in masks else _first_mask(run, scores, activation, labels, final)
        for label in labels:
            agreed = None if first is None else agreement(first, final, label)
            own = scores[label - 1].cpu().numpy()
            area = float((final == label).mean())
            regions.append(_Region(label, area, agreed, region_of(final, label, own.shape), own.astype(np.float16)))
        yield sample, regions


def _first_mask(run: Run, scores: Tensor, activation: Tensor, labels: Sequence[int], final: Mask) -> Mask:
    """Return the proxy mask that a photo would have, before any CRF: a second opinion on an evaluation photo."""
    proxy = run.recipe.proxy.model_copy(update={"crf": CrfUse.NONE})
    photo = np.broadcast_to(np.uint8(0), (*final.shape, 3))  # without a CRF its size alone counts
    maps = [one.cpu().numpy() for one in (scores, activation)]
    return estimate_mask(photo, maps[0], labels, run.recipe.model_copy(update={"proxy": proxy}), maps[1])


def _scores(
    run: Run, network: Network, samples: Sequence[Sample], without: dict[str, list[int]], label: str
) -> Iterator[tuple[Sample, Tensor, Tensor]]:
    """Yield each photo with its scores by the recipe's proxy method and its class activations, float C x h x w."""
    method, recipe, kept = load_method(run.recipe.proxy.method), run.recipe, KeptScores(run, without)
    if recipe.tiles:
        for sample, photo in track(read_ahead(samples, recipe.workers, run.strict), len(samples), label):
            yield sample, *look_at_tiles(network, method, photo, kept.labels(sample))
        return
    unseen = []
    for sample in samples:
        known = kept.read(sample)
        if known is None:
            unseen.append(sample)
        else:
            yield sample, *known
    if not unseen:
        return
    batches = photo_batches(unseen, recipe.patterns.size, workers=recipe.workers, strict=run.strict, label=label)
    for some, images in batches:
        found = method.look(network, images.to(run.device), [kept.labels(sample) for sample in some])
        for sample, scores, activation in zip(some, *found, strict=True):
            if run.is_refined:
                kept.write(sample, scores, activation)
            yield sample, scores, activation
