"""Training the segmentation network on proxy masks, or on seeds that grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Subset

from tag2mask.config import SegmenterConfig, TilesConfig
from tag2mask.data import Sample
from tag2mask.distributed import device, world
from tag2mask.names import IGNORE, Teaching
from tag2mask.networks.backbones import LAST
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.kept import KeptFeatures
from tag2mask.networks.speed import features_in_training, folded_backbone
from tag2mask.resize import resize_like
from tag2mask.training.datasets import FrozenFeatures, KeptPhotos, MaskedPhotos, Pair
from tag2mask.training.expectation import em_loss
from tag2mask.training.loop import fit, parameter_groups
from tag2mask.training.losses import dice_loss, seeded_loss


def train_segmenter(
    segmenter: SegmentationNetwork,
    samples: Sequence[Sample],
    masks: Path,
    how: SegmenterConfig,
    *,
    seed: int,
    workers: int,
    checkpoint: Path,
    tiles: TilesConfig | None = None,
    label: str = "segmenter",
    strict: bool = False,
    often: Mapping[str, int] = MappingProxyType({}),
    kept: KeptFeatures | None = None,
) -> None:
    """Train a segmenter on masks by cross-entropy, 255 ignored, on seeds (`tag2mask.training.losses`) or on tags alone.

    Args:
        segmenter: trained in place.
        samples: the photos.
        masks: folder of one palette PNG a photo, ``<name>.png``.
        how: the parameters.
        seed: of order and augmentation.
        workers: processes that read.
        checkpoint: as in `fit`.
        tiles: photos are learnt in these, each with the tags that its mask shows; None for whole photos.
        label: what the progress shows.
        strict: as in `fit`.
        often: how often an epoch shows some of the photos, by name; the others once.
        kept: where the backbone stays as it is, its feature maps of the photos; None to see the photos again.
    """
    stride, layers, plain = how.label_stride, segmenter.backbone.layers, how.method == Teaching.PLAIN
    by_seeds = how.method in (Teaching.SEC, Teaching.DSRG)  # and by the photo's colours
    features = cache(lambda: features_in_training(segmenter.backbone))  # of the weights that `fit` begins with

    def loss(model: Any, *given: Tensor) -> Tensor:
        *seen, masks, present = given
        maps = dict(zip(layers, seen, strict=False)) if of_maps else features()(*seen)
        logits, tags = model.decode_with_tags(maps)
        if by_seeds:
            return with_tags(seeded_loss(how.method, logits.float(), seen[-1], masks, present), tags, present)
        if not plain:
            return with_tags(em_loss(logits.float(), present), tags, present)
        targets = masks[:, ::stride, ::stride].long()
        logits = resize_like(logits.float(), targets)
        counted = (targets != IGNORE).sum().clamp_min(1)
        value = functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / counted
        if how.dice_weight:
            value = value + how.dice_weight * dice_loss(logits, targets)
        return with_tags(value, tags, present)

    def with_tags(value: Tensor, tags: Tensor | None, present: Tensor) -> Tensor:
        if tags is None:
            return value
        known = (present >= 0).float()
        told = functional.binary_cross_entropy_with_logits(tags.float(), present.clamp_min(0), known)
        return value + how.tag_weight * told

    def pixels(batch: Sequence[Pair]) -> int:
        return sum(int((mask[::stride, ::stride] != IGNORE).sum()) for *_, mask, _ in batch)

    segmenter.backbone.freeze_before(how.train_from)
    photos = partial(MaskedPhotos, samples, masks, len(segmenter.classes), how.size, how.crop, tiles=tiles, seed=seed)
    of_maps = kept is not None
    data: Dataset[tuple[int, Pair | str]] = KeptPhotos(photos(), kept, by_seeds) if kept else photos()
    with ExitStack() as files:
        if not kept and stays_the_same(how) and device().type == "cpu" and world() == 1:
            backbone = folded_backbone(segmenter.backbone)
            frozen = files.enter_context(
                closing(FrozenFeatures(photos(flip=0), backbone, layers, checkpoint.parent, by_seeds))
            )
            if frozen.has_room():
                frozen.compute(workers, f"{label}, features")
                data, of_maps = frozen, True
        if often:
            items = cast(MaskedPhotos, data if isinstance(data, MaskedPhotos) else cast(KeptPhotos, data).photos).items
            data = Subset(data, [place for place, (one, _) in enumerate(items) for _ in range(often.get(one.name, 1))])
        groups = parameter_groups(segmenter, how.learning_rate, how.backbone_learning_rate)
        fit(
            segmenter, data, loss,
            torch.optim.AdamW(groups, weight_decay=how.weight_decay), epochs=how.epochs,
            batch_size=how.batch_size, schedule=how.schedule, seed=seed, workers=0 if of_maps else workers,
            checkpoint=checkpoint, label=label, weigh=pixels if plain else len, strict=strict,
        )  # fmt: skip


def stays_the_same(how: SegmenterConfig) -> bool:
    """Return whether what the backbone sees is the same in every epoch, and there are enough of them to keep it."""
    return how.train_from == LAST and how.crop == 1 and how.epochs > 2
