"""The one plain thing that every stage reads: photos, their image-level labels, and truth where it exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tag2mask.data.decode import read_mask

IGNORE = 255
"""The ignore index: pixels of this value count nowhere in training or in the truth of an evaluation."""


@dataclass(frozen=True)
class Sample:
    """One photo.

    Attributes:
        name: unique in its set; the mask of the photo is ``name + ".png"``. Relative, POSIX separators,
            no suffix (``"2007_000033"``, ``"cats/0001"``).
        image: the photo's file.
        labels: sorted indices of the classes present, 1 to C (0 is background and never listed); empty
            where the labels are not known or the photo shows background only.
        mask: the true mask's file, uint8 palette PNG, or None.
    """

    name: str
    image: Path
    labels: tuple[int, ...] = ()
    mask: Path | None = None


@dataclass(frozen=True)
class ImageSet:
    """Photos with image-level labels.

    Attributes:
        classes: names of the C foreground classes; class index i is ``classes[i - 1]``, 0 is background.
        samples: the photos, sorted by name.
        skipped: what was left out, one entry a photo or table row: ``"photos/x.jpg: cannot be read"``.
        draw_truth: how to make the truth of a sample whose ``mask`` is None (COCO draws it from polygons).
    """

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[str, ...] = ()
    draw_truth: Callable[[Sample], np.ndarray | None] = field(default=lambda sample: None, compare=False)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def truth(self, sample: Sample) -> np.ndarray | None:
        """Return the true mask of ``sample``, uint8 H x W (0..C, 255 ignored), or None where there is none."""
        return self.draw_truth(sample) if sample.mask is None else read_mask(sample.mask)

    def with_samples(self, samples: tuple[Sample, ...]) -> ImageSet:
        """Return the same set with other photos."""
        return replace(self, samples=samples)

    def images_per_class(self) -> dict[str, int]:
        """Return how many photos carry each class's label (the size of its semantic subset)."""
        counts = [0] * len(self.classes)
        for sample in self.samples:
            for label in sample.labels:
                counts[label - 1] += 1
        return dict(zip(self.classes, counts, strict=True))
