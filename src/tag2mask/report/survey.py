"""What can be counted in a run's masks, with truth and without: doubt per photo, sums per class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from tag2mask.data import ImageSet, Sample, read_mask
from tag2mask.errors import DataError
from tag2mask.metrics import confusion_matrix
from tag2mask.names import IGNORE
from tag2mask.progress import track
from tag2mask.report.confidence import Confidence
from tag2mask.threads import map_ahead

Mask = npt.NDArray[np.uint8]

LOOK = 0.5
"""Confidence below which a photo needs a look."""

NAMED = 0.01
"""Share of a picture from which a region's name is written on it."""


@dataclass(frozen=True)
class PhotoSet:
    """Photos and where their masks lie.

    Attributes:
        name: ``training`` or ``evaluation``.
        data: photos, image-level labels, and truth where it exists.
        folders: the folder of the mask files by kind, ``proxy`` or ``prediction``.
    """

    name: str
    data: ImageSet
    folders: dict[str, Path]

    @property
    def final(self) -> Path:
        """The folder of the masks that the run ends with: predictions, else proxy masks."""
        return self.folders["prediction" if "prediction" in self.folders else "proxy"]

    def masks(self, sample: Sample) -> dict[str, Mask]:
        """Return the masks of a photo by kind, its truth as ``truth``; nothing if it has no mask file.

        Raises:
            DataError: masks differ in size or hold an unknown class.
        """
        files = {kind: folder / f"{sample.name}.png" for kind, folder in self.folders.items()}
        masks = {kind: read_mask(file) for kind, file in files.items() if file.exists()}
        truth = self.data.truth(sample) if masks else None
        if truth is not None:
            masks["truth"] = truth
        for kind, mask in masks.items():
            highest = int(np.max(mask, where=mask != IGNORE, initial=0))
            if highest > len(self.data.classes) or mask.shape != next(iter(masks.values())).shape:
                raise DataError(f"{files.get(kind, sample.mask)}: not a mask of this run's photo; make the masks again")
        return masks


@dataclass(frozen=True)
class Doubt:
    """Why a photo is worth a look.

    Attributes:
        pixels: share of its pixels in doubt, 0..1; None where there is nothing to compare.
        missing: those of its labels that the mask does not show anywhere.
        confidences: of the classes in its final mask; none where it shows none and has no tags.
    """

    pixels: float | None
    missing: tuple[int, ...]
    confidences: tuple[Confidence, ...] = ()

    @property
    def lowest(self) -> float | None:
        """The lowest of its confidences, 0..1; None where there is none."""
        return min((one.value for one in self.confidences), default=None)

    @property
    def needs_look(self) -> bool:
        """Whether a person should look at the photo: a tag is missing, or a confidence is below `LOOK`."""
        return bool(self.missing) or (self.lowest is not None and self.lowest < LOOK)


def doubt_of(labels: Sequence[int], masks: dict[str, Mask], confidences: Sequence[Confidence] = ()) -> Doubt:
    """Return what speaks against a photo's mask: pixels in which masks differ, tags not found, low confidences.

    The pixels are a share of those that show a class in the proxy mask or the prediction: those of them that differ and
    are certain in the proxy mask. Without a proxy mask the truth takes its place, without its pixels of 255. With a
    proxy mask alone, they are the share of all pixels that are uncertain.

    Args:
        labels: image-level labels, 1..C; empty where they are not known.
        masks: uint8 H x W by kind (``proxy``, ``prediction``, ``truth``), of one size.
        confidences: of the final mask's classes.

    >>> proxy, prediction = np.array([[0, 1, 1, 255, 0]]), np.array([[0, 1, 0, 1, 1]])
    >>> doubt_of([1, 2], {"proxy": proxy, "prediction": prediction})
    Doubt(pixels=0.5, missing=(2,), confidences=())
    """
    shown = masks["prediction"] if "prediction" in masks else masks["proxy"]
    pixels = None
    if "prediction" not in masks:
        pixels = float(np.mean(shown == IGNORE))
    elif "proxy" in masks:
        pixels = _differing(masks["proxy"], shown, masks["proxy"] > 0)
    elif "truth" in masks:
        pixels = _differing(masks["truth"], shown, (masks["truth"] > 0) & (masks["truth"] != IGNORE))
    missing = tuple(label for label in labels if not (shown == label).any())
    return Doubt(pixels, missing, tuple(confidences))


