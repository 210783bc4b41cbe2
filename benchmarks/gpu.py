"""What a GPU reaches with the paper's networks, and from that how long its experiments take. Random weights, no photos.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --losses
    python benchmarks/gpu.py --device cpu --tiny

For each recipe: training of the classifier and of the segmenter, as `tag2mask run` trains them, discovery at output
stride 8, and prediction at the recipe's scales without CRF. Images are noise in memory, so that reading keeps nothing
waiting; the first epoch warms up and is not counted. `share` is the part of the GPU's own rate in matrix products that
training reaches, by the operations of forward and backward pass. The last table sums up a whole run on VOC's 10,582
photos or COCO's 118,287: classifier, patterns, proxy masks, segmenter, retraining, predictions; the GPU's work alone.
Several GPUs are taken to share it without loss, which is not measured, and CRFs and reading are left to the CPU beside.
`--losses` trains each network for a few steps from the same weights and on the same photos in float32 and in the
half precision of training, with channels first and last, and prints the loss of the first and the last step.
`--tiny` has small networks and images, to see that it works; its numbers say nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from tag2mask.config import load_recipe
from tag2mask.data import Sample
from tag2mask.devices import choose, half_type, wait_for
from tag2mask.distributed import device
from tag2mask.inference import forward, most_likely
from tag2mask.networks.backbones import Backbone
from tag2mask.networks.classifier import Classifier
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.patterns.collect import collect_moments
from tag2mask.training.classifier import train_classifier
from tag2mask.training.datasets import MaskedPhotos, TaggedPhotos
from tag2mask.training.loop import _backward as backward
from tag2mask.training.segmenter import train_segmenter

PHOTOS = {"voc": (20, 10_582, 1_449), "coco": (80, 118_287, 5_000)}
"""Classes, photos to train on and to predict, by what the recipe's name holds."""
TINY = (
    "backbone.name=test_resnet", "classifier.size=64", "classifier.batch_size=4", "patterns.size=64",
    "segmenter.size=64", "segmenter.batch_size=4", "inference.scales=[48, 64]",
)  # fmt: skip


class Repeated(Dataset):
    """The first photo of others, with what it teaches, again and again: read and augmented once."""

    def __init__(self, photos):
        self.count, (_, self.item) = len(photos), photos[0]

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index, self.item


def now():
    """Return the time when all that was begun is done."""
    wait_for(device())
    return time.perf_counter()


def clocked(work):
    """Do it twice; return the seconds of the second time and the peak memory in GB, None on a CPU."""
    work()
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = now()
    work()
    return now() - start, peak()


def peak():
    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if device().type == "cuda" else None


def train_on_noise(train, size, classes, ended):
    """Train on one photo and mask of noise; ``ended`` is called after each epoch."""
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (size, size, 3)).astype(np.uint8)
    mask = random.integers(0, classes + 1, (size, size)).astype(np.uint8)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("tag2mask.data.image_set.read_photo", lambda *_, **__: photo),
        patch("tag2mask.training.datasets.read_mask", lambda *_: mask),
        patch("tag2mask.training.classifier.TaggedPhotos", lambda *given: Repeated(TaggedPhotos(*given))),
        patch(
            "tag2mask.training.segmenter.MaskedPhotos", lambda *given, **more: Repeated(MaskedPhotos(*given, **more))
        ),
        patch("tag2mask.training.loop.save_checkpoint", lambda *_: ended()),
    ):
        train(seed=0, workers=0, checkpoint=Path(folder) / "none.pt")


def epoch_of(train, size, classes):
    """Train two epochs on noise; return the seconds of the second one and the peak memory in GB."""
    ends = []
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train_on_noise(train, size, classes, lambda: ends.append(now()))
    return ends[1] - ends[0], peak()


def losses_of(recipe, classes, steps):
    """Yield a row for each network, precision and order of memory: the losses of the first and the last step."""
    half = half_type(device()) or torch.bfloat16
    for part, dtype, layout in product((0, 2), (None, half), (torch.contiguous_format, torch.channels_last)):
        network, losses = networks_of(recipe, classes)[part], []
        train, how = (train_segmenter, recipe.segmenter) if part else (train_classifier, recipe.classifier)
        samples = [Sample("noise", Path("noise.jpg"), (1,))] * (steps * how.batch_size)
        given = [network, samples, *([Path()] if part else []), how.model_copy(update={"epochs": 1})]

        def noted(*arguments, into=losses):
            value = backward(*arguments)
            into.append(float(value))
            return value

        with (
            patch("tag2mask.devices.half_type", lambda _, dtype=dtype: dtype),
            patch("torch.channels_last", layout),
            patch("tag2mask.training.loop._backward", noted),
        ):
            train_on_noise(partial(train, *given), how.size, classes, lambda: None)
        named = str(dtype or torch.float32).removeprefix("torch.")
        order = "last" if layout is torch.channels_last else "first"
        yield {"network": "segmenter" if part else "classifier", "precision": named, "channels": order,
               "first loss": f"{losses[0]:.4f}", "last loss": f"{losses[-1]:.4f}"}  # fmt: skip


def matrix_rate(side):
    """Return the operations a second of a product of square matrices, in the precision of training."""
    where = device()
    dtype = half_type(where) or torch.float32
    matrix = torch.randn(side, side, device=where, dtype=dtype)
    seconds, _ = clocked(lambda: [matrix @ matrix for _ in range(10)])
    return 10 * 2 * side**3 / seconds


