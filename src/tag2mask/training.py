"""The one training loop, for classifier and segmenter alike, and the augmented photos that it reads."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from tag2mask.config import ClassifierConfig, SegmenterConfig
from tag2mask.data import IGNORE, Sample, read_mask, read_photo
from tag2mask.data.loading import keep_readable
from tag2mask.errors import DataError
from tag2mask.losses import seeded_loss
from tag2mask.networks.classifier import Classifier, targets_of
from tag2mask.networks.deeplab import Segmenter
from tag2mask.networks.weights import load_checkpoint, save_checkpoint
from tag2mask.progress import track

log = logging.getLogger("tag2mask")
Pair = tuple[Tensor, ...]
"""A photo and what it teaches: its mask, its labels, or both."""


class TaggedPhotos(Dataset[tuple[int, "Pair | str"]]):
    """Augmented photos with their labels: uint8 3 x size x size and float C, or what is wrong with the photo."""

    def __init__(self, samples: Sequence[Sample], classes: int, size: int, crop: float, colour: float) -> None:
        self.samples, self.size = samples, size
        self.targets = targets_of((sample.labels for sample in samples), classes)
        self.augment = v2.Compose([*_crop_and_flip(size, crop), v2.ColorJitter(colour, colour, colour)])

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, Pair | str]:
        """Read and augment one photo."""
        try:
            photo = _as_tensor(read_photo(self.samples[index].image, draft_size=self.size))
        except DataError as error:
            return index, str(error)
        return index, (self.augment(tv_tensors.Image(photo)), self.targets[index])


class MaskedPhotos(Dataset[tuple[int, "Pair | str"]]):
    """Augmented photos with masks: uint8 3 x size x size and uint8 size x size, or what is wrong."""

    def __init__(self, samples: Sequence[Sample], masks: Path, size: int, crop: float) -> None:
        self.samples, self.masks = samples, masks
        self.augment = v2.Compose(_crop_and_flip(size, crop))

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, Pair | str]:
        """Read and augment one photo and its mask."""
        sample = self.samples[index]
        try:
            photo = read_photo(sample.image)
            mask = read_mask(self.masks / f"{sample.name}.png")
        except DataError as error:
            return index, str(error)
        if photo.shape[:2] != mask.shape:
            size = f"{mask.shape[1]} x {mask.shape[0]}, not {photo.shape[1]} x {photo.shape[0]} pixels"
            return index, f"{self.masks / sample.name}.png: the mask is {size} as its photo"
        return index, self.augment(tv_tensors.Image(_as_tensor(photo)), tv_tensors.Mask(torch.from_numpy(mask)))


class SeededPhotos(MaskedPhotos):
    """Whole photos, perhaps mirrored, with masks and labels: as `MaskedPhotos`, and float C."""

    def __init__(self, samples: Sequence[Sample], masks: Path, size: int, classes: int) -> None:
        super().__init__(samples, masks, size, crop=1.0)
        self.targets = targets_of((sample.labels for sample in samples), classes)

    def __getitem__(self, index: int) -> tuple[int, Pair | str]:
        """Read and augment one photo and its mask."""
        _, item = super().__getitem__(index)
        return index, item if isinstance(item, str) else (*item, self.targets[index])


def train_classifier(
    classifier: Classifier,
    samples: Sequence[Sample],
    how: ClassifierConfig,
    *,
    seed: int,
    workers: int,
    checkpoint: Path,
) -> None:
    """Fine-tune backbone and linear layer by binary cross-entropy over the classes (METHOD 2).

    Args:
        classifier: trained in place.
        samples: the photos with their image-level labels.
        how: the parameters.
        seed: of order and augmentation.
        workers: processes that read.
        checkpoint: as in `fit`.
    """

    def loss(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(model(images).logits.float(), targets)

    photos = TaggedPhotos(samples, len(classifier.classes), how.size, how.crop, how.colour)
    classifier.backbone.freeze_before(how.train_from)
    groups = _groups(classifier, how.learning_rate, how.backbone_learning_rate)
    fit(
        classifier, photos, loss, torch.optim.AdamW(groups, weight_decay=how.weight_decay),
        epochs=how.epochs, batch_size=how.batch_size, schedule="poly", seed=seed, workers=workers,
        checkpoint=checkpoint, label="classifier",
    )  # fmt: skip


def train_segmenter(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    masks: Path,
    how: SegmenterConfig,
    *,
    seed: int,
    workers: int,
    checkpoint: Path,
    label: str = "segmenter",
) -> None:
    """Train a segmenter on masks by cross-entropy, 255 ignored (METHOD 6), or on seeds (`tag2mask.losses`).

    Args:
        segmenter: trained in place.
        samples: the photos.
        masks: folder of one palette PNG a photo, ``<name>.png``.
        how: the parameters.
        seed: of order and augmentation.
        workers: processes that read.
        checkpoint: as in `fit`.
        label: what the progress shows.
    """
    stride = how.label_stride

    def loss(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        targets = targets[:, ::stride, ::stride].long()
        logits = functional.interpolate(model(images).float(), targets.shape[1:], mode="bilinear", align_corners=False)
        counted = (targets != IGNORE).sum().clamp_min(1)
        return functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / counted

    def seeded(model: nn.Module, images: Tensor, seeds: Tensor, present: Tensor) -> Tensor:
        return seeded_loss(how.method, model(images).float(), images, seeds, present)

    plain = how.method == "plain"
    photos = (
        MaskedPhotos(samples, masks, how.size, how.crop)
        if plain
        else SeededPhotos(samples, masks, how.size, len(segmenter.classes))
    )
    segmenter.backbone.freeze_before(how.train_from)
    groups = _groups(segmenter, how.learning_rate, how.backbone_learning_rate)
    fit(
        segmenter, photos, loss if plain else seeded,
        torch.optim.AdamW(groups, weight_decay=how.weight_decay), epochs=how.epochs,
        batch_size=how.batch_size, schedule=how.schedule, seed=seed, workers=workers,
        checkpoint=checkpoint, label=label,
    )  # fmt: skip


def fit(
    model: nn.Module,
    data: Dataset[tuple[int, Pair | str]],
    loss: Callable[..., Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    schedule: str,
    seed: int,
    workers: int,
    checkpoint: Path,
    label: str,
) -> None:
    """Train on any number of devices, with a checkpoint after every epoch that a killed run goes on from.

    What an epoch sees depends on the seed and the epoch alone, so a run that was killed and went on ends
    as one that was not. On a GPU the forward pass runs in mixed precision.

    Args:
        model: trained in place.
        data: gives ``(index, (photo, target, ...))`` or ``(index, what is wrong)``.
        loss: of the model on a batch of photos and targets, each stacked.
        optimiser: over the model's parameters.
        epochs: passes over the data.
        batch_size: items a step, over all processes.
        schedule: ``constant``, or ``poly``: rates times (1 - step / steps)^0.9.
        seed: of the order and of all that is random.
        workers: processes that read.
        checkpoint: the file; left in place at the end.
        label: what the progress shows.

    Raises:
        WeightsError: the checkpoint is corrupt or of another training.
    """
    accelerator = Accelerator(mixed_precision=_precision())
    model.to(accelerator.device)
    rates = [group["lr"] for group in optimiser.param_groups]
    start = load_checkpoint(checkpoint, model, optimiser)
    trained, prepared = accelerator.prepare(model, optimiser)
    share = math.ceil(batch_size / accelerator.num_processes)
    steps = math.ceil(math.ceil(len(data) / accelerator.num_processes) / share)  # type: ignore[arg-type]
    for epoch in range(start, epochs):
        batches = _epoch(data, accelerator, share, seed, epoch, workers)
        trained.train()
        total = torch.zeros((), device=accelerator.device)
        for step, batch in enumerate(track(batches, steps, f"{label}, epoch {epoch + 1} of {epochs}")):
            done = (epoch * steps + step) / (epochs * steps)
            for group, rate in zip(prepared.param_groups, rates, strict=True):
                group["lr"] = rate * ((1 - done) ** 0.9 if schedule == "poly" else 1.0)
            if not batch:
                continue
            parts = [torch.stack(part).to(accelerator.device) for part in zip(*batch, strict=True)]
            with accelerator.autocast():
                value = loss(trained, *parts)
            prepared.zero_grad()
            accelerator.backward(value)
            prepared.step()
            total += value.detach()
        log.info("%s: epoch %d of %d, loss %.4f", label, epoch + 1, epochs, float(total) / steps)
        if accelerator.is_main_process:
            save_checkpoint(checkpoint, model, optimiser, epoch + 1)
        accelerator.wait_for_everyone()
    model.eval()


def _epoch(
    data: Dataset[tuple[int, Pair | str]],
    accelerator: Accelerator,
    share: int,
    seed: int,
    epoch: int,
    workers: int,
) -> Iterator[list[Pair]]:
    """Yield one epoch's batches, the same for the same seed and epoch; unreadable items are left out."""
    torch.manual_seed(seed + 1_000_003 * epoch)
    sampler: DistributedSampler[Any] = DistributedSampler(
        data, accelerator.num_processes, accelerator.process_index, seed=seed
    )
    sampler.set_epoch(epoch)
    loader = DataLoader(data, share, sampler=sampler, num_workers=workers, collate_fn=list)
    for batch in loader:
        yield [pair for _, pair in keep_readable(batch, strict=False)]


def _crop_and_flip(size: int, crop: float) -> list[v2.Transform]:
    square = (
        v2.Resize((size, size), antialias=True)
        if crop == 1
        else v2.RandomResizedCrop((size, size), scale=(crop, 1.0), antialias=True)
    )
    return [square, v2.RandomHorizontalFlip()]


def _as_tensor(photo: np.ndarray) -> Tensor:
    return torch.from_numpy(photo.transpose(2, 0, 1).copy())


def _groups(model: Classifier | Segmenter, learning_rate: float, backbone_learning_rate: float) -> list[dict[str, Any]]:
    """Return the trainable parameters, new layers and backbone apart; batch-norm and biases do not decay."""
    return [
        {"params": [p for p in part.parameters() if p.requires_grad and (p.ndim > 1) == decays], "lr": rate}
        | ({} if decays else {"weight_decay": 0.0})
        for part, rate in ((model.head, learning_rate), (model.backbone, backbone_learning_rate))
        for decays in (True, False)
    ]


def _precision() -> str:
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
