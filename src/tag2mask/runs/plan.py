"""What a run will do, and roughly how long it takes on this machine."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import pairwise

import torch

from tag2mask.config import TilesConfig
from tag2mask.data import ImageSet, photo_size, summary
from tag2mask.devices import half_precision, wait_for
from tag2mask.distributed import world
from tag2mask.errors import DataError
from tag2mask.names import ClassifierTraining, CrfUse
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.speed import folded_backbone
from tag2mask.progress import duration
from tag2mask.runs.folder import Run
from tag2mask.runs.refine import EPOCHS
from tag2mask.runs.stages import stages_to_do
from tag2mask.runs.views import views_of
from tag2mask.threads import cores
from tag2mask.tiles import tiles_of
from tag2mask.training.segmenter import stays_the_same


def plan(run: Run) -> str:
    """Return what a run will do: its data, its stages, and roughly how long they take here."""
    lines = [summary(run.train)]
    if run.evaluation is not run.train:
        lines.append(f"evaluation: {len(run.evaluation)} photos of {run.source.eval_split}")
        lines += run.evaluation.remarks
    lines.append(f"recipe {run.recipe.name}, backbone {run.recipe.backbone.name}, on {run.device}")
    if others := views_of(run)[1:]:
        seen = (f"{view.recipe.backbone.name} at {view.recipe.patterns.size} px" for view in others)
        lines.append(f"first masks also from views by {', '.join(seen)}")
    if how := run.recipe.tiles:
        count = tiles_per_photo(run.train, how)
        lines.append(f"tiles: {how.side} px, overlapping by {how.overlap} or more, {count:.0f} per photo on average")
    if todo := stages_to_do(run):
        lines.append(f"stages: {', '.join(todo)}; roughly {duration(estimate_seconds(run))} on this machine")
    return "\n".join(lines)


def estimate_seconds(run: Run) -> float:
    """Return roughly how long the stages that are not done take, from the fastest of three forward passes."""
    recipe, train, test = run.recipe, len(run.train), len(run.evaluation)
    side = recipe.patterns.size
    backbone = Backbone(recipe.backbone.name, output_stride=recipe.patterns.output_stride, weights="random")
    images = torch.zeros(4, 3, side, side, device=run.device)
    backbone = folded_backbone(backbone.to(run.device))
    moments = []
    with torch.inference_mode(), half_precision(run.device):
        for _ in range(3):
            wait_for(run.device)
            moments.append(time.monotonic())
            backbone(images)
    wait_for(run.device)
    moments.append(time.monotonic())
    forward = min(later - earlier for earlier, later in pairwise(moments)) / 4 / side**2
    read, crf = 0.01, 0.15 / cores()
    tiled = tiles_per_photo(run.train, recipe.tiles)
    learnt = min(tiled, recipe.tiles.per_photo) if recipe.tiles else 1
    classifying = 2 if recipe.classifier.train == ClassifierTraining.HEAD else 3 * recipe.classifier.epochs
    pooled = tiled if recipe.classifier.train == ClassifierTraining.HEAD else 1
    epochs = recipe.segmenter.epochs
    once = stays_the_same(recipe.segmenter) and run.device.type == "cpu" and world() == 1
    passes = 2 + epochs if once else 3 * epochs
    training = train * learnt * (passes * forward * recipe.segmenter.size**2 + epochs * read)
    seen = (
        tiled * forward * sum(scale**2 for scale in recipe.inference.scales) + read + crf * bool(recipe.inference.crf)
    )
    views = sum(view.recipe.patterns.size**2 for view in views_of(run)) / side**2  # as if by one backbone
    costs = {
        "classify": classifying * train * (pooled * forward * recipe.classifier.size**2 + read),
        "discover": train * views * (tiled * forward * side**2 + read),
        "relate": train * ((2 + views) * forward * side**2 + 4 * read),
        "estimate": train * (views * tiled * forward * side**2 + read + crf * (recipe.proxy.crf != CrfUse.NONE)),
        "segment": training,
        "redraw": train * seen,
        "retrain": recipe.segmenter.retrain * training + max(0, recipe.segmenter.retrain - 1) * train * seen,
        "refine": train * seen + 4 * max(recipe.refine.shows, EPOCHS * len(run.corrections.masks)) * read,
        "predict": test * seen,
        "evaluate": 0.02 * (2 * train + test),
    }
    todo = stages_to_do(run)
    return sum(cost for stage, cost in costs.items() if stage in todo) / world()


def tiles_per_photo(data: ImageSet, tiles: TilesConfig | None) -> float:
    """Return roughly how many tiles a photo has, 1 where photos are not tiled; photos that cannot be read do not count.

    Args:
        data: some of its photos are looked at.
        tiles: of the recipe.
    """
    if tiles is None:
        return 1
    counts = []
    for sample in data.samples[:: 1 + len(data) // 50]:
        with suppress(DataError):
            counts.append(len(tiles_of(photo_size(sample.image), tiles)))
    return sum(counts) / len(counts) if counts else 1
