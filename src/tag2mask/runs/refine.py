"""A segmenter learns on from what a person has corrected, and predicts the training photos again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tag2mask.data import ImageSet, Sample, read_mask, write_mask
from tag2mask.distributed import barrier, is_main, share
from tag2mask.errors import DataError, RunError
from tag2mask.files import share_file
from tag2mask.inference import forward, forward_kept, most_likely, predict_masks, without_mask
from tag2mask.metrics import confusion_matrix, iou
from tag2mask.names import Schedule, Teaching
from tag2mask.networks.backbones import LAST
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.kept import KeptFeatures, kept_folder, remove_others
from tag2mask.runs.corrected import corrected_mask, shown_in
from tag2mask.runs.estimate import prepare_crf
from tag2mask.runs.features import features_of
from tag2mask.runs.folder import Run, check_classes, checkpoint_of
from tag2mask.training.segmenter import train_segmenter

log = logging.getLogger("tag2mask")

EPOCHS = 4
"""Parts of the training, at the end of each of which it can go on if it is killed; each shows every corrected mask."""

RIGHT = 0.3
"""IoU in corrected photos below which, if the mean of all classes is below it too, own masks are not learnt from."""

Floats: TypeAlias = NDArray[np.float64]


def refine(run: Run) -> None:
    """Teach the last segmenter corrected masks, and predict the training photos under their tags, to ``refined/``.

    The head learns on from corrected masks, on a backbone that stays: what tags have taught it is its start. Classes
    that few of them show it sees in masks of the run as well, so as not to forget them.
    """
    prepare_crf(run.recipe.inference.crf is not None)
    if is_main():
        remove_others(
            kept_folder(run.out), {sample.name for data in (run.train, run.evaluation) for sample in data.samples}
        )
    if not run.refined_file.exists():
        _train(run)
    segmenter = SegmentationNetwork.load(run.refined_file).to(run.device)
    check_classes(run, segmenter.classes, run.refined_file)
    put_corrected(run, run.train.samples, run.refined_masks)
    predict_masks(
        segmenter, run.train.samples, run.refined_masks, run.recipe, known_labels=True, strict=run.strict,
        kept=features_of(run, segmenter),
    )  # fmt: skip


def _train(run: Run) -> None:
    how, seed = run.recipe.refine, run.recipe.seed
    start = run.segmenter_after(run.recipe.segmenter.retrain)
    if not start.exists():
        raise RunError(f"{start} is not there; go on with tag2mask run, which trains it first")
    segmenter = SegmentationNetwork.load(start)
    if segmenter.tags is not None:
        segmenter.tags.freeze()  # it has learnt from the tags of all photos, of which corrected masks say nothing new
    kept, corrected = features_of(run, segmenter), photos_to_learn(run)
    right = own_iou(run, segmenter, corrected, kept)
    samples = corrected + photos_to_remember(run, corrected, wrong_classes(right))
    of_a_photo = run.recipe.tiles.per_photo if run.recipe.tiles else 1
    times = max(1, round(how.shows / (EPOCHS * of_a_photo * len(samples))))
    as_plain = {"method": Teaching.PLAIN, "train_from": LAST, "crop": 1.0, "tag_weight": 0.0}
    as_plain["dice_weight"] = how.dice_weight
    rate = how.learning_rate * pace(mean_iou_of(right))
    pace_of = {"epochs": EPOCHS, "schedule": Schedule.POLY, "learning_rate": rate}
    settings = run.recipe.segmenter.model_copy(update={**as_plain, **pace_of})
    torch.manual_seed(seed)
    train_segmenter(
        segmenter, samples, own_masks(run), settings, tiles=run.recipe.tiles, seed=seed, workers=run.recipe.workers,
        checkpoint=checkpoint_of(run.refined_file), label=run.refined_file.stem, strict=run.strict,
        often={sample.name: times for sample in samples}, kept=kept,
    )  # fmt: skip
    if is_main():
        segmenter.save(run.refined_file)
        checkpoint_of(run.refined_file).unlink(missing_ok=True)
    barrier()


def photos_to_learn(run: Run) -> list[Sample]:
    """Return the corrected photos, with the classes of their masks as tags."""
    masks, classes = run.corrections.masks, len(run.train.classes)
    return [
        replace(sample, labels=shown_in(corrected_mask(sample, run.corrections, classes)))
        for sample in run.train.samples
        if sample.name in masks
    ]


def photos_to_remember(run: Run, corrected: Sequence[Sample], wrong: AbstractSet[int] = frozenset()) -> list[Sample]:
    """Return photos that nobody has corrected, with the classes of the run's own masks of them as tags.

    Together with the corrected ones they show each class ``refine.remember`` times, as far as there are masks of it.

    Args:
        run: its own masks are read.
        corrected: photos with the classes of their masks as tags.
        wrong: classes whose own masks are not worth remembering; photos with one of them are left out.
    """
    seen = Counter(label for sample in corrected for label in sample.labels)
    names, masks, found = {sample.name for sample in corrected}, own_masks(run), []

    def lacks(labels: Sequence[int]) -> bool:
        return any(seen[label] < run.recipe.refine.remember for label in labels)

    samples = list(run.train.samples)
    Random(run.recipe.seed).shuffle(samples)  # one order whatever is corrected: what is kept of photos serves again
    for sample in samples:
        file = masks / f"{sample.name}.png"
        if sample.name in names or wrong & {*sample.labels} or not lacks(sample.labels) or not file.exists():
            continue
        if lacks(shown := shown_in(read_mask(file))):
            seen.update(shown)
            found.append(replace(sample, labels=shown))
    return found


def own_masks(run: Run) -> Path:
    """Return the folder of masks that tags alone have given, those drawn again if there are any, and of corrected ones.

    The first time, since corrections are put into no later one.
    """
    again = run.masks_of_round(1)
    return again if again.is_dir() else run.out / "proxy"


def own_iou(run: Run, segmenter: SegmentationNetwork, samples: Sequence[Sample], kept: KeptFeatures | None) -> Floats:
    """Return how far a segmenter is right already: each class's IoU in corrected photos, 0 to 1; NaN where in none."""
    classes = len(run.train.classes)
    found = np.zeros((classes + 1, classes + 1), np.int64)
    for sample in samples:
        truth = corrected_mask(sample, run.corrections, classes)
        with suppress(DataError):  # it is said when the photo is learnt from
            logits = _logits(run, segmenter, sample, kept)
            size = (truth.shape[0], truth.shape[1])
            found += confusion_matrix(truth, most_likely(logits, size, sample.labels), classes + 1)
    return iou(found)[1:]


