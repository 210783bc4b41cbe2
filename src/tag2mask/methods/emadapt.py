"""EM-Adapt (Papandreou et al. 2015): no masks but the segmenter's own, biased towards the photo's tags.

In every step the segmenter's scores, with adaptive biases, give the masks that it then learns from: Eqs. 4 and 9,
`tag2mask.training.expectation`. Published and kept: at least 20% of the positions for each class of the photo's tags
and 40% for background, absent classes suppressed, no other background.

Replaced: VGG16 (DeepLab-LargeFOV) and its training by the recipe's segmenter, which begins at random above its
backbone; crops of 321 x 321 by whole photos, since a crop may lose what the tags name.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tag2mask.methods.cam import Cam
from tag2mask.names import IGNORE


class EmAdapt(Cam):
    """There are no proxy masks: every pixel of a tagged photo is uncertain, and the segmenter's loss reads tags."""

    title = "EM-Adapt"
    settings: ClassVar[tuple[str, ...]] = (
        *Cam.settings, "proxy.crf=none", "segmenter.method=em", "segmenter.crop=1", "segmenter.retrain=0",
    )  # fmt: skip
    options: ClassVar[tuple[str, ...]] = ()

    def finish(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uncertainty everywhere."""
        return np.full_like(mask, IGNORE)


METHOD = EmAdapt()
