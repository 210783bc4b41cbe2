"""SBD, the Semantic Boundaries Dataset (Hariharan et al. 2011): its .mat files to masks, and the list trainaug."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tag2mask.data.decode import write_mask
from tag2mask.data.published import voc_remarks
from tag2mask.data.readers.voc import VOC_CLASSES, existing_root, list_ids
from tag2mask.errors import DataError
from tag2mask.files import write_text
from tag2mask.names import IGNORE
from tag2mask.progress import track
from tag2mask.threads import map_ahead

log = logging.getLogger("tag2mask")
_COMPRESSED, _STRUCT, _UINT8 = 15, 2, (9, 2)
_MOST_BYTES = 2**26


def convert_sbd(path: str | Path, out: str | Path, *, strict: bool = False) -> tuple[int, int]:
    """Write the mask of each of SBD's .mat files as palette PNG; masks that are in ``out`` already stay.

    Args:
        path: the folder that has ``cls``, or the one that ``benchmark.tgz`` was unpacked to.
        out: folder of the masks, such as VOC's ``SegmentationClassAug``.
        strict: a file that cannot be read is an error, not reported and skipped.

    Returns:
        how many masks of SBD there now are, and of how many files.

    Raises:
        DataError: there are no .mat files, a mask cannot be written, or, if ``strict``, a file cannot be read.
    """
    files = {Path(out) / f"{file.stem}.png": file for file in _mat_files(path)}
    todo = [mask for mask in files if not mask.exists()]

    def convert(mask: Path) -> None:
        try:
            pixels = read_sbd(files[mask])
        except DataError as error:
            if strict:
                raise
            log.warning("skipped: %s", error)
        else:
            write_mask(mask, pixels)

    for _ in track(map_ahead(convert, todo), len(todo), "masks of SBD"):
        pass
    return sum(mask.exists() for mask in files), len(files)


def read_sbd(file: str | Path) -> np.ndarray:
    """Read the mask of one of SBD's files: ``GTcls.Segmentation``.

    Returns:
        uint8 H x W, VOC's class indices.

    Raises:
        DataError: the file is missing, corrupt or holds no such mask.
    """
    try:
        mask = _segmentation(Path(file).read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the file") from None
    except (ValueError, IndexError, struct.error, zlib.error):
        raise DataError(f"{file}: corrupt, or no GTcls.Segmentation of uint8 H x W in it; fetch it again") from None
    highest = int(np.max(mask, where=mask != IGNORE, initial=0))
    if highest > len(VOC_CLASSES):
        raise DataError(f"{file}: class index {highest}, but VOC has {len(VOC_CLASSES)} classes; fetch it again")
    return mask


def write_trainaug(path: str | Path, voc: str | Path) -> tuple[Path, int]:
    """Write the list trainaug of VOC 2012: the photos of SBD and of VOC's train, without those of VOC's val.

    Args:
        path: SBD's folder, as for `convert_sbd`.
        voc: VOC's folder, as for `load_voc`.

    Returns:
        the list, ``ImageSets/Segmentation/trainaug.txt``, and how many photos are in it (published: 10,582).

    Raises:
        DataError: SBD or VOC's lists are not there, or the list cannot be written.
    """
    root = existing_root(voc)
    lists = root / "ImageSets" / "Segmentation"
    train, val = (list_ids(lists / f"{split}.txt") for split in ("train", "val"))
    ids = sorted({*train, *(file.stem for file in _mat_files(path))} - set(val))
    write_text(lists / "trainaug.txt", "".join(f"{name}\n" for name in ids))
    for remark in voc_remarks(root, "trainaug", len(ids)):
        log.warning("%s", remark)
    return lists / "trainaug.txt", len(ids)


def _mat_files(path: str | Path) -> list[Path]:
    path = Path(path)
    for folder in (path, path / "dataset", path / "benchmark_RELEASE" / "dataset"):
        if files := sorted((folder / "cls").glob("*.mat")):
            return files
    raise DataError(f"{path}: no cls/*.mat here or in benchmark_RELEASE/dataset below; give the folder that has cls")


def _segmentation(data: bytes) -> np.ndarray:
    """Return GTcls.Segmentation of a MATLAB 5 file. (SciPy's reader can end the process on a damaged file.)"""
    if data[124:128] != b"\0\1IM":
        raise ValueError("not MATLAB 5, least byte first")
    for kind, content in _elements(data[128:]):
        matrix = _unpacked(content) if kind == _COMPRESSED else content
        (_, flags), _, (_, name), *rest = _elements(matrix)
        if name == b"GTcls" and flags[0] == _STRUCT:
            (_, length), (_, names), *values = rest
            step = int.from_bytes(length, "little")
            fields = [names[at : at + step].partition(b"\0")[0] for at in range(0, len(names), step)]
            (_, flags), (_, size), _, (kind, pixels) = _elements(values[fields.index(b"Segmentation")][1])
            height, width = struct.unpack("<2i", size)
            if (flags[0], kind) != _UINT8 or min(height, width) < 1:
                break
            return np.frombuffer(pixels, np.uint8).reshape(width, height).T.copy()
    raise ValueError("no mask")


def _unpacked(content: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    ((_, matrix),) = _elements(unpacker.decompress(content, _MOST_BYTES))
    if not unpacker.eof:
        raise ValueError("truncated or too large")
    return matrix


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each element; a short one keeps its size in the upper half of its type."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<2I", data, at)
        start, room = at + 8, size + (-size % 8 if kind != _COMPRESSED else 0)
        if kind >> 16:
            kind, size, start, room = kind & 0xFFFF, kind >> 16, at + 4, 4
        if size > room or start + size > len(data):
            raise ValueError("an element ends beyond its place")
        yield kind, data[start : start + size]
        at = start + room
