"""What `corrections.py` measures, in a tenth of the time: without the CRF, scored at 164 x 164 pixels.

    python benchmarks/corrections_quick.py runs/voc --masks 0 1 5 25 --out corrections-quick

RUN is a finished run of a recipe with a frozen backbone and one scale, as `fast`; it gets a folder features/. Rows are
as those of `corrections.py`: photos in the order of --seeds or of `tag2mask next`, corrected while a class has fewer
than so many (--masks) or so many photos in all (--first), learnt from as `tag2mask refine` does. The ceiling learns
from all true masks as the recipe's segmenter does. Nothing is written but rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from corrections import ordered, take, untrained
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tag2mask.data import ImageSet, read_mask
from tag2mask.files import write_text
from tag2mask.metrics import confusion_matrix, iou, mean_iou
from tag2mask.names import IGNORE
from tag2mask.networks.deeplab import SegmentationNetwork
from tag2mask.networks.kept import KeptFeatures, kept_folder
from tag2mask.resize import resize
from tag2mask.runs.corrected import shown_in
from tag2mask.runs.folder import Run, resume_run
from tag2mask.runs.refine import EPOCHS, mean_iou_of, own_masks, pace, photos_to_remember, wrong_classes
from tag2mask.training.loop import parameter_groups
from tag2mask.training.losses import dice_loss

SIDE = 164
"""Of the masks in pixels; logits and masks are compared at every second one in training."""


class Photos:
    """A set's kept feature maps, tags and true masks."""

    def __init__(self, run: Run, data: ImageSet, kept: KeptFeatures) -> None:
        self.samples, self.side, self.kept = data.samples, run.recipe.segmenter.size, kept
        self.tags = np.zeros((len(data), len(run.train.classes)), bool)
        for row, sample in zip(self.tags, self.samples, strict=True):
            row[[label - 1 for label in sample.labels]] = True
        self.truth = np.stack([shrunk(data.truth(one)) for one in self.samples])

    def see(
        self, network: SegmentationNetwork, places: Sequence[int], turned: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the logits of some photos, or of their mirror images, and of their tags."""
        maps = [self.kept.maps(self.samples[place], self.side, turned) for place in places]
        joined = {layer: torch.cat([one[layer] for one in maps]) for layer in maps[0]}
        return network.decode_with_tags(joined)


def shrunk(mask: Any) -> Any:
    """Return a mask, uint8 H x W, at the size at which all is compared."""
    return np.asarray(Image.fromarray(mask).resize((SIDE, SIDE), Image.Resampling.NEAREST))


def learn(
    network: SegmentationNetwork,
    photos: Photos,
    own: Mapping[int, Any],
    places: Sequence[int],
    shows: int,
    rate: float,
    dice: float,
    run: Run,
) -> None:
    """Train the head of a segmenter on some photos: on masks of the run's own where it has them, else the true ones."""
    how, draw, order = run.recipe.segmenter, Random(run.recipe.seed), list[int]()
    torch.manual_seed(run.recipe.seed)
    network.backbone.requires_grad_(False)
    network.train()
    network.backbone.eval()
    optimiser = torch.optim.AdamW(parameter_groups(network, rate, 0.0), weight_decay=how.weight_decay)
    rates = [group["lr"] for group in optimiser.param_groups]
    steps = max(1, round(shows / how.batch_size))
    for step in range(steps):
        while len(order) < how.batch_size:
            order += draw.sample(list(places), len(places))
        some, order = order[: how.batch_size], order[how.batch_size :]
        for group, full in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = full * (1 - step / steps) ** 0.9
        masks = np.stack([own.get(place, photos.truth[place]) for place in some])
        truth = torch.from_numpy(masks[:, ::2, ::2]).long()
        turned = draw.random() < 0.5
        truth = truth.flip(-1) if turned else truth
        logits, tags = photos.see(network, some, turned)
        logits = resize(logits, (SIDE // 2, SIDE // 2))
        loss = functional.cross_entropy(logits, truth, ignore_index=IGNORE)
        if dice:
            loss = loss + dice * dice_loss(logits, truth)
        if tags is not None and not network.tags.stays:
            present = torch.from_numpy(photos.tags[some]).float()
            loss = loss + how.tag_weight * functional.binary_cross_entropy_with_logits(tags, present)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()


@torch.inference_mode()
def matrix_of(network: SegmentationNetwork, photos: Photos, places: Sequence[int], weight: float | None) -> Any:
    """Return the confusion matrix of some photos, under their tags or, with background's weight, without."""
    classes = photos.tags.shape[1] + 1
    total = np.zeros((classes, classes), np.int64)
    for start in range(0, len(places), 16):
        some = places[start : start + 16]
        logits = resize(photos.see(network, some)[0], (SIDE, SIDE))
        if weight is None:
            logits[:, 1:][torch.from_numpy(~photos.tags[some])] = -torch.inf
        probable = logits.softmax(1)
        probable[:, 0] *= weight or 1.0
        for place, mask in zip(some, probable.argmax(1).numpy().astype(np.uint8), strict=True):
            total += confusion_matrix(photos.truth[place], mask, classes)
    return total


def row_of(
    run: Run, photos: Photos, val: Photos | None, choice: str, each: int, first: int, seed: int, step: int
) -> dict[str, Any]:
    """Return the row of so many masks a class, or of the first so many photos."""
    names = {sample.name: place for place, sample in enumerate(run.train.samples)}
    network = SegmentationNetwork.load(run.segmenter_after(run.recipe.segmenter.retrain))
    row: dict[str, Any] = {"choice": choice, "masks": each, "seed": seed}
    order = ordered(run, choice, seed) if each or first else []
    taken = {sample.name for sample in order[:first]} or take(order, each)
    places = sorted(names[name] for name in taken)
    how = run.recipe.segmenter
    if choice == "ceiling":
        network = untrained(run, network)
        learn(network, photos, {}, range(len(names)), how.epochs * len(names), how.learning_rate, how.dice_weight, run)
    elif places:
        if network.tags is not None:
            network.tags.freeze()
        right = iou(matrix_of(network, photos, places, None))[1:]
        row["agreement"] = mean_iou_of(right)
        teach = run.recipe.refine
        corrected = [replace(photos.samples[place], labels=shown_in(photos.truth[place])) for place in places]
        remembered = [one.name for one in photos_to_remember(run, corrected, wrong_classes(right))]
        own = {names[name]: shrunk(read_mask(own_masks(run) / f"{name}.png")) for name in remembered}
        rate, shown = teach.learning_rate * pace(row["agreement"]), [*places, *own]
        shows = max(teach.shows, EPOCHS * len(shown))
        learn(network, photos, own, shown, shows, rate, teach.dice_weight, run)
    others = [place for place in range(0, len(names), step) if place not in places]
    scores = matrix_of(network, photos, others, None)
    row |= {"photos": len(places), "others": 100 * mean_iou(scores), "iou": (100 * iou(scores)).tolist(), "val": None}
    if val is not None:
        found = matrix_of(network, val, range(len(val.samples)), run.recipe.inference.background_weight)
        row["val"] = 100 * mean_iou(found)
    return row


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Draw mIoU by corrected photos, of other training photos and of evaluation photos, with the ceiling of each."""
    figure = Figure((8, 3.4), layout="constrained")
    for place, (part, title) in enumerate((("others", "other training photos"), ("val", "evaluation photos")), 1):
        axes = figure.add_subplot(1, 2, place)
        tags = [row[part] for row in rows if row["choice"] == "random" and not row["photos"]]
        for choice, label, colour in (("random", "at random", "#0072b2"), ("chosen", "as next names them", "#d55e00")):
            points: dict[int, list[float]] = {0: tags}
            for row in rows:
                if row["choice"] == choice and row["photos"]:
                    points.setdefault(row["photos"], []).append(row[part])
            photos = sorted(points)
            axes.plot(photos, [np.mean(points[each]) for each in photos], "o-", color=colour, label=label)
        if ceiling := [row[part] for row in rows if row["choice"] == "ceiling"]:
            axes.axhline(np.mean(ceiling), color="grey", linestyle="--", label="all true masks")
        axes.set(title=title, xlabel="corrected photos", ylabel="mIoU, %", xscale="symlog")
        axes.set_xticks([0, 1, 5, 20, 80, 300], ["0", "1", "5", "20", "80", "300"])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.set_xlim(-0.2, 500)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--masks", nargs="*", type=int, default=[0, 1, 5, 25], help="corrected masks a class")
    parser.add_argument("--first", nargs="*", type=int, default=[], help="corrected photos in all, as further rows")
    parser.add_argument("--choice", nargs="+", default=["random"], choices=["random", "chosen", "ceiling"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the order")
    parser.add_argument("--step", type=int, default=1, help="score every n-th photo")
    parser.add_argument("--figure", type=Path, help="only draw the rows that are in --out, into this picture")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file per row; what is there is not done again")
    args = parser.parse_args()
    if args.figure:
        draw([json.loads(file.read_text("utf-8")) for file in sorted(args.out.glob("*.json"))], args.figure)
        return
    run = resume_run(args.run)
    network = SegmentationNetwork.load(run.segmenter_after(run.recipe.segmenter.retrain))
    kept = KeptFeatures(kept_folder(run.out), network.backbone)
    photos, val = Photos(run, run.train, kept), None
    if run.evaluation is not run.train:
        val = Photos(run, run.evaluation.with_samples(run.evaluation.samples[:: args.step]), kept)
    for choice in args.choice:
        amounts = [(each, 0) for each in args.masks] + [(0, first) for first in args.first]
        for each, first in amounts if choice != "ceiling" else [(0, 0)]:
            for seed in args.seeds:
                file = args.out / f"{choice}-{f'first-{first}' if first else each}-{seed}.json"
                if not file.exists():
                    row = row_of(run, photos, val, choice, each, first, seed, args.step)
                    write_text(file, json.dumps(row) + "\n")
                print(file.read_text("utf-8"), end="", flush=True)


if __name__ == "__main__":
    main()
