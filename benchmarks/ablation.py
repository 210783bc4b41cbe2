"""Proxy masks from the paper's recipe to `balanced`, one switch a row, and `balanced` without each of its switches.

Every row is a run folder of its own on the classifier of `--run`, with the patterns of an earlier row where those
are the same. What is there already is not done again.

    python benchmarks/ablation.py VOC2012 --split train --run runs/voc --out runs/ablation --json ablation.json
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from tag2mask.config import load_recipe
from tag2mask.data.files import share_file
from tag2mask.pipeline import Source, open_run, run_stages
from tag2mask.scoring import score_set

PAPER = "luo2020-efficientnet-lite0"
STEPS = {
    "conflicts to the larger score": ["proxy.conflict=strongest"],
    "CRF on all photos": ["proxy.crf=all", "crf.bilateral=[80, 9, 10]"],
    "448 px": ["patterns.size=448"],
    "three layers, 2 : 1 : 1": [
        "patterns.layers=[blocks.5.0, blocks.5, blocks.6]",
        "patterns.layer_weights=[2, 1, 1]",
    ],
    "contrast 0.3": ["patterns.contrast=0.3"],
    "threshold a quarter of the peak": ["proxy.peak_share=0.25"],
    "CAM added, weight 1.5": ["proxy.cam_weight=1.5"],
    "the classifier settles conflicts, weight 0.1": ["proxy.activation_weight=0.1"],
}
WITHOUT = {
    "no CRF": ["proxy.crf=none"],
    "C41 alone": ["patterns.layers=[blocks.5.0]", "patterns.layer_weights=[]"],
    "three layers alike": ["patterns.layer_weights=[]"],
    "no contrast": ["patterns.contrast=0"],
    "threshold 0.3 deviations": ["proxy.peak_share=0", "proxy.threshold=0.3"],
    "no CAM": ["proxy.cam_weight=0", "proxy.activation_weight=0"],
}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--labels")
    parser.add_argument("--run", type=Path, required=True, help="the run whose classifier is used")
    parser.add_argument("--out", type=Path, required=True, help="where the rows' runs go, a folder each")
    parser.add_argument("--every", type=int, default=1, help="score every n-th photo; patterns are found on all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows, found = [], {}
    for kind, name, recipe in recipes():
        run = open_run(args.out / f"{len(rows):02}", Source(str(args.data.resolve()), args.labels, args.split), recipe)
        share_file(args.run / "classifier.safetensors", run.out / "classifier.safetensors")
        same = found.setdefault(recipe.patterns.model_dump_json(exclude={"layer_weights"}), run.out)
        for file in same.glob("patterns*.safetensors"):
            share_file(file, run.out / file.name)
        run_stages(run, "discover")
        run.train = run.train.with_samples(run.train.samples[:: args.every])
        run_stages(run, "estimate")
        score = score_set(run.train, run.out / "proxy")["miou"]
        rows.append({"kind": kind, "switch": name, "split": args.split, "photos": len(run.train), "miou": score})
        print(f"{kind:<9}{name:<46}{score:6.2f}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))


def recipes():
    """Yield kind, name and recipe of every row: switches added one after the other, then each left out."""
    added: list[str] = []
    yield "paper", PAPER, load_recipe(PAPER)
    for name, settings in STEPS.items():
        added += settings
        yield "plus", name, load_recipe(PAPER, added)
    for name, settings in WITHOUT.items():
        yield "without", name, load_recipe("balanced", settings)


if __name__ == "__main__":
    main()
