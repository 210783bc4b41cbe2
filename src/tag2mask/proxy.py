"""Proxy masks: from the scores of a photo's classes to one mask (Eq. 3, Algorithm 1). Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from tag2mask.names import IGNORE, Conflict
from tag2mask.resize import resize

SKEWED, MOST_OF_PEAK = 2.5, 0.65
"""Skewness of a class's scores beyond which the share of their peak that they have to exceed grows, and how far."""

SPECK_SHARE, SPECK_PIXELS, SPECK_PART = 1e-4, 100, 0.1
"""A component is a speck if it is smaller than all of these: a share of the photo, a number of pixels, and a part of
the largest component of its class in the photo."""


def resize_scores(scores: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resize scores, bilinear.

    Args:
        scores: float32 C x h x w.
        height: wanted.
        width: wanted.

    Returns:
        float32 C x height x width.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(scores, dtype=np.float32))[None]
    resized = resize(tensor, (height, width))
    return np.asarray(resized[0].numpy())


def beyond_peak_share(scores: NDArray[np.float32], share: float, per_skew: float = 0.0) -> NDArray[np.float32]:
    r"""Return by how much each class's scores exceed a share of its peak in the photo, $q_c(u) - s_c \max_u q_c(u)$.

    $s_c = s + r (\gamma_c - 2.5)$ with the skewness $\gamma_c$ of the class's scores in the photo, at least $s$ and at
    most 0.65: the smaller an object is, the more skewed they are, and the more of what is beyond the mean is the blur
    around it.

    Args:
        scores: float32 L x h x w.
        share: s, 0..1; 0 changes nothing.
        per_skew: r.

    Returns:
        float32 L x h x w.

    >>> beyond_peak_share(np.full((1, 2, 2), 4, np.float32), 0.25).ravel().tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    if not share and not per_skew:
        return scores
    centred = scores - scores.mean((1, 2), keepdims=True, dtype=np.float64)
    deviation = np.maximum(centred.std((1, 2), keepdims=True), 1e-9)
    skewness = ((centred / deviation) ** 3).mean((1, 2), keepdims=True)
    shares = np.clip(share + per_skew * (skewness - SKEWED), share, max(share, MOST_OF_PEAK))
    return np.asarray(scores - shares * scores.max((1, 2), keepdims=True), np.float32)


def settle(scores: NDArray[np.float32], activation: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    r"""Return scores in which, of several classes present at a position, the classifier's favourite is ahead.

    $q_c(u) - w (\max_{b \in P(u)} M_b(u) - M_c(u))$, at least -1, for the classes $P(u)$ of positive scores: a
    pattern, in deviations of its own class, knows how far an object goes; the logits of one classifier compare classes.

    Args:
        scores: float32 L x h x w, beyond the threshold.
        activation: float32 L x h x w, the class activation in logits.
        weight: w, standard deviations a logit; 0 changes nothing.

    Returns:
        float32 L x h x w.

    >>> scores, activation = np.float32([[[2, 2]], [[1, -1]]]), np.float32([[[0, 0]], [[9, 9]]])
    >>> settle(scores, activation, 0.25).tolist()
    [[[-0.25, 2.0]], [[1.0, -1.0]]]
    """
    present = scores > 0
    favourite = np.where(present, activation, -np.inf).max(0)
    lowered = np.maximum(scores - weight * (favourite - activation), -1)
    return np.asarray(np.where(present & (activation < favourite), lowered, scores), np.float32)


def assign(
    scores: NDArray[np.float32],
    labels: Sequence[int],
    *,
    threshold: float = 0.0,
    conflict: str = Conflict.IGNORE,
    background: float | None = None,
) -> NDArray[np.uint8]:
    r"""Assign each position to a class, to background, or to uncertain (Algorithm 1).

    $Q(u, c) = [q_c(u) > \tau]$ with $\tau = 0$ in the paper; no positive class: background; exactly one:
    that class; several: 255.

    Args:
        scores: float32 L x H x W, one map for each of ``labels``.
        labels: class indices present in the image, 1..C.
        threshold: in the unit of the scores.
        conflict: ``ignore`` marks several positive classes 255 (the paper); ``strongest`` takes the class of
            the largest score.
        background: a position without a positive class is background only where no score exceeds this, else
            255; None for ``threshold``, which leaves nothing between.

    Returns:
        uint8 H x W: 0, one of ``labels``, or 255.

    >>> scores = np.array([[[-1, 1, -1, 2]], [[-1, -1, 3, 1]]], np.float32)
    >>> assign(scores, [5, 7]).tolist()
    [[0, 5, 7, 255]]
    >>> assign(scores, [5, 7], conflict="strongest").tolist()
    [[0, 5, 7, 5]]
    >>> assign(scores, [5, 7], threshold=1.5, background=0).tolist()
    [[0, 255, 7, 5]]
    """
    if not len(labels):
        return np.zeros(scores.shape[1:], np.uint8)
    positive = (scores > threshold).sum(0)
    mask = np.asarray(labels, np.uint8)[scores.argmax(0)]
    mask[positive == 0] = 0
    if background is not None:
        mask[(positive == 0) & (scores > background).any(0)] = IGNORE
    if conflict == Conflict.IGNORE:
        mask[positive > 1] = IGNORE
    return mask


def proxy_mask(
    scores: NDArray[np.float32],
    labels: Sequence[int],
    size: tuple[int, int],
    *,
    threshold: float = 0.0,
    conflict: str = Conflict.IGNORE,
) -> NDArray[np.uint8]:
    """Return a photo's proxy mask at its own size: resize the scores of its classes, then `assign`.

    Args:
        scores: float32 C x h x w, all classes.
        labels: class indices present, 1..C; every other class is left out of account.
        size: height and width of the photo in pixels.
        threshold: as in `assign`.
        conflict: as in `assign`.

    Returns:
        uint8 H x W.
    """
    present = resize_scores(scores[[label - 1 for label in labels]], *size) if len(labels) else scores[:0]
    if not len(labels):
        return np.zeros(size, np.uint8)
    return assign(present, labels, threshold=threshold, conflict=conflict)


def score_probabilities(scores: NDArray[np.float32], *, threshold: float, sharpness: float) -> NDArray[np.float32]:
    r"""Return the CRF's input, the softmax over background and classes of sharpened scores.

    $p_0(u) \propto 1, \quad p_c(u) \propto \exp(\beta (q_c(u) - \tau))$

    Args:
        scores: float32 L x H x W in standard deviations.
        threshold: where a class and background are equally likely.
        sharpness: beta.

    Returns:
        float32 (1 + L) x H x W, summing to 1.

    >>> score_probabilities(np.zeros((1, 1, 1), np.float32), threshold=0, sharpness=3).ravel().tolist()
    [0.5, 0.5]
    """
    logits = np.concatenate([np.zeros_like(scores[:1]), sharpness * (scores - np.float32(threshold))])
    logits -= logits.max(0, keepdims=True)
    likely = np.exp(logits)
    return np.asarray(likely / likely.sum(0, keepdims=True), np.float32)


def speck_area(largest: int, size: int) -> float:
    """Return the area in pixels below which a component is a speck.

    Args:
        largest: area of the largest component of its class in the photo.
        size: area of the photo.

    >>> speck_area(5000, 500 * 375), speck_area(40, 500 * 375)
    (18.75, 4.0)
    """
    return min(SPECK_SHARE * size, SPECK_PIXELS, SPECK_PART * largest)


def without_specks(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a mask whose specks, background's too, have the class of the nearest pixel that is in none.

    Args:
        mask: uint8 H x W.

    Returns:
        uint8 H x W.
    """
    specks = np.zeros(mask.shape, bool)
    for label in np.unique(mask):
        numbered, _ = ndimage.label(mask == label)
        areas = np.bincount(numbered.ravel())
        areas[0] = mask.size
        specks |= (areas < speck_area(int(areas[1:].max()), mask.size))[numbered]
    if not specks.any():
        return mask
    rows, columns = ndimage.distance_transform_edt(specks, return_distances=False, return_indices=True)
    return np.asarray(mask[rows, columns])
