"""Tensors in and out of files: safetensors, and .pth without unpickling anything but tensors."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.amp import GradScaler

from tag2mask.data.class_names import check_class_name, class_indices
from tag2mask.errors import WeightsError, reason
from tag2mask.files import write_bytes


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or .pth file.

    Raises:
        WeightsError: missing, corrupt, or not plain tensors.
    """
    if not file.is_file():
        raise WeightsError(f"no weights file {file}; check the path")
    try:
        if file.suffix == ".safetensors":
            # Copies: the tensors read are the mapped file itself, which Windows then lets nobody replace.
            return {name: tensor.clone() for name, tensor in load_file(file).items()}
        if zipfile.is_zipfile(file) and sum(part.file_size for part in _parts(file)) > file.stat().st_size:
            raise ValueError("its parts are larger than the file")
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a corrupt file can make the readers raise anything
        raise WeightsError(f"{file} is corrupt or not a file of plain tensors ({reason(error)})") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{file} holds no table of tensors")
    return state


def load_weights(model: nn.Module, state: Mapping[str, Tensor], file: str) -> None:
    """Put ``state`` into ``model`` by name, or in order where the names differ but all shapes agree.

    Tensors beyond the model's own (a classification head) are left out.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    own = model.state_dict()
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    if any(name not in state for name in needed):
        in_order = list(state.values())[: len(own)]
        if [tensor.shape for tensor in in_order] == [tensor.shape for tensor in own.values()]:
            state = dict(zip(own, in_order, strict=True))
    missing = [name for name in needed if name not in state]
    if missing:
        raise WeightsError(f"{file} holds the weights of another network: it has no '{missing[0]}'")
    wrong = [name for name in needed if state[name].shape != own[name].shape]
    if wrong:
        shapes = f"{tuple(state[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)}"
        raise WeightsError(f"{file} holds the weights of another network: '{wrong[0]}' is {shapes}")
    model.load_state_dict({name: state.get(name, own[name]) for name in own})
    check_finite(model.state_dict(), file)


def check_finite(tensors: Mapping[str, Tensor], file: str | Path) -> None:
    """Check that all values are numbers.

    Raises:
        WeightsError: one is infinite or NaN.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{file} is damaged: '{name}' contains NaN or infinite values; fetch or make it again")


def save_tensors(file: str | Path, tensors: Mapping[str, Tensor], kind: str, about: Mapping[str, Any]) -> None:
    """Write tensors as safetensors with what they are; the file is whole or not there.

    Args:
        file: where to.
        tensors: by name.
        kind: what the file holds, such as ``"class patterns"``; `load_tensors` checks it.
        about: whatever JSON can hold.

    Raises:
        DataError: it cannot be written.
    """
    metadata = {"tag2mask": json.dumps({"kind": kind, "about": dict(about)})}
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    write_bytes(Path(file), content)


def load_tensors(file: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: the tensors and what they are.

    Raises:
        WeightsError: the file is missing, corrupt or of another kind.
    """
    return read_weights(Path(file)), read_about(file, kind)


def read_about(file: str | Path, kind: str) -> dict[str, Any]:
    """Read what the tensors are that `save_tensors` wrote, without the tensors.

    Raises:
        WeightsError: the file is missing, corrupt or of another kind.
    """
    with refusing(file), safe_open(file, "pt") as opened:
        metadata = json.loads((opened.metadata() or {}).get("tag2mask", "{}"))
        if metadata.get("kind") != kind:
            raise WeightsError(f"{file} does not hold {kind} of tag2mask")
        about = dict(metadata["about"])
        for name in class_indices(about["classes"], file):
            check_class_name(name, file)
        return about


@contextmanager
def refusing(file: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while something is built from a file into a WeightsError of one line."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:  # what a damaged file leads to can be anything
        raise WeightsError(f"{file} is corrupt or of another version ({reason(error)})") from None


def save_checkpoint(
    file: Path, model: nn.Module, optimiser: torch.optim.Optimizer, epoch: int, scaler: GradScaler | None = None
) -> None:
    """Write the state of a training after ``epoch`` epochs; the file is whole or the one before.

    Raises:
        DataError: it cannot be written.
    """
    content = io.BytesIO()
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "epoch": epoch}
    torch.save({**state, "scaler": scaler.state_dict() if scaler else {}}, content)
    write_bytes(file, content.getbuffer())


def load_checkpoint(
    file: Path, model: nn.Module, optimiser: torch.optim.Optimizer, scaler: GradScaler | None = None
) -> int:
    """Put back what `save_checkpoint` wrote and return the epochs done; 0 where there is no file.

    Raises:
        WeightsError: the file is corrupt or of another training.
    """
    if not file.is_file():
        return 0
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        if scaler and state.get("scaler"):  # empty where it was trained in another precision than float16
            scaler.load_state_dict(state["scaler"])
        return int(state["epoch"])
    except Exception as error:
        raise WeightsError(
            f"{file} is corrupt or of another training ({reason(error)}); delete it to train again"
        ) from None


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``prefix``, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _parts(file: Path) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(file) as opened:
        return opened.infolist()