def operations(model, size):
    """Return those of a forward and a backward pass of one image."""
    model.train()
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.zeros(1, 3, size, size, device=device()))
        (logits if isinstance(logits, torch.Tensor) else logits.logits).sum().backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def networks_of(recipe, classes):
    """Return a recipe's classifier, that of discovery at stride 8, and its segmenter, with random weights."""
    torch.manual_seed(0)
    names = [f"class {number}" for number in range(1, classes + 1)]
    how, name = recipe.segmenter, recipe.backbone.name
    plain = Backbone(name, output_stride=recipe.classifier.output_stride, weights="random")
    dense = Backbone(name, recipe.patterns.layers, output_stride=8, weights="random")
    segmenter = SegmentationNetwork(
        (how.backbone or recipe.backbone).name, names, head=how.head, output_stride=how.output_stride, weights="random"
    )
    return [network.to(device()).eval() for network in (Classifier(plain, names), Classifier(dense, names), segmenter)]


def rows_of(recipe, classes, steps, rate):
    """Yield a row for each part of a run: what it is, images a second, peak memory, share of the matrix rate."""
    classifier, dense, segmenter = networks_of(recipe, classes)
    for part, network, train in (
        ("classifier, training", classifier, train_classifier),
        ("segmenter, training", segmenter, train_segmenter),
    ):
        how = (recipe.classifier if network is classifier else recipe.segmenter).model_copy(update={"epochs": 2})
        count = steps * how.batch_size
        samples = [Sample("noise", Path("noise.jpg"), (1,))] * count
        arguments = [network, samples, *([Path()] if network is segmenter else []), how]
        work = operations(network, how.size)
        seconds, memory = epoch_of(
            lambda train=train, given=arguments, **rest: train(*given, **rest), how.size, classes
        )
        setting = f"{how.size} px, batches of {how.batch_size}"
        yield part, setting, count / seconds, memory, work * count / seconds / rate

    size, names = recipe.patterns.size, [f"{number}" for number in range(8)]
    images = torch.randint(256, (8, 3, size, size), dtype=torch.uint8)
    batch = [SimpleNamespace(name=name, labels=(1,)) for name in names], images
    subsets = {name: [1] for name in names}
    seconds, memory = clocked(lambda: collect_moments(dense, [batch] * steps, subsets))
    yield "discovery", f"{size} px, stride 8", 8 * steps / seconds, memory, None

    folded, scales = segmenter.eval().folded(), recipe.inference.scales
    photos = [images[0].permute(1, 2, 0).numpy()] * 8

    def predict():
        for _ in range(steps):
            for logits in forward(folded, photos, scales):
                most_likely(logits, (size, size), None)

    seconds, memory = clocked(predict)
    yield "prediction", f"scales {', '.join(map(str, scales))}", 8 * steps / seconds, memory, None


def hours(recipe, rates, photos, predicted):
    """Return those of one GPU for a whole run."""
    training, rounds = recipe.segmenter.epochs * photos, 1 + recipe.segmenter.retrain
    seconds = recipe.classifier.epochs * photos / rates["classifier, training"]
    seconds += 2 * photos / rates["discovery"]  # patterns, and proxy masks
    seconds += rounds * training / rates["segmenter, training"]
    seconds += (recipe.segmenter.retrain * photos + predicted) / rates["prediction"]
    return seconds / 3600


def table(rows):
    """Print rows as Markdown."""
    print("\n| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join("-" if value is None else str(value) for value in row.values()) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--recipes", nargs="+", default=["luo2020-voc-resnet101", "luo2020-voc-vgg16", "luo2020-coco-resnet101"]
    )
    parser.add_argument("--steps", type=int, default=30, help="batches that are clocked")
    parser.add_argument("--losses", action="store_true", help="compare the losses of precisions instead")
    parser.add_argument("--tiny", action="store_true", help="small networks and images, three batches")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    if args.device == "cpu":
        choose("cpu")
    elif not torch.cuda.is_available():
        sys.exit("no GPU that this torch can use is at hand; --device cpu --tiny shows that the script works")
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    rate = matrix_rate(256 if args.tiny else 8192 if args.device == "cuda" else 2048)
    print(f"{name}, torch {torch.__version__}: {rate / 1e12:.3g} Tera-operations a second in matrix products")
    rows, times = [], []
    for recipe_name in args.recipes:
        tiny = [*TINY, *(["segmenter.backbone.name=vgg11"] if "vgg" in recipe_name else [])] if args.tiny else []
        recipe = load_recipe(recipe_name, tiny)
        classes, photos, predicted = next(counts for key, counts in PHOTOS.items() if key in recipe_name)
        steps = 3 if args.tiny else args.steps
        if args.losses:
            rows += [{"recipe": recipe_name, **row} for row in losses_of(recipe, classes, steps)]
            continue
        rates = {}
        for part, setting, speed, memory, share in rows_of(recipe, classes, steps, rate):
            rates[part] = speed
            rows.append({"recipe": recipe_name, "part": part, "setting": setting, "images a second": round(speed, 1)})
            rows[-1] |= {"peak memory, GB": memory, "share": None if share is None else round(share, 3)}
        one = hours(recipe, rates, photos, predicted)
        times.append({"recipe": recipe_name, "photos": photos, "hours, one GPU": round(one, 2)})
        times[-1]["hours, eight GPUs at best"] = round(one / 8, 2)
    table(rows)
    if times:
        table(times)
    if args.json:
        about = {"device": name, "torch": torch.__version__, "matrix_rate": rate, "tiny": args.tiny}
        args.json.write_text(json.dumps({**about, "rows": rows, "times": times}, indent=1) + "\n")


if __name__ == "__main__":
    main()