def mean_iou_of(right: Floats) -> float:
    """Return the mean over classes that corrected photos show, 1 if they show none."""
    return float(np.nanmean(right)) if np.isfinite(right).any() else 1.0


def wrong_classes(right: Floats) -> set[int]:
    """Return the classes whose own masks would teach what is wrong, from the IoU of each class.

    None where most are right: of one class, few corrected photos say too little.
    """
    if mean_iou_of(right) >= RIGHT:
        return set()
    return {label for label, value in enumerate(right, 1) if value < RIGHT}


def _logits(run: Run, segmenter: SegmentationNetwork, sample: Sample, kept: KeptFeatures | None) -> list[Tensor]:
    sides = [run.recipe.segmenter.size]
    if kept:
        return forward_kept(segmenter, kept, sample, sides)
    return forward(segmenter, [sample.read()], sides, run.recipe.tiles)[0]


def pace(agreement: float) -> float:
    """Return by how much faster a segmenter learns the less it is right: 1 from one half on, 10 where it is all wrong.

    >>> pace(0.8), pace(0.5), pace(0.0)
    (1.0, 1.0, 10.0)
    """
    return float(10 ** max(0.0, 1 - 2 * agreement))


def put_corrected(run: Run, samples: Sequence[Sample], folder: Path) -> None:
    """Write the corrected masks of photos where the masks of all others are predicted to; each process its share."""
    for sample in without_mask(share(samples), folder):
        if sample.name in run.corrections.masks:
            mask = corrected_mask(sample, run.corrections, len(run.train.classes))
            write_mask(folder / f"{sample.name}.png", mask)
    barrier()


def not_corrected(run: Run, data: ImageSet) -> ImageSet:
    """Return the photos of a run that no person has corrected: scores are of these."""
    masks = run.corrections.masks if data is run.train else {}
    return data.with_samples(tuple(one for one in data.samples if one.name not in masks)) if masks else data


def share_masks(samples: Sequence[Sample], source: Path, target: Path) -> None:
    """Put masks into a second folder that has not got them yet."""
    for sample in without_mask(samples, target):
        file = target / f"{sample.name}.png"
        if (source / f"{sample.name}.png").exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            share_file(source / f"{sample.name}.png", file)
