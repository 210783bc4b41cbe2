"""How well the confidence of a run's masks orders them: rank correlation with their true IoU, over all and by class.

    python benchmarks/confidence.py runs/voc runs/tile --json confidence.json

A run's photos need true masks. Rows of `confidence.csv` count whose class the true mask shows. A mask without a pixel
of the class has confidence 0 and IoU 0, which is easy to order: the correlation without such masks stands beside it.
Below is the mean true IoU of the fifth of the masks with the lowest confidence, of the second fifth, and so on.
`--masks retrain` scores other masks of the training photos by the same confidences.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from tag2mask.data import Sample, read_mask
from tag2mask.report.confidence import agreement
from tag2mask.runs.folder import Run, resume_run

FIFTHS = 5


class Row(NamedTuple):
    """A class in a photo: its confidence and its mask's true IoU, 0..1, and whether the mask shows it at all."""

    label: str
    confidence: float
    iou: float
    shown: bool = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders with a report")
    parser.add_argument("--masks", help="a folder of masks in the run; default: those that confidence.csv is of")
    parser.add_argument("--only", type=Path, help="a list of photos; the others are left out")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    only = {Path(line).stem for line in args.only.read_text("utf-8").split()} if args.only else None
    results = []
    for folder in args.runs:
        rows = rows_of(resume_run(folder), args.masks, only)
        results.append({"run": folder.name, "masks": args.masks, **measured(rows)})
        show(results[-1])
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def rows_of(run: Run, masks: str | None = None, only: set[str] | None = None) -> list[Row]:
    """Return the rows of a run's ``confidence.csv`` whose class the true mask shows, with the true IoU."""
    sets = {"predictions": run.evaluation.samples, "other": run.train.samples}
    by_name: dict[str, dict[str, Sample]] = {kind: {one.name: one for one in some} for kind, some in sets.items()}
    rows = []
    with (run.out / "confidence.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            sample = by_name["predictions" if row["masks"] == "predictions" else "other"][row["image"]]
            truth = run.train.truth(sample) if only is None or sample.name in only else None
            label = run.train.classes.index(row["class"]) + 1
            if truth is not None and (truth == label).any():
                mask = read_mask(run.out / (masks or row["masks"]) / f"{sample.name}.png")
                iou = agreement(mask, truth, label)
                rows.append(Row(row["class"], float(row["confidence"]), iou, bool((mask == label).any())))
    return rows


def measured(rows: Sequence[Row]) -> dict[str, Any]:
    """Return Spearman's correlation over all rows and by class, and the mean IoU from low to high confidence."""
    ordered = [row.iou for row in sorted(rows, key=lambda row: row.confidence)]
    classes = sorted({row.label for row in rows})
    return {
        "count": len(rows),
        "spearman": spearman(rows),
        "shown": sum(row.shown for row in rows),
        "spearman_shown": spearman([row for row in rows if row.shown]),
        "classes": {name: spearman([row for row in rows if row.label == name]) for name in classes},
        "fifths": [round(100 * float(np.mean(part)), 1) for part in np.array_split(ordered, FIFTHS) if len(part)],
    }


def spearman(rows: Sequence[Row]) -> float | None:
    """Return the rank correlation of confidence and true IoU; None where all of one are the same."""
    confidence, iou = ([getattr(row, name) for row in rows] for name in ("confidence", "iou"))
    if len(set(confidence)) < 2 or len(set(iou)) < 2:
        return None
    return round(float(spearmanr(confidence, iou).statistic), 3)


def show(result: dict[str, Any]) -> None:
    """Print what was measured of a run."""
    print(
        f"{result['run']}, {result['masks'] or 'final masks'}: {result['count']} masks, Spearman {result['spearman']}"
    )
    print(f"  {result['shown']} masks that show the class: Spearman {result['spearman_shown']}")
    print("  mean IoU by fifths, lowest confidence first:", *result["fifths"])
    print("  by class:", ", ".join(f"{name} {value}" for name, value in result["classes"].items()))


if __name__ == "__main__":
    main()
