"""Proxy masks from several depths beside CAM, same classifier, same photos, scored on the train masks.

Every photo is forwarded twice: once for all moments, once for all scores. CAM's threshold is the best of a
sweep on the very masks it is scored on, which flatters CAM; class patterns use the paper's zero.

    python benchmarks/depths.py VOCDEVKIT --split train --labels labels.csv --layers blocks.4 C41 blocks.5
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from tag2mask.config import load_recipe
from tag2mask.crf import dense_crf
from tag2mask.data import load, read_photo
from tag2mask.data.loading import photo_batches
from tag2mask.methods.cam import normalised_cam
from tag2mask.metrics import confusion_matrix, mean_iou
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.networks.classifier import Classifier, train_head
from tag2mask.patterns.estimator import ClassPatterns, discover
from tag2mask.proxy import assign, resize_scores, score_probabilities
from tag2mask.threads import map_ahead

CAM_THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 13)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--split")
    parser.add_argument("--labels")
    parser.add_argument("--recipe", default="luo2020-efficientnet-lite0")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--classifier", type=Path, help="a run's classifier.safetensors; else a linear head is fitted")
    parser.add_argument("--layers", nargs="+", default=["blocks.3", "blocks.4", "C41", "blocks.5", "blocks.6", "last"])
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.0], help="in standard deviations")
    parser.add_argument("--no-crf", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    recipe = load_recipe(args.recipe, args.settings)
    data = load(args.data, labels=args.labels, split=args.split)
    started = time.time()
    classifier = build_classifier(args, recipe, data)
    print(f"classifier: {time.time() - started:.0f} s", flush=True)
    patterns = fit_patterns(args, recipe, data, classifier)
    print(f"patterns of {len(patterns)} layers: {time.time() - started:.0f} s since the start", flush=True)
    rows = score(args, recipe, data, classifier, patterns)
    print(f"scored: {time.time() - started:.0f} s since the start")
    for row in rows:
        print(f"{row['features']:<12}{row['setting']:<28}{row['miou']:6.1f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


def build_classifier(args, recipe, data) -> Classifier:
    stride = recipe.patterns.output_stride
    if args.classifier:
        return Classifier.load(args.classifier, args.layers, stride)
    backbone = Backbone(recipe.backbone.name, args.layers, output_stride=stride, weights=recipe.backbone.weights)
    classifier = Classifier(backbone, data.classes).eval()
    how = recipe.classifier
    train_head(
        classifier, data.samples, size=how.size, steps=how.epochs, learning_rate=how.learning_rate,
        weight_decay=how.weight_decay, workers=recipe.workers,
    )  # fmt: skip
    return classifier


def fit_patterns(args, recipe, data, classifier) -> list[ClassPatterns]:
    how = recipe.patterns
    patterns = [
        ClassPatterns(
            recipe.backbone.name,
            layer,
            size=how.size,
            images_per_class=how.images_per_class,
            seed=recipe.seed,
        )
        for layer in args.layers
    ]
    discover(classifier, data, patterns)
    for fitted in patterns:
        weak = [name for name, e in zip(data.classes, fitted.evidence_, strict=True) if e[0] < 0.1]
        apart = [name for name, e in zip(data.classes, fitted.evidence_, strict=True) if e[1] < 0]
        print(
            f"{fitted.layer}: weak evidence {weak}, disagreeing {apart}; first two components explain "
            f"{(fitted.spectra_[:, :2] / fitted.variances_[:, None]).mean(0).tolist()}",
            flush=True,
        )
    return patterns


def score(args, recipe, data, classifier, patterns) -> list[dict]:
    return rows_of(
        lambda job: score_photo(args, recipe, data, *job), jobs(recipe, data, classifier, patterns), len(data.classes)
    )


def rows_of(masks, photos, classes: int) -> list[dict]:
    """Score photos in two threads; ``masks`` gives each one's truth and its masks by features and setting."""
    totals: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros((classes + 1,) * 2, np.int64))
    for truth, found in map_ahead(masks, photos, 2):
        for key, mask in found.items() if truth is not None else ():
            totals[key] += confusion_matrix(truth, mask, classes + 1)
    return [{"features": f, "setting": s, "miou": round(100 * mean_iou(m), 2)} for (f, s), m in totals.items()]


def cam_sweep(name: str, cam: np.ndarray, labels) -> dict[tuple[str, str], np.ndarray]:
    """Return the masks of CAM at every threshold, conflicts to the larger value; ``cam`` at the photo's size."""
    return {
        (name, f"threshold {threshold}"): assign(cam, labels, threshold=threshold, conflict="strongest")
        for threshold in CAM_THRESHOLDS
    }


def jobs(recipe, data, classifier, patterns):
    for samples, images in photo_batches(data.samples, recipe.patterns.size, workers=recipe.workers):
        with torch.inference_mode():
            features = classifier(images).features
            maps = {fitted.layer: fitted.score_features(features).numpy() for fitted in patterns}
            cam = normalised_cam(classifier.activation(features[LAST])).numpy()
        for row, sample in enumerate(samples):
            present = [label - 1 for label in sample.labels]
            yield sample, cam[row, present], {layer: q[row, present] for layer, q in maps.items()}


def score_photo(args, recipe, data, sample, cam, maps) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
    truth, photo = data.truth(sample), read_photo(sample.image)
    size, labels = photo.shape[:2], sample.labels
    found = cam_sweep("CAM", resize_scores(cam, *size), labels)
    for layer, q in maps.items():
        scores = resize_scores(q, *size)
        for threshold in args.thresholds:
            mask = assign(scores, labels, threshold=threshold)
            found[layer, f"{threshold}, no CRF"] = mask
            found[layer, f"{threshold}, no CRF, strongest"] = assign(
                scores, labels, threshold=threshold, conflict="strongest"
            )
            if args.no_crf:
                continue
            if len(labels) == 1:
                crf = recipe.crf
                start = score_probabilities(scores, threshold=threshold, sharpness=recipe.proxy.sharpness)
                refined = dense_crf(photo, start, gaussian=crf.gaussian, bilateral=crf.bilateral, steps=crf.steps)
                mask = np.asarray([0, *labels], np.uint8)[refined.argmax(0)]
            found[layer, f"{threshold}, CRF on single"] = mask
    return truth, found


if __name__ == "__main__":
    main()
