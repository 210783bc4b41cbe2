"""The paper's figures: vector PDF and PNG, at the width of a column or of the page of a two-column paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tag2mask.data.decode import voc_palette
from tag2mask.files import whole
from tag2mask.names import IGNORE

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

COLUMN, PAGE = 3.3, 7.0
"""Widths in inches."""

BLUE, VERMILION, GREY, PALE = "#0072B2", "#D55E00", "#8C8C8C", "#E0E0C0"
"""Two colours of Okabe and Ito (2008), which colour-blind readers tell apart, a grey, and VOC's colour of 255."""

_STYLE: Any = {
    "font.size": 7.5, "axes.titlesize": 7.5, "axes.labelsize": 7.5, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 6.5, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42, "savefig.dpi": 300,
    "text.parse_math": False,
}  # fmt: skip
_GAP, _LINE = 0.05, 0.14

MASKS = 6
"""Masks beside a photo and its truth."""

_BACKGROUND, _CLASS, _OTHER, _UNCERTAIN = range(4)
_COLOURS = (BLUE, VERMILION, GREY, PALE)


@dataclass(frozen=True)
class Dots:
    """Features of one class at one layer, on the two leading components.

    Attributes:
        layer: its name.
        points: float32 K x 2.
        truth: K, what each position truly is: 0 background, 1 the class, 2 another class.
        explained: shares of the variance of the two components, 0..1.
    """

    layer: str
    points: Floats
    truth: Pixels
    explained: tuple[float, float]


@dataclass(frozen=True)
class Row:
    """A photo, its truth and its masks.

    Attributes:
        photo: uint8 H x W x 3, RGB.
        truth: uint8 H x W, or None where there is none; 255 is void.
        masks: uint8 H x W each; 255 is uncertain.
    """

    photo: Pixels
    truth: Pixels | None
    masks: Sequence[Pixels]


@dataclass(frozen=True)
class Looks:
    """What Figure 1 shows of a photo.

    Attributes:
        photo: uint8 H x W x 3, RGB.
        activation: float32 H x W, 0..1, the class activation map.
        seeds: uint8 H x W, the seeds by class activation maps.
        mask: uint8 H x W, ours.
    """

    photo: Pixels
    activation: Floats
    seeds: Pixels
    mask: Pixels


def save_features(panels: Sequence[Dots], name: str, label: int, looks: Looks, stem: Path) -> list[Path]:
    """Draw Figure 1: features on their two leading components by layer; below, a photo's CAM, seeds and our mask.

    Dots and masks have the same colours: background, the class, other classes, uncertain.

    Args:
        panels: one a layer.
        name: the class's name.
        label: its index.
        looks: the photo.
        stem: the files without suffix.

    Returns:
        the files written.
    """
    above, low = PAGE / 3, min(PAGE / 4, PAGE / 4 * looks.photo.shape[0] / looks.photo.shape[1])
    kinds = [_kinds(mask, label) for mask in (looks.seeds, looks.mask)]
    shown = {int(kind) for one in (*kinds, *(dots.truth for dots in panels)) for kind in np.unique(one)}
    with _figure(PAGE, above + low + 0.9, "constrained") as figure:
        grid = figure.add_gridspec(2, 12, height_ratios=[above, low])
        for place, dots in enumerate(panels):
            _scatter(figure.add_subplot(grid[0, 4 * place : 4 * place + 4]), dots, f"({'abc'[place]}) {dots.layer}")
        below = [figure.add_subplot(grid[1, 3 * place : 3 * place + 3]) for place in range(4)]
        titles = ("(d) photo", "(e) class activation map", "(f) CAM seeds", f"(g) our mask, {panels[0].layer}")
        colours = (255 * to_rgba_array(_COLOURS)[:, :3]).round().astype(np.uint8)
        pictures = (looks.photo, looks.photo, *(colours[one] for one in kinds))
        for axes, title, picture in zip(below, titles, pictures, strict=True):
            _picture(axes, picture)
            axes.set_title(title)
        below[1].imshow(looks.activation, cmap="viridis", alpha=0.75, vmin=0, vmax=1)
        names = ("background", name, "another class", "uncertain")
        figure.legend(
            handles=[
                Patch(facecolor=_COLOURS[kind], edgecolor="#444444", linewidth=0.4, label=names[kind])
                for kind in sorted(shown)
            ],
            loc="outside upper center", ncols=len(names), frameon=False, handlelength=1, handleheight=1,
        )  # fmt: skip
        return _save(figure, stem)


