"""Photos to batches: decoded ahead in worker processes, unreadable ones reported and left out."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tag2mask.config import TilesConfig
from tag2mask.data.image_set import Sample
from tag2mask.data.summary import by_reason
from tag2mask.errors import DataError, RunError
from tag2mask.progress import track
from tag2mask.tiles import Tile, tiles_of

log = logging.getLogger("tag2mask")
Out = TypeVar("Out")


def read_square(sample: Sample, size: int) -> np.ndarray:
    """Read a photo and resize it to uint8 size x size x 3 (bilinear, antialiased, not keeping its aspect).

    Raises:
        DataError: the photo cannot be read.
    """
    return square(sample.read(draft_size=size), size)


def square(photo: np.ndarray, size: int) -> np.ndarray:
    """Return a photo, uint8 H x W x 3, as the networks take it, uint8 size x size x 3 (bilinear, antialiased)."""
    return np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR))


def as_tensor(photo: np.ndarray) -> Tensor:
    """Return a photo, uint8 H x W x 3, as uint8 3 x H x W."""
    return torch.from_numpy(photo.transpose(2, 0, 1).copy())


class SquarePhotos(Dataset[tuple[int, Tensor | str]]):
    """Whole photos at one square size: ``(index, uint8 3 x size x size)``, or ``(index, what is wrong)``."""

    def __init__(self, samples: Sequence[Sample], size: int) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        """Read one photo."""
        try:
            return index, as_tensor(read_square(self.samples[index], self.size))
        except DataError as error:
            return index, str(error)


def squares_of(photo: np.ndarray, size: int, tiles: Sequence[Tile]) -> Tensor:
    """Return tiles of a photo, uint8 H x W x 3, as the networks take them, uint8 N x 3 x size x size."""
    return torch.stack([as_tensor(square(tile.cut(photo), size)) for tile in tiles])


class TiledPhotos(Dataset[tuple[int, "tuple[tuple[int, int], Tensor] | str"]]):
    """The tiles of photos: ``(index, (height and width, uint8 N x 3 x size x size))``, or what is wrong."""

    def __init__(self, samples: Sequence[Sample], size: int, tiles: TilesConfig) -> None:
        self.samples, self.size, self.tiles = samples, size, tiles

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, tuple[tuple[int, int], Tensor] | str]:
        """Read one photo."""
        try:
            photo = self.samples[index].read()
        except DataError as error:
            return index, str(error)
        height, width, _ = photo.shape
        return index, ((height, width), squares_of(photo, self.size, tiles_of((height, width), self.tiles)))


class WholePhotos(Dataset[tuple[int, "np.ndarray | str"]]):
    """Photos at their own size, or JPEGs at half, quarter or eighth, see `read_photo`.

    They come as ``(index, uint8 H x W x 3)``, or ``(index, what is wrong)``.
    """

    def __init__(self, samples: Sequence[Sample], draft_size: int | None = None) -> None:
        self.samples, self.draft_size = samples, draft_size

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | str]:
        """Read one photo."""
        try:
            return index, self.samples[index].read(self.draft_size)
        except DataError as error:
            return index, str(error)


def read_ahead(
    samples: Sequence[Sample], workers: int, strict: bool = False, draft_size: int | None = None
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Yield photos in order, decoded ahead in worker processes; unreadable ones are reported at the end and skipped."""
    unread: list[str] = []
    for index, photo in read_by(workers, WholePhotos(samples, draft_size)):
        if not isinstance(photo, str):
            yield samples[index], photo
        elif strict:
            raise DataError(photo)
        else:
            unread.append(photo)
    for line in by_reason(unread):
        log.warning("skipped: %s", line)


