"""Draw the rooms of the package and the imports between them, from the code as it is now.

python docs/architecture.py docs/pictures
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOMS = {
    "cli": "the command line: parses, calls, prints",
    "serve": "the server for annotation tools and browsers",
    "__init__": "the public names: `import tag2mask`",
    "api": "what the commands do, as functions",
    "doctor": "what is installed here",
    "reproduce": "the paper's tables and figures, and what only they need",
    "corrections": "what a person has corrected: read back, taught, asked for",
    "exports": "masks and segmenters for other tools",
    "demo": "generated scenes",
    "runs": "the run folder: its data, its stages, what is done and what is to be done",
    "report": "the report page, the overview and the pictures of class patterns",
    "segmenter": "a trained segmenter: load it, predict with it",
    "methods": "ways from a classifier to scores, one file each",
    "training": "the training loop, what it reads, the losses",
    "patterns": "class patterns: moments and eigenpairs as pure functions, and the estimator",
    "inference": "prediction at several scales, then a CRF",
    "scoring": "scores of folders of masks",
    "metrics": "confusion matrix, IoU, average precision",
    "networks": "backbones, classifier, segmentation heads, weights",
    "proxy": "Algorithm 1: from scores to a mask",
    "data": "photos, tags and masks: readers, decoding, the image set",
    "crf": "the dense CRF",
    "tiles": "photos in overlapping squares, and the maps of these joined",
    "resize": "bilinear resizing of maps",
    "files": "files that are whole or not there",
    "notebook": "small tables for notebooks",
    "config": "recipes: every parameter",
    "logs": "what a command says while it works",
    "progress": "progress bars",
    "threads": "work ahead in threads",
    "distributed": "several processes at one run",
    "devices": "which device computes, and what it lacks",
    "names": "every set of names that a person types",
    "errors": "errors that a user can fix",
}
"""What lives where. A room imports from those after it in this list, never from those before it."""

GROUND = list(ROOMS)[list(ROOMS).index("resize") :]
"""The rooms that all others stand on."""

PACKAGE = Path(__file__).parents[1] / "src/tag2mask"
KEPT = Path(__file__).parent / "pictures/architecture.svg"
"""The picture of docs/architecture.md."""
COLOURS = ("#c7d2ee", "#c5dfea", "#c6e4dc", "#d3e6c9", "#e9e6c2", "#f0dbc0", "#f0cfc6", "#eac9d8", "#d9cbe8")
INK, LINE = "#1d2733", "#8492a6"
ROW, HEAD, PAD, GAP = 0.17, 0.3, 0.12, 0.34
"""Inches: a line of text, the head of a box, its margin, the space beside a box."""


def title_of(room: str) -> str:
    """Return what a room is called in the picture."""
    return "import tag2mask" if room == "__init__" else room


def modules_of(package: Path) -> dict[str, Path]:
    """Return the files of a package by the names of the modules in them; `python -m`'s own file is in no room."""
    files = {}
    for file in sorted({*package.rglob("*.py")} - {package / "__main__.py"}):
        parts = file.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imports_of(package: Path) -> dict[str, set[str]]:
    """Return the modules of a package that each of its modules imports, in functions and for type checking too."""
    modules = modules_of(package)

    def targets(name: str, file: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = name.split(".") + ([""] if file.name == "__init__.py" else [])
                start = ".".join(above[: -node.level]) if node.level else ""
                module = ".".join(filter(None, (start, node.module)))
                inside = (f"{module}.{alias.name}" for alias in node.names)
                yield from (one if one in modules else module for one in inside)

    return {name: {one for one in targets(name, file) if one in modules} - {name} for name, file in modules.items()}


def room_of(module: str) -> str:
    """Return the room of a module.

    >>> room_of("tag2mask.patterns.eigen"), room_of("tag2mask")
    ('patterns', '__init__')
    """
    return module.partition(".")[2].partition(".")[0] or "__init__"


@dataclass
class Box:
    """A room in the picture: its title, the number of its lines, its files in columns, its size in inches."""

    name: str
    lines: int
    columns: list[list[tuple[str, int]]]

    @property
    def widths(self) -> list[float]:
        """Return the widths of the columns in inches."""
        return [max(len(name) for name, _ in column) * 0.077 + 0.5 for column in self.columns]

    @property
    def width(self) -> float:
        """Return the width in inches."""
        return max(len(self.name) * 0.1 + 0.75, sum(self.widths) + PAD)

    @property
    def height(self) -> float:
        """Return the height in inches."""
        return HEAD + ROW * max(map(len, self.columns), default=0) + (PAD if self.columns else 0)


def boxes_of(package: Path, most: int = 5) -> dict[str, Box]:
    """Return a box for each room: its files with their numbers of lines, at most so many in a column."""
    files: dict[str, list[tuple[str, int]]] = {room: [] for room in ROOMS}
    files_at = modules_of(package)
    for module, file in files_at.items():
        files[room_of(module)].append((module, len(file.read_text("utf-8").splitlines())))
    boxes = {}
    for room, inside in files.items():
        named = [(module, lines) for module, lines in inside if files_at[module].name != "__init__.py"]
        named = [("/".join(module.split(".")[2:]), lines) for module, lines in named if module.count(".") > 1]
        rows = -(-len(named) // max(1, -(-len(named) // most)))  # as even as can be
        columns = [named[start : start + rows] for start in range(0, len(named), rows)] if named else []
        boxes[room] = Box(title_of(room), sum(n for _, n in inside), columns)
    return boxes


def needed(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the rooms that each room above the ground imports, without those that it reaches through others anyway."""
    above = [room for room in ROOMS if room not in GROUND]
    direct: dict[str, set[str]] = {room: set() for room in above}
    for module, others in imports.items():
        here = room_of(module)
        if here in direct:
            direct[here] |= {room_of(other) for other in others} & set(above) - {here}
    reached: dict[str, set[str]] = {}
    for room in reversed(above):
        reached[room] = direct[room].union(*(reached[other] for other in direct[room]))
    return {
        room: {one for one in others if not any(one in reached[other] for other in others - {one})}
        for room, others in direct.items()
    }


def rows_of(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return rooms in rows, from top to bottom in the order of `ROOMS`; none imports one of its own row."""
    rows: list[list[str]] = [[]]
    for room in arrows:
        if any(room in arrows[other] for other in rows[-1]):
            rows.append([])
        rows[-1].append(room)
    return rows


def paths_of(rows: list[list[str]], arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the way of each arrow, with a place of its own, ``from>to``, in every row between; rows get these too."""
    at = {room: number for number, row in enumerate(rows) for room in row}
    paths = []
    for room, others in arrows.items():
        for other in sorted(others, key=at.__getitem__):
            between = [f"{room}>{other}@{number}" for number in range(at[room] + 1, at[other])]
            for number, place in enumerate(between, at[room] + 1):
                rows[number].append(place)
            paths.append([room, *between, other])
    return paths


def arrange(rows: list[list[str]], paths: Sequence[Sequence[str]], boxes: Mapping[str, Box]) -> dict[str, float]:
    """Order rows so that arrows cross little, in place; return the centre of every place in inches, about 0."""
    neighbours: dict[str, list[str]] = {place: [] for row in rows for place in row}
    for path in paths:
        for upper, lower in pairwise(path):
            neighbours[upper].append(lower)
            neighbours[lower].append(upper)
    centres: dict[str, float] = {}

    def width(place: str) -> float:
        return boxes[place].width if place in boxes else 0.1

    def put(row: list[str]) -> None:
        left = -(sum(map(width, row)) + GAP * (len(row) - 1)) / 2
        for place in row:
            centres[place] = left + width(place) / 2
            left += width(place) + GAP

    for row in rows:
        put(row)
    for sweep in range(24):
        for row in rows if sweep % 2 else reversed(rows):
            wanted = {p: sum(centres[n] for n in neighbours[p]) / max(1, len(neighbours[p])) for p in row}
            row.sort(key=wanted.__getitem__)
            put(row)
            space = 0.0  # move the row as a whole, then each place into the free space beside it
            for place in row:
                space += (wanted[place] - centres[place]) / len(row)
            for place in row:
                centres[place] += space
            for number, place in enumerate(row):
                low = centres[row[number - 1]] + (width(row[number - 1]) + width(place)) / 2 + GAP if number else -9e9
                centres[place] = max(low, centres[place] if number else min(wanted[place], centres[place]))
            for number in reversed(range(len(row))):
                place, after = row[number], row[number + 1] if number + 1 < len(row) else None
                high = centres[after] - (width(after) + width(place)) / 2 - GAP if after else 9e9
                centres[place] = min(high, max(centres[place], wanted[place]))
    return centres


def draw(package: Path, file: Path) -> None:
    """Draw the rooms of a package; the format follows the file's name."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Way

    boxes, arrows = boxes_of(package), needed(imports_of(package))
    rows = rows_of(arrows)
    paths = paths_of(rows, arrows)
    centres = arrange(rows, paths, boxes)
    spans, depth = dict[str, tuple[float, float]](), 0.0  # from where to where a place's row reaches
    for row in rows:
        low = depth - max(boxes[place].height for place in row if place in boxes)
        spans |= dict.fromkeys(row, (depth, low))
        depth = low - 0.6
    left = min([*centres.values(), *(centres[room] - boxes[room].width / 2 for room in arrows)])
    right = max([*centres.values(), *(centres[room] + boxes[room].width / 2 for room in arrows)])
    ground_rows = [GROUND[: (len(GROUND) + 1) // 2], GROUND[(len(GROUND) + 1) // 2 :]]
    ground = 0.42 + len(ground_rows) * (HEAD + 0.14)
    plt.rcParams.update({"svg.hashsalt": "tag2mask", "font.family": "DejaVu Sans"})
    figure = plt.figure(figsize=(right - left + 0.3, ground - depth + 0.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left - 0.15, right + 0.15), ylim=(depth - ground - 0.1, 0.1))
    axes.axis("off")

    def box(x: float, y: float, width: float, height: float, colour: str) -> None:
        style = "round,pad=0,rounding_size=0.09"
        axes.add_patch(FancyBboxPatch((x, y), width, height, style, facecolor=colour, edgecolor=LINE, linewidth=0.9))

    def title(x: float, y: float, width: float, of: Box) -> None:
        axes.text(x + PAD, y, of.name, color=INK, size=9.5, weight="bold", va="center")
        axes.text(x + width - PAD, y, str(of.lines), color=INK, size=8, va="center", ha="right")

    def ports(room: str, others: list[str]) -> dict[str, float]:
        """Return where arrows touch a box, in the order of the places that they lead to."""
        others.sort(key=centres.__getitem__)
        step = min(0.22, 0.6 * boxes[room].width / max(1, len(others)))
        return {other: centres[room] + step * (number - (len(others) - 1) / 2) for number, other in enumerate(others)}

    leaving = {room: ports(room, [path[1] for path in paths if path[0] == room]) for room in arrows}
    coming = {room: ports(room, [path[-2] for path in paths if path[-1] == room]) for room in arrows}
    for path in paths:
        start, end = leaving[path[0]][path[1]], coming[path[-1]][path[-2]]
        points = [(start, spans[path[0]][1])]
        for place in path[1:-1]:
            points += [(centres[place], spans[place][0]), (centres[place], spans[place][1])]
        points.append((end, spans[path[-1]][0]))
        steps, codes = [(start, spans[path[0]][0] - boxes[path[0]].height), points[0]], [Way.MOVETO, Way.LINETO]
        for upper, lower in pairwise(points):
            middle = (upper[1] + lower[1]) / 2
            steps += [(upper[0], middle), (lower[0], middle), lower]
            codes += [Way.CURVE4] * 3
        axes.add_patch(
            FancyArrowPatch(
                path=Way(steps, codes), arrowstyle="-|>", mutation_scale=9, color=LINE, linewidth=1.1, shrinkA=0
            )
        )
    for number, row in enumerate(rows):
        for place in row:
            if place not in boxes:
                continue
            of, top = boxes[place], spans[place][0]
            x = centres[place] - of.width / 2
            box(x, top - of.height, of.width, of.height, COLOURS[number % len(COLOURS)])
            title(x, top - HEAD / 2, of.width, of)
            spare = (of.width - PAD - sum(of.widths)) / max(1, len(of.columns))
            start = x + PAD
            for wide, files in zip(of.widths, of.columns, strict=True):
                for line, (name, count) in enumerate(files):
                    y, end = top - HEAD - ROW * (line + 0.4), start + wide + spare - PAD
                    axes.text(start, y, name, color=INK, size=7.5, va="center")
                    axes.text(end, y, str(count), color=INK, size=7, va="center", ha="right", alpha=0.75)
                start += wide + spare
    box(left, depth - ground, right - left, ground, "#e4e8ee")
    axes.text(left + PAD, depth - 0.18, "ground: every room stands on it", color=INK, size=8.5, va="center")
    for number, row in enumerate(ground_rows):
        wide = (right - left - PAD) / len(row)
        for place, room in enumerate(row):
            x, y = left + PAD + place * wide, depth - 0.36 - number * (HEAD + 0.14)
            box(x, y - HEAD, wide - PAD, HEAD, "#ffffff")
            title(x, y - HEAD / 2, wide - PAD, boxes[room])
    about = {"Date": None} if file.suffix == ".svg" else None
    figure.savefig(file, transparent=True, metadata=about, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    draw(PACKAGE, folder / KEPT.name)
