"""Which decoder reads photos fastest: Pillow as ours uses it, with draft mode or without, or torchvision's.

    taskset -c 0 python benchmarks/decode.py VOC2012/JPEGImages --json decode.json

Photos as they are, and enlarged as a phone takes them, each to a whole array and to a square for the network. Processor
milliseconds a photo, the smallest of the repeats, all ways in turn. `difference` is the mean one to Pillow without
draft mode, in levels of 255.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as transforms

from tag2mask.data import photos_in, read_photo


def with_pillow(file, side, draft):
    """Read as tag2mask does: checks, EXIF orientation, RGB."""
    photo = read_photo(file, side if draft else None)
    if side is None:
        return photo
    return np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.BILINEAR))


def with_torchvision(file, side):
    photo = decode_image(str(file), ImageReadMode.RGB, apply_exif_orientation=True)
    if side is not None:
        photo = transforms.resize(photo, [side, side], antialias=True)
    return photo.permute(1, 2, 0).numpy()


WAYS = {
    "Pillow": partial(with_pillow, draft=False),
    "Pillow, draft mode": partial(with_pillow, draft=True),
    "torchvision": with_torchvision,
}


def measure(files, side, repeats):
    """Yield a row for each way."""
    best = {name: np.full(len(files), np.inf) for name in WAYS}
    apart = dict.fromkeys(WAYS, 0.0)
    for number, file in enumerate(files):
        wanted = WAYS["Pillow"](file, side).astype(float)
        for _ in range(repeats):
            for name, way in WAYS.items():
                start = time.process_time()
                photo = way(file, side)
                best[name][number] = min(best[name][number], time.process_time() - start)
                apart[name] += np.abs(photo - wanted).mean() / repeats / len(files)
    for name in WAYS:
        if side is not None or "draft" not in name:
            row = {"to": "whole array" if side is None else f"{side} px square", "way": name}
            yield row | {"ms": round(1000 * best[name].mean(), 2), "difference": round(apart[name], 2)}


def enlarged(files, folder, times):
    """Write photos of so many times the sides."""
    for file in files:
        with Image.open(file) as photo:
            size = (photo.width * times, photo.height * times)
            photo.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(folder / f"{file.stem}.jpg", quality=90)
    return sorted(folder.iterdir())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--side", type=int, default=328, help="of the square in pixels")
    parser.add_argument("--times", type=int, default=6, help="how much larger a phone's photos are")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = [sample.image for sample in islice(photos_in(args.photos), args.count)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for photos in (files, enlarged(files, Path(folder), args.times)):
            with Image.open(photos[0]) as first:
                size = f"{first.width} x {first.height}"
            for side in (None, args.side):
                rows += [{"photos like": size, **row} for row in measure(photos, side, args.repeats)]
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