def save_spectrum(explained: Floats, name: str, stem: Path) -> list[Path]:
    """Draw Figure 3: the share of the variance that each leading component explains.

    Args:
        explained: float32, in percent, largest first.
        name: what is written above.
        stem: the files without suffix.

    Returns:
        the files written.
    """
    with _figure(COLUMN, 2.1, "constrained") as figure:
        axes = figure.subplots()
        numbers = np.arange(1, len(explained) + 1)
        axes.vlines(numbers, 0, explained, color=BLUE, linewidth=1)
        axes.plot(numbers, explained, "o", color=BLUE, markersize=2.5)
        for number, value in zip(numbers[:2], explained, strict=False):
            axes.annotate(f"{value:.1f}%", (number, value), (4, 1), textcoords="offset points", fontsize=7)
        axes.set_xticks([1, *range(10, len(explained) + 1, 10)] if len(explained) > 10 else numbers)
        axes.set_xlim(0.5, len(explained) + 0.5)
        axes.set_ylim(0, 1.12 * float(explained.max()))
        axes.set(xlabel="component", ylabel="variance explained (%)", title=name)
        return _save(figure, stem)


def save_masks(
    rows: Sequence[Row], titles: Sequence[str], classes: Sequence[str], width: float, stem: Path
) -> list[Path]:
    """Draw Figures 4 and 5: photos, truth and masks in the VOC colours, a row each, and a legend of the classes.

    Where there are more than `MASKS` masks of a photo, the rows come again with the further ones.

    Args:
        rows: the photos with their masks.
        titles: of the columns: the photo's, the truth's, the masks'.
        classes: names of the foreground classes.
        width: of the figure in inches.
        stem: the files without suffix.

    Returns:
        the files written.
    """
    count = max(1, len(titles) - 2)
    some = -(-count // -(-count // MASKS))
    cell = (width + _GAP) / (len(titles) if count <= MASKS else 2 + some) - _GAP
    heights = [cell * min(1.0, row.photo.shape[0] / row.photo.shape[1]) for row in rows]
    handles = _legend(rows, classes)
    ncols = max(1, int(width / (0.3 + 0.05 * max((len(str(h.get_label())) for h in handles), default=0))))
    legend = _LINE * -(-len(handles) // ncols)
    blocks = [slice(start, start + some) for start in range(0, count, some)]
    height = len(blocks) * (_LINE + sum(heights) + _GAP * len(rows)) + legend
    with _figure(width, height) as figure:
        top = height
        for block in blocks:
            top -= _LINE
            for place, title in enumerate((*titles[:2], *titles[2:][block])):
                left = place * (cell + _GAP)
                figure.text((left + cell / 2) / width, (top + 0.04) / height, title, ha="center")
            for row, high in zip(rows, heights, strict=True):
                top -= high
                masks = (row.truth, *row.masks[block])
                pictures = [row.photo, *(None if mask is None else voc_palette()[mask] for mask in masks)]
                for place, picture in enumerate(pictures):
                    box = (place * (cell + _GAP) / width, top / height, cell / width, high / height)
                    _picture(figure.add_axes(box), picture)
                top -= _GAP
        figure.legend(
            handles=handles, loc="lower center", ncols=ncols, frameon=False, borderaxespad=0, borderpad=0,
            handlelength=1, handleheight=1, handletextpad=0.4, columnspacing=1, labelspacing=0.3,
        )  # fmt: skip
        return _save(figure, stem)


def save_bars(rows: Sequence[tuple[str, Any, Any]], stem: Path) -> list[Path]:
    """Draw a bar for each method's mIoU, ours, and below it the published one, hatched, as it is of other networks.

    Args:
        rows: name, ours and the published one in percent, None where there is none.
        stem: the files without suffix.

    Returns:
        the files written.
    """
    with _figure(COLUMN, 0.6 + 0.3 * len(rows), "constrained") as figure:
        axes = figure.subplots()
        for offset, place, colour, hatch, name in (
            (-0.19, 1, BLUE, None, "ours, no saliency"), (0.19, 2, PALE, "////", "published"),
        ):  # fmt: skip
            known = [(number + offset, row[place]) for number, row in enumerate(rows) if row[place] is not None]
            heights, values = zip(*known, strict=True) if known else ((), ())
            bars = axes.barh(
                heights, values, 0.36, color=colour, hatch=hatch, edgecolor="#444444", linewidth=0.4, label=name
            )
            axes.bar_label(bars, fmt="%.1f", fontsize=6, padding=1)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.margins(y=0.01)
        axes.invert_yaxis()
        axes.set(xlabel="mIoU on val (%)", xlim=(0, 75))
        figure.legend(frameon=False, loc="outside upper right", ncols=2)
        return _save(figure, stem)


def _kinds(mask: Pixels, label: int) -> Pixels:
    """Return which of the four colours of Figure 1 each pixel has."""
    known = [mask == 0, mask == label, mask == IGNORE]
    return np.select(known, [_BACKGROUND, _CLASS, _UNCERTAIN], _OTHER).astype(np.uint8)


def _scatter(axes: Axes, dots: Dots, title: str) -> None:
    axes.axvline(0, color="#444444", linewidth=0.6, linestyle=(0, (4, 3)))
    colours = np.array(_COLOURS)[dots.truth]
    axes.scatter(dots.points[:, 0], dots.points[:, 1], s=2.5, c=colours, alpha=0.6, linewidths=0)
    first, second = (100 * share for share in dots.explained)
    axes.set(title=title, xlabel=f"first component ({first:.1f}%)", ylabel=f"second ({second:.1f}%)")
    axes.set(xticks=[0], yticks=[])


def _picture(axes: Axes, picture: Pixels | None) -> None:
    axes.set_axis_off()
    if picture is None:
        axes.text(0.5, 0.5, "–", ha="center", va="center", color=GREY)
    else:
        axes.imshow(picture)


def _legend(rows: Sequence[Row], classes: Sequence[str]) -> list[Patch]:
    """Return a patch for each class that some mask shows, and one for 255: void in a truth, uncertain in a mask."""
    truths = {int(value) for row in rows if row.truth is not None for value in np.unique(row.truth)}
    masks = {int(value) for row in rows for mask in row.masks for value in np.unique(mask)}
    ignored = {(True, True): "void (truth), uncertain (masks)", (True, False): "void"}.get(
        (IGNORE in truths, IGNORE in masks)
    )
    names = {0: "background", IGNORE: ignored or "uncertain"} | dict(enumerate(classes, 1))
    colours = voc_palette() / 255
    return [
        Patch(facecolor=tuple(colours[value]), edgecolor="#444444", linewidth=0.4, label=names[value])
        for value in sorted(truths | masks)
    ]


@contextmanager
def _figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Iterator[Figure]:
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout=layout, facecolor="white")


def _save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as PDF and PNG, each whole or not there; the same figure gives the same files."""
    files = []
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
        file = stem.with_name(f"{stem.name}.{suffix}")
        with whole(file) as unfinished:
            figure.savefig(unfinished, format=suffix, metadata=metadata)
        files.append(file)
    return files
