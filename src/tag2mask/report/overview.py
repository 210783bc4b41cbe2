"""The overview picture: photos beside their true, proxy and predicted masks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tag2mask.files import write_bytes
from tag2mask.names import IGNORE
from tag2mask.report.colours import class_colours, stripes

Pixels = npt.NDArray[np.uint8]

# Inches; a cell is as wide as CELL and at most as high.
CELL, GAP, MARGIN, HEADER, LEGEND_LINE, SIDE = 2.6, 0.07, 0.12, 0.34, 0.26, 0.26
DPI = 110

_COLUMNS = {"truth": "truth", "proxy": "proxy mask", "prediction": "prediction"}
_INK = "#222222"


@dataclass(frozen=True)
class OverviewRow:
    """One photo of the overview and what there is of its masks.

    Attributes:
        name: the photo's name, written beside it.
        photo: uint8 H x W x 3 RGB.
        truth: the true mask, uint8 H x W (0 is background, 255 ignored), or None.
        proxy: the proxy mask, likewise.
        prediction: the segmenter's mask, likewise.
    """

    name: str
    photo: Pixels
    truth: Pixels | None = None
    proxy: Pixels | None = None
    prediction: Pixels | None = None


def save_overview(rows: Sequence[OverviewRow], classes: Sequence[str], path: Path) -> None:
    """Write one PNG with a row a photo: photo, truth, proxy mask, prediction, and a legend of the classes.

    Masks lie in the colours of `class_colours` over a pale grey photo; uncertain pixels (255) are hatched. A column
    that has no mask at all is left out. The file is written under another name and then renamed.

    Args:
        rows: the photos, at least one.
        classes: the foreground classes' names; index i in a mask is ``classes[i - 1]``.
        path: the PNG to write, in a folder that exists.

    Raises:
        ValueError: there are no rows, or a mask is not of its photo's size.

    Example:
        >>> import tempfile
        >>> photo, mask = np.full((60, 80, 3), 90, np.uint8), np.eye(60, 80, dtype=np.uint8)
        >>> path = Path(tempfile.mkdtemp()) / "overview.png"
        >>> save_overview([OverviewRow("a", photo, proxy=mask)], ["cat"], path)
        >>> path.exists()
        True
    """
    _check(rows)
    save_figure(lambda: _draw(rows, classes), path)


def save_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Draw a figure and write it as PNG, whole or not at all; names are text, whatever signs are in them.

    Raises:
        DataError: the file cannot be written.
    """
    picture = BytesIO()
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a box stands for a sign that the font lacks
        draw().savefig(picture, format="png", dpi=DPI, facecolor="white")
    write_bytes(path, picture.getvalue())


def overlay(photo: Pixels, mask: Pixels) -> Pixels:
    """Return the mask in its classes' colours over the photo in pale grey, uncertain pixels (255) hatched.

    Args:
        photo: uint8 H x W x 3 RGB.
        mask: uint8 H x W; 0 shows the grey photo alone.

    Returns:
        uint8 H x W x 3 RGB.

    Example:
        >>> overlay(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]], np.uint8)).tolist()
        [[[140, 140, 140], [207, 154, 35]]]
    """
    grey = 140 + 0.45 * photo.mean(axis=2, keepdims=True)
    colour = class_colours()[mask].astype(np.float32)
    colour[mask == IGNORE] = _hatching(mask.shape)[mask == IGNORE]
    mixed = np.where(mask[..., None] == 0, grey, 0.25 * grey + 0.75 * colour)
    shown: Pixels = mixed.astype(np.uint8)
    return shown


