"""How much data a recipe needs: scores by the number of tagged photos a class.

    python benchmarks/how_much_data.py plain leafspots --out data --json data.json
    python benchmarks/how_much_data.py SCENES --per-class 5 20 --seeds 0 1 2 --out data --figure curve.png

DATA is a kind that `tag2mask demo --kind` draws, or a folder with train.txt and val.txt. From the photos of train, in
an order drawn by --seeds, a photo is taken while one of its classes has fewer than so many (of those without any class,
as many again): a smaller set is part of every larger one. 0 takes all. Proxy masks are those of the photos taken, which
know their tags; predictions are those of val, the same for all. What was done stays, so the command goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from domains import arguments, source_of
from matplotlib.figure import Figure

from tag2mask.config import load_recipe
from tag2mask.data import Sample, load
from tag2mask.files import write_text
from tag2mask.runs.folder import Source, open_run
from tag2mask.runs.stages import run_stages


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = arguments(__doc__)
    parser.set_defaults(seed=0, every=1)
    parser.add_argument("--train", default="train", help="list of photos to take from")
    parser.add_argument("--val", default="val", help="list of photos to predict")
    parser.add_argument(
        "--per-class", nargs="+", type=int, default=[5, 10, 20, 50, 0], help="photos a class; 0 for all"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the order and of the run, a run each")
    parser.add_argument("--count", type=int, default=450, help="photos of a generated kind, a third of them for val")
    parser.add_argument("--figure", type=Path, help="draw the curves into this picture")
    args = parser.parse_args()
    args.split = args.train
    rows: list[dict[str, Any]] = []
    for data in args.data:
        for each in args.per_class:
            for seed in args.seeds:
                rows.append(do(data, each, seed, args))
                if args.json:
                    write_text(args.json, json.dumps(rows, indent=1) + "\n")
    print_table(rows)
    if args.figure:
        draw(rows, args.figure)


def do(data: str, each: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Do one run on so many photos a class and return its row."""
    out, source = source_of(data, args)
    samples = load(source.path, source.labels, args.train).samples
    taken = take(samples, each, seed)
    folder = out / f"{each or 'all'}-{seed}"
    photos = folder.with_suffix(".txt")
    write_text(photos, "".join(f"{name}\n" for name in taken))
    run = open_run(
        folder,
        Source.of(source.path, source.labels, photos, args.val),
        load_recipe(args.recipe, [f"seed={seed}", *args.settings]),
    )
    scores = run_stages(run, "evaluate")
    return {
        "data": out.name,
        "recipe": args.recipe,
        "settings": args.settings,
        "per class": each,
        "seed": seed,
        "photos": len(run.train),
        "classes": run.train.images_per_class(),
        "proxy": scores["proxy"],
        "prediction": scores["prediction"],
        "seconds": scores["seconds"],
    }


def take(samples: tuple[Sample, ...], each: int, seed: int) -> list[str]:
    """Return the names of photos, in their own order, of which each class has about so many; 0 takes all."""
    seen: Counter[int] = Counter()
    kept = set()
    for sample in sorted(samples, key=lambda sample: hashlib.sha1(f"{seed}/{sample.name}".encode()).digest()):
        wanted = sample.labels or (0,)
        if not each or any(seen[label] < each for label in wanted):
            seen.update(wanted)
            kept.add(sample.name)
    return [sample.name for sample in samples if sample.name in kept]


def of_half(row: dict[str, Any]) -> float:
    """Return the number of photos that half of a run's classes have at least."""
    return float(median(row["classes"].values()))


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Draw mIoU of predictions and of proxy masks by the number of photos of a class (`of_half`)."""
    figure = Figure((6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for number, data in enumerate(dict.fromkeys(row["data"] for row in rows)):
        mine = sorted((row for row in rows if row["data"] == data), key=of_half)
        for part, style in (("prediction", "-"), ("proxy", ":")):
            scores = [row[part]["miou"] for row in mine]
            named = {"prediction": "new photos", "proxy": "first masks"}[part]
            axes.plot([of_half(row) for row in mine], scores, f"o{style}", color=f"C{number}", label=f"{data}, {named}")
    axes.set_xscale("log")
    axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("photos a class (median)")
    axes.set_ylabel("mIoU, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(file, dpi=150)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the means over seeds, and how far seeds are apart."""
    print("| data | photos a class | photos | proxy masks | predictions |\n|---|---|---|---|---|")
    for data, each in dict.fromkeys((row["data"], row["per class"]) for row in rows):
        alike = [row for row in rows if (row["data"], row["per class"]) == (data, each)]
        cells = [spread([row[part]["miou"] for row in alike]) for part in ("proxy", "prediction")]
        photos = round(float(np.mean([row["photos"] for row in alike])))
        print(f"| {data} | {each or 'all'} | {photos} | {cells[0]} | {cells[1]} |")


def spread(values: list[float]) -> str:
    """Return the mean, and from where to where the values go if there are several."""
    middle = f"{np.mean(values):.1f}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
