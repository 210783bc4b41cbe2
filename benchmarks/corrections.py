"""What a few corrected masks bring: a person is simulated by the true masks of some training photos.

    python benchmarks/corrections.py runs/voc --out corrections --json corrections.json
    python benchmarks/corrections.py runs/voc --masks 1 5 --choice random --seeds 0 --out corrections

RUN is a finished run whose training photos have true masks; photos that it was scored on stay untouched. In an order
drawn by --seeds (random), or of `tag2mask next` (chosen), a photo is corrected while one of its classes has fewer than
so many. Each row is a copy of the run, refined:

- others: mIoU of the training photos that nobody has corrected, under their tags;
- val: mIoU of the run's evaluation photos, where it has some;
- ceiling: the same of the same segmenter trained once on the true masks of all training photos (benchmarks/ceiling.py).

The rows of 0 masks are of the run's last segmenter, which has seen tags only. True masks of evaluation photos teach
nothing. Of the others, the ceiling's segmenter has seen the true masks. With --no-crf no row has the CRF, which takes
most of the time. What was done stays, so the command goes on where it stopped; RUN gets a folder features/.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from how_much_data import spread

from tag2mask.api import next_photos
from tag2mask.config import load_recipe
from tag2mask.data import ImageSet, Sample, write_mask
from tag2mask.files import write_text
from tag2mask.inference import predict_masks
from tag2mask.names import StageName
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.kept import KeptFeatures, kept_folder
from tag2mask.runs.corrected import FOLDER
from tag2mask.runs.folder import Run, resume_run, write_config
from tag2mask.runs.refine import not_corrected
from tag2mask.runs.stages import run_stages
from tag2mask.scoring import score_set
from tag2mask.training.segmenter import stays_the_same, train_segmenter


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--masks", nargs="+", type=int, default=[0, 1, 3, 5, 10, 25], help="corrected masks a class")
    parser.add_argument("--choice", nargs="+", default=["random", "chosen"], choices=["random", "chosen"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the order; chosen uses the first")
    parser.add_argument("--ceiling", action="store_true", help="find the ceiling too")
    parser.add_argument("--keep", action="store_true", help="keep the refined copies of the run")
    parser.add_argument("--no-crf", action="store_true", help="predict without the CRF")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], help="change a parameter of refine: key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    run = resume_run(args.run)
    todo = [
        (choice, each, seed)
        for choice in args.choice
        for seed in (args.seeds if choice == "random" else args.seeds[:1])
        for each in args.masks
    ]
    for choice, each, seed in [*todo, *([("ceiling", 0, 0)] if args.ceiling else [])]:
        rows.append(do(run, choice, each, seed, args))
        if args.json:
            write_text(args.json, json.dumps(rows, indent=1) + "\n")
    print_table(rows)


def do(run: Run, choice: str, each: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Refine a copy of the run by so many masks a class, if that is not done, and return its row."""
    file = args.out / f"{choice}-{each}-{seed}.json"
    if file.exists():
        row: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return row
    taken = take(ordered(run, choice, seed), each) if each else set()
    row = {"choice": choice, "masks": each, "seed": seed, "photos": len(taken), "of": len(run.train)}
    copy = file.with_suffix("")
    shutil.rmtree(copy, ignore_errors=True)
    made = shutil.ignore_patterns(".*", "predictions", "report", "refined", "retrain", "truth")
    shutil.copytree(run.out, copy, copy_function=os.link, ignore=made)
    crf = ["inference.crf=null"] if args.no_crf else []
    change(copy, [*args.settings, *crf, *(["segmenter.retrain=0"] if choice == "ceiling" else [])])
    started = time.monotonic()
    if choice == "ceiling":
        learn_all(resume_run(copy))
    elif taken:
        put_truth(run, taken, copy / FOLDER)
        run_stages(resume_run(copy), StageName.REFINE)
    copied = resume_run(copy)
    put_masks(copied, copied.train, copied.refined_masks, known_labels=True)
    row["seconds"] = round(time.monotonic() - started, 1)
    scores = score_set(not_corrected(copied, copied.train), copied.refined_masks)
    row["others"], row["iou"] = scores["miou"], scores["iou"]
    row["val"] = None
    if copied.evaluation is not copied.train:
        put_masks(copied, copied.evaluation, copied.out / "predictions", known_labels=False)
        row["val"] = score_set(copied.evaluation, copied.out / "predictions")["miou"]
    if not kept_folder(run.out).exists() and kept_folder(copied.out).exists():
        os.replace(kept_folder(copied.out), kept_folder(run.out))
    if not args.keep:
        shutil.rmtree(copy)
    write_text(file, json.dumps(row) + "\n")
    return row


def change(run: Path, settings: Sequence[str]) -> None:
    """Change parameters of a copied run."""
    opened = resume_run(run)
    opened.recipe = load_recipe(opened.recipe, settings)
    write_config(opened)


def put_truth(run: Run, names: Container[str], folder: Path) -> None:
    """Write the true masks of some training photos."""
    for sample in run.train.samples:
        mask = run.train.truth(sample) if sample.name in names else None
        if mask is not None:
            write_mask(folder / f"{sample.name}.png", mask)


def learn_all(run: Run) -> None:
    """Train the segmenter of a copied run, from the start, on the true masks of all training photos."""
    how, seed, truth = run.recipe.segmenter, run.recipe.seed, run.out / "truth"
    put_truth(run, {sample.name for sample in run.train.samples}, truth)
    segmenter = untrained(run, SegmentationNetwork.load(run.segmenter_file))
    kept = (
        KeptFeatures(kept_folder(run.out), segmenter.backbone) if stays_the_same(how) and not run.recipe.tiles else None
    )
    train_segmenter(
        segmenter, run.train.samples, truth, how, tiles=run.recipe.tiles, seed=seed, workers=run.recipe.workers,
        checkpoint=run.out / ".ceiling.pt", label="ceiling", kept=kept,
    )  # fmt: skip
    segmenter.save(run.segmenter_file)


def untrained(run: Run, trained: SegmentationNetwork) -> SegmentationNetwork:
    """Return a segmenter with the backbone of another and a new head."""
    how = run.recipe.segmenter
    torch.manual_seed(run.recipe.seed)
    segmenter = SegmentationNetwork(
        trained.backbone.name, run.train.classes, head=how.head, output_stride=how.output_stride, weights="random",
        tags=how.tag_weight > 0,
    )  # fmt: skip
    segmenter.backbone.load_state_dict(trained.backbone.state_dict())
    return segmenter


def put_masks(run: Run, data: ImageSet, folder: Path, *, known_labels: bool) -> None:
    """Predict photos with a run's last segmenter."""
    segmenter = SegmentationNetwork.load(run.segmenter_file)
    kept = None if run.recipe.tiles else KeptFeatures(kept_folder(run.out), segmenter.backbone)
    predict_masks(segmenter, data.samples, folder, run.recipe, known_labels=known_labels, kept=kept)


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
    print("| choice | masks a class | photos | others | val | seconds |\n|---|---|---|---|---|---|")
    for choice, each in dict.fromkeys((row["choice"], row["masks"]) for row in rows):
        alike = [row for row in rows if (row["choice"], row["masks"]) == (choice, each)]
        cells = [
            spread([row[part] for row in alike]) if all(row.get(part) is not None for row in alike) else "–"
            for part in ("others", "val", "seconds")
        ]
        photos = round(float(np.mean([row["photos"] for row in alike])))
        print(f"| {choice} | {each} | {photos} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
