"""Photos far from everyday scenes: what a recipe reaches, whether signs are right, and what could be reached.

    python benchmarks/domains.py blobs scratches TILE LEAF --out domains --json domains.json
    python benchmarks/domains.py VOCDEVKIT --split train --every 6 --recipe fast --no-ceiling --out domains

DATA is a folder as `tag2mask run` takes it, with true masks, or a kind that `tag2mask demo --kind` draws. For each:

- the run: IoU of its proxy masks and of its predictions, on the same photos, by the recipe;
- signs: the correlation of each pattern's scores with the truth, over the positions of its layer in the photos that
  have the class; above 0 the object is at the right end. The confidence is that of the code, where it gives one;
- best by truth: for each class the layer, the component (of the first --components of the recipe's covariance, contrast
  included), its end and the threshold that true masks would choose, one for all photos: raw, and behind the CRF;
- the ceiling: the same segmenter trained on the true masks.

True masks choose or train nothing that the run uses. What was done stays, so the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ceiling import ceiling
from PIL import Image
from torch.nn import functional

from tag2mask.config import load_recipe
from tag2mask.crf import dense_crf, prepare
from tag2mask.data import load
from tag2mask.data.loading import photo_batches
from tag2mask.demo.kinds import write_kind
from tag2mask.files import write_text
from tag2mask.methods import load_method
from tag2mask.methods.base import Network
from tag2mask.metrics import confusion_matrix, iou, mean_iou
from tag2mask.names import IGNORE, DemoKind
from tag2mask.networks.backbones import resolve_layer
from tag2mask.patterns.collect import choose_subsets
from tag2mask.patterns.eigen import leading_eigenpairs, score
from tag2mask.patterns.estimator import moments_of
from tag2mask.proxy import assign, resize_scores, score_probabilities
from tag2mask.runs.estimate import load_network
from tag2mask.runs.folder import Run, Source, open_run, read_metrics
from tag2mask.runs.stages import run_stages
from tag2mask.runs.tasks import evaluate

EDGES = np.linspace(-6, 6, 241)
"""Thresholds that are tried, in standard deviations of the class's scores."""


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = arguments(__doc__)
    parser.add_argument("--split", help="list of photos, for every folder")
    parser.add_argument("--every", type=int, default=1, help="take about one photo of so many, drawn by their names")
    parser.add_argument("--count", type=int, default=150, help="photos of a generated kind")
    parser.add_argument("--seed", type=int, default=0, help="of the generated photos")
    parser.add_argument("--components", type=int, default=5, help="components tried for the best by truth")
    for part in ("prediction", "signs", "best", "ceiling"):
        parser.add_argument(f"--no-{part}", action="store_true", help=f"leave the {part} out")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for data in args.data:
        rows.append(do(data, args))
        if args.json:
            write_text(args.json, json.dumps(rows, indent=1) + "\n")
    print_tables(rows)


