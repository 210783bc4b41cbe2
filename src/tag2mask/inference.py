"""Inference (METHOD 7): scores at several scales averaged at the photo's own size, then a dense CRF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from tag2mask.config import CrfConfig, Recipe
from tag2mask.crf import dense_crf
from tag2mask.data import Sample, read_photo, write_mask
from tag2mask.data.loading import keep_readable
from tag2mask.distributed import barrier, share
from tag2mask.errors import DataError
from tag2mask.networks.deeplab import Segmenter
from tag2mask.progress import track
from tag2mask.threads import map_ahead

PRESENT = 0.05
"""A class whose probability reaches this nowhere in a photo does not enter the photo's CRF."""


def predict_probabilities(
    segmenter: Segmenter, photo: NDArray[np.uint8], scales: Sequence[int], labels: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Return class probabilities of a photo, averaged over square inputs of several sizes.

    Args:
        segmenter: in evaluation mode.
        photo: uint8 H x W x 3, RGB.
        scales: sides of the inputs in pixels.
        labels: class indices that the photo is known to hold; all others but background are ruled out.

    Returns:
        float32 (C + 1) x H x W, summing to 1.
    """
    device = next(segmenter.parameters()).device
    pixels = torch.from_numpy(photo.transpose(2, 0, 1).copy())[None].to(device).float()
    allowed = torch.zeros(len(segmenter.classes) + 1, dtype=torch.bool, device=device)
    allowed[[0, *labels] if labels is not None else slice(None)] = True
    total = torch.zeros(int(allowed.sum()), *photo.shape[:2], device=device)
    with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
        for side in scales:
            logits = segmenter(_resize(pixels, (side, side)))[:, allowed]
            total += _resize(logits.float(), photo.shape[:2])[0].softmax(0)
    probabilities = np.zeros((len(allowed), *photo.shape[:2]), np.float32)
    probabilities[allowed.cpu().numpy()] = (total / len(scales)).cpu().numpy()
    return probabilities


def mask_of(photo: NDArray[np.uint8], probabilities: NDArray[np.float32], crf: CrfConfig | None) -> NDArray[np.uint8]:
    """Return the most likely class of each pixel, after a dense CRF if its parameters are given.

    Args:
        photo: uint8 H x W x 3, RGB.
        probabilities: float32 K x H x W.
        crf: parameters of the CRF, or None for none.

    Returns:
        uint8 H x W, 0..K-1.
    """
    present = np.flatnonzero(probabilities.reshape(len(probabilities), -1).max(1) >= PRESENT).astype(np.uint8)
    kept = probabilities[present]
    if crf is not None and len(present) > 1:
        kept = dense_crf(
            photo,
            kept / kept.sum(0, keepdims=True),
            gaussian=crf.gaussian,
            bilateral=crf.bilateral,
            steps=crf.steps,
        )
    return np.asarray(present[kept.argmax(0)])


class WholePhotos(Dataset[tuple[int, "NDArray[np.uint8] | str"]]):
    """Photos at their own size: ``(index, uint8 H x W x 3)``, or ``(index, what is wrong)``."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, NDArray[np.uint8] | str]:
        """Read one photo."""
        try:
            return index, read_photo(self.samples[index].image)
        except DataError as error:
            return index, str(error)


def read_ahead(
    samples: Sequence[Sample], workers: int, strict: bool = False
) -> Iterator[tuple[Sample, NDArray[np.uint8]]]:
    """Yield photos in order, decoded ahead in worker processes; unreadable ones are reported and skipped."""
    loader = DataLoader(WholePhotos(samples), batch_size=None, num_workers=workers, collate_fn=lambda item: item)
    for index, photo in keep_readable(loader, strict):
        yield samples[index], photo


def predict_masks(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    folder: Path,
    recipe: Recipe,
    *,
    known_labels: bool = False,
    again: bool = False,
    strict: bool = False,
) -> int:
    """Write a palette PNG for every photo that has none yet and return how many there now are.

    Each of the processes at work predicts its share.

    Args:
        segmenter: in evaluation mode, on its device.
        samples: the photos.
        folder: where to.
        recipe: its ``inference`` and ``crf`` are used.
        known_labels: rule out classes that a photo's image-level labels do not name.
        again: write those that are there too.
        strict: raise for an unreadable photo instead of skipping it.
    """
    crf = recipe.crf if recipe.inference.crf else None

    def write(job: tuple[Sample, NDArray[np.uint8], NDArray[np.float32]]) -> None:
        sample, photo, probabilities = job
        write_mask(folder / f"{sample.name}.png", mask_of(photo, probabilities, crf))

    def jobs() -> Iterator[tuple[Sample, NDArray[np.uint8], NDArray[np.float32]]]:
        for sample, photo in read_ahead(todo, recipe.workers, strict):
            labels = sample.labels if known_labels else None
            yield sample, photo, predict_probabilities(segmenter, photo, recipe.inference.scales, labels)

    for sample in samples:
        if (folder / f"{sample.name}.png").resolve() == sample.image.resolve():
            raise DataError(f"{sample.image} would be overwritten by its mask; choose another folder for the masks")
    mine = share(samples)
    todo = mine if again else without_mask(mine, folder)
    for _ in track(map_ahead(write, jobs()), len(todo), f"masks to {folder.name}"):
        pass
    barrier()
    return len(samples) - len(without_mask(samples, folder))


def without_mask(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """Return the photos that have no mask in ``folder`` yet."""
    return [sample for sample in samples if not (folder / f"{sample.name}.png").exists()]


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False, antialias=maps.shape[1] == 3)
