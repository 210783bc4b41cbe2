"""Tasks that are not VOC, by one recipe: generated scenes of three styles and a few photos of COCO.

    python benchmarks/tasks.py --coco COCO128 --out tasks --json tasks.json
    python benchmarks/tasks.py --only tiny pairs --count 60 --out tasks

Each is a run of the public API from tags to scores, with its report in the folder; its overview picture lies beside.
What was done stays, so the command goes on where it stopped. COCO needs a folder with ``instances.json`` and photos.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

import tag2mask as t2m
from tag2mask.data import load_coco
from tag2mask.demo.scenes import write_scenes

STYLES = ("plain", "tiny", "pairs")
KINDS = ("proxy", "retrain", "prediction")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for each task")
    parser.add_argument("--only", nargs="+", choices=(*STYLES, "coco"), default=(*STYLES, "coco"))
    parser.add_argument("--coco", type=Path, help="folder with instances.json and its photos; without, no such task")
    parser.add_argument("--least", type=int, default=8, help="photos that a class of COCO needs to be taken")
    parser.add_argument("--count", type=int, default=150, help="scenes of a style")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="change a parameter")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [do(task, args) for task in args.only if task != "coco" or args.coco]
    print_table(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def do(task: str, args: argparse.Namespace) -> dict[str, Any]:
    """Do a task and return its row."""
    folder: Path = args.out / task
    how: dict[str, Any] = {"recipe": args.recipe, "settings": args.settings}
    if task == "coco":
        data = seen = common_classes(args.coco, args.least, folder)
        started = time.monotonic()
        result = t2m.run(data, folder / "run", **how)
    else:
        if not (folder / "scenes/val.txt").exists():
            write_scenes(folder / "scenes", count=args.count, style=task)  # type: ignore[arg-type]
        data, seen = (t2m.load(folder / "scenes", split=split) for split in ("train", "val"))
        started = time.monotonic()
        result = t2m.run(folder / "scenes", folder / "run", split="train", eval_split="val", **how)
    shutil.copyfile(folder / "run/report/overview.png", args.out / f"{task}.png")
    scores = result.scores.model_dump()
    return {
        "task": task,
        "recipe": args.recipe,
        "settings": args.settings,
        "classes": data.images_per_class(),
        "photos": [len(data), len(seen)],
        "shown": shown(seen),
        "map": scores["classifier"]["map"],
        **{kind: scores[kind]["miou"] for kind in KINDS},
        "iou": {kind: scores[kind]["iou"] or None for kind in KINDS},
        "nothing": background_only(seen),
        "seconds": round(sum(scores["seconds"].values())),
        "wall": round(time.monotonic() - started),
    }


def common_classes(coco: Path, least: int, folder: Path) -> t2m.ImageSet:
    """Return the photos of COCO's classes that have so many; objects of other classes count as background."""
    whole = load_coco(coco / "instances.json")
    kept = {name for name, count in whole.images_per_class().items() if count >= least}
    data = json.loads((coco / "instances.json").read_text("utf-8"))
    data["categories"] = [category for category in data["categories"] if category["name"] in kept]
    ids = {category["id"] for category in data["categories"]}
    data["annotations"] = [item for item in data["annotations"] if item["category_id"] in ids]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "instances.json").write_text(json.dumps(data), "utf-8")
    return load_coco(folder / "instances.json", images=whole_folder(whole)).labelled()


def whole_folder(data: t2m.ImageSet) -> Path:
    """Return the folder that the names of the photos start in."""
    sample = data.samples[0]
    return sample.image.parents[sample.name.count("/")]


def shown(data: t2m.ImageSet) -> float:
    """Return how many percent of a photo one of its classes takes, in the median."""
    shares = []
    for sample in data.samples:
        truth = data.truth(sample)
        if truth is not None:
            shares += [float((truth == label).mean()) for label in sample.labels]
    return round(100 * float(np.median(shares)), 1)


def background_only(data: t2m.ImageSet) -> float:
    """Return the mIoU in percent of masks that show nothing."""
    counted = [truth[truth != 255] for sample in data.samples if (truth := data.truth(sample)) is not None]
    background = sum(int((truth == 0).sum()) for truth in counted) / sum(len(truth) for truth in counted)
    return round(100 * background / (len(data.classes) + 1), 1)


def print_table(rows: list[dict[str, Any]]) -> None:
    head = ("task", "classes", "photos", "a class covers, %", "classifier", *KINDS, "background only", "seconds")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        photos = " and ".join(map(str, row["photos"]))
        cells = (row["task"], len(row["classes"]), photos, row["shown"], row["map"], *(row[kind] for kind in KINDS))
        print("| " + " | ".join(map(str, (*cells, row["nothing"], row["seconds"]))) + " |")


if __name__ == "__main__":
    main()
