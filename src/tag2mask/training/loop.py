"""The one training loop, for classifier and segmenter alike."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import release_memory, should_reduce_batch_size
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.utils.data import Dataset

from tag2mask.data.loading import keep_readable, read_by
from tag2mask.devices import half_precision, half_type
from tag2mask.distributed import barrier, copy_main, device, is_main, rank, share, total, world
from tag2mask.errors import RunError
from tag2mask.names import Schedule
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.weights import load_checkpoint, save_checkpoint
from tag2mask.progress import track
from tag2mask.training.datasets import Pair

log = logging.getLogger("tag2mask")

Weight = Callable[[Sequence[Pair]], int]


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

    What an epoch sees depends on the seed, the epoch, and the numbers of processes and of workers, so a run that was
    killed and went on with the same numbers ends as one that was not. On a CUDA GPU the forward pass runs in mixed
    precision.

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
    scaler = GradScaler(where.type, enabled=half_type(where) is torch.float16)
    start = load_checkpoint(checkpoint, model, optimiser, scaler)
    copy_main(model.state_dict().values())
    steps = math.ceil(len(data) / batch_size)  # type: ignore[arg-type]
    piece = math.ceil(batch_size / world())
    said: set[str] = set()
    for epoch in range(start, epochs):
        batches = _epoch(data, batch_size, seed, epoch, workers, strict, said)
        model.train()
        summed = torch.zeros((), device=where)
        for step, batch in enumerate(track(batches, steps, f"{label}, epoch {epoch + 1} of {epochs}")):
            done = (epoch * steps + step) / (epochs * steps)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * ((1 - done) ** 0.9 if schedule == Schedule.POLY else 1.0)
            whole = int(total(torch.tensor(weigh(batch))))
            if not whole:
                continue
            backward = partial(_backward, scaler, model, loss, weigh, batch, whole)
            value, piece = _within_memory(backward, piece)
            _add_up_gradients(model)
            scaler.step(optimiser)
            scaler.update()
            summed += value
        log.info("%s: epoch %d of %d, loss %.4f", label, epoch + 1, epochs, float(total(summed)) / steps)
        _average_statistics(model)
        if is_main():
            save_checkpoint(checkpoint, model, optimiser, epoch + 1, scaler)
        barrier()
    model.eval()


def _epoch(
    data: Dataset[tuple[int, Pair | str]],
    batch_size: int,
    seed: int,
    epoch: int,
    workers: int,
    strict: bool,
    said: set[str],
) -> Iterator[list[Pair]]:
    """Yield this process's share of one epoch's batches; unreadable items are left out, a share may be empty.

    What is wrong with an item is said once, in all epochs that have the same ``said``.
    """
    torch.manual_seed(seed + 1_000_003 * epoch + 7_919 * rank())
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + epoch)).tolist()  # type: ignore[arg-type]
    batches = [list(share(order[start : start + batch_size])) for start in range(0, len(order), batch_size)]
    for batch in read_by(workers, data, batch_sampler=batches, collate_fn=list):
        yield [pair for _, pair in keep_readable(batch, strict, said)]


def _backward(
    scaler: GradScaler,
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
        with half_precision(value.device):
            mean = loss(model, *parts)
        part = mean * (weigh(pairs) / whole)
        scaler.scale(part).backward()
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


def parameter_groups(
    model: Classifier | SegmentationNetwork, learning_rate: float, backbone_learning_rate: float
) -> list[dict[str, Any]]:
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
