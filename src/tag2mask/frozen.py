"""What a frozen backbone sees in whole photos, computed once for all epochs of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tag2mask.networks.speed import Features
from tag2mask.progress import track

if TYPE_CHECKING:
    from tag2mask.training import MaskedPhotos, Pair


class FrozenFeatures(Dataset[tuple[int, "Pair | str"]]):
    """Feature maps of photos or, by chance, of their mirror images, each with its mask and labels; or what is wrong.

    They are kept in half precision in a file without a name, which is gone when the process is; memory does not grow
    with the number of photos.

    Args:
        photos: whole photos, not mirrored.
        features: of a backbone on the CPU.
        layers: the feature maps to keep, in the order of their use.
        folder: where the file goes.
    """

    def __init__(self, photos: MaskedPhotos, features: Features, layers: Sequence[str], folder: Path) -> None:
        self.photos, self.features, self.layers, self.folder = photos, features, layers, folder
        with torch.inference_mode():
            maps = features(torch.zeros(1, 3, photos.size, photos.size))
        of_mask = ("mask", "u1", (photos.size, photos.size))
        shapes = [*((layer, "f2", maps[layer].shape[1:]) for layer in layers), of_mask]
        self.record, self.rows = np.dtype(shapes), list[int | str]()
        self.file = TemporaryFile(dir=folder)  # noqa: SIM115, it stays open as long as this is there

    def has_room(self) -> bool:
        """Return whether the file takes no more than half of the free disk."""
        return 4 * len(self.photos) * self.record.itemsize <= disk_usage(self.folder).free

    def compute(self, workers: int, label: str) -> None:
        """See every photo and its mirror image once; so many processes read them."""
        loader = DataLoader(self.photos, batch_size=None, num_workers=workers)
        for _, item in track(loader, len(self.photos), label):
            self.rows.append(item if isinstance(item, str) else self._write(*item[:2]))

    def _write(self, photo: Tensor, mask: Tensor) -> int:
        """Write what is kept of a photo and of its mirror image; return where it is."""
        start = self.file.tell()
        with torch.inference_mode():
            maps = self.features(torch.stack([photo, photo.flip(2)]))
        for mirrored, seen in enumerate((mask, mask.flip(1))):
            values = (*(maps[layer][mirrored].numpy() for layer in self.layers), seen.numpy())
            self.file.write(np.array(values, self.record).tobytes())
        return start

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[int, Pair | str]:
        """Return float32 D x h x w for each layer, the uint8 mask and the labels, float C."""
        row = self.rows[index]
        if isinstance(row, str):
            return index, row
        self.file.seek(row + self.record.itemsize * int(torch.rand(()) < 0.5))
        record = np.frombuffer(self.file.read(self.record.itemsize), self.record)[0]
        maps = (torch.from_numpy(record[layer].astype(np.float32)) for layer in self.layers)
        return index, (*maps, torch.from_numpy(record["mask"].copy()), self.photos.targets[index])
