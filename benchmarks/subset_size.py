"""How near the pattern of some photos of a class is to that of all: |cos| between the two, by class.

    python benchmarks/subset_size.py VOC2012 --split trainval.txt --labels labels.csv
    python benchmarks/subset_size.py --scenes 1600 --json subset_size.json

The paper takes at most 800 photos a class on VOC and says that the pattern is nearly that of all. One pass in random
order gathers each class's mean and covariance (Eqs. 1 and 2); its pattern is read off after 100, 200, 400 and 800
photos, and at the end. The backbone is the recipe's, not fine-tuned. ``--scenes`` generates as many scenes of one class
instead of reading data. Rows are of classes with more photos than the least size; 1 is the same direction, signs left
aside. Written without the code that it measures.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.linalg import eigh

from tag2mask.config import Recipe, load_recipe
from tag2mask.data import ImageSet, load
from tag2mask.data.loading import photo_batches
from tag2mask.demo.objects import CLASSES
from tag2mask.demo.scenes import make_scene
from tag2mask.networks.backbones import Backbone

SIZES = (100, 200, 400, 800)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--split", help="name or file of a list of photos")
    parser.add_argument("--labels")
    parser.add_argument("--scenes", type=int, help="generate as many scenes of one class instead")
    parser.add_argument("--recipe", default="luo2020-efficientnet-lite0")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="change a parameter")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if (args.data is None) == (args.scenes is None):
        parser.error("name data, or --scenes and a number")
    with tempfile.TemporaryDirectory() as home:
        data = scenes(args.scenes, Path(home)) if args.scenes else load(args.data, labels=args.labels, split=args.split)
        rows = compare(data, load_recipe(args.recipe, args.settings), args.sizes)
    print_rows(rows, args.sizes)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def scenes(count: int, folder: Path) -> ImageSet:
    """Generate scenes whose first object is of the demo's first class."""
    for number in range(count):
        photo = make_scene(number * len(CLASSES), size=240).photo
        Image.fromarray(photo).save(folder / f"{number:05}.jpg", quality=92)
    return ImageSet.from_samples([(file, CLASSES[0]) for file in sorted(folder.glob("*.jpg"))])


class Gathered:
    """Sums of a class's descriptors, in double precision."""

    def __init__(self) -> None:
        self.photos, self.count = 0, 0
        self.total, self.products = np.zeros(1), np.zeros((1, 1))

    def add(self, descriptors: np.ndarray) -> None:
        """Add a photo's descriptors, float64 K x D."""
        self.photos, self.count = self.photos + 1, self.count + len(descriptors)
        self.total = self.total + descriptors.sum(0)
        self.products = self.products + descriptors.T @ descriptors

    def pattern(self) -> np.ndarray:
        """Return the direction of largest variance."""
        mean = self.total / self.count
        last = len(mean) - 1
        _, vectors = eigh(self.products / self.count - np.outer(mean, mean), subset_by_index=(last, last))
        return vectors[:, 0]


def compare(data: ImageSet, recipe: Recipe, sizes: list[int]) -> list[dict]:
    """Return for each class its number of photos and |cos| by size."""
    how, name = recipe.patterns, recipe.backbone.name
    backbone = Backbone(name, how.layers[:1], output_stride=how.output_stride, weights=recipe.backbone.weights).eval()
    samples = [sample for sample in data.samples if sample.labels]
    random.Random(recipe.seed).shuffle(samples)
    gathered: defaultdict[int, Gathered] = defaultdict(Gathered)
    patterns: dict[tuple[int, int], np.ndarray] = {}
    for batch, images in photo_batches(samples, how.size, workers=recipe.workers, label="features"):
        with torch.inference_mode():
            maps = backbone(images)[backbone.layers[0]].double().flatten(2).transpose(1, 2).numpy()
        for sample, descriptors in zip(batch, maps, strict=True):
            for label in sample.labels:
                gathered[label].add(descriptors)
                if gathered[label].photos in sizes:
                    patterns[label, gathered[label].photos] = gathered[label].pattern()
    rows = []
    for label, known in sorted(gathered.items()):
        if known.photos > min(sizes):
            whole = known.pattern()
            cosines = {
                str(size): round(abs(float(patterns[label, size] @ whole)), 4) for size in sizes if size < known.photos
            }
            rows.append({"class": data.classes[label - 1], "photos": known.photos, "cosine": cosines})
    return rows


def print_rows(rows: list[dict], sizes: list[int]) -> None:
    """Print a line a class, the most photos first."""
    print(f"{'class':<16}{'photos':>8}" + "".join(f"{size:>8}" for size in sizes))
    for row in sorted(rows, key=lambda row: -row["photos"]):
        cells = (f"{row['cosine'].get(str(size), ''):>8}" for size in sizes)
        print(f"{row['class']:<16}{row['photos']:>8}" + "".join(cells))


if __name__ == "__main__":
    main()