def _differing(mask: Mask, prediction: Mask, shows: npt.NDArray[np.bool_]) -> float | None:
    """Return the share that differs of the pixels that show a class in either mask; None where all are 255."""
    certain = mask != IGNORE
    if not certain.any():
        return None
    either = shows | (certain & (prediction > 0))
    return float((certain & (mask != prediction))[either].mean()) if either.any() else 0.0


class Tally:
    """Sums over photos with C classes; entry c is over the photos labelled c, entry 0 over all of them.

    Attributes:
        photos: int C + 1, how many.
        missing: int C + 1, how many do not show the class (entry 0: some label of theirs).
        cover: by kind of mask (``proxy``, ``prediction``), float C + 1, share of a photo's pixels that are of the
            class (entry 0: of any), summed.
        uncertain: float C + 1, share of a proxy mask's pixels that are 255, summed.
        agreement: int (C + 1) x (C + 1), pixels by proxy mask, without 255, and prediction.
        confusion: int (C + 1) x (C + 1), pixels by truth and prediction.
    """

    def __init__(self, classes: int, kinds: Iterable[str]) -> None:
        size = classes + 1
        self.photos, self.missing = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.uncertain = np.zeros(size)
        self.cover = {kind: np.zeros(size) for kind in kinds}
        self.agreement, self.confusion = np.zeros((size, size), np.int64), np.zeros((size, size), np.int64)

    def add(self, labels: Sequence[int], masks: dict[str, Mask], doubt: Doubt) -> None:
        """Add a photo."""
        rows = [0, *labels]
        self.photos[rows] += 1
        self.missing[[0, *doubt.missing] if doubt.missing else []] += 1
        for kind, cover in self.cover.items():
            if kind in masks:
                share = np.bincount(masks[kind].ravel(), minlength=256) / masks[kind].size
                cover[rows] += [share[1:IGNORE].sum(), *share[list(labels)]]
                if kind == "proxy":
                    self.uncertain[rows] += share[IGNORE]
        for first, matrix in (("proxy", self.agreement), ("truth", self.confusion)):
            if first in masks and "prediction" in masks:
                matrix += confusion_matrix(masks[first], masks["prediction"], len(matrix))

    def mean(self, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return sums over photos in percent of each photo; NaN for a class without a photo."""
        return 100 * np.divide(sums, self.photos, out=np.full_like(sums, np.nan), where=self.photos > 0)


def survey(
    photos: PhotoSet, confidences: Mapping[str, Sequence[Confidence]]
) -> tuple[Tally, list[tuple[Sample, Doubt]]]:
    """Read every mask once; return the sums, and the photos that have masks, the lowest confidence first.

    Args:
        photos: the photos.
        confidences: by the photo's name.
    """
    tally, ranked = Tally(len(photos.data.classes), photos.folders), []

    def look(sample: Sample) -> tuple[Sample, dict[str, Mask], Doubt | None]:
        masks = photos.masks(sample)
        return sample, masks, doubt_of(sample.labels, masks, confidences.get(sample.name, ())) if masks else None

    looks = map_ahead(look, photos.data.samples)
    for sample, masks, doubt in track(looks, len(photos.data), f"{photos.name} masks"):
        if doubt is not None:
            tally.add(sample.labels, masks, doubt)
            ranked.append((sample, doubt))
    ranked.sort(key=lambda item: (not item[1].needs_look, 2.0 if item[1].lowest is None else item[1].lowest))
    return tally, ranked


def regions(mask: Mask) -> list[list[int | float]]:
    """Return what a mask shows, the largest first: value, percent of its pixels, and where to write its name.

    The place is the one farthest from the region's border, x and y in percent; it is left out for a region
    below one percent.

    >>> regions(np.repeat([[0, 0, 0, 3, 3, 3]], 3, axis=0).astype(np.uint8))
    [[3, 50.0, 75, 50]]
    """
    shares = np.bincount(mask.ravel(), minlength=256) / mask.size
    found: list[list[int | float]] = []
    for value in np.argsort(-shares, kind="stable"):
        if value and shares[value]:
            place = _middle(mask == value) if shares[value] >= NAMED and value != IGNORE else []
            found.append([int(value), round(100 * float(shares[value]), 1), *place])
    return found


def _middle(region: npt.NDArray[np.bool_]) -> list[int]:
    step = -(-max(region.shape) // 60)
    top, left = (min(step // 2, (side - 1) // 2) for side in region.shape)
    depth = distance_transform_edt(np.pad(region[top::step, left::step], 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return [round(100 * (column + 0.5) / depth.shape[1]), round(100 * (row + 0.5) / depth.shape[0])]
