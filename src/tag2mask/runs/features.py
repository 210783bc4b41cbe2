"""Which feature maps of a frozen backbone a run keeps, or shares with other runs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress

import torch

from tag2mask.distributed import world
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.kept import KeptFeatures, kept_folder
from tag2mask.runs.folder import Run
from tag2mask.training.segmenter import stays_the_same


def features_of(run: Run, segmenter: SegmentationNetwork) -> KeptFeatures | None:
    """Return the kept feature maps of the photos of a run that is refined, or that shares them with other runs.

    None on a GPU, which sees a photo as fast as it reads.
    """
    return _kept(run, segmenter) if (run.is_refined or run.kept) and _can_keep(run) else None


def features_to_learn(run: Run, segmenter: SegmentationNetwork) -> KeptFeatures | None:
    """Return the kept feature maps of the training photos, at the segmenter's size, that several trainings see.

    None as in `features_of`, where the backbone is trained too, and where a run that does not retrain sees them once,
    or there is no room for all.
    """
    if not _learns_again(run):
        return None
    kept = _kept(run, segmenter)
    return kept if run.kept or kept.has_room(len(run.train), run.recipe.segmenter.size) else None


def features_to_redraw(run: Run, segmenter: SegmentationNetwork) -> KeptFeatures | None:
    """Return `features_to_learn` where training photos are predicted at the size at which they were learnt from."""
    same = run.recipe.inference.scales == [run.recipe.segmenter.size]
    return features_to_learn(run, segmenter) if same and not run.kept else None


def features_to_predict(run: Run, segmenter: SegmentationNetwork) -> KeptFeatures | None:
    """Return `features_of`, or `features_to_redraw` where the photos to predict are those of training."""
    kept = features_of(run, segmenter)
    return features_to_redraw(run, segmenter) if kept is None and run.evaluation is run.train else kept


def shared_features(run: Run, classifier: Classifier) -> KeptFeatures | None:
    """Return `features_to_learn` where the segmenter's frozen backbone is the classifier's too."""
    how, recipe = run.recipe.segmenter, run.recipe
    if how.backbone is not None or how.output_stride != recipe.patterns.output_stride or not _learns_again(run):
        return None
    segmenter = SegmentationNetwork(
        recipe.backbone.name, classifier.classes, head=how.head, output_stride=how.output_stride,
        weights=recipe.backbone.weights,
    )  # fmt: skip
    mine, theirs = segmenter.backbone, classifier.backbone.state_dict()
    own = mine.state_dict()
    alike = own.keys() <= theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())
    return features_to_learn(run, segmenter) if alike and set(classifier.backbone.layers) <= set(mine.layers) else None


def forget(run: Run, but: Sequence[str] = ()) -> None:
    """Remove what is kept in the run folder, some folders excepted; nothing of a run that is refined."""
    folder = kept_folder(run.out)
    for one in folder.iterdir() if folder.is_dir() and not run.is_refined else ():
        if one.name not in but:
            shutil.rmtree(one, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()  # unless something is left


def _learns_again(run: Run) -> bool:
    how = run.recipe.segmenter
    return bool(run.kept or how.retrain) and stays_the_same(how) and _can_keep(run)


def _can_keep(run: Run) -> bool:
    return run.recipe.tiles is None and run.device.type == "cpu" and world() == 1


def _kept(run: Run, segmenter: SegmentationNetwork) -> KeptFeatures:
    return KeptFeatures(run.kept or kept_folder(run.out), segmenter.backbone)
