"""Memory and seams of prediction in tiles: photos of growing size, and the same photo with the tiles elsewhere.

    python benchmarks/tiles.py --run runs/mine --json tiles.json

A photo is put together from generated scenes of tiny objects. Each size is predicted in a process of its own, with the
run's CRF and without, and with `--whole` without tiles too. Shown are the most memory that the process had before and
after, and the seconds. Then rows and columns of the smallest photo are cut off, so that tiles begin elsewhere: shown is
how many percent of the pixels become another class.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

import tag2mask as t2m
from tag2mask.config import load_recipe
from tag2mask.demo.scenes import make_scene

FIELD = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run folder")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 4000], help="widths; heights are 3/4 of them")
    parser.add_argument("--tile", type=int, default=448)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--whole", action="store_true", help="without tiles too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tiles = [(args.tile, args.overlap), *([(0, None)] if args.whole else [])]
    jobs = [(args.run, width, tile, crf) for tile in tiles for crf in (True, False) for width in args.sizes]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = [pool.apply(memory, job) for job in jobs]
        rows += [pool.apply(seams, (args.run, args.sizes[0], tiles[0], crf)) for crf in (True, False)]
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def drawn(width: int) -> np.ndarray:
    """Return a photo of scenes, one beside the other, uint8 H x W x 3."""
    scenes = [make_scene(number, size=FIELD, style="tiny").photo for number in range(6)]
    fields = [np.asarray(Image.fromarray(scene).resize((FIELD, FIELD))) for scene in scenes]
    across, down = -(-width // FIELD), -(-3 * width // 4 // FIELD)
    rows = [np.hstack([fields[(row + column) % 6] for column in range(across)]) for row in range(down)]
    return np.vstack(rows)[: 3 * width // 4, :width]


def opened(run: Path, crf: bool) -> t2m.Segmenter:
    """Return the run's segmenter, warm, with its CRF or without."""
    model = t2m.load_segmenter(run)
    if not crf:
        model.recipe = load_recipe(model.recipe, {"inference.crf": None})
    model.predict(drawn(FIELD))
    return model


def peak() -> int:
    """Return the most memory that the process has had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


def memory(run: Path, width: int, tile: tuple[int, int | None], crf: bool) -> dict[str, object]:
    model, photo = opened(run, crf), drawn(width)
    before, started = peak(), time.monotonic()
    model.predict(photo, tile=tile[0], overlap=tile[1])
    seconds = round(time.monotonic() - started, 1)
    size = f"{photo.shape[1]} x {photo.shape[0]}"
    return {"photo": size, "tile": tile[0], "crf": crf, "MB before": before, "MB at most": peak(), "seconds": seconds}


def seams(run: Path, width: int, tile: tuple[int, int | None], crf: bool) -> dict[str, object]:
    model, photo, far = opened(run, crf), drawn(width), tile[0] // 2
    whole, others = model.predict(photo, tile=tile[0], overlap=tile[1]), []
    for down, right in ((37, 53), (110, 90), (3, 200)):
        moved = model.predict(photo[down:, right:], tile=tile[0], overlap=tile[1])
        others.append(float((moved != whole[down:, right:])[far:, far:].mean()))
    shown = round(100 * float((whole > 0).mean()), 2)
    return {"crf": crf, "pixels of objects, %": shown, "another class, %": [round(100 * one, 3) for one in others]}


if __name__ == "__main__":
    main()
