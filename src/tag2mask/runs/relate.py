"""Affinities of neighbouring positions, learnt from masks of the training photos that are drawn by scores alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tag2mask.config import Recipe
from tag2mask.data import write_mask
from tag2mask.distributed import barrier, is_main, share
from tag2mask.inference import without_mask
from tag2mask.names import CrfUse
from tag2mask.progress import track
from tag2mask.runs.estimate import Job, estimate_mask, load_networks, looks, prepare_crf
from tag2mask.runs.folder import Run
from tag2mask.runs.learnt import relate_positions
from tag2mask.threads import map_ahead

SMALL = 112**2
"""Pixels of the photo on which these masks are drawn: what learns from them has fewer positions."""


def masks_by_scores(run: Run) -> Path:
    """Return the folder of the masks, which is there while affinities are learnt."""
    return run.out / "by-scores"


def relate(run: Run) -> None:
    """Draw masks by scores alone, and learn affinities from them."""
    folder = masks_by_scores(run)
    prepare_crf(run.recipe.proxy.crf != CrfUse.NONE)

    def write(job: Job) -> None:
        sample, photo, scores, activation, _ = job
        write_mask(folder / f"{sample.name}.png", small_mask(photo, scores, sample.labels, run.recipe, activation))

    todo = without_mask(share(run.train.samples), folder)
    seen = looks(run, load_networks(run, spread=False), todo)
    for _ in track(map_ahead(write, seen), len(todo), "masks by scores"):
        pass
    barrier()
    relate_positions(run, folder)
    if is_main():
        shutil.rmtree(folder)


def small_mask(
    photo: NDArray[np.uint8],
    scores: NDArray[np.float32],
    labels: tuple[int, ...],
    recipe: Recipe,
    activation: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Return `estimate_mask` of a photo brought to few pixels, at the photo's size, uint8 H x W.

    Args:
        photo, scores, labels, recipe, activation: as of `estimate_mask`; distances of the CRF are those on the photo.
    """
    height, width, _ = photo.shape
    shrink = min(1.0, (SMALL / (height * width)) ** 0.5)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))
    near, far = recipe.crf.gaussian, recipe.crf.bilateral
    crf = recipe.crf.model_copy(
        update={"gaussian": (max(1.0, near[0] * shrink), near[1]), "bilateral": (far[0] * shrink, *far[1:])}
    )
    mask = estimate_mask(small, scores, labels, recipe.model_copy(update={"crf": crf}), activation)
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
