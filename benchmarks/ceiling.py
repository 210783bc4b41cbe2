"""The ceiling of a run: its segmenter, sizes and epochs, trained once on the true masks of the same photos.

The only place where true masks train anything; never part of the product.

    python benchmarks/ceiling.py runs/voc --out runs/voc-ceiling
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path

from tag2mask.data import write_mask
from tag2mask.runs.folder import Run, read_metrics, resume_run
from tag2mask.runs.tasks import evaluate, predict, train_on
from tag2mask.scoring import Scores


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the run to find the ceiling of")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(json.dumps(ceiling(resume_run(args.run), args.out), indent=1))


def ceiling(taught: Run, out: Path) -> Scores:
    """Train a run's segmenter on true masks, unless that is done; return the scores of its predictions."""
    plain = taught.recipe.segmenter.model_copy(update={"method": "plain", "retrain": 0})
    recipe = taught.recipe.model_copy(update={"segmenter": plain})
    run = replace(taught, out=out, recipe=recipe)
    truth = out / "truth"
    for sample in run.train.samples:
        mask = run.train.truth(sample)
        if mask is not None:
            write_mask(truth / f"{sample.name}.png", mask)
    if not run.segmenter_file.exists():
        train_on(run, truth, 0)
    predict(run)
    evaluate(run)
    scores: Scores = read_metrics(out)["prediction"]
    return scores


if __name__ == "__main__":
    main()
