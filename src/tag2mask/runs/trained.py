"""The trained segmenter of a run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from tag2mask.errors import RunError
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.runs.fingerprint import find_levels
from tag2mask.runs.folder import resume_run
from tag2mask.segmenter import Segmenter


def load_segmenter(run: str | Path, rounds: int | None = None, device: str | torch.device | None = None) -> Segmenter:
    """Load a trained segmenter.

    Args:
        run: a run folder, or a folder that `Segmenter.save_pretrained` or ``tag2mask export huggingface`` wrote.
        rounds: of a run, the segmenter after this many retraining rounds; None for the last.
        device: such as ``"cpu"`` or ``"cuda:1"``; None for a GPU if there is one.

    Raises:
        RunError: there is no run, it has no such segmenter yet, or torch has no such device.
        WeightsError: the segmenter's file is corrupt.
    """
    if (Path(run) / "config.json").is_file() and rounds is None:
        return Segmenter.from_pretrained(str(run), device=device)
    opened = resume_run(run)
    file = opened.segmenter_file if rounds is None else opened.segmenter_after(rounds)
    if not file.exists():
        raise RunError(f"{file} does not exist; finish the run with tag2mask run, or choose another --rounds")
    return Segmenter(SegmentationNetwork.load(file), opened.recipe, find_levels(opened.fingerprint_file)).to(device)
