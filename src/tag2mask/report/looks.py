"""Quick looks: a photo with its prediction, and what each class pattern responds to."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from PIL import Image

from tag2mask.data import ImageSet, Sample
from tag2mask.patterns import ClassPatterns
from tag2mask.patterns.collect import choose_subsets
from tag2mask.proxy import resize_scores
from tag2mask.report.colours import class_colours
from tag2mask.report.overview import DPI, overlay, printable, save_figure
from tag2mask.report.survey import regions

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]

TYPICAL = 6
"""Photos in the picture of a class pattern."""

COMPONENTS = 10
"""Bars in its spectrum."""

LARGEST_SCORE = 3.0
"""Scores from here on, in standard deviations, have the full colour."""

_INK, _LINE = "#222222", 0.3
_BEHIND_TEXT = {"facecolor": "#000000b8", "edgecolor": "none", "pad": 2}


def save_look(photo: Pixels, mask: Pixels, classes: Sequence[str], path: Path) -> None:
    """Write a mask over its photo as PNG, with the names of the classes found and their share of the pixels.

    Args:
        photo: uint8 H x W x 3 RGB.
        mask: uint8 H x W, 0..C.
        classes: names of the C foreground classes.
        path: the PNG to write.

    Raises:
        DataError: it cannot be written.
    """
    save_figure(partial(_draw_look, photo, mask, classes), path)


def _draw_look(photo: Pixels, mask: Pixels, classes: Sequence[str]) -> Figure:
    found = regions(mask)
    scale = np.clip(max(mask.shape), 640, 1600) / max(mask.shape) / DPI
    height, width = (max(2.0, scale * side) for side in mask.shape)
    foot = _LINE * (len(found) or 1) + 0.15
    figure = Figure(figsize=(width, height + foot))
    axes = figure.add_axes((0, foot / (height + foot), 1, height / (height + foot)))
    axes.set_axis_off()
    axes.imshow(overlay(photo, mask))
    for value, _, *place in found:
        if place:
            x, y = (share * side / 100 for share, side in zip(place, mask.shape[::-1], strict=True))
            name = printable(classes[int(value) - 1])
            axes.text(x, y, name, ha="center", va="center", color="white", clip_on=True, bbox=_BEHIND_TEXT)
    entries = [
        Patch(color=class_colours()[int(value)] / 255, label=f"{printable(classes[int(value) - 1])}, {share:.1f}%")
        for value, share, *_ in found
    ]
    nothing = [Patch(visible=False, label="background only")]
    figure.legend(handles=entries or nothing, loc="lower left", frameon=False, fontsize=11, labelcolor=_INK)
    return figure


def save_patterns(
    patterns: ClassPatterns, data: ImageSet, folder: Path, threshold: float = 0.0, strict: bool = False
) -> list[Path]:
    """Write a picture for each class: its scores over its most typical photos, and its spectrum.

    Every photo of the semantic subsets is forwarded once; only the best of each class are kept.

    Args:
        patterns: fitted, on their device.
        data: photos with image-level labels.
        folder: where to, one PNG a class.
        threshold: the score that is outlined, in standard deviations.
        strict: raise for an unreadable photo instead of skipping it.

    Returns:
        The files written.

    Raises:
        DataError: one cannot be written.
    """
    files = []
    for label, photos in enumerate(typical_photos(patterns, data, strict), 1):
        readable = re.sub(r"[^\w-]+", "_", patterns.classes_[label - 1])[:40]
        files.append(folder / f"{label:02d}-{readable}.png")
        save_figure(partial(_draw_pattern, patterns, label, photos, threshold), files[-1])
    return files


@dataclass(frozen=True)
class Typical:
    """A photo and its scores of one class, float32 h x w in standard deviations."""

    sample: Sample
    scores: Scores


def typical_photos(patterns: ClassPatterns, data: ImageSet, strict: bool = False) -> list[list[Typical]]:
    """Return for each class the photos of its semantic subset with the highest mean score, the highest first."""
    subsets = choose_subsets(data, patterns.images_per_class, patterns.seed)
    chosen = [sample for sample in data.samples if sample.name in subsets]
    best: list[list[Typical]] = [[] for _ in patterns.classes_]
    for sample, scores in patterns.scores_of(chosen, strict=strict, label="scores"):
        for label in subsets[sample.name]:
            top = best[label - 1]
            top.append(Typical(sample, scores[label - 1].cpu().numpy().copy()))
            top.sort(key=lambda photo: -float(photo.scores.mean()))
            del top[TYPICAL:]
    return best


def _draw_pattern(patterns: ClassPatterns, label: int, photos: Sequence[Typical], threshold: float) -> Figure:
    index, columns = label - 1, TYPICAL // 2
    figure = Figure(figsize=(10, 8.6), layout="constrained")
    maps, spectrum = cast("list[SubFigure]", figure.subfigures(2, 1, height_ratios=(6, 2.6)))
    figure.suptitle(
        f"{printable(patterns.classes_[index])}: the photos that have most of its pattern\n"
        f"confidence that it is not the background: {float(patterns.confidence_[index]):.2f}",
        color=_INK,
    )
    cells = maps.subplots(2, columns).ravel()
    for axes in cells:
        axes.set_axis_off()
    for axes, photo in zip(cells, photos, strict=False):
        picture = Image.fromarray(photo.sample.read(draft_size=320))
        picture.thumbnail((320, 320))
        scores = resize_scores(photo.scores[None], picture.height, picture.width)[0]
        axes.imshow(picture.convert("L"), cmap="gray")
        shown = axes.imshow(scores, cmap="PuOr_r", vmin=-LARGEST_SCORE, vmax=LARGEST_SCORE, alpha=0.6)
        if scores.min() < threshold < scores.max():
            axes.contour(scores, [threshold], colors="black", linewidths=1)
        title = f"{printable(textwrap.shorten(photo.sample.name, 34))}, mean {photo.scores.mean():+.2f}"
        axes.set_title(title, fontsize=9, color=_INK)
    if photos:
        bar = maps.colorbar(shown, ax=cells.tolist(), shrink=0.8)
        bar.set_label(f"score, standard deviations; outlined: {threshold:g}", color=_INK)
    bars = spectrum.subplots()
    shares = 100 * patterns.spectra_[index, :COMPONENTS].numpy() / float(patterns.variances_[index])
    places = np.arange(1, len(shares) + 1)
    bars.bar(places, shares, color=["#e69f00"] + ["#9aa3ad"] * (len(shares) - 1))
    for place, share in zip(places, shares, strict=True):
        bars.annotate(f"{share:.1f}", (place, share), ha="center", va="bottom", fontsize=9, color=_INK)
    bars.set_xticks(places)
    bars.set_xlabel("component (the first is the class pattern)", color=_INK)
    bars.set_ylabel("explained variance, %", color=_INK)
    bars.margins(y=0.15)
    bars.spines[["top", "right"]].set_visible(False)
    return figure