def photo_batches(
    samples: Sequence[Sample],
    size: int,
    *,
    batch_size: int = 8,
    workers: int = 1,
    strict: bool = False,
    label: str = "",
) -> Iterator[tuple[list[Sample], Tensor]]:
    """Yield batches of photos in order, each photo decoded once.

    Args:
        samples: the photos.
        size: side of the square they are resized to, in pixels.
        batch_size: photos a batch.
        workers: processes that decode ahead; 0 decodes in this one.
        strict: raise for an unreadable photo instead of reporting and skipping it.
        label: what the progress shows; empty for no progress.

    Yields:
        The samples of the batch and their pixels, uint8 N x 3 x size x size; never an empty batch.

    Raises:
        DataError: a photo cannot be read and ``strict`` is set.
    """
    batches = read_by(workers, SquarePhotos(samples, size), batch_size=batch_size, collate_fn=list)
    for batch in track(batches, -(-len(samples) // batch_size), label) if label else batches:
        readable = list(keep_readable(batch, strict))
        if readable:
            yield [samples[index] for index, _ in readable], torch.stack([photo for _, photo in readable])


def tile_batches(
    samples: Sequence[Sample],
    size: int,
    tiles: TilesConfig,
    *,
    batch_size: int = 8,
    workers: int = 1,
    strict: bool = False,
    label: str = "",
) -> Iterator[tuple[Sample, tuple[int, int], list[Tile], Tensor]]:
    """Yield the tiles of photos in order, those of a photo in batches, each photo decoded once.

    Args:
        samples: the photos.
        size: side of the squares that tiles are resized to, in pixels.
        tiles: side and overlap of the tiles in the photo.
        batch_size: tiles a batch.
        workers, strict, label: as for `photo_batches`.

    Yields:
        The photo, its height and width, some of its tiles and their pixels, uint8 N x 3 x size x size.

    Raises:
        DataError: a photo cannot be read and ``strict`` is set.
    """
    photos = read_by(workers, TiledPhotos(samples, size, tiles))
    readable = keep_readable(photos, strict)
    for index, (shape, images) in track(readable, len(samples), label) if label else readable:
        places = tiles_of(shape, tiles)
        for start in range(0, len(places), batch_size):
            some = slice(start, start + batch_size)
            yield samples[index], shape, places[some], images[some]


def read_by(workers: int, photos: Dataset[Any], **options: Any) -> Iterator[Any]:
    """Yield what a `DataLoader` reads in worker processes, in order: each item as it is if no option says otherwise.

    Args:
        workers: processes that read ahead; 0 reads in this one.
        photos: what they read. The workers may be new processes that share nothing with this one, as on macOS and
            Windows: it is pickled, and so are the options.
        options: of `DataLoader`.

    Raises:
        RunError: a worker has died.
    """
    if workers:
        end_if_started_again()
    try:
        yield from DataLoader(photos, num_workers=workers, **(options or {"batch_size": None, "collate_fn": _as_it_is}))
    except (ConnectionError, EOFError) as error:  # it was gone before it had been told what to read
        raise RunError(_why_gone()) from error
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise RunError(_why_gone(str(error))) from error


def end_if_started_again() -> None:
    """End a worker process that, while it starts, runs the user's script: the script calls us without a guard.

    Where processes are not forked, each imports the main script. It must not begin the same work once more; its parent,
    which sees it end, says what to do.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)


def _as_it_is(item: Out) -> Out:
    return item


def _why_gone(said: str = "") -> str:
    """Return what to do about a worker that is gone, from what torch says of it."""
    if "shared memory" in said:
        return "the processes that read photos lack shared memory; give more (docker: --shm-size) or set workers=0"
    if "killed by signal" in said or multiprocessing.get_start_method() == "fork":
        return "a process that reads photos was killed, perhaps for want of memory; set workers=0 or fewer"
    return (
        "the processes that read photos ended as they began: put the script's own calls under "
        'if __name__ == "__main__": or set workers=0'
    )


def keep_readable(
    batch: Iterable[tuple[int, Out | str]], strict: bool, said: set[str] | None = None
) -> Iterator[tuple[int, Out]]:
    """Yield the items of a batch that could be read; log the others, or raise for them when ``strict``.

    Args:
        batch: items or what is wrong with them.
        strict: raise.
        said: what has been logged, which is not logged again; it grows.
    """
    for index, item in batch:
        if not isinstance(item, str):
            yield index, item
        elif strict:
            raise DataError(item)
        elif said is None or item not in said:
            log.warning("skipped: %s", item)
            if said is not None:
                said.add(item)
