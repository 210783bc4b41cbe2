"""What a few corrected masks bring: a person is simulated by the true masks of some training photos.

    python benchmarks/corrections.py runs/voc --out corrections --json corrections.json
    python benchmarks/corrections.py runs/voc --masks 1 5 --choice random --seeds 0 --out corrections

RUN is a finished run whose training photos have true masks; photos that it was scored on stay untouched. In an order
drawn by --seeds (random), or of `tag2mask next` (chosen), a photo is corrected while one of its classes has fewer than
so many. Each row is a copy of the run, refined:

- others: mIoU of the training photos that nobody has corrected, and of the same photos before;
- val: mIoU of the run's evaluation photos, where it has some;
- the ceiling: the same segmenter trained once on the true masks of all training photos (benchmarks/ceiling.py).

True masks of evaluation photos teach nothing. Tags-only scores are those of the run itself, the rows of 0 masks. What
was done stays, so the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from ceiling import ceiling
from how_much_data import spread

from tag2mask.api import next_photos, refine
from tag2mask.data import Sample, write_mask
from tag2mask.files import write_text
from tag2mask.runs.folder import Run, read_metrics, resume_run
from tag2mask.runs.stages import AFTER_CORRECTIONS
from tag2mask.scoring import score_set


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--masks", nargs="+", type=int, default=[0, 1, 3, 5, 10, 25], help="corrected masks a class")
    parser.add_argument("--choice", nargs="+", default=["random", "chosen"], choices=["random", "chosen"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the order; chosen uses the first")
    parser.add_argument("--ceiling", action="store_true", help="find the ceiling too")
    parser.add_argument("--keep", action="store_true", help="keep the refined copies of the run")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], help="change a parameter of refine: key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    run = resume_run(args.run)
    if args.ceiling:
        print("ceiling:", json.dumps(ceiling(run, args.out / "ceiling")))
    for choice in args.choice:
        for seed in args.seeds if choice == "random" else args.seeds[:1]:
            for each in args.masks:
                rows.append(do(run, choice, each, seed, args))
                if args.json:
                    write_text(args.json, json.dumps(rows, indent=1) + "\n")
    print_table(rows)


def do(run: Run, choice: str, each: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Refine a copy of the run by so many masks a class and return its row."""
    file = args.out / f"{choice}-{each}-{seed}.json"
    if file.exists():
        row: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return row
    taken = take(ordered(run, choice, seed), each)
    row = {"choice": choice, "masks": each, "seed": seed, "photos": len(taken), "of": len(run.train)}
    others = run.train.with_samples(tuple(one for one in run.train.samples if one.name not in taken))
    row["before"] = score_set(others, run.retrain_masks)["miou"]
    scores = read_metrics(run.out)
    row["others"] = row["before"]
    if each:
        copy, drawn = file.with_suffix(""), file.with_suffix(".drawn")
        for folder in (copy, drawn):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run.out, copy, copy_function=os.link, ignore=shutil.ignore_patterns(".*"))
        change(copy, args.settings)
        for sample in run.train.samples:
            if sample.name in taken:
                write_mask(drawn / f"{sample.name}.png", run.train.truth(sample))
        start = time.monotonic()
        refine(copy, drawn, take_all=True)
        scores = read_metrics(copy)
        row["seconds"] = round(time.monotonic() - start, 1)
        row["stages"] = {name: scores["seconds"][name] for name in AFTER_CORRECTIONS}
        row["proxy"], row["others"] = scores["proxy"]["miou"], scores["refined"]["miou"]
        row["iou"] = scores["refined"]["iou"]
        if not args.keep:
            shutil.rmtree(copy)
            shutil.rmtree(drawn)
    row["val"] = scores["prediction"]["miou"] if run.evaluation is not run.train else None
    write_text(file, json.dumps(row) + "\n")
    return row


def change(run: Path, settings: Sequence[str]) -> None:
    """Change parameters of a copied run."""
    from tag2mask.config import load_recipe
    from tag2mask.runs.folder import write_config

    opened = resume_run(run)
    opened.recipe = load_recipe(opened.recipe, settings)
    write_config(opened)


def ordered(run: Run, choice: str, seed: int) -> list[Sample]:
    """Return the training photos in the order in which they would be corrected."""
    if choice == "chosen":
        return [one.sample for one in next_photos(run.out, len(run.train))]
    samples = list(run.train.samples)
    Random(seed).shuffle(samples)
    return samples


def take(samples: Sequence[Sample], each: int) -> set[str]:
    """Return the names of photos, the first ones, of which each class has so many or, if it has fewer, all."""
    seen: Counter[int] = Counter()
    taken = set()
    for sample in samples:
        if any(seen[label] < each for label in sample.labels):
            seen.update(sample.labels)
            taken.add(sample.name)
    return taken


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the means over seeds, and how far seeds are apart."""
    print(
        "| choice | masks a class | photos | others, before | others | val | seconds |\n|---|---|---|---|---|---|---|"
    )
    for choice, each in dict.fromkeys((row["choice"], row["masks"]) for row in rows):
        alike = [row for row in rows if (row["choice"], row["masks"]) == (choice, each)]
        cells = [
            spread([row[part] for row in alike]) if all(row.get(part) is not None for row in alike) else "–"
            for part in ("before", "others", "val", "seconds")
        ]
        photos = round(float(np.mean([row["photos"] for row in alike])))
        print(f"| {choice} | {each} | {photos} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
