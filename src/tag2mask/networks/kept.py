"""What is computed of each photo once and stays the same, kept on disk from one refinement to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from shutil import disk_usage

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tag2mask.data import Sample
from tag2mask.data.loading import as_tensor
from tag2mask.errors import DataError
from tag2mask.files import write_bytes
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.speed import folded_backbone
from tag2mask.resize import resize

MOST = 4 * 2**30
"""Bytes that are kept at most, and never more than half of the free disk; tensors of further photos are not kept."""

_LARGEST = torch.finfo(torch.float16).max


def kept_folder(out: Path) -> Path:
    """Return the folder in a run folder of what is kept."""
    return out / "features"


class Kept:
    """Tensors of photos in a folder, a file per photo, each with what it was made from.

    A file counts as long as it was made from the same photo and whatever else ``made_from`` names; a damaged one counts
    as none.

    Args:
        folder: where the files are.
        made_from: changes when the tensors would.
        most: bytes that the folder may take.
    """

    def __init__(self, folder: Path, made_from: str, most: int = MOST) -> None:
        self.folder, self.made_from = folder, made_from
        self.taken = sum(file.stat().st_size for file in folder.rglob("*.safetensors")) if folder.is_dir() else 0
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        self.room = min(most - self.taken, disk_usage(there).free // 2)

    def read(self, sample: Sample) -> dict[str, Tensor] | None:
        """Return the tensors of a photo, or None where none are kept."""
        try:
            with safe_open(self._file(sample), "pt") as opened:
                if (opened.metadata() or {}).get("of") == self._key(sample):
                    # Copies: the tensors read are the mapped file itself, which Windows then lets nobody replace.
                    return {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            pass
        return None

    def write(self, sample: Sample, tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors of a photo, unless there is no room or its name is too long; it is then seen again."""
        content = save({name: one.contiguous() for name, one in tensors.items()}, {"of": self._key(sample)})
        if len(content) <= self.room:
            with suppress(DataError):
                write_bytes(self._file(sample), content)
                self.room -= len(content)

    def _file(self, sample: Sample) -> Path:
        return self.folder / f"{sample.name}.safetensors"

    def _key(self, sample: Sample) -> str:
        stat = sample.image.stat()
        return f"{self.made_from} {sample.image} {stat.st_size} {stat.st_mtime_ns} {sample.levels}"


class KeptFeatures:
    """Feature maps of whole photos, and of their mirror images, by a backbone that stays as it is, in half precision.

    A photo's maps turned left to right are not those of its mirror image: where a stride leaves out every second
    position, it leaves out the others there, which is up to a whole cell.

    Args:
        folder: where they are kept, in a folder per input size.
        backbone: on the CPU.
    """

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self.folder, self.backbone, self._at = folder, backbone, dict[str, Kept]()

    def maps(self, sample: Sample, side: int, mirrored: bool = False) -> dict[str, Tensor]:
        """Return a photo's feature maps by layer, float32 1 x D x h x w.

        Args:
            sample: the photo.
            side: of the square input in pixels.
            mirrored: those of its mirror image.

        Raises:
            DataError: the photo cannot be read.
        """
        at = f"{side}-mirrored" if mirrored else str(side)
        kept = self._kept(at)
        maps = kept.read(sample)
        if maps is None:
            maps = self._see(sample, side, mirrored)
            kept.write(sample, maps)
        return {layer: maps[layer].float() for layer in self.backbone.layers}

    def has_room(self, photos: int, side: int) -> bool:
        """Return whether the maps of so many photos and mirror images, squares of ``side`` pixels, can be kept."""
        with torch.inference_mode():
            maps = self.backbone(torch.zeros(1, 3, side, side))
        size = sum(2 * maps[layer].numel() for layer in self.backbone.layers)
        straight, mirrored = self._kept(str(side)), self._kept(f"{side}-mirrored")
        room = min(straight.taken + straight.room, mirrored.taken + mirrored.room)
        return photos * size <= room // 2

    @cached_property
    def _weights(self) -> str:
        own = self.backbone
        digest = hashlib.sha256(repr((own.name, own.output_stride, own.layers)).encode())
        for name, tensor in own.state_dict().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    @cached_property
    def _fast(self) -> Callable[[Tensor], dict[str, Tensor]]:
        return folded_backbone(self.backbone)

    def _kept(self, at: str) -> Kept:
        return self._at.get(at) or self._at.setdefault(at, Kept(self.folder / at, self._weights))

    @torch.inference_mode()
    def _see(self, sample: Sample, side: int, mirrored: bool) -> dict[str, Tensor]:
        pixels = resize(as_tensor(sample.read())[None].float(), (side, side), antialias=True)
        seen = self._fast(pixels.flip(-1) if mirrored else pixels)
        return {layer: seen[layer].clamp(-_LARGEST, _LARGEST).half() for layer in self.backbone.layers}


def remove_others(folder: Path, names: Collection[str]) -> None:
    """Remove what is kept of all but some photos, and what a killed process had begun.

    Args:
        folder: each folder in it is one of a `Kept`.
        names: of the photos.
    """
    for file in folder.rglob("*") if folder.is_dir() else ():
        name = file.relative_to(folder).as_posix().partition("/")[2].removesuffix(".safetensors")
        if file.is_file() and name not in names:
            file.unlink()
