"""The paper's tables with our figures beside: from scores as metrics.json holds them to Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from tag2mask.data.readers.voc import VOC_CLASSES
from tag2mask.reproduce import published as paper
from tag2mask.scoring import Scores

Cell = str | float | None
NOT_COMPARABLE = "–"
"""Written where a difference would compare other networks or other data."""


@dataclass(frozen=True)
class Table:
    """A table and what to know about it.

    Attributes:
        title: one line.
        header: a name a column; numbers in a column ``difference`` are written with their sign.
        rows: cells in the order of the header; percentages are floats, None is not known.
        notes: lines below the table.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return the table as Markdown, columns aligned, percentages to one place.

        >>> print(Table("IoU", ("row", "ours", "difference"), (("a", 60.34, 1.0), ("b", None, None))).markdown())
        IoU
        <BLANKLINE>
        | row | ours | difference |
        |-----|------|------------|
        | a   | 60.3 | +1.0       |
        | b   |      |            |
        """
        drawn = RichTable(*self.header, box=box.MARKDOWN)
        for row in self.rows:
            drawn.add_row(*(_text(cell, name) for cell, name in zip(row, self.header, strict=True)))
        console = Console(file=io.StringIO(), width=10_000)
        with console.capture() as text:
            console.print(drawn)
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([self.title, "", text.get().strip(), *notes])

    def csv(self) -> str:
        """Return the table as CSV, numbers as they are, nothing where a number is not known."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()


@dataclass(frozen=True)
class OwnRow:
    """A run in Table 2.

    Attributes:
        name: of its folder.
        network: of the segmenter.
        photos: trained on.
        miou: on val, in percent.
        comparable: whether the data and the network of the patterns are the paper's.
    """

    name: str
    network: str
    photos: int
    miou: float | None
    comparable: bool


def table1(scores: Mapping[str, Scores], notes: Sequence[str], *, comparable: bool) -> Table:
    """Return Table 1 as a list: row, class, our IoU, the paper's, the difference.

    Args:
        scores: by the paper's row (`paper.TABLE1`), each with ``iou`` by class and ``miou``.
        notes: lines below.
        comparable: whether backbone and data are the paper's; else there are no differences.
    """
    rows: list[tuple[Cell, ...]] = []
    for row in paper.TABLE1:
        ours = {**scores[row]["iou"], "mIoU": scores[row]["miou"]}
        cited = paper.TABLE1[row] if tuple(ours)[1:-1] == VOC_CLASSES else (None,) * len(ours)
        rows += [
            (row, name, mine, theirs, _minus(mine, theirs, comparable))
            for (name, mine), theirs in zip(ours.items(), cited, strict=True)
        ]
    title = "Table 1: IoU of each class and mIoU in percent, by the layer whose patterns made the proxy masks"
    return Table(title, ("row", "class", "ours", "paper", "difference"), tuple(rows), tuple(notes))


def as_printed(table: Table) -> Table:
    """Return Table 1 as the paper prints it, classes across; of each row ours, the paper's and the difference."""
    rows: list[tuple[Cell, ...]] = []
    for row in paper.TABLE1:
        ours, cited, differences = zip(*(cells[2:] for cells in table.rows if cells[0] == row), strict=True)
        signed = (_text(value, "difference") for value in differences)
        rows += [(row, "ours", *ours), (row, "paper", *cited), (row, "difference", *signed)]
    classes = dict.fromkeys(str(cells[1]) for cells in table.rows)
    return Table(table.title, ("row", "", *classes), tuple(rows), table.notes)


def for_terminal(table: Table) -> Table:
    """Return Table 1 with classes down, narrow enough for a terminal; differences of mIoU only."""
    printed = as_printed(table)
    ours_and_paper = [row for row in printed.rows if row[1] != "difference"]
    header, sources, *rows = zip(printed.header, *ours_and_paper, strict=True)
    names = (name if source == "ours" else source for name, source in zip(header[1:], sources[1:], strict=True))
    gaps = (row[-1] for row in printed.rows if row[1] == "difference")
    last = ("difference", *(cell for gap in gaps for cell in (gap, None)))
    return Table(table.title, ("class", *map(str, names)), (*rows, last), table.notes)


def table2(ours: Sequence[OwnRow], notes: Sequence[str]) -> Table:
    """Return Table 2: the paper's rows, marked cited, then ours.

    Args:
        ours: the runs scored on val.
        notes: lines below.
    """
    rows: list[tuple[Cell, ...]] = [(*cited, None, None, "cited") for cited in paper.TABLE2]
    for row in ours:
        theirs = paper.TABLE2_OWN.get(row.network) if row.comparable else None
        difference = _minus(row.miou, theirs, row.comparable and theirs is not None)
        rows.append((f"ours, {row.network}", "tags", str(row.photos), row.miou, None, theirs, difference, row.name))
    header = ("method", "supervision", "train set", "val", "test", "paper, val", "difference", "from")
    return Table("Table 2: mIoU in percent on VOC 2012", header, tuple(rows), tuple(notes))


def table3(scores: Scores, notes: Sequence[str], *, comparable: bool, accuracy: float | None = None) -> Table:
    """Return Table 3: IoU by COCO's groups of classes with each group's mean, then mIoU, beside the paper's columns.

    Args:
        scores: ``iou`` by class and ``miou``.
        notes: lines below.
        comparable: whether backbone and data are the paper's; else there are no differences.
        accuracy: our classification accuracy in percent (`tag2mask.metrics.label_accuracy`), for the title.
    """
    iou = dict(scores["iou"])
    is_coco = tuple(iou) == tuple(paper.TABLE3)
    groups = {"": ("background",), **paper.COCO_GROUPS} if is_coco else {"": tuple(iou)}
    rows: list[tuple[Cell, ...]] = []
    for group, names in groups.items():
        cited = [paper.TABLE3[name] if is_coco else (None,) * 3 for name in names]
        rows += [
            (group, name, *theirs, iou[name], _minus(iou[name], theirs[-1], comparable))
            for name, theirs in zip(names, cited, strict=True)
        ]
        if group:
            means = [_mean(column) for column in (*zip(*cited, strict=True), [iou[name] for name in names])]
            rows.append((group, "mean", *means, _minus(means[-1], means[-2], comparable)))
    total = paper.TABLE3_MEAN if is_coco else (None,) * 3
    rows.append(("", "mIoU", *total, scores["miou"], _minus(scores["miou"], total[-1], comparable)))
    measured = "not measured" if accuracy is None else f"{accuracy:.1f}"
    title = (
        "Table 3: IoU and mIoU in percent on COCO val. "
        f"Classification accuracy in percent: the paper {paper.ACCURACY}, ours {measured}"
    )
    header = ("group", "class", *paper.TABLE3_METHODS, "ours", "difference")
    return Table(title, header, tuple(rows), tuple(notes))


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean to two places; None where a value is not known."""
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if len(known) == len(values) else None


def _minus(ours: float | None, paper: float | None, comparable: bool) -> Cell:
    if not comparable:
        return NOT_COMPARABLE
    return None if ours is None or paper is None else round(ours - paper, 2)


def _text(cell: Cell, column: str) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    return f"{cell:+.1f}" if column == "difference" else f"{cell:.1f}"
