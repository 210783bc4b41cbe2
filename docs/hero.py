"""Draw the picture at the top of README.md from a finished demo: photos, their tags, their masks, overlays.

tag2mask demo && python docs/hero.py tag2mask-demo docs/pictures/hero.jpg
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import tag2mask as t2m
from tag2mask.data import photo_size, read_mask, read_photo
from tag2mask.report.colours import class_colours

COLUMNS, DPI = 5, 120


def pick(data: t2m.ImageSet) -> list[t2m.Sample]:
    """Return wide photos with several tags, each with a class that the ones before lack, then one with a single tag."""
    chosen: list[t2m.Sample] = []
    wide = [sample for sample in data if photo_size(sample.image)[0] < 0.8 * photo_size(sample.image)[1]]
    for sample in sorted(wide, key=lambda sample: -len(sample.labels)):
        seen = {label for other in chosen for label in other.labels}
        if len(chosen) < COLUMNS - 1 and not set(sample.labels) <= seen:
            chosen.append(sample)
    return [*chosen, *(sample for sample in wide if sample not in chosen and len(sample.labels) == 1)][:COLUMNS]


def draw(data: t2m.ImageSet, samples: list[t2m.Sample], masks: Path) -> Figure:
    """Return the figure: a column per photo."""
    colours = class_colours()
    figure = Figure(figsize=(10, 5.5), dpi=DPI, facecolor="white")
    axes = figure.subplots(4, len(samples), height_ratios=[1, 0.36, 1, 1], squeeze=False)
    figure.subplots_adjust(left=0.075, right=0.995, top=0.99, bottom=0.01, wspace=0.04, hspace=0.05)
    for column, sample in zip(axes.T, samples, strict=True):
        photo, mask = read_photo(sample.image), read_mask(masks / f"{sample.name}.png")
        colour = np.where(mask[..., None] == 0, 40, colours[mask]).astype(np.uint8)
        mixed = np.where(mask[..., None] == 0, photo, 0.35 * photo + 0.65 * colours[mask]).astype(np.uint8)
        for place, picture in zip(column[[0, 2, 3]], (photo, colour, mixed), strict=True):
            place.imshow(picture)
        for line, label in enumerate(sample.labels):
            height = 0.5 + 0.34 * ((len(sample.labels) - 1) / 2 - line)
            box = {"boxstyle": "round,pad=0.2", "facecolor": colours[label] / 255, "edgecolor": "none"}
            column[1].text(0.5, height, data.classes[label - 1], ha="center", va="center", fontsize=8, bbox=box)
        for place in column:
            place.set_axis_off()
    for place, name in zip(axes[:, 0], ("photo", "tags", "mask", "overlay"), strict=True):
        place.text(-0.06, 0.5, name, transform=place.transAxes, ha="right", va="center", fontsize=11)
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished tag2mask demo")
    parser.add_argument("out", type=Path, help="the JPEG to write")
    given = parser.parse_args()
    scenes = t2m.load(given.run / "scenes", split="train")
    draw(scenes, pick(scenes), given.run / "retrain").savefig(given.out, pil_kwargs={"quality": 85, "optimize": True})
