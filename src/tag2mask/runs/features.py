"""Which feature maps of a frozen backbone a run keeps, or shares with other runs."""

from __future__ import annotations

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
    if not (run.is_refined or run.kept) or run.recipe.tiles or run.device.type != "cpu" or world() > 1:
        return None
    return KeptFeatures(run.kept or kept_folder(run.out), segmenter.backbone, mirrored=run.kept is not None)


def shared_features(run: Run, classifier: Classifier) -> KeptFeatures | None:
    """Return what several runs keep of their photos, where the segmenter's frozen backbone is the classifier's too."""
    how, recipe = run.recipe.segmenter, run.recipe
    same = how.backbone is None and how.output_stride == recipe.patterns.output_stride
    if not (run.kept and same and stays_the_same(how) and run.device.type == "cpu"):
        return None
    segmenter = SegmentationNetwork(
        recipe.backbone.name, classifier.classes, head=how.head, output_stride=how.output_stride,
        weights=recipe.backbone.weights,
    )  # fmt: skip
    mine, theirs = segmenter.backbone, classifier.backbone.state_dict()
    own = mine.state_dict()
    alike = own.keys() <= theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in own.items())
    return features_of(run, segmenter) if alike and set(classifier.backbone.layers) <= set(mine.layers) else None
