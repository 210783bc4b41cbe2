"""Inference: scores at several scales averaged at the photo's own size, then a dense CRF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tag2mask.config import CrfConfig, InferenceConfig, Recipe
from tag2mask.crf import dense_crf
from tag2mask.data import Sample, photo_size, write_mask
from tag2mask.data.loading import as_tensor, read_ahead
from tag2mask.devices import half_precision, with_antialias
from tag2mask.distributed import barrier, share, total
from tag2mask.errors import DataError
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.progress import track
from tag2mask.resize import resize
from tag2mask.threads import map_ahead

_STRIP, _TOGETHER = 2**18, 8
"""Probabilities that are worked on at a time on a CPU (one megabyte), and photos on a GPU."""

PRESENT = 0.05
"""A class whose probability reaches this nowhere in a photo does not enter the photo's CRF; where none reaches it,
those that are the most likely somewhere enter."""


def predict_probabilities(
    segmenter: SegmentationNetwork,
    photo: NDArray[np.uint8],
    scales: Sequence[int],
    labels: Sequence[int] | None = None,
    background_weight: float = 1.0,
) -> NDArray[np.float32]:
    """Return class probabilities of a photo, averaged over square inputs of several sizes.

    Args:
        segmenter: in evaluation mode.
        photo: uint8 H x W x 3, RGB.
        scales: sides of the inputs in pixels.
        labels: class indices that the photo is known to hold; all others but background are ruled out.
        background_weight: as in `average`.

    Returns:
        float32 (C + 1) x H x W, summing to 1.
    """
    [logits] = forward(segmenter, [photo], scales)
    return probabilities_of(logits, photo.shape[:2], labels, background_weight)


def forward(
    segmenter: SegmentationNetwork, photos: Sequence[NDArray[np.uint8]], scales: Sequence[int]
) -> list[list[Tensor]]:
    """Return each photo's logits from square inputs of several sizes, float32 (C + 1) x h x w each.

    Args:
        segmenter: in evaluation mode.
        photos: uint8 H x W x 3, RGB; their squares go through the network together.
        scales: sides of the inputs in pixels.
    """
    device = next(segmenter.parameters()).device
    pixels = [as_tensor(photo)[None].to(with_antialias(device)).float() for photo in photos]
    with torch.inference_mode(), half_precision(device):
        at_scales = [
            segmenter(torch.cat([resize(one, (side, side), antialias=True) for one in pixels]).to(device)).float()
            for side in scales
        ]
    return [list(of_photo) for of_photo in zip(*at_scales, strict=True)]


@torch.inference_mode()
def average(
    logits: Sequence[Tensor],
    size: tuple[int, int],
    labels: Sequence[int] | None = None,
    background_weight: float = 1.0,
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the mean over scales of the softmax of logits brought to the photo's size, rows by rows.

    The rows are few enough for the processor's cache, and the photo's probabilities are never there as a whole.

    Args:
        logits: as `forward` gives them for one photo.
        size: height and width of the photo in pixels.
        labels: class indices that the photo is known to hold; all others but background are left out.
        background_weight: what background's probability is multiplied by, before they sum to 1 again.

    Yields:
        Which rows, and their probabilities, float32 rows x W x K, K = C + 1 or 1 + the number of labels.
    """
    height, width = size
    kept = [one if labels is None else one[[0, *labels]] for one in logits]
    wide = [resize(one[None], (one.shape[1], width))[0].permute(1, 2, 0).contiguous() for one in kept]
    # Bilinear interpolation between rows is a product with a matrix that is zero away from the diagonal.
    mixing = [resize(torch.eye(len(one), device=one.device)[None, None], (height, len(one)))[0, 0] for one in wide]
    step = height if wide[0].device.type != "cpu" else max(1, _STRIP // wide[0][0].numel())
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        total = torch.zeros(rows.stop - start, width, len(kept[0]), device=wide[0].device)
        for weights, one in zip(mixing, wide, strict=True):
            used = weights[rows].any(0).nonzero()
            near = slice(int(used[0]), int(used[-1]) + 1)
            total += (weights[rows, near] @ one[near].flatten(1)).view_as(total).softmax(-1)
        total[..., 0] *= background_weight
        yield rows, total / total.sum(-1, keepdim=True)


def probabilities_of(
    logits: Sequence[Tensor],
    size: tuple[int, int],
    labels: Sequence[int] | None = None,
    background_weight: float = 1.0,
) -> NDArray[np.float32]:
    """Return what `average` yields as a whole, float32 (C + 1) x H x W; classes left out are 0."""
    probabilities = np.zeros((len(logits[0]), *size), np.float32)
    allowed = slice(None) if labels is None else [0, *labels]
    for rows, strip in average(logits, size, labels, background_weight):
        probabilities[allowed, rows] = strip.permute(2, 0, 1).cpu().numpy()
    return probabilities


def most_likely(
    logits: Sequence[Tensor],
    size: tuple[int, int],
    labels: Sequence[int] | None = None,
    background_weight: float = 1.0,
) -> NDArray[np.uint8]:
    """Return the most likely class of each pixel, uint8 H x W; arguments as for `average`."""
    mask = np.empty(size, np.uint8)
    for rows, strip in average(logits, size, labels, background_weight):
        mask[rows] = strip.argmax(-1).cpu().numpy()
    return mask if labels is None else np.asarray([0, *labels], np.uint8)[mask]


def mask_of(photo: NDArray[np.uint8], probabilities: NDArray[np.float32], crf: CrfConfig | None) -> NDArray[np.uint8]:
    """Return the most likely class of each pixel, after a dense CRF if its parameters are given.

    Args:
        photo: uint8 H x W x 3, RGB.
        probabilities: float32 K x H x W.
        crf: parameters of the CRF, or None for none.

    Returns:
        uint8 H x W, 0..K-1.
    """
    if crf is None:
        return probabilities.argmax(0).astype(np.uint8)
    present = np.flatnonzero(probabilities.reshape(len(probabilities), -1).max(1) >= PRESENT).astype(np.uint8)
    if not len(present):  # many classes, all of them unlikely
        present = np.unique(probabilities.argmax(0)).astype(np.uint8)
    kept = probabilities[present]
    if len(present) > 1:
        kept = dense_crf(
            photo,
            kept / kept.sum(0, keepdims=True),
            gaussian=crf.gaussian,
            bilateral=crf.bilateral,
            steps=crf.steps,
        )
    return np.asarray(present[kept.argmax(0)])


def mask_at(
    logits: Sequence[Tensor],
    photo: NDArray[np.uint8],
    size: tuple[int, int],
    how: InferenceConfig,
    labels: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Return a photo's mask from its logits at several scales, uint8 H x W.

    Args:
        logits: as `forward` gives them for the photo.
        photo: uint8 H x W x 3, RGB; without a CRF it may be smaller than the mask.
        size: height and width of the mask in pixels.
        how: its CRF and, for a photo whose labels are not known, its background weight are used.
        labels: class indices that the photo is known to hold; all others but background are ruled out.
    """
    weight = how.background_weight if labels is None else 1.0
    if how.crf is None:
        return most_likely(logits, size, labels, weight)
    return mask_of(photo, probabilities_of(logits, photo.shape[:2], labels, weight), how.crf)


def draft_size(how: InferenceConfig) -> int | None:
    """Return the side below which no JPEG need be decoded, see `read_photo`; None where a CRF looks at every pixel."""
    return None if how.crf else 2 * max(how.scales)


def photos_together(segmenter: SegmentationNetwork) -> int:
    """Return how many photos go through the network at a time."""
    return 1 if next(segmenter.parameters()).device.type == "cpu" else _TOGETHER


def predict_masks(
    segmenter: SegmentationNetwork,
    samples: Sequence[Sample],
    folder: Path,
    recipe: Recipe,
    *,
    known_labels: bool = False,
    again: bool = False,
    strict: bool = False,
) -> int:
    """Write a palette PNG for every photo that has none yet and return how many photos have theirs now.

    Each of the processes at work predicts its share.

    Args:
        segmenter: in evaluation mode, on its device.
        samples: the photos.
        folder: where to.
        recipe: its ``inference`` is used.
        known_labels: rule out classes that a photo's image-level labels do not name.
        again: write those that are there too; a mask that stays since its photo cannot be read does not count.
        strict: raise for an unreadable photo instead of skipping it.
    """
    how = recipe.inference
    segmenter, scales = segmenter.folded(how.scales if how.compile else None), how.scales

    def write(job: tuple[Sample, NDArray[np.uint8], list[Tensor]]) -> None:
        sample, photo, logits = job
        labels = sample.labels if known_labels else None
        mask = mask_at(logits, photo, photo_size(sample.image), how, labels)
        write_mask(folder / f"{sample.name}.png", mask)

    def jobs() -> Iterator[tuple[Sample, NDArray[np.uint8], list[Tensor]]]:
        photos = read_ahead(todo, recipe.workers, strict, draft_size(how))
        while chunk := list(islice(photos, photos_together(segmenter))):
            for (sample, photo), logits in zip(chunk, forward(segmenter, [p for _, p in chunk], scales), strict=True):
                yield sample, photo, logits

    for sample in samples:
        if (folder / f"{sample.name}.png").resolve() == sample.image.resolve():
            raise DataError(f"{sample.image} would be overwritten by its mask; choose another folder for the masks")
    mine = share(samples)
    todo = mine if again else without_mask(mine, folder)
    written = sum(1 for _ in track(map_ahead(write, jobs()), len(todo), f"masks to {folder.name}"))
    barrier()
    return int(total(torch.tensor(len(mine) - len(todo) + written)))


def without_mask(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """Return the photos that have no mask in ``folder`` yet."""
    return [sample for sample in samples if not (folder / f"{sample.name}.png").exists()]
