"""Proxy masks of CAM, Grad-CAM, DDT and class patterns, and segmenters trained on seeds, from one classifier.

The classifier, the layer and every other parameter are those of a run. Every photo is forwarded twice: once for
all moments, once for all scores (with a backward pass down to the layer for each of its tags, for Grad-CAM).
The thresholds of CAM and Grad-CAM are the best of a sweep on the very masks they are scored on, which flatters
them; DDT and class patterns use zero. "as in a run" is what `tag2mask run --method` writes, its CRF included.

    python benchmarks/methods.py VOCDEVKIT --split train --run runs/voc --json methods.json
    python benchmarks/methods.py VOCDEVKIT --split train --eval-split val --run runs/voc --train sec dsrg --out runs
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import torch
from depths import cam_sweep, rows_of

from tag2mask.config import Recipe, apply_settings, parse_recipe
from tag2mask.crf import prepare
from tag2mask.data import load, read_photo
from tag2mask.data.loading import photo_batches
from tag2mask.methods import method_settings
from tag2mask.methods.cam import normalised_cam
from tag2mask.methods.ddt import ddt_scores, largest_component
from tag2mask.methods.gradcam import grad_cam
from tag2mask.names import method_names
from tag2mask.networks.backbones import LAST
from tag2mask.networks.classifier import Classifier
from tag2mask.patterns.collect import choose_subsets
from tag2mask.patterns.eigen import find_pattern
from tag2mask.patterns.estimator import ClassPatterns, moments_of
from tag2mask.proxy import assign, resize_scores
from tag2mask.runs.estimate import estimate_mask
from tag2mask.runs.folder import Run, Source, open_run, resume_run
from tag2mask.runs.stages import run_stages

SWEPT = {"cam": "CAM", "gradcam": "Grad-CAM"}
OURS = {"ddt": "DDT", "patterns": "class patterns"}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="the run whose classifier and recipe are used")
    parser.add_argument("--split")
    parser.add_argument("--eval-split", help="photos to predict and score, with --train")
    parser.add_argument("--labels")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="change a parameter")
    parser.add_argument("--no-crf", action="store_true", help="leave the rows 'as in a run' out")
    parser.add_argument("--train", nargs="+", default=[], choices=method_names(), help="methods to train segmenters by")
    parser.add_argument("--out", type=Path, help="where their runs go, a folder each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.train and not args.out:
        parser.error("--train needs --out")
    taught = resume_run(args.run)
    rows = score_masks(args, taught)
    rows += [train(args, taught, method) for method in args.train]
    for row in rows:
        print(f"{row['features']:<16}{row['setting']:<44}{row['split']:<8}{row['miou']:6.1f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


def recipe_for(args, taught: Run, method: str) -> Recipe:
    values = taught.recipe.model_dump(mode="json")
    apply_settings(values, method_settings(method, args.settings))
    return parse_recipe(values, str(args.run))


def score_masks(args, taught: Run) -> list[dict]:
    """Return the rows of the proxy masks; of the swept ones the best threshold."""
    data = load(args.data, labels=args.labels, split=args.split)
    recipes = {method: recipe_for(args, taught, method) for method in (*SWEPT, *OURS)}
    how = recipes["patterns"].patterns
    classifier = Classifier.load(args.run / "classifier.safetensors", how.layers[:1], how.output_stride)
    classifier.to(taught.device).requires_grad_(False)
    patterns, ddt = fit(recipes["patterns"], data, classifier)
    if not args.no_crf:
        prepare()
    rows = rows_of(
        lambda job: masks_of(args, recipes, data, *job),
        jobs(recipes["patterns"], data, classifier, patterns, ddt),
        len(data.classes),
    )
    swept = [row for row in rows if row["setting"].startswith("threshold")]
    kept = [row for row in rows if row not in swept]
    for name in SWEPT.values():
        sweep = [row for row in swept if row["features"] == name]
        best = max(sweep, key=lambda row: row["miou"])
        kept.append({**best, "setting": f"{best['setting']}, best of {len(sweep)} on these masks"})
    return [{**row, "split": args.split or "all"} for row in kept]


def fit(recipe: Recipe, data, classifier: Classifier) -> tuple[ClassPatterns, ClassPatterns]:
    """Return class patterns and DDT's one pattern, from one pass."""
    how, layer = recipe.patterns, classifier.backbone.layers[0]
    options = {"size": how.size, "workers": recipe.workers, "components": how.components}
    patterns, ddt = (ClassPatterns(recipe.backbone.name, layer, **options) for _ in range(2))
    subsets = choose_subsets(data, how.images_per_class, recipe.seed)
    every = {sample.name: [0, *subsets.get(sample.name, [])] for sample in data.samples if sample.labels}
    moments = moments_of(classifier, data, every, patterns, strict=False)
    labels = range(1, len(data.classes) + 1)
    patterns.keep(classifier, data.classes, [find_pattern(moments[layer, c], how.components) for c in labels])
    ddt.keep(classifier, data.classes, [find_pattern(moments[layer, 0], how.components)] * len(labels))
    return patterns, ddt


def jobs(recipe: Recipe, data, classifier: Classifier, patterns: ClassPatterns, ddt: ClassPatterns):
    """Yield each photo with the scores of all methods, from one forward pass."""
    device, layer = classifier.head.weight.device, classifier.backbone.layers[0]
    for samples, images in photo_batches(data.samples, recipe.patterns.size, workers=recipe.workers, label="scores"):
        seen = classifier(images.to(device).float().requires_grad_())
        scores = {"gradcam": normalised_cam(grad_cam(seen.logits, seen.features[layer], [s.labels for s in samples]))}
        with torch.no_grad():
            scores |= {
                "cam": normalised_cam(classifier.activation(seen.features[LAST])),
                "ddt": ddt_scores(ddt, seen.features),
                "patterns": patterns.score_features(seen.features),
            }
        for row, sample in enumerate(samples):
            yield sample, {method: maps[row].cpu().numpy() for method, maps in scores.items()}


def masks_of(args, recipes, data, sample, scores) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
    truth, photo, labels = data.truth(sample), read_photo(sample.image), sample.labels
    present = {
        method: resize_scores(maps[[label - 1 for label in labels]], *photo.shape[:2])
        for method, maps in scores.items()
    }
    found = {}
    for method, name in SWEPT.items():
        found |= cam_sweep(name, present[method], labels)
    for method, name in OURS.items():
        found[name, "conflicts 255"] = assign(present[method], labels)
        found[name, "conflicts to the strongest"] = assign(present[method], labels, conflict="strongest")
    for setting in ("conflicts 255", "conflicts to the strongest"):
        found["DDT", f"{setting}, largest region"] = largest_component(found["DDT", setting])
    if not args.no_crf:
        for method, name in {**SWEPT, **OURS}.items():
            mask = estimate_mask(photo, scores[method], labels, recipes[method])
            found[name, "as in a run"] = largest_component(mask) if method == "ddt" else mask
    return truth, found


def train(args, taught: Run, method: str) -> dict:
    """Train and score a segmenter by a method, in a run of its own on the same classifier."""
    source = Source(str(args.data.resolve()), args.labels, args.split, args.eval_split)
    run = open_run(args.out / method, source, recipe_for(args, taught, method))
    if not (run.out / "classifier.safetensors").exists():
        shutil.copy(args.run / "classifier.safetensors", run.out)
    scores = run_stages(run)
    split = args.eval_split or args.split or "all"
    return {"features": method, "setting": "segmenter", "split": split, "miou": scores["prediction"]["miou"]}


if __name__ == "__main__":
    main()
