"""What is said of an image set before work begins."""

from __future__ import annotations

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
        lines += [f"left out: {len(image_set.skipped)}", *(f"  {note}" for note in image_set.skipped[:3])]
    if len(image_set.skipped) > 3:
        lines.append(f"  and {len(image_set.skipped) - 3} more")
    return "\n".join([*lines, *image_set.remarks, *_own_remarks(image_set)])


def _own_remarks(image_set: ImageSet) -> list[str]:
    """Return what the photos and labels of a set give reason to say."""
    remarks = name_remarks(sample.name for sample in image_set.samples)
    if image_set.levels:
        low, high = image_set.levels
        remarks.append(f"16-bit photos: the values {low} to {high} become 0 to 255")
    for together in _always_together(image_set)[:3]:
        remarks.append(
            f"{few([repr(name) for name in together])} are on the same photos, so that nothing tells them apart;"
            " if this is one tag, separate tags by ; in the table"
        )
    return remarks


def _always_together(image_set: ImageSet) -> list[list[str]]:
    """Return the groups of classes that are on the same photos, three photos at the least."""
    photos: list[list[int]] = [[] for _ in image_set.classes]
    for place, sample in enumerate(image_set.samples):
        for label in sample.labels:
            photos[label - 1].append(place)
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, places in zip(image_set.classes, photos, strict=True):
        groups.setdefault(tuple(places), []).append(name)
    return [names for places, names in groups.items() if len(names) > 1 and len(places) > 2]


def _columns(counts: dict[str, int], width: int = 80) -> list[str]:
    """Return ``name  count`` cells in columns, read along the lines, within ``width`` where names allow."""
    wide = max((len(name) for name in counts), default=0)
    digits = max((len(str(count)) for count in counts.values()), default=0)
    cells = [f"  {name:<{wide}}  {count:>{digits}}" for name, count in counts.items()]
    per_line = max(1, width // (wide + digits + 4))
    return ["".join(cells[start : start + per_line]) for start in range(0, len(cells), per_line)]
