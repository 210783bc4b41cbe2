"""The segmenter that the server holds: one photo at a time, exchanged as a whole when a newer one is there."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tag2mask.data import photo_size
from tag2mask.errors import DataError, UserError
from tag2mask.runs.trained import load_segmenter
from tag2mask.segmenter import Segmenter

log = logging.getLogger("tag2mask")

MOST_PIXELS = 16_000_000
"""Larger photos are refused: the CRF takes some 300 bytes a pixel."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of a photo.

    Attributes:
        mask: uint8 H x W, 0..C.
        scores: float32 C + 1, the mean probability of each class over its pixels.
        classes: names of the C foreground classes.
        version: of the model.
    """

    mask: NDArray[np.uint8]
    scores: NDArray[np.float32]
    classes: tuple[str, ...]
    version: str

    @property
    def pixels(self) -> NDArray[np.int64]:
        """How many pixels each class has, background first, int64 C + 1."""
        return np.bincount(self.mask.ravel(), minlength=len(self.scores))

    @property
    def score(self) -> float:
        """The mean probability of what the mask shows over all its pixels, 0..1."""
        return float(self.scores @ self.pixels / self.mask.size)

    def found(self) -> list[tuple[int, str]]:
        """Return index and name of the classes that the mask shows."""
        return [(label, self.classes[label - 1]) for label in np.flatnonzero(self.pixels).tolist() if label]


@dataclass(frozen=True)
class _Loaded:
    segmenter: Segmenter
    version: str


class LiveModel:
    """The segmenter of a run. Predictions take turns; a photo that has begun ends with the model that it began with.

    Args:
        run: a run folder, or a segmenter exported from one.

    Raises:
        RunError: it has no segmenter.
    """

    def __init__(self, run: str | Path) -> None:
        self.run = Path(run)
        self._turn = threading.Lock()
        self._loaded = self._load()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes."""
        return self._loaded.segmenter.classes

    @property
    def version(self) -> str:
        """The run's name, and the time at which its segmenter was written."""
        return self._loaded.version

    def predict(self, photo: Path) -> Prediction:
        """Return what the model says of a photo.

        Raises:
            DataError: it cannot be read, or has more than `MOST_PIXELS` pixels.
        """
        height, width = photo_size(photo)
        if height * width > MOST_PIXELS:
            raise DataError(
                f"{photo}: {height} x {width} pixels (height x width), more than {MOST_PIXELS // 1_000_000} million; "
                "make a smaller copy"
            )
        with self._turn:
            loaded = self._loaded
            mask, scores = loaded.segmenter.predict_scored(photo)
        return Prediction(mask, scores, loaded.segmenter.classes, loaded.version)

    def reload(self) -> None:
        """Take the run's segmenter as it is now; where it cannot be loaded, go on with the one that is held."""
        try:
            self._loaded = self._load()
            log.info("new model: %s", self.version)
        except UserError as error:
            log.warning("the new model cannot be loaded, the one before stays: %s", error)

    def _load(self) -> _Loaded:
        segmenter = load_segmenter(self.run)
        files = [*self.run.glob("segmenter*.safetensors"), *self.run.glob("model.safetensors")]
        written = datetime.fromtimestamp(max(file.stat().st_mtime for file in files))
        return _Loaded(segmenter, f"{self.run.resolve().name} {written:%Y-%m-%d %H:%M:%S}")