def arguments(about: str | None) -> argparse.ArgumentParser:
    """Return what benchmarks of several data sets are told alike."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+", help="folders, or kinds of generated photos")
    parser.add_argument("--out", type=Path, required=True, help="a folder for each data set")
    parser.add_argument("--labels", help="tag table, for every folder")
    parser.add_argument("--size", type=int, default=320, help="the longer side of generated photos")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="change a parameter")
    parser.add_argument("--json", type=Path)
    return parser


def do(data: str, args: argparse.Namespace) -> dict[str, Any]:
    """Do one data set and return its row."""
    out, source = source_of(data, args)
    run = open_run(out / "run", source, load_recipe(args.recipe, args.settings))
    run_stages(run, "estimate" if args.no_prediction else "predict")
    evaluate(run)
    metrics = read_metrics(run.out)
    shown = [(sample.labels, truth) for sample in run.train.samples if (truth := run.train.truth(sample)) is not None]
    areas = [[float((truth == label).mean()) for labels, truth in shown if label in labels] for label in labels_of(run)]
    row: dict[str, Any] = {
        "data": out.name,
        "recipe": args.recipe,
        "settings": args.settings,
        "photos": len(run.train),
        "without": sum(not sample.labels for sample in run.train.samples),
        "classes": run.train.images_per_class(),
        "area": dict(zip(run.train.classes, (percent(np.median(own)) if own else None for own in areas), strict=True)),
        "proxy": metrics["proxy"],
        "prediction": metrics.get("prediction"),
        "seconds": metrics["seconds"],
    }
    if load_method(run.recipe.proxy.method).finds_patterns and not (args.no_signs and args.no_best):
        row |= by_truth(run, out, args)
    if not args.no_ceiling:
        row["ceiling"] = ceiling(run, out / "ceiling")
    return row


def source_of(data: str, args: argparse.Namespace) -> tuple[Path, Source]:
    """Return the folder of a data set's results, and where its photos come from: drawn or chosen first, if need be."""
    if data in list(DemoKind) and not Path(data).exists():
        out, path = args.out / data, args.out / data / "photos"
        if not (path / "val.txt").exists():
            write_kind(path, data, count=args.count, seed=args.seed, size=args.size)
        source = Source.of(path)
    else:
        out = args.out / Path(data).resolve().name
        source = Source.of(data, args.labels, args.split)
    if args.every > 1:
        names = [sample.name for sample in load(source.path, source.labels, source.split).samples]
        drawn = sorted(names, key=lambda name: hashlib.sha1(name.encode()).digest())[: -(-len(names) // args.every)]
        chosen = out / f"every-{args.every}.txt"
        write_text(chosen, "".join(f"{name}\n" for name in sorted(drawn)))
        source = Source.of(source.path, source.labels, chosen)
    return out, source


def labels_of(run: Run) -> range:
    return range(1, len(run.train.classes) + 1)


def percent(share: float) -> float:
    return round(100 * float(share), 2)


# --- What true masks say of patterns --------------------------------------------------------------------------


def by_truth(run: Run, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return signs and the best by truth; kept in a file until the patterns are others."""
    patterns = hashlib.sha1(b"".join(file.read_bytes() for file in run.patterns_files)).hexdigest()
    about = {"patterns": patterns, "components": args.components}
    file, kept = out / "by-truth.json", {}
    if file.exists():
        kept = json.loads(file.read_text("utf-8"))
        kept = kept if kept.get("about") == about else {}
    for part, find in (("signs", find_signs), ("best", lambda run: find_best(run, args.components))):
        if part not in kept and not getattr(args, f"no_{part}"):
            kept |= {"about": about, part: find(run)}
            write_text(file, json.dumps(kept, indent=1))
    return {part: kept[part] for part in ("signs", "best") if part in kept and not getattr(args, f"no_{part}")}


class Seen(NamedTuple):
    """A photo as the network takes it, its labels, its truth at that size, and its features by layer."""

    photo: np.ndarray
    labels: tuple[int, ...]
    truth: np.ndarray
    features: dict[str, torch.Tensor]


def photos_with_truth(run: Run, network: Network) -> Iterator[Seen]:
    size = run.recipe.patterns.size
    for samples, images in photo_batches(run.train.samples, size, workers=run.recipe.workers):
        with torch.inference_mode():
            features = network.backbone(images.to(run.device))
        for row, sample in enumerate(samples):
            truth = run.train.truth(sample)
            if truth is not None:
                square = np.asarray(Image.fromarray(truth).resize((size, size), Image.Resampling.NEAREST))
                own = {layer: maps[row : row + 1].float().cpu() for layer, maps in features.items()}
                yield Seen(images[row].permute(1, 2, 0).contiguous().numpy(), sample.labels, square, own)


def find_signs(run: Run) -> dict[str, Any]:
    """Return by class: the correlation of its scores with the truth in each layer, and the code's own confidence."""
    sums: dict[tuple[str, int], np.ndarray] = {}
    network = load_network(run)
    for _, labels, truth, features in photos_with_truth(run, network):
        for fitted in network.patterns if labels else ():
            with torch.inference_mode():
                scores = fitted.score_features(features)[0].numpy()
            for label in labels:
                known = grid(truth != IGNORE, scores.shape[1:])
                share = grid(truth == label, scores.shape[1:])[known > 0.5]
                q = scores[label - 1][known > 0.5].astype(float)
                new = np.array([len(q), q.sum(), share.sum(), q @ q, share @ share, q @ share])
                sums[fitted.layer, label] = sums.get((fitted.layer, label), 0) + new
    found = {}
    for label, name in enumerate(run.train.classes, 1):
        by_layer = {fitted.layer: correlation(*sums[fitted.layer, label]) for fitted in network.patterns}
        said = [fitted.about()[name].get("confidence") for fitted in network.patterns]
        found[name] = {"correlation": by_layer, "confidence": said if None not in said else None}
    return found


def grid(where: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the share of each position of a smaller grid."""
    shares = functional.adaptive_avg_pool2d(torch.from_numpy(where.astype(np.float32))[None, None], shape)
    return shares[0, 0].double().numpy()


def correlation(count: float, a: float, b: float, aa: float, bb: float, ab: float) -> float | None:
    spread = np.sqrt(max(count * aa - a * a, 0) * max(count * bb - b * b, 0))
    return round(float((count * ab - a * b) / spread), 3) if spread else None


class Choice(NamedTuple):
    """What true masks choose for a class: the score ``sign * q - threshold`` of a component of a layer."""

    layer: str
    component: int
    sign: int
    threshold: float
    iou: float


def find_best(run: Run, components: int) -> dict[str, Any]:
    """Return the mIoU and IoU of the best by truth, and what was chosen for each class."""
    network = load_network(run)
    axes = find_axes(run, network, components)
    counts: dict[tuple[str, int], np.ndarray] = {}
    for _, labels, truth, features in photos_with_truth(run, network):
        for label in labels:
            for layer in (layer for layer, of in axes if of == label):
                scores = resize_scores(component_scores(features, *axes[layer, label], layer), *truth.shape)
                held = counts.setdefault((layer, label), np.zeros((components, 2, len(EDGES) - 1), np.int64))
                for number, q in enumerate(scores):
                    for row, part in enumerate((truth == label, (truth != label) & (truth != IGNORE))):
                        held[number, row] += np.histogram(np.clip(q[part], EDGES[0], EDGES[-1]), EDGES)[0]
    chosen = {label: choose(label, counts) for label in labels_of(run)}
    totals = {kind: np.zeros((len(run.train.classes) + 1,) * 2, np.int64) for kind in ("raw", "crf")}
    prepare()
    for photo, labels, truth, features in photos_with_truth(run, network):
        scores = [resize_scores(oriented(features, axes, label, chosen[label]), *truth.shape) for label in labels]
        masks = best_masks(photo, np.concatenate(scores), labels, run) if labels else [np.zeros_like(truth)] * 2
        for total, mask in zip(totals.values(), masks, strict=True):
            total += confusion_matrix(truth, mask, len(total))
    names = ("background", *run.train.classes)
    return {
        kind: {
            "miou": percent(mean_iou(total)),
            "iou": {name: percent(value) for name, value in zip(names, iou(total), strict=True)},
        }
        for kind, total in totals.items()
    } | {"chosen": {run.train.classes[label - 1]: c._asdict() for label, c in chosen.items()}}


def oriented(features: dict[str, torch.Tensor], axes: dict[Any, Any], label: int, choice: Choice) -> np.ndarray:
    """Return the scores that truth chose, float32 1 x h x w, positive where the class is."""
    q = component_scores(features, *axes[choice.layer, label], choice.layer)[choice.component]
    return np.asarray(choice.sign * (q - choice.threshold), np.float32)[None]


def best_masks(photo: np.ndarray, scores: np.ndarray, labels: tuple[int, ...], run: Run) -> list[np.ndarray]:
    """Return a photo's mask raw and behind the recipe's CRF."""
    crf, likely = run.recipe.crf, score_probabilities(scores, threshold=0.0, sharpness=run.recipe.proxy.sharpness)
    refined = dense_crf(photo, likely, gaussian=crf.gaussian, bilateral=crf.bilateral, steps=crf.steps)
    return [assign(scores, labels, conflict="strongest"), np.asarray([0, *labels], np.uint8)[refined.argmax(0)]]


def find_axes(run: Run, network: Network, components: int) -> dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]]:
    """Return by layer and class index the mean, D, and the first components, k x D, as long as 1 / their deviation."""
    contrast, first = run.recipe.patterns.contrast, network.patterns[0]
    subsets = choose_subsets(run.train, first.images_per_class, first.seed, True)
    moments = moments_of(network.classifier, run.train, subsets, first, run.strict)
    axes = {}
    for fitted in network.patterns:
        layer = resolve_layer(fitted.layer, network.classifier.backbone.name, network.classifier.backbone.model)
        for label in labels_of(run):
            own = moments[layer, label]
            rest = moments[layer, 0].without(own)
            rest = rest.without(moments[layer, -label]) if (layer, -label) in moments else rest
            covariance = (own.scatter.double() / own.count).cpu().numpy()
            others = (rest.scatter.double() / rest.count).cpu().numpy() if contrast and rest.count else 0
            _, vectors = leading_eigenpairs(covariance - contrast * others, components)
            deviations = np.sqrt((vectors * (covariance @ vectors)).sum(0).clip(1e-12))
            axes[layer, label] = own.mean.float().cpu(), torch.from_numpy((vectors / deviations).T).float()
    return axes


def component_scores(
    features: dict[str, torch.Tensor], mean: torch.Tensor, axes: torch.Tensor, layer: str
) -> np.ndarray:
    """Return the scores of one photo along some components, in standard deviations, float32 k x h x w."""
    scores: np.ndarray = (
        score(features[layer], mean.to(features[layer]).expand_as(axes), axes.to(features[layer]))[0].cpu().numpy()
    )
    return scores


def choose(label: int, counts: dict[tuple[str, int], np.ndarray]) -> Choice:
    """Return the layer, component, end and threshold of the largest IoU in the photos of a class."""
    best = Choice("", 0, 1, 0.0, -1.0)
    for (layer, of), held in counts.items():
        for number, (inside, outside) in enumerate(held if of == label else ()):
            for sign, order in ((1, slice(None, None, -1)), (-1, slice(None))):
                hits, others = inside[order].cumsum(), outside[order].cumsum()
                values = hits / np.maximum(inside.sum() + others, 1)
                place = int(values.argmax())
                if values[place] > best.iou:
                    threshold = EDGES[::-1][place + 1] if sign > 0 else EDGES[place + 1]
                    best = Choice(layer, number, sign, float(threshold), round(float(values[place]), 4))
    return best


# --- Tables -----------------------------------------------------------------------------------------------------

BOUNDS = ("best by truth, raw", "with CRF", "ceiling")


def print_tables(rows: list[dict[str, Any]]) -> None:
    print("\nmIoU in percent; signs: of all classes and layers\n")
    print_head(("data", "photos", "without any", "proxy", "predictions", "signs right", *BOUNDS, "seconds"))
    for row in rows:
        signs = [value for one in row.get("signs", {}).values() for value in one["correlation"].values()]
        right = f"{sum((value or 0) > 0 for value in signs)} of {len(signs)}" if signs else ""
        parts = (miou(row.get(part)) for part in ("proxy", "prediction"))
        bounds = (miou(scores) for scores in bounds_of(row))
        seconds = round(sum(row["seconds"].values()))
        print_cells((row["data"], row["photos"], row["without"], *parts, right, *bounds, seconds))
    print("\nIoU in percent by class; area: the median share of a photo\n")
    print_head(
        ("data", "class", "photos", "area", "proxy", "predictions", "signs", "confidence", *BOUNDS, "chosen by truth")
    )
    for row in rows:
        for name, photos in row["classes"].items():
            print_cells((row["data"], name, photos, row["area"][name], *class_cells(row, name)))


def bounds_of(row: dict[str, Any]) -> list[dict[str, Any] | None]:
    best = row.get("best", {})
    return [best.get("raw"), best.get("crf"), row.get("ceiling")]


def class_cells(row: dict[str, Any], name: str) -> Iterator[Any]:
    for part in ("proxy", "prediction"):
        yield of_class(row.get(part), name)
    signs = row.get("signs", {}).get(name)
    yield ", ".join(f"{value:+.2f}" for value in signs["correlation"].values() if value is not None) if signs else ""
    said = signs["confidence"] if signs else None
    yield ", ".join(f"{value:.2f}" for value in said) if said else ""
    yield from (of_class(scores, name) for scores in bounds_of(row))
    chosen = row["best"]["chosen"][name] if row.get("best") else None
    yield f"{chosen['layer']}, component {chosen['component'] + 1}" if chosen else ""


def miou(scores: dict[str, Any] | None) -> str:
    return f"{scores['miou']:.1f}" if scores and scores.get("miou") is not None else ""


def of_class(scores: dict[str, Any] | None, name: str) -> str:
    value = scores["iou"].get(name) if scores and scores.get("iou") else None
    return f"{value:.1f}" if value is not None else ""


def print_head(cells: tuple[str, ...]) -> None:
    print_cells(cells)
    print("|" + "---|" * len(cells))


def print_cells(cells: tuple[Any, ...]) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
