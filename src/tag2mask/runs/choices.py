"""What a person's corrected masks choose for each class, shrunk to the recipe's defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tag2mask.names import IGNORE
from tag2mask.resize import resize

STEPS = 81
"""Thresholds that are tried for a class."""

REACH = 4.0
"""They go so many of the prior's standard deviations up and down."""


@dataclass
class Evidence:
    """What corrected masks say of a class: IoU by threshold, summed over photos.

    Attributes:
        photos: how many show the class.
        iou: float STEPS.
    """

    photos: int = 0
    iou: NDArray[np.float64] = field(default_factory=lambda: np.zeros(STEPS))

    def add(
        self, scores: NDArray[np.float32], shown: NDArray[np.float32], known: NDArray[np.float32], spread: float
    ) -> None:
        """Add a photo that shows the class.

        Args:
            scores: float32 h x w, of the class, 0 where the default threshold is.
            shown: float32 h x w, share of each position that the class has in the corrected mask.
            known: float32 h x w, share of each position that is not 255.
            spread: as of `offsets`.
        """
        above = (scores.ravel()[None] > offsets(spread)[:, None]).astype(np.float64)
        both, others = above @ shown.ravel(), above @ (known - shown).ravel()
        self.photos += 1
        self.iou += both / (shown.sum() + others)

    def offset(self, spread: float, temperature: float) -> float:
        r"""Return what to add to the default threshold: the mean of $\delta$ weighted by

        $\exp\left(\frac1T \sum_i J_i(\delta) - \frac{\delta^2}{2 \sigma^2}\right)$,
        $J_i$ being the IoU in photo i. Few photos, or IoU that hardly depends on the threshold, leave it near 0.

        Args:
            spread: sigma, in the unit of the scores.
            temperature: T.

        >>> Evidence().offset(0.5, 0.2)
        0.0
        """
        tried = offsets(spread)
        logits = self.iou / temperature - tried**2 / (2 * spread**2)
        weights = np.exp(logits - logits.max())
        return float(weights @ tried / weights.sum()) if self.photos else 0.0


def offsets(spread: float) -> NDArray[np.float64]:
    """Return the thresholds that are tried, as differences from the default, which is one of them.

    Args:
        spread: standard deviation of the prior, in the unit of the scores.
    """
    return np.linspace(-REACH * spread, REACH * spread, STEPS)


def add_photo(
    evidence: Mapping[int, Evidence],
    scores: NDArray[np.float32],
    labels: Sequence[int],
    mask: NDArray[np.uint8],
    spread: float,
) -> None:
    """Add what a corrected photo says of those classes of its tags that its mask shows.

    Args:
        evidence: by class index, changed in place.
        scores: float32 L x h x w, one map a label, 0 where the default threshold is.
        labels: class indices, 1..C.
        mask: uint8 H x W, corrected.
        spread: as of `offsets`.
    """
    layers = np.stack([mask == label for label in labels] + [mask != IGNORE]).astype(np.float32)
    size = (scores.shape[1], scores.shape[2])
    *shown, known = resize(torch.from_numpy(layers)[None], size, antialias=True)[0].numpy()
    for label, one, of_class in zip(labels, scores, shown, strict=True):
        if of_class.any():
            evidence[label].add(one, of_class, known, spread)


def chosen(
    evidence: Mapping[int, Evidence], classes: Sequence[str], spread: float, temperature: float
) -> dict[str, dict[str, Any]]:
    """Return by class name what is chosen: ``offset`` of the threshold, and from how many ``photos``.

    Args:
        evidence: by class index.
        classes: names of the foreground classes.
        spread: as of `Evidence.offset`.
        temperature: as of `Evidence.offset`.
    """
    return {
        classes[label - 1]: {"offset": round(one.offset(spread, temperature), 4), "photos": one.photos}
        for label, one in sorted(evidence.items())
        if one.photos
    }


def as_offsets(choices: Mapping[str, Mapping[str, Any]], classes: Iterable[str]) -> NDArray[np.float32]:
    """Return what is added to each class's threshold, float32 C, from what `chosen` gave."""
    return np.array([choices.get(name, {}).get("offset", 0.0) for name in classes], np.float32)
