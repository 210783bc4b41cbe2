"""What training reads: augmented photos with labels and masks, and what a frozen backbone computes from them once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from tag2mask.config import TilesConfig
from tag2mask.data import Sample, read_mask
from tag2mask.data.loading import as_tensor, read_by, read_square
from tag2mask.errors import DataError
from tag2mask.names import IGNORE
from tag2mask.networks.classifier import targets_of
from tag2mask.networks.kept import KeptFeatures
from tag2mask.networks.speed import Features
from tag2mask.progress import track
from tag2mask.tiles import Tile, tiles_of

Pair = tuple[Tensor, ...]
"""A photo and what it teaches: its labels, perhaps after its mask."""


class TaggedPhotos(Dataset[tuple[int, "Pair | str"]]):
    """Augmented photos with their labels: uint8 3 x size x size and float C, or what is wrong with the photo."""

    def __init__(
        self, samples: Sequence[Sample], classes: int, size: int, crop: float, colour: float, flip: float = 0.5
    ) -> None:
        self.samples, self.size = samples, size
        self.targets = targets_of((sample.labels for sample in samples), classes)
        self.augment = v2.Compose([*_crop_and_flip(size, crop, flip), v2.ColorJitter(colour, colour, colour)])

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, Pair | str]:
        """Read and augment one photo."""
        try:
            photo = as_tensor(self.samples[index].read(draft_size=self.size))
        except DataError as error:
            return index, str(error)
        return index, (self.augment(tv_tensors.Image(photo)), self.targets[index])


class MaskedPhotos(Dataset[tuple[int, "Pair | str"]]):
    """Augmented photos with masks and labels: uint8 3 x size x size, uint8 size x size, float C, or what is wrong.

    Args:
        samples: the photos.
        masks: folder of their masks.
        classes: how many there are.
        size: side of the square that photos are brought to, in pixels.
        crop: smallest share of a photo's area in a random crop.
        flip: how often they are mirrored.
        tiles: items are these, ``per_photo`` of each at most; None for whole photos.
        seed: of the draw of tiles.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        masks: Path,
        classes: int,
        size: int,
        crop: float,
        flip: float = 0.5,
        tiles: TilesConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.samples, self.masks, self.size = samples, masks, size
        self.items: list[tuple[Sample, Tile | None]] = [(sample, None) for sample in samples]
        self.targets = targets_of((sample.labels for sample in samples), classes)
        if tiles is not None:
            chosen = [
                (sample, tile, shown) for sample in samples for tile, shown in self._tiles(sample, classes, tiles, seed)
            ]
            self.items = [(sample, tile) for sample, tile, _ in chosen]
            self.targets = torch.stack([shown for *_, shown in chosen])
        self.augment = v2.Compose(_crop_and_flip(size, crop, flip))
        self.last: tuple[str, tuple[np.ndarray, np.ndarray]] | None = None

    def _tiles(self, sample: Sample, classes: int, how: TilesConfig, seed: int) -> list[tuple[Tile | None, Tensor]]:
        try:
            mask = read_mask(self.masks / f"{sample.name}.png")
        except DataError:  # it is said when the item is read
            return [(None, torch.zeros(classes))]
        return list(choose_tiles(mask, sample.labels, classes, how, random.Random(f"{seed}/{sample.name}")))

    def __len__(self) -> int:
        """Return the number of photos, or of tiles."""
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[int, Pair | str]:
        """Read and augment one photo, or one tile, and its mask."""
        sample, tile = self.items[index]
        try:
            photo, mask = self._read(sample)
        except DataError as error:
            return index, str(error)
        if tile is not None:
            photo, mask = tile.cut(photo), tile.cut(mask)
        pair = self.augment(tv_tensors.Image(as_tensor(photo)), tv_tensors.Mask(torch.from_numpy(mask.copy())))
        return index, (*pair, self.targets[index])

    def _read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Return a photo and its mask; the last ones are kept, as the tiles of a photo may come one after the other."""
        if self.last is None or self.last[0] != sample.name:
            photo, mask = sample.read(), read_mask(self.masks / f"{sample.name}.png")
            if photo.shape[:2] != mask.shape:
                size = f"{mask.shape[1]} x {mask.shape[0]}, not {photo.shape[1]} x {photo.shape[0]} pixels"
                raise DataError(f"{self.masks / sample.name}.png: the mask is {size} as its photo")
            self.last = sample.name, (photo, mask)
        return self.last[1]


LEAST_SHOWN = 1e-3
"""Share of a tile from which on what its mask shows of a class makes the class one of its tags."""


def choose_tiles(
    mask: np.ndarray, labels: Sequence[int], classes: int, how: TilesConfig, draw: random.Random
) -> Iterator[tuple[Tile, Tensor]]:
    """Yield the tiles of a photo to train on, and which of the photo's tags each shows.

    Where there are more than ``how.per_photo``, three quarters go to those that show most of a class, the classes in
    turn, and the rest to others, drawn at random.

    Args:
        mask: uint8 H x W.
        labels: the photo's image-level labels.
        classes: how many there are.
        how: side, overlap, how many.
        draw: where chance comes from.

    Yields:
        The tile, and float C: 1 for a tag that it shows, 0 for one that it does not, -1 where that is not known: it
        shows next to nothing of it or uncertain pixels, or the whole mask lacks what the tag names.
    """
    tiles = tiles_of((mask.shape[0], mask.shape[1]), how)
    pixels = np.stack([np.bincount(tile.cut(mask).ravel(), minlength=256) for tile in tiles])
    for place in _places(pixels[:, list(labels)], how.per_photo, draw):
        target = torch.zeros(classes)
        for label in labels:
            shown = pixels[place, label]
            certain = not pixels[place, IGNORE] and pixels[:, label].any()
            if shown >= LEAST_SHOWN * tiles[place].side ** 2:
                target[label - 1] = 1
            elif shown or not certain:
                target[label - 1] = -1
        yield tiles[place], target


def _places(shown: np.ndarray, most: int, draw: random.Random) -> list[int]:
    """Return which tiles to take, in order, given how many pixels each shows of each class, N x L."""
    everywhere = list(range(len(shown)))
    if len(shown) <= most:
        return everywhere
    ranked = [[place for place in np.argsort(-column, kind="stable") if column[place]] for column in shown.T]
    in_turn = [int(place) for some in zip_longest(*ranked) for place in some if place is not None]
    taken = list(dict.fromkeys(in_turn))[: most - most // 4]
    others = [place for place in everywhere if place not in taken]
    return sorted([*taken, *draw.sample(others, most - len(taken))])


def _crop_and_flip(size: int, crop: float, flip: float = 0.5) -> list[v2.Transform]:
    square = (
        v2.Resize((size, size), antialias=True)
        if crop == 1
        else v2.RandomResizedCrop((size, size), scale=(crop, 1.0), antialias=True)
    )
    return [square, v2.RandomHorizontalFlip(flip)]


class FrozenFeatures(Dataset[tuple[int, "Pair | str"]]):
    """Feature maps of photos or, by chance, of their mirror images, each with its labels; or what is wrong.

    Where the photos have masks, each comes with its mask before its labels.

    They are kept in half precision in a temporary file, which is gone when this is closed or the process ends; memory
    does not grow with the number of photos. No other process can read it: only one with ``workers=0`` can train on it.

    Args:
        photos: whole photos, not mirrored.
        features: of a backbone on the CPU.
        layers: the feature maps to keep, in the order of their use.
        folder: where the file goes.
        pixels: the photos themselves are kept too, and come after their maps.
    """

    def __init__(
        self,
        photos: MaskedPhotos | TaggedPhotos,
        features: Features,
        layers: Sequence[str],
        folder: Path,
        pixels: bool = False,
    ) -> None:
        self.photos, self.features, self.layers, self.folder = photos, features, layers, folder
        with torch.inference_mode():
            maps = features(torch.zeros(1, 3, photos.size, photos.size))
        side = (photos.size, photos.size)
        of_photo = [("photo", "u1", (3, *side))] if pixels else []
        of_mask = [("mask", "u1", side)] if isinstance(photos, MaskedPhotos) else []
        self.others = [name for name, *_ in (*of_photo, *of_mask)]
        shapes = [*((layer, "f2", maps[layer].shape[1:]) for layer in layers), *of_photo, *of_mask]
        self.record, self.rows = np.dtype(shapes), list[int | str]()
        self.file = TemporaryFile(dir=folder)  # noqa: SIM115, until `close`

    def close(self) -> None:
        """Remove the file."""
        self.file.close()

    def has_room(self) -> bool:
        """Return whether the file takes no more than half of the free disk."""
        return 4 * len(self.photos) * self.record.itemsize <= disk_usage(self.folder).free

    def compute(self, workers: int, label: str) -> None:
        """See every photo and its mirror image once, read by ``workers`` processes."""
        for _, item in track(read_by(workers, self.photos), len(self.photos), label):
            self.rows.append(item if isinstance(item, str) else self._write(*item[:-1]))

    def _write(self, photo: Tensor, *masks: Tensor) -> int:
        """Write what is kept of a photo, of its mask if it has one, and of their mirror images; return where it is."""
        start = self.file.tell()
        with torch.inference_mode():
            maps = self.features(torch.stack([photo, photo.flip(2)]))
        others = [photo, *masks] if "photo" in self.others else masks
        for mirrored, seen in enumerate((others, [one.flip(-1) for one in others])):
            values = (*(maps[layer][mirrored].numpy() for layer in self.layers), *(one.numpy() for one in seen))
            self.file.write(np.array(values, self.record).tobytes())
        return start

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[int, Pair | str]:
        """Return float32 D x h x w for each layer, the photo and the mask if they are kept, and the labels, float C."""
        row = self.rows[index]
        if isinstance(row, str):
            return index, row
        self.file.seek(row + self.record.itemsize * int(torch.rand(()) < 0.5))
        record = np.frombuffer(self.file.read(self.record.itemsize), self.record)[0]
        maps = (torch.from_numpy(record[layer].astype(np.float32)) for layer in self.layers)
        others = (torch.from_numpy(record[name].copy()) for name in self.others)
        return index, (*maps, *others, self.photos.targets[index])


class KeptPhotos(Dataset[tuple[int, "Pair | str"]]):
    """What `KeptFeatures` keeps of photos or, by chance, of their mirror images, with labels; or what is wrong.

    Where the photos have masks, each comes with its mask before its labels.

    Args:
        photos: whole photos.
        kept: feature maps of them.
        pixels: the photos themselves are read too, and come after their maps.
    """

    def __init__(self, photos: MaskedPhotos | TaggedPhotos, kept: KeptFeatures, pixels: bool = False) -> None:
        self.photos, self.kept, self.pixels = photos, kept, pixels

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[int, Pair | str]:
        """Return float32 D x h x w for each layer, the photo and the mask if asked for, and the labels, float C."""
        sample, turned = self.photos.samples[index], bool(torch.rand(()) < 0.5)
        try:
            seen = [one[0] for one in self.kept.maps(sample, self.photos.size, turned).values()]
            if self.pixels:
                photo = as_tensor(read_square(sample, self.photos.size))
                seen.append(photo.flip(-1) if turned else photo)
            if isinstance(self.photos, MaskedPhotos):
                mask = read_mask(self.photos.masks / f"{sample.name}.png")
                square = Image.fromarray(mask).resize((self.photos.size, self.photos.size), Image.Resampling.NEAREST)
                small = torch.from_numpy(np.array(square))
                seen.append(small.flip(-1) if turned else small)
        except DataError as error:
            return index, str(error)
        return index, (*seen, self.photos.targets[index])
