"""The one training loop, for classifier and segmenter alike, and the augmented photos that it reads."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import release_memory, should_reduce_batch_size
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from tag2mask.config import ClassifierConfig, SegmenterConfig
from tag2mask.data import IGNORE, Sample, read_mask, read_photo
from tag2mask.data.loading import keep_readable
from tag2mask.distributed import barrier, copy_main, device, is_main, rank, share, total, world
from tag2mask.errors import DataError, RunError
from tag2mask.frozen import FrozenFeatures
from tag2mask.losses import seeded_loss
from tag2mask.networks.backbones import LAST
from tag2mask.networks.classifier import Classifier, targets_of
from tag2mask.networks.deeplab import Segmenter
from tag2mask.networks.speed import features_in_training, folded_backbone
from tag2mask.networks.weights import load_checkpoint, save_checkpoint
from tag2mask.progress import track

log = logging.getLogger("tag2mask")
Pair = tuple[Tensor, ...]
"""A photo and what it teaches: its labels, perhaps after its mask."""
Weight = Callable[[Sequence[Pair]], int]


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
    """Augmented photos with masks and labels: uint8 3 x size x size, uint8 size x size, float C, or what is wrong."""

    def __init__(
        self, samples: Sequence[Sample], masks: Path, classes: int, size: int, crop: float, flip: float = 0.5
    ) -> None:
        self.samples, self.masks, self.size = samples, masks, size
        self.targets = targets_of((sample.labels for sample in samples), classes)
        self.augment = v2.Compose(_crop_and_flip(size, crop, flip))

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
        pair = self.augment(tv_tensors.Image(_as_tensor(photo)), tv_tensors.Mask(torch.from_numpy(mask)))
        return index, (*pair, self.targets[index])


def train_classifier(
    classifier: Classifier,
    samples: Sequence[Sample],
    how: ClassifierConfig,
    *,
    seed: int,
    workers: int,
    checkpoint: Path,
    strict: bool = False,
) -> None:
    """Fine-tune backbone and linear layer by binary cross-entropy over the classes (METHOD 2).

    Args:
        classifier: trained in place.
        samples: the photos with their image-level labels.
        how: the parameters.
        seed: of order and augmentation.
        workers: processes that read.
        checkpoint: as in `fit`.
        strict: as in `fit`.
    """

    features = cache(lambda: features_in_training(classifier.backbone))  # of the weights that `fit` begins with

    def loss(model: Any, images: Tensor, targets: Tensor) -> Tensor:
        logits = model.classify(features()(images)).logits
        return functional.binary_cross_entropy_with_logits(logits.float(), targets)

    photos = TaggedPhotos(samples, len(classifier.classes), how.size, how.crop, how.colour)
    classifier.backbone.freeze_before(how.train_from)
    groups = _groups(classifier, how.learning_rate, how.backbone_learning_rate)
    fit(
        classifier, photos, loss, torch.optim.AdamW(groups, weight_decay=how.weight_decay),
        epochs=how.epochs, batch_size=how.batch_size, schedule="poly", seed=seed, workers=workers,
        checkpoint=checkpoint, label="classifier", strict=strict,
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
    strict: bool = False,
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
        strict: as in `fit`.
    """
    stride, layers, plain = how.label_stride, segmenter.backbone.layers, how.method == "plain"
    features = cache(lambda: features_in_training(segmenter.backbone))  # of the weights that `fit` begins with

    def loss(model: Any, *given: Tensor) -> Tensor:
        *seen, masks, present = given
        logits, tags = model.decode_with_tags(dict(zip(layers, seen, strict=True)) if kept else features()(*seen))
        targets = masks[:, ::stride, ::stride].long()
        logits = functional.interpolate(logits.float(), targets.shape[1:], mode="bilinear", align_corners=False)
        counted = (targets != IGNORE).sum().clamp_min(1)
        value = functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / counted
        return with_tags(value, tags, present)

    def with_tags(value: Tensor, tags: Tensor | None, present: Tensor) -> Tensor:
        if tags is None:
            return value
        return value + how.tag_weight * functional.binary_cross_entropy_with_logits(tags.float(), present)

    def pixels(batch: Sequence[Pair]) -> int:
        return sum(int((mask[::stride, ::stride] != IGNORE).sum()) for *_, mask, _ in batch)

    def seeded(model: Any, images: Tensor, seeds: Tensor, present: Tensor) -> Tensor:
        logits, tags = model.decode_with_tags(features()(images))
        return with_tags(seeded_loss(how.method, logits.float(), images, seeds, present), tags, present)

    segmenter.backbone.freeze_before(how.train_from)
    photos = partial(MaskedPhotos, samples, masks, len(segmenter.classes), how.size, how.crop)
    kept = None
    if stays_the_same(how) and device().type == "cpu" and world() == 1:
        frozen = FrozenFeatures(photos(flip=0), folded_backbone(segmenter.backbone), layers, checkpoint.parent)
        if frozen.has_room():
            frozen.compute(workers, f"{label}, features")
            kept = frozen
    groups = _groups(segmenter, how.learning_rate, how.backbone_learning_rate)
    fit(
        segmenter, kept or photos(), loss if plain else seeded,
        torch.optim.AdamW(groups, weight_decay=how.weight_decay), epochs=how.epochs,
        batch_size=how.batch_size, schedule=how.schedule, seed=seed, workers=0 if kept else workers,
        checkpoint=checkpoint, label=label, weigh=pixels if plain else len, strict=strict,
    )  # fmt: skip


