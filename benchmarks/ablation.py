"""From the paper's recipe to `balanced`, one switch a row: proxy masks on train, the segmenter on val.

Every row is a run folder of its own that takes over what an earlier row made in the same way: classifier, patterns,
proxy masks, segmenter. What is there already is not done again.

    python benchmarks/ablation.py VOC2012 --split train --eval-split val --out runs/ablation --json ablation.json
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from tag2mask.config import load_recipe
from tag2mask.files import share_file
from tag2mask.runs.folder import Source, open_run, read_metrics
from tag2mask.runs.stages import run_stages

PAPER = "luo2020-efficientnet-lite0"
STEPS = {
    "frozen backbone, whole photos at 328 px": [
        "segmenter.train_from=last",
        "segmenter.size=328",
        "segmenter.crop=1",
        "segmenter.epochs=8",
        "segmenter.label_stride=4",
    ],
    "learning rate 0.003": ["segmenter.learning_rate=3e-3"],
    "tags teach the segmenter": ["segmenter.tag_weight=1"],
    "inference at 328 and 448 px": ["inference.scales=[328, 448]"],
    "background weighs 0.6": [
        "inference.background_weight=0.6",
        "inference.crf={gaussian: [1, 3], bilateral: [67, 5, 5]}",
    ],
    "conflicts to the larger score": ["proxy.conflict=strongest"],
    "CRF on all photos": ["proxy.crf=all", "crf.bilateral=[80, 9, 10]"],
    "448 px": ["patterns.size=448"],
    "three layers, 2 : 1 : 1": [
        "patterns.layers=[blocks.5.0, blocks.5, blocks.6]",
        "patterns.layer_weights=[2, 1, 1]",
    ],
    "contrast 0.3": ["patterns.contrast=0.3"],
    "threshold a fifth of the peak": ["proxy.peak_share=0.2"],
    "more where scores are skewed": ["proxy.share_per_skew=0.25"],
    "CAM added, weight 1.5": ["proxy.cam_weight=1.5"],
    "the classifier settles conflicts, weight 0.1": ["proxy.activation_weight=0.1"],
    "learnt affinities, a lighter CRF": ["proxy.affinity.crf={gaussian: [1, 3], bilateral: [67, 5, 5]}"],
}
MADE = {
    "classifier.safetensors": ("seed", "backbone", "classifier"),
    "patterns*.safetensors": ("seed", "backbone", "classifier", "patterns"),
    "affinities.safetensors": ("seed", "backbone", "classifier", "patterns", "proxy"),
    "proxy/*.png": ("seed", "backbone", "classifier", "patterns", "proxy", "crf"),
    "segmenter.safetensors": ("seed", "backbone", "classifier", "patterns", "proxy", "crf", "segmenter"),
}
"""What a run folder holds, by the parts of the recipe that it depends on."""


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--eval-split")
    parser.add_argument("--labels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="where the rows' runs go, a folder each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    source = Source(str(args.data.resolve()), args.labels, args.split, args.eval_split)
    rows, made = [], {}
    for number, (name, recipe) in enumerate(recipes(args.seed)):
        run = open_run(args.out / f"{number:02}", source, recipe)
        for files, parts in MADE.items():
            made_by = recipe.model_dump_json(include=set(parts), exclude={"segmenter": {"retrain"}})
            take_over(made.setdefault((files, made_by), run.out), run.out, files)
        run_stages(run, "evaluate")
        scores = {part: read_metrics(run.out)[part]["miou"] for part in ("proxy", "prediction")}
        rows.append({"switch": name, "seed": args.seed, **scores})
        print(f"{name:<46}{scores['proxy']:6.2f}{scores['prediction']:7.2f}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))


def recipes(seed: int = 0):
    """Yield name and recipe of every row: switches added one after the other."""
    settings = [f"seed={seed}", "segmenter.retrain=0"]
    yield PAPER, load_recipe(PAPER, settings)
    for name, more in STEPS.items():
        settings += more
        yield name, load_recipe(PAPER, settings)


def take_over(earlier: Path, out: Path, files: str) -> None:
    for file in earlier.glob(files):
        target = out / file.relative_to(earlier)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            share_file(file, target)


if __name__ == "__main__":
    main()
