"""Fine-tuning the classification network, and its mean average precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tag2mask.config import ClassifierConfig, TilesConfig
from tag2mask.data import Sample
from tag2mask.distributed import gather, share
from tag2mask.metrics import average_precision, label_accuracy
from tag2mask.names import Schedule
from tag2mask.networks.classifier import Classifier, pooled_features, targets_of
from tag2mask.networks.speed import features_in_training, folded_backbone
from tag2mask.scoring import Scores, rounded
from tag2mask.training.datasets import TaggedPhotos
from tag2mask.training.loop import fit, parameter_groups


def train_classifier(
    classifier: Classifier,
    samples: Sequence[Sample],
    how: ClassifierConfig,
    *,
    seed: int,
    workers: int,
    checkpoint: Path,
    strict: bool = False,
) -> None:
    """Fine-tune backbone and linear layer by binary cross-entropy over the classes.

    Args:
        classifier: trained in place.
        samples: the photos with their image-level labels.
        how: the parameters.
        seed: of order and augmentation.
        workers: processes that read.
        checkpoint: as in `fit`.
        strict: as in `fit`.
    """

    features = cache(lambda: features_in_training(classifier.backbone))  # of the weights that `fit` begins with

    def loss(model: Any, images: Tensor, targets: Tensor) -> Tensor:
        logits = model.classify(features()(images)).logits
        return functional.binary_cross_entropy_with_logits(logits.float(), targets)

    photos = TaggedPhotos(samples, len(classifier.classes), how.size, how.crop, how.colour)
    classifier.backbone.freeze_before(how.train_from)
    groups = parameter_groups(classifier, how.learning_rate, how.backbone_learning_rate)
    fit(
        classifier, photos, loss, torch.optim.AdamW(groups, weight_decay=how.weight_decay),
        epochs=how.epochs, batch_size=how.batch_size, schedule=Schedule.POLY, seed=seed, workers=workers,
        checkpoint=checkpoint, label="classifier", strict=strict,
    )  # fmt: skip


def mean_precision(
    classifier: Classifier,
    samples: Sequence[Sample],
    size: int,
    *,
    tiles: TilesConfig | None = None,
    workers: int,
    strict: bool = False,
) -> Scores | None:
    """Return mean average precision, each class's and the accuracy of labels, in percent; None without photos.

    Args:
        classifier: in evaluation mode.
        samples: photos with image-level labels, shared among the processes at work.
        size: side of the square input in pixels.
        tiles: inputs are these, the classes of a photo being those of all together; None for whole photos.
        workers: processes that decode.
        strict: raise for an unreadable photo instead of skipping it.
    """
    mine, device, backbone = [], classifier.head.weight.device, folded_backbone(classifier.backbone)
    for batch, features in pooled_features(
        backbone, share(samples), size, tiles, workers=workers, strict=strict, label="mAP"
    ):
        with torch.inference_mode():
            logits = classifier.head(features.to(device))
            mine.append(([sample.labels for sample in batch], logits.float().cpu()))
    parts = [part for theirs in gather(mine) for part in theirs]
    if not parts:
        return None
    labels = [present for rows, _ in parts for present in rows]
    truth, scores = targets_of(labels, len(classifier.classes)).bool().numpy(), torch.cat([s for _, s in parts]).numpy()
    precision = [100 * average_precision(truth[:, c], scores[:, c]) for c in range(truth.shape[1])]
    mean = float(np.nanmean(precision)) if np.isfinite(precision).any() else float("nan")
    per_class = dict(zip(classifier.classes, map(rounded, precision), strict=True))
    accuracy = rounded(100 * label_accuracy(truth, scores))
    return {"map": rounded(mean), "accuracy": accuracy, "ap": per_class, "images": len(labels)}