def stays_the_same(how: SegmenterConfig) -> bool:
    """Return whether what the backbone sees is the same in every epoch, and there are enough of them to keep it."""
    return how.train_from == LAST and how.crop == 1 and how.method == "plain" and how.epochs > 2


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
    weigh: Weight = len,
    strict: bool = False,
) -> None:
    """Train on any number of devices, with a checkpoint after every epoch that a killed run goes on from.

    What an epoch sees depends on the seed, the epoch and the number of processes alone, so a run that was
    killed and went on ends as one that was not. On a GPU the forward pass runs in mixed precision.

    Each process takes its share of every batch and the gradients are added up once a step, after the last
    photo. So a share may be empty, or go through the network in pieces: where memory runs out the pieces are
    halved, and the batch stays what it is. The step is that of the whole batch, but for batch
    normalisation, which sees what goes through the network at once; its running averages are averaged over
    the processes after every epoch.

    Args:
        model: trained in place.
        data: gives ``(index, (photo, target, ...))`` or ``(index, what is wrong)``.
        loss: of the model on a batch of photos and targets, each stacked; a mean.
        optimiser: over the model's parameters.
        epochs: passes over the data.
        batch_size: items a step, over all processes.
        schedule: ``constant``, or ``poly``: rates times (1 - step / steps)^0.9.
        seed: of the order and of all that is random.
        workers: processes that read, for each that trains.
        checkpoint: the file; left in place at the end.
        label: what the progress shows.
        weigh: of a list of ``(photo, target)``, how many values their loss is the mean of.
        strict: raise for an unreadable photo or mask instead of skipping it.

    Raises:
        DataError: a photo or mask cannot be read and ``strict`` is set.
        WeightsError: the checkpoint is corrupt or of another training.
        RunError: there is not enough memory for a single photo.
    """
    where = device()
    model.to(where)
    if where.type == "cuda":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rates = [group["lr"] for group in optimiser.param_groups]
    start = load_checkpoint(checkpoint, model, optimiser)
    copy_main(model.state_dict().values())
    accelerator = Accelerator(mixed_precision=_precision())
    prepared = accelerator.prepare(optimiser)
    steps = math.ceil(len(data) / batch_size)  # type: ignore[arg-type]
    piece = math.ceil(batch_size / world())
    for epoch in range(start, epochs):
        batches = _epoch(data, batch_size, seed, epoch, workers, strict)
        model.train()
        summed = torch.zeros((), device=where)
        for step, batch in enumerate(track(batches, steps, f"{label}, epoch {epoch + 1} of {epochs}")):
            done = (epoch * steps + step) / (epochs * steps)
            for group, rate in zip(prepared.param_groups, rates, strict=True):
                group["lr"] = rate * ((1 - done) ** 0.9 if schedule == "poly" else 1.0)
            whole = int(total(torch.tensor(weigh(batch))))
            if not whole:
                continue
            backward = partial(_backward, accelerator, model, loss, weigh, batch, whole)
            value, piece = _within_memory(backward, piece)
            _add_up_gradients(model)
            prepared.step()
            summed += value
        log.info("%s: epoch %d of %d, loss %.4f", label, epoch + 1, epochs, float(total(summed)) / steps)
        _average_statistics(model)
        if is_main():
            save_checkpoint(checkpoint, model, optimiser, epoch + 1)
        barrier()
    model.eval()


