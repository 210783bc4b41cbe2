"""What is said of an image set before work begins."""

from __future__ import annotations

from collections.abc import Sequence

from tag2mask.data.class_names import case_remarks
from tag2mask.data.image_set import ImageSet
from tag2mask.data.photo_names import name_remarks
from tag2mask.errors import few


def summary(image_set: ImageSet) -> str:
    """Return a few lines on what was read: photos, classes, photos per class, and what was left out.

    >>> from pathlib import Path
    >>> from tag2mask.data import Sample
    >>> photos = (Sample("a", Path("a.jpg"), (1,)), Sample("b", Path("b.jpg"), (1, 2)))
    >>> print(summary(ImageSet(("cat", "dog"), photos, labels_from="tags.csv")))
    2 photos of 2 classes, tags from tags.csv
    1 with one tag, 1 with several, 0 with none (background only)
    photos per class:
      cat  2  dog  1
    """
    tags = [len(sample.labels) for sample in image_set.samples]
    one, none = tags.count(1), tags.count(0)
    source = f", tags from {image_set.labels_from}" if image_set.labels_from else ""
    lines = [
        f"{len(tags)} photos of {len(image_set.classes)} classes{source}",
        f"{one} with one tag, {len(tags) - one - none} with several, {none} with none (background only)",
        "photos per class:",
        *_columns(image_set.images_per_class()),
    ]
    if image_set.skipped:
        lines += [f"left out: {len(image_set.skipped)}", *(f"  {line}" for line in by_reason(image_set.skipped))]
    return "\n".join([*lines, *image_set.remarks, *_own_remarks(image_set)])


def by_reason(notes: Sequence[str], most: int = 5) -> list[str]:
    """Return a line for each reason why something was left out, with an example; the most frequent first.

    >>> by_reason(["a.heic: .heic is not read", "b.heic: .heic is not read", "c.jpg: the file is empty"])
    ['2, such as a.heic: .heic is not read', 'c.jpg: the file is empty']
    """
    alike: dict[str, list[str]] = {}
    for note in notes:
        alike.setdefault(note.rpartition(": ")[2], []).append(note)
    groups = sorted(alike.values(), key=len, reverse=True)
    lines = [f"{len(group)}, such as {group[0]}" if len(group) > 1 else group[0] for group in groups[:most]]
    rest = sum(map(len, groups[most:]))
    return [*lines, f"and {rest} more"] if rest else lines


def _own_remarks(image_set: ImageSet) -> list[str]:
    """Return what the photos and labels of a set give reason to say."""
    remarks = name_remarks(sample.name for sample in image_set.samples)
    remarks += case_remarks(image_set.images_per_class())
    if image_set.levels:
        low, high = image_set.levels
        remarks.append(f"16-bit photos: the values {low} to {high} become 0 to 255")
    if together := _always_together(image_set):
        more = f" (and {len(together) - 1} more such)" if len(together) > 1 else ""
        advice = "; if this is one tag, separate tags by ; in the table" if _is_csv(image_set.labels_from) else ""
        names = few([repr(name) for name in together[0]])
        remarks.append(f"{names} are on the same photos{more}, so that nothing tells them apart{advice}")
    return remarks


def _is_csv(labels_from: str) -> bool:
    return labels_from.lower().endswith((".csv", ".tsv"))


def _always_together(image_set: ImageSet) -> list[list[str]]:
    """Return the groups of classes that are on the same photos, two photos at the least."""
    photos: list[list[int]] = [[] for _ in image_set.classes]
    for place, sample in enumerate(image_set.samples):
        for label in sample.labels:
            photos[label - 1].append(place)
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, places in zip(image_set.classes, photos, strict=True):
        groups.setdefault(tuple(places), []).append(name)
    return [names for places, names in groups.items() if len(names) > 1 and len(places) > 1]


def _columns(counts: dict[str, int], width: int = 80) -> list[str]:
    """Return ``name  count`` cells in columns, read along the lines, within ``width`` where names allow."""
    wide = max((len(name) for name in counts), default=0)
    digits = max((len(str(count)) for count in counts.values()), default=0)
    cells = [f"  {name:<{wide}}  {count:>{digits}}" for name, count in counts.items()]
    per_line = max(1, width // (wide + digits + 4))
    return ["".join(cells[start : start + per_line]) for start in range(0, len(cells), per_line)]
