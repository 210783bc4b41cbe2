"""Scores of folders of mask files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, model_validator

from tag2mask.data import ImageSet, read_mask
from tag2mask.data.class_names import class_indices
from tag2mask.data.matching import match_masks
from tag2mask.data.photos import masks_by_name, unread_masks
from tag2mask.data.truth import ONLY_IGNORED
from tag2mask.distributed import share, total
from tag2mask.errors import DataError
from tag2mask.metrics import confusion_matrix, iou, mean_iou
from tag2mask.names import IGNORE

log = logging.getLogger("tag2mask")

Scores = dict[str, Any]
"""Scores as in metrics.json; `RunScores` and `MaskScores` are the same with types."""
Percent = float | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        return (
            {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values
        )


class MaskScores(_Part):
    """Scores of masks, in percent.

    Attributes:
        miou: mean IoU over the classes; None without truth.
        iou: IoU by class, ``background`` among them; None for a class that is nowhere; empty without truth.
        images: photos scored.
    """

    miou: Percent = None
    iou: dict[str, Percent] = {}
    images: NonNegativeInt = 0


class ClassifierScores(_Part):
    """Scores of the classifier on photos that it was not trained on, in percent.

    Attributes:
        map: mean average precision over the classes; None where none can be measured.
        accuracy: share of the tags that are among a photo's k likeliest classes, k being its number of tags
            (`tag2mask.metrics.label_accuracy`); None for a single class.
        ap: average precision by class; None for a class without a photo.
        images: photos scored.
    """

    map: Percent = None
    accuracy: Percent = None
    ap: dict[str, Percent] = {}
    images: NonNegativeInt = 0


class SignEvidence(_Part):
    """Evidence for the sign of a class pattern.

    Attributes:
        activation: correlation of its scores with the class's activation, -1 to 1; low is weak.
        centre: the same with nearness to the photo's centre.
        explained: share of the variance that the pattern explains, 0 to 1.
    """

    activation: float
    centre: float
    explained: float


class RunScores(_Part, extra="allow"):
    """Contents of a run's metrics.json; parts that are not computed yet are empty.

    Attributes:
        classifier: of the classifier.
        patterns: by class.
        proxy: of the training photos' proxy masks.
        retrain: of the masks used for the last retraining round.
        refined: of the training photos' masks after `refine`, without those that a person has corrected.
        prediction: of the predictions of the evaluation photos.
        seconds: by stage.
    """

    classifier: ClassifierScores = ClassifierScores()
    patterns: dict[str, SignEvidence] = {}
    proxy: MaskScores = MaskScores()
    retrain: MaskScores = MaskScores()
    refined: MaskScores = MaskScores()
    prediction: MaskScores = MaskScores()
    seconds: dict[str, NonNegativeFloat] = {}

    @property
    def masks(self) -> dict[str, MaskScores]:
        """The masks that were scored, by ``proxy``, ``retrain``, ``refined`` and ``prediction``."""
        kinds = {name: getattr(self, name) for name in ("proxy", "retrain", "refined", "prediction")}
        return {name: scores for name, scores in kinds.items() if scores.iou}


def score_set(data: ImageSet, masks: Path) -> Scores:
    """Score a folder of masks against the truth of an image set, shared among the processes at work.

    Returns:
        ``miou`` in percent, ``iou`` per class in percent, ``images`` scored; None where there is no truth.

    Raises:
        DataError: a mask has another size than the truth or a class beyond the set's.
    """
    pairs = ((sample, masks / f"{sample.name}.png") for sample in share(data.samples))
    matrix, images = np.zeros((len(data.classes) + 1,) * 2, np.int64), 0
    for sample, file in pairs:
        truth = data.truth(sample)
        if truth is not None and file.exists():
            matrix += _compare(truth, read_mask(file), file, len(matrix))
            images += 1
    total(torch.from_numpy(matrix))
    return _scores(matrix, ("background", *data.classes), int(total(torch.tensor(images))))


def score_folders(
    masks: str | Path,
    truth: str | Path,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Scores:
    """Score every mask of one folder against the mask of the same name in another.

    Args:
        masks: folder of predicted masks.
        truth: folder of true masks.
        names: which ones, with or without folders and suffix; None takes all true masks.
        classes: names of the foreground classes; else they are called by their numbers.

    Raises:
        DataError: a folder or mask is missing, sizes differ, or masks hold 0 and 255 alone.
    """
    masks, truth = Path(masks), Path(truth)
    for folder in (masks, truth):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of masks; check the path")
    true, made, unread = masks_by_name(truth), masks_by_name(masks), unread_masks(truth)
    if not true:
        why = f" ({len(unread)} images that are not masks; {unread[0]})" if unread else ""
        raise DataError(f"{truth}: no masks in this folder{why}; give the folder of the true masks")
    if unread:
        log.warning("skipped: %d images in the folder of true masks, the first is %s", len(unread), unread[0])
    names = sorted(match_masks(names, true, "the list of names")) if names else list(true)
    missing = [name for name in names if name not in made]
    if missing:
        raise DataError(
            f"{masks}: {len(missing)} of {len(names)} masks are missing, the first is {missing[0]}.png; "
            "predict them, or give their list with --split"
        )
    count = 1 + (len(class_indices(classes, "the classes")) if classes else 254)
    matrix, ignored = np.zeros((count, count), np.int64), np.zeros(2, np.int64)
    for name in share(names):
        wanted, found = read_mask(true[name]), read_mask(made[name])
        matrix += _compare(wanted, found, made[name], count)
        ignored += [np.count_nonzero(mask == IGNORE) for mask in (wanted, found)]
    for counts in (matrix, ignored):
        total(torch.from_numpy(counts))
    for folder, pixels, of_class in zip((truth, masks), ignored, (matrix[1:].sum(), matrix[:, 1:].sum()), strict=True):
        if pixels and not of_class:
            raise DataError(f"{folder}: the masks {ONLY_IGNORED}")
    if not classes:
        used = 1 + int(np.flatnonzero(matrix.any(0) | matrix.any(1)).max(initial=0))
        matrix, classes = matrix[:used, :used], [str(index) for index in range(1, used)]
    return _scores(matrix, ("background", *classes), len(names))


def _compare(truth: NDArray[np.uint8], mask: NDArray[np.uint8], file: Path, classes: int) -> NDArray[np.int64]:
    try:
        return confusion_matrix(truth, mask, classes)
    except ValueError as error:
        raise DataError(f"{file}: {error}; make the mask again or give the right truth") from None


def _scores(matrix: NDArray[np.int64], classes: Sequence[str], images: int) -> Scores:
    if not images:
        return {"miou": None, "iou": None, "images": 0}
    values = dict(zip(classes, (rounded(100 * value) for value in iou(matrix)), strict=True))
    return {"miou": rounded(100 * mean_iou(matrix)), "iou": values, "images": images}


def rounded(value: float) -> float | None:
    """Return a percentage to two places; None where it is not known."""
    return round(float(value), 2) if np.isfinite(value) else None