def _epoch(
    data: Dataset[tuple[int, Pair | str]], batch_size: int, seed: int, epoch: int, workers: int, strict: bool
) -> Iterator[list[Pair]]:
    """Yield this process's share of one epoch's batches; unreadable items are left out, a share may be empty."""
    torch.manual_seed(seed + 1_000_003 * epoch + 7_919 * rank())
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + epoch)).tolist()  # type: ignore[arg-type]
    batches = [list(share(order[start : start + batch_size])) for start in range(0, len(order), batch_size)]
    loader = DataLoader(data, batch_sampler=batches, num_workers=workers, collate_fn=list)
    for batch in loader:
        yield [pair for _, pair in keep_readable(batch, strict)]


def _backward(
    accelerator: Accelerator,
    model: nn.Module,
    loss: Callable[..., Tensor],
    weigh: Weight,
    batch: Sequence[Pair],
    whole: int,
    piece: int,
) -> Tensor:
    """Set the gradients of a share of a batch, ``piece`` photos at a time; return its part of the batch's loss."""
    model.zero_grad()
    value = torch.zeros((), device=next(model.parameters()).device)
    for start in range(0, len(batch), piece):
        pairs = batch[start : start + piece]
        parts = [torch.stack(part).to(value.device) for part in zip(*pairs, strict=True)]
        with accelerator.autocast():
            mean = loss(model, *parts)
        part = mean * (weigh(pairs) / whole)
        accelerator.backward(part)
        value += part.detach()
    return value


def _within_memory(work: Callable[[int], Tensor], piece: int) -> tuple[Tensor, int]:
    """Return ``work(piece)`` and the piece, halved as often as memory runs out.

    Raises:
        RunError: there is not enough memory for a piece of one.
    """
    while True:
        try:
            return work(piece), piece
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if piece == 1:
                raise RunError("not enough memory to train on one photo at a time; set a smaller size") from None
        log.warning("not enough memory for %d photos at once: %d from here on, in the same batches", piece, piece // 2)
        piece //= 2
        release_memory()


def _add_up_gradients(model: nn.Module) -> None:
    """Give every process the sum of all processes' gradients."""
    if world() == 1:
        return
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = total(torch.cat([gradient.flatten() for gradient in gradients]))
    for parameter, gradient, part in zip(trained, gradients, flat.split([p.numel() for p in trained]), strict=True):
        parameter.grad = gradient.copy_(part.view_as(gradient))


def _average_statistics(model: nn.Module) -> None:
    """Average over the processes what batch normalisation has seen, where it is in training."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    total(statistic).div_(world())


def _crop_and_flip(size: int, crop: float, flip: float = 0.5) -> list[v2.Transform]:
    square = (
        v2.Resize((size, size), antialias=True)
        if crop == 1
        else v2.RandomResizedCrop((size, size), scale=(crop, 1.0), antialias=True)
    )
    return [square, v2.RandomHorizontalFlip(flip)]


def _as_tensor(photo: np.ndarray) -> Tensor:
    return torch.from_numpy(photo.transpose(2, 0, 1).copy())


def _groups(model: Classifier | Segmenter, learning_rate: float, backbone_learning_rate: float) -> list[dict[str, Any]]:
    """Return the trainable parameters, new layers and backbone apart; batch-norm and biases do not decay."""
    of_backbone = list(model.backbone.parameters())
    known = set(map(id, of_backbone))
    new = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [
        {"params": [p for p in part if p.requires_grad and (p.ndim > 1) == decays], "lr": rate}
        | ({} if decays else {"weight_decay": 0.0})
        for part, rate in ((new, learning_rate), (of_backbone, backbone_learning_rate))
        for decays in (True, False)
    ]


def _precision() -> str:
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
