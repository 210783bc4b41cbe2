"""Which end of a direction is the object: how well the evidence knows, and the weights that a regression gives it.

    python benchmarks/signs.py VOC2012 blobs lesion tiny TILE LEAF --held TILE LEAF --split train --json signs.json

DATA is a folder as `tag2mask run` takes it, with true masks, or a kind that `tag2mask demo --kind` draws (150 photos).
For each class and layer there are five candidate directions: the leading one, that with contrast 0.3, and the whitened
ones with ridges 0.3, 1 and 3. Their scores are correlated with each evidence (`EVIDENCE`) and, to know which end is
right, with the true masks, over the photos with the class. Candidates whose correlation with the truth is below 0.15
either way have no right end.

A logistic regression of the right end on the evidence, without an intercept, is fitted on all sets but one, and asked
about that one; sets that are --held are never fitted on. The last lines give the share of right signs by confidence,
and the weights from all sets that are not held. True masks are used here alone.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn import functional

from tag2mask.data import ImageSet, Sample, load, trainable
from tag2mask.data.loading import photo_batches
from tag2mask.demo.kinds import write_kind
from tag2mask.files import write_text
from tag2mask.names import DemoKind
from tag2mask.networks.backbones import LAST, Backbone
from tag2mask.networks.classifier import Classifier, train_head
from tag2mask.networks.speed import folded_backbone
from tag2mask.patterns.eigen import leading_eigenpairs, leading_generalised
from tag2mask.patterns.moments import Moments
from tag2mask.patterns.orientation import EVIDENCE, WEIGHTS, evidence_maps, fit_evidence, trust_in_classifier

LAYERS, RIDGES = ("C41", "blocks.5", "C42"), (0.3, 1.0, 3.0)
CLEAR, KNOWN = 0.15, 0.1
"""Correlation with the truth from which on an end is right, and from which on a candidate is fitted on."""
BINS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


class Candidate(NamedTuple):
    """A direction: the set, layer and class that it is of, its evidence, and its correlation with the true masks."""

    data: str
    layer: str
    name: str
    evidence: tuple[float, ...]
    truth: float


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--held", nargs="*", default=[], help="sets that no weight is fitted on")
    parser.add_argument("--split", help="of the sets that have one of this name")
    parser.add_argument("--every", type=int, default=1, help="true masks of every n-th photo are used")
    parser.add_argument("--size", type=int, nargs="+", default=[328])
    parser.add_argument("--out", type=Path, default=Path("kinds"), help="where generated photos go")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: list[Candidate] = []
    for name in args.data:
        for size in args.size:
            found += candidates(name, opened(name, args), size, args.every)
            print(f"{name}, {size} px: {len(found)} candidates so far", flush=True)
    right = [one for name in args.data for one in judged(found, name, [*args.held, name])]
    for name in args.data:
        mine = [is_right for one, _, is_right in right if one.data == name]
        print(f"{name}: {sum(mine)} of {len(mine)} signs are right")
    for low, high in pairwise(BINS):
        mine = [is_right for _, sure, is_right in right if low <= sure < high]
        print(f"confidence {low:.2f} to {high:.2f}: {sum(mine)} of {len(mine)} are right")
    weights = fitted([one for one in found if one.data not in args.held])
    print("weights:", dict(zip(EVIDENCE, weights.round(2).tolist(), strict=True)), "in use:", WEIGHTS)
    if args.json:
        rows = [one._asdict() | {"confidence": sure, "right": is_right} for one, sure, is_right in right]
        write_text(args.json, json.dumps({"weights": weights.tolist(), "candidates": rows}, indent=1) + "\n")


def opened(name: str, args: argparse.Namespace) -> ImageSet:
    """Return the photos of a folder, or those of a kind, drawn first where they are not there."""
    if name in set(DemoKind):
        folder = args.out / name
        if not folder.exists():
            write_kind(folder, DemoKind(name), count=150)
        return trainable(load(folder))
    has_split = args.split and list(Path(name).rglob(f"{args.split}.txt"))
    return trainable(load(name, split=args.split if has_split else None))


def candidates(name: str, data: ImageSet, size: int, every: int) -> Iterator[Candidate]:
    """Yield the candidates of every class and layer."""
    backbone = Backbone("tf_efficientnet_lite0", list(LAYERS), output_stride=16)
    classifier = Classifier(backbone.eval(), data.classes).eval()
    train_head(classifier, data.samples, size=size, workers=0)
    folded = folded_backbone(backbone)
    known = {sample.name for sample in data.samples[::every]}
    moments: dict[tuple[str, int], Moments] = {}
    for samples, images in photo_batches(data.samples, size, workers=0):
        with torch.inference_mode():
            features = folded(images)
            activation, norm = classifier.activation(features[LAST]), features[LAST].norm(dim=1)
        for row, sample in enumerate(samples):
            for label in (0, *sample.labels):
                seen = activation[row : row + 1, label - 1] if label else activation[row : row + 1].sum(1)
                evidence = torch.cat(
                    [evidence_maps(seen, norm[row : row + 1]), true_map(data, sample, label, seen, known)], 1
                )
                for layer in backbone.layers:
                    maps = features[layer][row : row + 1]
                    new = Moments.of(maps[0].flatten(1).T, fit_evidence(evidence, maps)[0].flatten(1))
                    key = layer, label
                    moments[key] = moments[key].update(new) if key in moments else new.copy()
    for layer in backbone.layers:
        for label, of_class in enumerate(data.classes, 1):
            count = sum(label in sample.labels for sample in data.samples)
            yield from directions(name, layer, of_class, moments[layer, label], moments[layer, 0], count, len(data))


def true_map(data: ImageSet, sample: Sample, label: int, like: torch.Tensor, known: set[str]) -> torch.Tensor:
    """Return a class's share of each cell by the true mask, centred, 1 x 1 x h x w; zero where it must not be known."""
    truth = data.truth(sample) if label and sample.name in known else None
    if truth is None:
        return torch.zeros_like(like)[None]
    share = functional.adaptive_avg_pool2d(
        torch.from_numpy((truth == label).astype(np.float32))[None, None], like.shape[1:]
    )
    return share - share.mean()


