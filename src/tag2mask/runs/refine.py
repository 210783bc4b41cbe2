"""A segmenter learns on from what a person has corrected, and predicts the training photos again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch

from tag2mask.data import ImageSet, Sample, write_mask
from tag2mask.distributed import barrier, is_main, share
from tag2mask.errors import RunError
from tag2mask.files import share_file
from tag2mask.inference import predict_masks, without_mask
from tag2mask.names import Teaching
from tag2mask.networks.backbones import LAST
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.runs.corrected import corrected_mask, shown_in
from tag2mask.runs.estimate import prepare_crf
from tag2mask.runs.folder import Run, check_classes, checkpoint_of
from tag2mask.training.segmenter import train_segmenter

log = logging.getLogger("tag2mask")

LEAST_OTHERS = 64
"""Photos that nobody has corrected, which are shown however few are corrected."""


def refine(run: Run) -> None:
    """Teach the last segmenter corrected masks, and predict the training photos under their tags, to ``refined/``.

    The head learns on, on a backbone that stays: corrected masks with weight, proxy masks of some other photos.
    """
    prepare_crf(run.recipe.inference.crf is not None)
    if not run.refined_file.exists():
        _train(run)
    segmenter = SegmentationNetwork.load(run.refined_file).to(run.device)
    check_classes(run, segmenter.classes, run.refined_file)
    put_corrected(run, run.train.samples, run.refined_masks)
    predict_masks(
        segmenter, run.train.samples, run.refined_masks, run.recipe, known_labels=True, strict=run.strict
    )  # fmt: skip


def _train(run: Run) -> None:
    how, seed = run.recipe.refine, run.recipe.seed
    start = run.segmenter_after(run.recipe.segmenter.retrain)
    if not start.exists():
        raise RunError(f"{start} is not there; go on with tag2mask run, which trains it first")
    segmenter = SegmentationNetwork.load(start)
    samples = photos_to_learn(run)
    as_plain = {"method": Teaching.PLAIN, "train_from": LAST, "crop": 1.0, "epochs": how.epochs}
    settings = run.recipe.segmenter.model_copy(update={**as_plain, "learning_rate": how.learning_rate})
    torch.manual_seed(seed)
    train_segmenter(
        segmenter, samples, run.out / "proxy", settings, tiles=run.recipe.tiles, seed=seed, workers=run.recipe.workers,
        checkpoint=checkpoint_of(run.refined_file), label=run.refined_file.stem, strict=run.strict,
        often=dict.fromkeys(run.corrections.masks, how.weight),
    )  # fmt: skip
    if is_main():
        segmenter.save(run.refined_file)
        checkpoint_of(run.refined_file).unlink(missing_ok=True)
    barrier()


def photos_to_learn(run: Run) -> list[Sample]:
    """Return the corrected photos, with the classes of their masks as tags, and some others, drawn by the seed."""
    masks, classes = run.corrections.masks, len(run.train.classes)
    corrected = [
        replace(sample, labels=shown_in(corrected_mask(sample, run.corrections, classes)))
        for sample in run.train.samples
        if sample.name in masks
    ]
    others = [
        sample
        for sample in run.train.samples
        if sample.name not in masks and (run.out / "proxy" / f"{sample.name}.png").exists()
    ]
    most = max(LEAST_OTHERS, run.recipe.refine.others * len(corrected))
    return corrected + Random(run.recipe.seed).sample(others, min(most, len(others)))


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
