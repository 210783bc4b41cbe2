"""The forward passes of a prediction on one CPU thread: the network as it is, folded, fused, in bfloat16, compiled.

    taskset -c 0 python benchmarks/forward.py --photos VOC2012/JPEGImages --json forward.json
    taskset -c 0 python benchmarks/forward.py --photos VOC2012/JPEGImages --runs runs/voc --compile

Each row is a network: of each recipe, untrained, or the segmenter of a run. Folded are batch normalisations alone;
fused, which is what `tag2mask predict` does, activations too. Seconds are the processor's, of a photo at the recipe's
three scales, the smallest of the repeats of each photo, all ways in turn; compiling comes before. `same` is the share
of pixels whose most likely class, without CRF, is that of the network as it is; for untrained ones it says little.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from tag2mask.config import load_recipe
from tag2mask.data import photos_in, read_photo
from tag2mask.inference import forward, most_likely
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.speed import faster_copy
from tag2mask.runs.trained import load_segmenter

RECIPES = ("luo2020-efficientnet-lite0", "luo2020-voc-resnet101", "luo2020-voc-vgg16")
WAYS = ("as it is", "folded", "folded, fused", "folded, bfloat16")
COMPILED = "folded, compiled"


def untrained(name):
    """Return a recipe's segmenter for 20 classes, and its scales."""
    recipe, how = load_recipe(name), load_recipe(name).segmenter
    backbone = how.backbone or recipe.backbone
    torch.manual_seed(0)
    classes = [f"class {number}" for number in range(1, 21)]
    network = SegmentationNetwork(
        backbone.name, classes, head=how.head, output_stride=how.output_stride, weights="random"
    )
    return network.eval(), recipe.inference.scales


def ways_of(segmenter, scales, compiling):
    """Return the networks to compare."""
    folded = faster_copy(segmenter, torch.device("cpu"), fused=False)
    networks = dict(zip(WAYS, (segmenter, folded, segmenter.folded(), folded), strict=True))
    if compiling:
        start = time.perf_counter()
        networks[COMPILED] = segmenter.folded(compile_for=scales)
        print(f"compiled in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return networks


def measure(name, networks, scales, photos, repeats):
    """Yield a row for each way."""
    seconds, masks = {way: [] for way in networks}, {way: [] for way in networks}
    for photo in photos:
        best = dict.fromkeys(networks, float("inf"))
        for _ in range(repeats):
            for way, network in networks.items():
                start = time.process_time()
                precision = partial(torch.autocast, dtype=torch.bfloat16, enabled=way.endswith("bfloat16"))
                with patch("tag2mask.inference.half_precision", lambda device, cast=precision: cast(device.type)):
                    [logits] = forward(network, [photo], scales)
                best[way] = min(best[way], time.process_time() - start)
                if len(masks[way]) == len(seconds[way]):
                    masks[way].append(most_likely(logits, photo.shape[:2], None))
        for way in networks:
            seconds[way].append(best[way])
    for way in networks:
        same = np.mean([(mine == plain).mean() for mine, plain in zip(masks[way], masks[WAYS[0]], strict=True)])
        row = {"network": name, "way": way, "seconds": round(float(np.mean(seconds[way])), 3)}
        row["photos_per_second"] = round(float(1 / np.mean(seconds[way])), 2)
        row["ratio"] = round(float(np.mean(seconds[WAYS[0]]) / np.mean(seconds[way])), 2)
        yield row | {"same": round(float(same), 5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recipes", nargs="*", default=RECIPES)
    parser.add_argument("--runs", nargs="*", default=[], help="run folders, instead of the recipes")
    parser.add_argument("--compile", action="store_true", help="with torch.compile too; needs a C++ compiler")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    photos = [read_photo(sample.image) for sample in islice(photos_in(args.photos), args.count)]
    rows = []
    for name in args.runs or args.recipes:
        if args.runs:
            trained = load_segmenter(name)
            segmenter, scales = trained.network, trained.recipe.inference.scales
        else:
            segmenter, scales = untrained(name)
        networks = ways_of(segmenter, scales, args.compile)
        for row in measure(name, networks, scales, photos, args.repeats):
            if not rows:
                print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
            rows.append(row)
            print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