def directions(
    data: str, layer: str, name: str, mine: Moments, everything: Moments, present: int, photos: int
) -> Iterator[Candidate]:
    """Yield the candidates of one class at one layer."""
    covariance = (mine.scatter / mine.count).numpy()
    found = [leading_eigenpairs(covariance, 1)[1]]
    rest = everything.without(mine)
    if rest.count:
        others = (rest.scatter / rest.count).numpy()
        found.append(leading_eigenpairs(covariance - 0.3 * others, 1)[1])
        mean = np.trace(others) / len(others) * np.eye(len(others))
        found += [leading_generalised(covariance, others + ridge * mean, 1) for ridge in RIDGES]
    for vector in found:
        direction = torch.from_numpy(vector[:, 0].copy())
        variance = float(direction @ torch.from_numpy(covariance) @ direction)
        said = (mine.cross @ direction / (mine.energy * variance * mine.count).sqrt()).nan_to_num(0.0, 0.0, 0.0)
        said[0] *= trust_in_classifier(present, photos - present)
        *evidence, truth = said.tolist()
        yield Candidate(data, layer, name, tuple(evidence), truth)


def fitted(found: list[Candidate], shrinkage: float = 1.0) -> np.ndarray:
    """Return the weight of each evidence; sets count by the square root of their candidates, clear ends more."""
    used = [one for one in found if abs(one.truth) > KNOWN]
    counts = {one.data: sum(other.data == one.data for other in used) for one in used}
    evidence = np.array([one.evidence for one in used])
    ends = np.sign([one.truth for one in used])
    weight = np.array([min(1, abs(one.truth) / 0.4) / counts[one.data] ** 0.5 for one in used])
    weight *= min(len(used), 300) / weight.sum()

    def loss(weights: np.ndarray) -> float:
        return float((weight * np.logaddexp(0, -ends * (evidence @ weights))).sum() + shrinkage * weights @ weights / 2)

    return minimize(loss, np.zeros(len(EVIDENCE))).x


def judged(found: list[Candidate], name: str, held: list[str]) -> Iterator[tuple[Candidate, float, bool]]:
    """Yield a set's candidates that have a right end, how sure the others' weights are, and whether they are right."""
    weights = fitted([one for one in found if one.data not in held])
    for one in found:
        if one.data == name and abs(one.truth) > CLEAR:
            odds = float(np.array(one.evidence) @ weights)
            yield one, 1 / (1 + np.exp(-abs(odds))), bool(odds * one.truth > 0)


if __name__ == "__main__":
    main()
