"""A trained segmenter: load it, predict photos with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tag2mask.config import Recipe
from tag2mask.data import read_photo
from tag2mask.inference import mask_of, predict_probabilities
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.notebook import html_table


@dataclass
class Segmenter:
    """A segmenter with the recipe that it was trained by."""

    segmenter: SegmentationNetwork
    recipe: Recipe

    def predict(self, photo: str | Path | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the mask of a photo, uint8 H x W at the photo's own size, 0 for background.

        Args:
            photo: a file, or uint8 H x W x 3, RGB.

        Raises:
            DataError: the photo cannot be read.
        """
        pixels = photo if isinstance(photo, np.ndarray) else read_photo(photo)
        how = self.recipe.inference
        likely = predict_probabilities(self._folded, pixels, how.scales, background_weight=how.background_weight)
        return mask_of(pixels, likely, how.crf)

    def _repr_html_(self) -> str:
        """Return a table for a notebook: what the segmenter is and what each value of a mask means."""
        names = ", ".join(map(str, self.recipe.inference.scales))
        rows = [(name, value) for value, name in enumerate(("background", *self.segmenter.classes))]
        caption = f"segmenter of recipe {self.recipe.name} on {self.segmenter.backbone.name}, scales {names} pixels"
        return html_table(caption, ("class", "value"), rows)

    @cached_property
    def _folded(self) -> SegmentationNetwork:
        how = self.recipe.inference
        return self.segmenter.folded(how.scales if how.compile else None)
