"""Files of which small data sets are made."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def make_photo(path: Path, width: int = 12, height: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def square(left: int, top: int, side: int) -> list[list[float]]:
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def deep_png(values: np.ndarray) -> bytes:
    """Return a PNG of 16 bits a value, H x W x 1 to 4, which Pillow cannot write in colour."""
    height, width, channels = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">2I5B", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def deep_tiff(values: np.ndarray, order: str = "<", compressed: bool = False) -> bytes:
    """Return a TIFF of 16 bits a value, H x W x 3, least (``<``) or most significant byte first, raw or deflated."""
    height, width, channels = values.shape
    pixels = values.astype(order + "u2").tobytes()
    pixels = zlib.compress(pixels) if compressed else pixels
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 8 if compressed else 1), (262, 3, 1, 2),
        (273, 4, 1, 14), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    body = pixels + b"\0" * (len(pixels) % 2)
    entries[2] = (258, 4, 3, 8)
    depth = struct.pack(order + "3H", 16, 16, 16)
    start = 14 + len(body)
    packed = b"".join(
        struct.pack(order + "2HI", tag, 3 if tag == 258 else kind, count)
        + (struct.pack(order + "H2x", value) if kind == 3 else struct.pack(order + "I", value))
        for tag, kind, count, value in entries
    )
    mark = b"II" if order == "<" else b"MM"
    return (
        mark + struct.pack(order + "HI", 42, start) + depth + body
        + struct.pack(order + "H", len(entries)) + packed + b"\0" * 4
    )  # fmt: skip
