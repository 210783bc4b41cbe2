"""Scores: confusion matrix, intersection over union, average precision. Pure functions on arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tag2mask.names import IGNORE


def confusion_matrix(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count pixels by true and predicted class.

    The mIoU that the paper reports is of one matrix over a whole set. Truth of 255 is left out; a prediction counts
    everywhere, so a predicted 255 (uncertain) counts as background. Matrices of several images add up.

    Args:
        truth: H x W, 0..classes-1 or 255.
        prediction: H x W, 0..classes-1 or 255.
        classes: number of classes, background among them.

    Returns:
        int64 classes x classes; rows are true, columns predicted.

    Raises:
        ValueError: shapes differ or a value is neither a class nor 255.

    >>> truth = np.array([[0, 1], [1, 255]], np.uint8)
    >>> confusion_matrix(truth, np.array([[0, 1], [255, 1]], np.uint8), 2).tolist()
    [[1, 0], [1, 1]]
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape} but the prediction is {prediction.shape}")
    counted = truth != IGNORE
    rows = truth[counted].astype(np.int64)
    columns = prediction[counted].astype(np.int64)
    columns[columns == IGNORE] = 0
    for name, values in (("truth", rows), ("prediction", columns)):
        if values.size and values.max() >= classes:
            raise ValueError(f"the {name} holds class {values.max()}, beyond the {classes} classes")
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each class's intersection over union, 0..1; NaN for a class neither true nor predicted.

    >>> iou(np.array([[1, 0], [1, 1]])).tolist()
    [0.5, 0.5]
    """
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hits
    return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)


def mean_iou(matrix: NDArray[np.int64]) -> float:
    """Return the mean of `iou` over the classes that occur, 0..1; NaN when none does."""
    values = iou(matrix)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def average_precision(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Return the area under the precision-recall curve, sum of (R_n - R_(n-1)) P_n over distinct scores.

    Args:
        truth: N, whether the class is present.
        scores: N, larger where the class is more likely.

    Returns:
        0..1, NaN when no image has the class.

    >>> round(average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7])), 4)
    0.8333
    """
    if not truth.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits, ranked = np.cumsum(truth[order]), scores[order]
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    hits, seen = hits[last_of_tie], (np.arange(len(order)) + 1)[last_of_tie]
    recall_steps = np.diff(hits, prepend=0) / truth.sum()
    return float((recall_steps * hits / seen).sum())


def label_accuracy(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Return the share of labels that are among the k largest scores of their image, k being its number of labels.

    With one label an image this is the usual accuracy of classification (top 1); it needs no threshold. The share of
    right yes-or-no answers is another thing: on COCO, 3.5 of 80 classes an image (Lin et al. 2014), a classifier that
    says no to everything would reach 95%.

    Args:
        truth: N x C, whether the class is present.
        scores: N x C, larger where the class is more likely; of equal ones the first class counts as larger.

    Returns:
        0..1, NaN where no image has a label, or there is a single class.

    >>> truth = np.array([[True, False, False], [True, True, False]])
    >>> round(label_accuracy(truth, np.array([[0.9, 0.1, 0.2], [0.8, 0.1, 0.7]])), 4)
    0.6667
    """
    if not truth.any() or truth.shape[1] == 1:
        return float("nan")
    ranks = (-scores).argsort(1, kind="stable").argsort(1, kind="stable")
    found = truth & (ranks < truth.sum(1, keepdims=True))
    return float(found.sum() / truth.sum())