def _hatching(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return diagonal stripes of white and grey, about forty over the longer side."""
    light = stripes(shape, max(4, round(max(shape) / 40)))
    return np.where(light[..., None], 255, 95) * np.ones(3, np.float32)


def _check(rows: Sequence[OverviewRow]) -> None:
    if not rows:
        raise ValueError("an overview needs at least one row")
    for row in rows:
        for column in _COLUMNS:
            mask = getattr(row, column)
            if mask is not None and mask.shape != row.photo.shape[:2]:
                raise ValueError(f"{row.name}: {column} is {mask.shape}, its photo {row.photo.shape[:2]}")


def _draw(rows: Sequence[OverviewRow], classes: Sequence[str]) -> Figure:
    columns = [column for column in _COLUMNS if any(getattr(row, column) is not None for row in rows)]
    entries = _legend_entries(rows, columns, classes)
    lefts = [MARGIN + SIDE + place * (CELL + GAP) for place in range(len(columns) + 1)]
    heights = [CELL * min(1.0, row.photo.shape[0] / row.photo.shape[1]) for row in rows]
    width = lefts[-1] + CELL + MARGIN
    per_line = max(1, int((width - 2 * MARGIN) / _entry_width(entries)))
    legend = math.ceil(len(entries) / per_line) * LEGEND_LINE
    height = 2 * MARGIN + HEADER + sum(heights) + GAP * len(rows) + legend
    sheet = _Sheet(Figure(figsize=(width, height)), width, height)

    top = height - MARGIN - HEADER
    for left, title in zip(lefts, ["photo", *(_COLUMNS[column] for column in columns)], strict=True):
        sheet.write(left + CELL / 2, top + 0.09, title, size=12, ha="center")
    for row, high in zip(rows, heights, strict=True):
        top -= high
        sheet.write(MARGIN + 0.08, top + high / 2, _short(row.name), size=8, va="center", rotation=90)
        for left, column in zip(lefts, ["photo", *columns], strict=True):
            _show(sheet, left, top, high, row, column)
        top -= GAP
    if entries:
        sheet.explain(entries, per_line)
    return sheet.figure


@dataclass(frozen=True)
class _Sheet:
    """A figure on which things are placed in inches from its lower left corner."""

    figure: Figure
    width: float
    height: float

    def write(self, x: float, y: float, text: str, *, size: float, **style: Any) -> None:
        self.figure.text(x / self.width, y / self.height, text, fontsize=size, **{"color": _INK, **style})

    @cached_property
    def _axes(self) -> Axes:
        """One for all pictures: each of its own would take longer to make than to draw."""
        axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(0, self.height))
        axes.set_axis_off()
        return axes

    def show(self, picture: Pixels, x: float, y: float, width: float, height: float) -> None:
        """Draw a picture as large as it fits into the middle of a box."""
        size = picture.shape[1], picture.shape[0]
        scale = min(width / size[0], height / size[1])
        left, low = x + (width - scale * size[0]) / 2, y + (height - scale * size[1]) / 2
        extent = (left, left + scale * size[0], low, low + scale * size[1])
        self._axes.imshow(picture, extent=extent, aspect="auto")

    def explain(self, entries: Sequence[Patch], per_line: int) -> None:
        """Add the legend at the sheet's foot."""
        self.figure.legend(
            handles=list(entries),
            loc="lower center",
            bbox_to_anchor=(0.5, 0.5 * MARGIN / self.height),
            ncols=min(per_line, len(entries)),
            fontsize=10,
            labelcolor=_INK,
            frameon=False,
            handlelength=1.2,
            handleheight=1.0,
            columnspacing=1.4,
            borderpad=0,
            borderaxespad=0,
        )


def _short(name: str) -> str:
    return printable(name if len(name) <= 24 else f"…{name[-23:]}")


def printable(text: str) -> str:
    """Return text with a question mark for each sign that a font cannot draw (a file name may hold any).

    >>> printable("a\\nb")
    'a?b'
    """
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _show(sheet: _Sheet, left: float, low: float, height: float, row: OverviewRow, column: str) -> None:
    picture = getattr(row, column)
    if picture is None:
        style = {"ha": "center", "va": "center", "color": "#999999"}
        sheet.write(left + CELL / 2, low + height / 2, "–", size=14, **style)
    else:
        sheet.show(picture if column == "photo" else overlay(row.photo, picture), left, low, CELL, height)


def _legend_entries(rows: Sequence[OverviewRow], columns: Sequence[str], classes: Sequence[str]) -> list[Patch]:
    """Return a patch for every class that some mask shows, and one for uncertain pixels."""
    masks = [(column, getattr(row, column)) for row in rows for column in columns]
    found = {(column, int(value)) for column, mask in masks if mask is not None for value in np.unique(mask)}
    shown = sorted({value for _, value in found} - {0})
    of_truth, of_others = (
        ("truth", IGNORE) in found,
        any((column, IGNORE) in found for column in columns if column != "truth"),
    )
    ignored = " or ".join([*["uncertain"] * of_others, *["not scored"] * of_truth])
    palette = class_colours() / 255
    return [
        Patch(facecolor="#dddddd", edgecolor="#5f5f5f", hatch="//////", label=ignored, linewidth=0)
        if value == IGNORE
        else Patch(facecolor=tuple(palette[value]), label=_class_name(value, classes))
        for value in shown
    ]


def _class_name(value: int, classes: Sequence[str]) -> str:
    return classes[value - 1] if value <= len(classes) else f"class {value}"


def _entry_width(entries: Sequence[Patch]) -> float:
    """Return about how many inches the widest legend entry takes."""
    return 0.55 + 0.08 * max((len(str(entry.get_label())) for entry in entries), default=0)
