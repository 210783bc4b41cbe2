"""Inference: scores at several scales averaged at the photo's own size, then a dense CRF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tag2mask.config import CrfConfig, InferenceConfig, Recipe, TilesConfig
from tag2mask.crf import at_side, dense_crf
from tag2mask.data import Sample, photo_size, write_mask
from tag2mask.data.loading import as_tensor, read_ahead
from tag2mask.devices import half_precision, with_antialias
from tag2mask.distributed import barrier, share, total
from tag2mask.errors import DataError
from tag2mask.networks.deeplab import SegmentationNetwork, with_tags
from tag2mask.networks.kept import KeptFeatures
from tag2mask.progress import track
from tag2mask.proxy import without_specks
from tag2mask.resize import resize, resizing
from tag2mask.threads import map_ahead
from tag2mask.tiles import Stitch, Tile, Window, parts_of, tiles_of

_STRIP, _ROWS, _TOGETHER = 2**18, 32, 8
"""Probabilities that are worked on at a time on a CPU (one megabyte), rows of logits, and photos on a GPU."""

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
    segmenter: SegmentationNetwork,
    photos: Sequence[NDArray[np.uint8]],
    scales: Sequence[int],
    tiles: TilesConfig | None = None,
) -> list[list[Tensor]]:
    """Return each photo's logits from square inputs of several sizes, float32 (C + 1) x h x w each.

    Args:
        segmenter: in evaluation mode.
        photos: uint8 H x W x 3, RGB; their squares go through the network together.
        scales: sides of the inputs in pixels.
        tiles: each is an input; None for whole photos.
    """
    if tiles is not None:
        return [
            [forward_tiles(segmenter, photo, side, tiles_of(photo.shape[:2], tiles)) for side in scales]
            for photo in photos
        ]
    device = next(segmenter.parameters()).device
    pixels = [as_tensor(photo)[None].to(with_antialias(device)).float() for photo in photos]
    with torch.inference_mode(), half_precision(device):
        at_scales = [
            segmenter(torch.cat([resize(one, (side, side), antialias=True) for one in pixels]).to(device)).float()
            for side in scales
        ]
    return [list(of_photo) for of_photo in zip(*at_scales, strict=True)]


@torch.inference_mode()
def forward_kept(
    segmenter: SegmentationNetwork, kept: KeptFeatures, sample: Sample, scales: Sequence[int]
) -> list[Tensor]:
    """Return what `forward` returns for a photo, from feature maps that are kept."""
    return [segmenter.decode(kept.maps(sample, side))[0].float() for side in scales]


def forward_tiles(segmenter: SegmentationNetwork, photo: NDArray[np.uint8], side: int, tiles: Sequence[Tile]) -> Tensor:
    """Return a photo's logits from its tiles, float32 (C + 1) x h x w; a tag of one tile is one of the photo.

    Args:
        segmenter: in evaluation mode.
        photo: uint8 H x W x 3, RGB.
        side: of the network's input in pixels.
        tiles: of the photo.
    """
    device = next(segmenter.parameters()).device
    whole, together = Stitch(photo.shape[:2]), photos_together(segmenter)
    seen = []
    with torch.inference_mode(), half_precision(device):
        for start in range(0, len(tiles), together):
            some = tiles[start : start + together]
            pixels = torch.stack([as_tensor(tile.cut(photo)) for tile in some]).to(with_antialias(device)).float()
            images = resize(pixels, (side, side), antialias=True).to(device)
            logits, tags = segmenter.decode_apart(segmenter.backbone(images))
            for tile, one in zip(some, logits.float(), strict=True):
                whole.add(tile, one)
            if tags is not None:
                seen.append(tags.float())
        found = whole.map()
        return with_tags(found[None], torch.cat(seen).amax(0, keepdim=True))[0] if seen else found


@torch.inference_mode()
def average(
    logits: Sequence[Tensor],
    size: tuple[int, int],
    labels: Sequence[int] | None = None,
    background_weight: float = 1.0,
    window: Window | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the mean over scales of the softmax of logits brought to the photo's size, rows by rows.

    The rows are few enough for the processor's cache, and the photo's probabilities are never there as a whole.

    Args:
        logits: as `forward` gives them for one photo.
        size: height and width of the photo in pixels.
        labels: class indices that the photo is known to hold; all others but background are left out.
        background_weight: what background's probability is multiplied by, before they sum to 1 again.
        window: rows and columns of the photo that are wanted; None for all.

    Yields:
        Which rows of the window, and their probabilities, float32 rows x W x K, K = C + 1 or 1 + the number of labels.
    """
    height, width = size
    of_window, columns = window or (slice(0, height), slice(0, width))
    kept = [one if labels is None else one[[0, *labels]] for one in logits]
    # Bilinear interpolation between rows is a product with a matrix that is zero away from the diagonal.
    mixing = [resizing(one.shape[1], height)[of_window].to(one.device) for one in kept]
    wide = [_Wide(one, width, columns) for one in kept]
    at_once = _STRIP if kept[0].device.type == "cpu" else 2**8 * _STRIP
    end, across = of_window.stop - of_window.start, columns.stop - columns.start
    step = max(1, at_once // (across * len(kept[0])))
    for start in range(0, end, step):
        rows = slice(start, min(start + step, end))
        total = torch.zeros(rows.stop - start, across, len(kept[0]), device=kept[0].device)
        for weights, one in zip(mixing, wide, strict=True):
            used = weights[rows].any(0).nonzero()
            near = slice(int(used[0]), int(used[-1]) + 1)
            total += (weights[rows, near] @ one.rows(near).flatten(1)).view_as(total).softmax(-1)
        total[..., 0] *= background_weight
        yield rows, total / total.sum(-1, keepdim=True)


class _Wide:
    """Logits at the photo's width, float h x W x K, some rows at a time: all of them would not be small."""

    def __init__(self, logits: Tensor, width: int, columns: slice) -> None:
        self.logits, self.width, self.columns = logits, width, columns
        self.there = slice(0, 0)

    def rows(self, near: slice) -> Tensor:
        """Return some rows; they are asked for in order."""
        if near.start < self.there.start or near.stop > self.there.stop:
            self.there = slice(near.start, min(max(near.stop, near.start + _ROWS), self.logits.shape[1]))
            some = self.logits[None, :, self.there]
            wide = resize(some, (some.shape[2], self.width))[0, :, :, self.columns]
            self.wide = wide.permute(1, 2, 0).contiguous()
        return self.wide[near.start - self.there.start : near.stop - self.there.start]


def probabilities_of(
    logits: Sequence[Tensor],
    size: tuple[int, int],
    labels: Sequence[int] | None = None,
    background_weight: float = 1.0,
    window: Window | None = None,
) -> NDArray[np.float32]:
    """Return what `average` yields as a whole, float32 (C + 1) x H x W; classes left out are 0."""
    shape = size if window is None else [part.stop - part.start for part in window]
    probabilities = np.zeros((len(logits[0]), *shape), np.float32)
    allowed = slice(None) if labels is None else [0, *labels]
    for rows, strip in average(logits, size, labels, background_weight, window):
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


def mean_probabilities(
    logits: Sequence[Tensor], mask: NDArray[np.uint8], background_weight: float = 1.0
) -> NDArray[np.float32]:
    """Return the mean probability of each class over its pixels of a mask, float32 C + 1; 0 where it has none.

    Args:
        logits: as `forward` gives them for the photo.
        mask: uint8 H x W, 0..C.
        background_weight: as in `average`.
    """
    classes = len(logits[0])
    total = np.zeros(classes)
    for rows, strip in average(logits, (mask.shape[0], mask.shape[1]), None, background_weight):
        shown = torch.from_numpy(mask[rows].astype(np.int64)).to(strip.device)
        own = strip.gather(-1, shown[..., None]).cpu().numpy().ravel()
        total += np.bincount(mask[rows].ravel(), own, classes)
    return (total / np.maximum(np.bincount(mask.ravel(), minlength=classes), 1)).astype(np.float32)


def mask_of(
    photo: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    crf: CrfConfig | None,
    size: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Return the most likely class of each pixel, after a dense CRF if its parameters are given.

    Args:
        photo: uint8 H x W x 3, RGB.
        probabilities: float32 K x H x W.
        crf: parameters of the CRF, or None for none.
        size: height and width of the mask; the photo's if not given.

    Returns:
        uint8 H x W, 0..K-1.
    """
    if crf is None:
        return _enlarged(probabilities, size)
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
    return np.asarray(present[_enlarged(kept, size)])


def _enlarged(probabilities: NDArray[np.float32], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return the most likely class of each pixel of a mask that may be larger than its probabilities, uint8 H x W."""
    if size is not None and size != probabilities.shape[1:]:
        probabilities = resize(torch.from_numpy(probabilities)[None], size)[0].numpy()
    return probabilities.argmax(0).astype(np.uint8)


def mask_at(
    logits: Sequence[Tensor],
    photo: NDArray[np.uint8],
    size: tuple[int, int],
    how: InferenceConfig,
    labels: Sequence[int] | None = None,
    tiles: TilesConfig | None = None,
) -> NDArray[np.uint8]:
    """Return a photo's mask from its logits at several scales, uint8 H x W.

    Args:
        logits: as `forward` gives them for the photo.
        photo: uint8 H x W x 3, RGB; without tiles it may be smaller than the mask.
        size: height and width of the mask in pixels.
        how: its CRF, its filling of specks and, for a photo whose labels are not known, its background weight are used.
        labels: class indices that the photo is known to hold; all others but background are ruled out.
        tiles: that the logits are from; the CRF of a large photo is then done in parts.
    """
    weight = how.background_weight if labels is None else 1.0
    if how.crf is None:
        mask = most_likely(logits, size, labels, weight)
    elif tiles is None:
        photo = at_side(photo, how.crf.side)
        probable = probabilities_of(logits, photo.shape[:2], labels, weight)
        mask = mask_of(photo, probable, how.crf, size)
    else:
        mask = np.empty(size, np.uint8)
        for seen, kept, inner in parts_of(size, tiles):
            probable = probabilities_of(logits, size, labels, weight, seen)
            mask[kept] = mask_of(photo[seen], probable, how.crf)[inner]
    return without_specks(mask) if how.fill_specks else mask


def draft_size(how: InferenceConfig, tiles: TilesConfig | None) -> int | None:
    """Return the side below which no JPEG need be decoded, see `read_photo`; None where every pixel is looked at."""
    return None if tiles else 2 * max(*how.scales, how.crf.side if how.crf else 0)


def fast_copy(segmenter: SegmentationNetwork, recipe: Recipe) -> SegmentationNetwork:
    """Return the copy of a segmenter that predicts, compiled if the recipe says so and there are no tiles."""
    compiled = recipe.inference.compile and not recipe.tiles
    return segmenter.folded(recipe.inference.scales if compiled else None)


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
    kept: KeptFeatures | None = None,
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
        kept: feature maps of whole photos by the segmenter's backbone; None to see the photos again.
    """
    how = recipe.inference
    segmenter, scales, tiles = fast_copy(segmenter, recipe), how.scales, recipe.tiles

    def write(job: tuple[Sample, NDArray[np.uint8], list[Tensor]]) -> None:
        sample, photo, logits = job
        labels = sample.labels if known_labels else None
        mask = mask_at(logits, photo, photo_size(sample.image), how, labels, tiles)
        write_mask(folder / f"{sample.name}.png", mask)

    def jobs() -> Iterator[tuple[Sample, NDArray[np.uint8], list[Tensor]]]:
        photos = read_ahead(todo, recipe.workers, strict, draft_size(how, tiles))
        together = 1 if tiles else photos_together(segmenter)
        if kept:
            for sample, photo in photos:
                yield sample, photo, forward_kept(segmenter, kept, sample, scales)
        while chunk := list(islice(photos, together)):
            found = forward(segmenter, [photo for _, photo in chunk], scales, tiles)
            for (sample, photo), logits in zip(chunk, found, strict=True):
                yield sample, photo, logits

    for sample in samples:
        if (folder / f"{sample.name}.png").resolve() == sample.image.resolve():
            raise DataError(f"{sample.image} would be overwritten by its mask; choose another folder for the masks")
    mine = share(samples)
    todo = mine if again else without_mask(mine, folder)
    written = sum(1 for _ in track(map_ahead(write, jobs()), len(todo), f"masks to {folder.name}"))
    barrier()
    return int(total(torch.tensor(len(mine) - len(todo) + written)))


def with_mask(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """Return the photos that have a mask in ``folder``."""
    return [sample for sample in samples if (folder / f"{sample.name}.png").exists()]


def without_mask(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """Return the photos that have no mask in ``folder`` yet."""
    return [sample for sample in samples if not (folder / f"{sample.name}.png").exists()]
