"""Training what a method adds to the classifier: a module on the feature maps of its frozen backbone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, Subset

from tag2mask.config import Recipe
from tag2mask.data import ImageSet, write_mask
from tag2mask.data.decode import photo_size
from tag2mask.data.loading import photo_batches
from tag2mask.distributed import barrier, device, is_main, share, world
from tag2mask.inference import with_mask
from tag2mask.networks.classifier import Classifier, targets_of
from tag2mask.networks.kept import KeptFeatures
from tag2mask.networks.speed import folded_backbone
from tag2mask.training.datasets import FrozenFeatures, KeptPhotos, MaskedPhotos, Pair, TaggedPhotos
from tag2mask.training.loop import fit

Features: TypeAlias = dict[str, Tensor]
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Lesson:
    """What a method learns from.

    Attributes:
        classifier: with the method's layers, in evaluation mode, not to be trained.
        data: photos with image-level labels.
        recipe: every parameter.
        checkpoint: a training that was killed goes on from this file; its folder is the run's.
        strict: raise for an unreadable photo instead of skipping it.
        label: what the progress shows.
        times: how often an epoch shows each photo.
        kept: feature maps of the photos by the classifier's backbone, the method's layers among them, where they are
            shared with other runs.
    """

    classifier: Classifier
    data: ImageSet
    recipe: Recipe
    checkpoint: Path
    strict: bool = False
    label: str = "method"
    times: int = 1
    kept: KeptFeatures | None = None


def learn_on_features(module: nn.Module, lesson: Lesson, loss: Loss, masks: Path | None = None) -> None:
    """Train a module on the feature maps of a frozen backbone, of whole photos and, by chance, their mirror images.

    It is trained as a segmenter's head on a frozen backbone is: size, epochs, batch, rate, schedule and decay are those
    of the recipe's ``segmenter``; the stride is that of ``patterns``. On a CPU the maps are computed once, or read
    where the lesson has them.

    Args:
        module: trained in place.
        lesson: what it learns from.
        loss: of the module, the maps by layer, the masks if there are any, uint8 N x H x W, and the labels, float
            N x C; a mean over the photos.
        masks: folder of one palette PNG a photo; None to learn from the labels alone.
    """
    how, seed, workers = lesson.recipe.segmenter, lesson.recipe.seed, lesson.recipe.workers
    every, classes, size = lesson.data.samples, len(lesson.data.classes), how.size
    backbone = folded_backbone(lesson.classifier.backbone)
    layers = (lesson.kept or lesson.classifier).backbone.layers
    photos: Callable[..., MaskedPhotos | TaggedPhotos] = (
        partial(TaggedPhotos, every, classes, size, 1.0, 0.0)
        if masks is None
        else partial(MaskedPhotos, with_mask(every, masks), masks, classes, size, 1.0)
    )

    def of_maps(model: Any, *given: Tensor) -> Tensor:
        if kept is not None:
            return loss(model, dict(zip(layers, given, strict=False)), *given[len(layers) :])
        with torch.no_grad():
            maps = {layer: one.float() for layer, one in backbone(given[0]).items()}  # as they are kept on a CPU
        return loss(model, maps, *given[1:])

    kept: FrozenFeatures | KeptPhotos | None = KeptPhotos(photos(), lesson.kept) if lesson.kept else None
    with ExitStack() as files:
        if not kept and device().type == "cpu" and world() == 1:
            frozen = files.enter_context(
                closing(FrozenFeatures(photos(flip=0), backbone, layers, lesson.checkpoint.parent))
            )
            if frozen.has_room():
                frozen.compute(workers, f"{lesson.label}, features")
                kept = frozen
        data: Dataset[tuple[int, Pair | str]] = kept or photos()
        if lesson.times > 1:
            data = Subset(data, lesson.times * [*range(len(data))])  # type: ignore[arg-type]
        fit(
            module, data, of_maps,
            torch.optim.AdamW(module.parameters(), how.learning_rate, weight_decay=how.weight_decay),
            epochs=how.epochs, batch_size=how.batch_size, schedule=how.schedule, seed=seed,
            workers=0 if kept else workers, checkpoint=lesson.checkpoint, label=lesson.label, strict=lesson.strict,
        )  # fmt: skip


def write_labels(
    lesson: Lesson,
    folder: Path,
    size: int,
    find: Callable[[Tensor, Features, Sequence[int]], Tensor],
    label: str,
    kept: KeptFeatures | None = None,
) -> None:
    """Write what is found in all photos as masks of the photos' sizes; those without tags are background.

    Args:
        lesson: the photos, and what sees them.
        folder: one palette PNG a photo; emptied first, as those of a run that was killed may be of other photos.
        size: side of the square that photos are brought to, in pixels.
        find: of a photo, 3 x size x size, its maps by layer, float 1 x D x h x w, and its labels, uint8 h' x w'.
        label: what the progress shows.
        kept: the lesson's, where `find` needs no other layers.
    """
    backbone, workers = folded_backbone(lesson.classifier.backbone), lesson.recipe.workers
    if is_main():
        shutil.rmtree(folder, ignore_errors=True)
    barrier()
    for samples, images in photo_batches(
        share(lesson.data.samples), size, workers=workers, strict=lesson.strict, label=label
    ):
        with torch.inference_mode():
            seen = {} if kept else backbone(images.to(device()))
            for place, (sample, image) in enumerate(zip(samples, images, strict=True)):
                maps = kept.maps(sample, size) if kept else {layer: one[place, None] for layer, one in seen.items()}
                found = find(image, maps, sample.labels) if sample.labels else torch.zeros(1, 1)
                large = functional.interpolate(
                    found[None, None].float(), photo_size(sample.image), mode="nearest-exact"
                )
                write_mask(folder / f"{sample.name}.png", large[0, 0].cpu().numpy().astype(np.uint8))
    barrier()


def tag_loss(maps: Tensor, labels: Tensor) -> Tensor:
    """Return binary cross-entropy of labels and the means of class maps.

    Args:
        maps: float N x C x h x w, with their bias.
        labels: float N x C of zeros and ones.
    """
    return functional.binary_cross_entropy_with_logits(maps.float().mean((2, 3)), labels)


def prior(lesson: Lesson) -> Tensor:
    """Return the logit of each class's share of the photos, float C, at which a bias begins."""
    targets = targets_of((sample.labels for sample in lesson.data.samples), len(lesson.data.classes))
    return torch.logit(targets.mean(0).clamp(1e-3, 1 - 1e-3)).to(lesson.classifier.head.weight.device)


def narrowed(channels: int, width: int) -> nn.Sequential:
    """Return what standardises a map and brings it to fewer channels, at least 0: convolutions on it are then cheap."""
    return nn.Sequential(nn.BatchNorm2d(channels, affine=False), seeing(channels, width, kernel=1))


def seeing(channels: int, width: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    """Return a convolution with batch normalisation and ReLU that keeps the size of a map."""
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
