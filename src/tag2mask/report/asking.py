"""Which photos to correct next: doubtful ones, of classes with few corrected masks, that look unlike each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tag2mask.data import Sample
from tag2mask.errors import DataError
from tag2mask.report.survey import Doubt
from tag2mask.threads import map_ahead

SIDE = 12
"""Pixels of the thumbnails that are compared."""

SHORTLIST = 10
"""So many photos are looked at for each that is named."""

CERTAIN, UNTAGGED = 0.5, 0.1
"""What a photo counts without any doubt, and what one without tags counts."""

Look = Callable[[Sample], NDArray[np.float64] | None]


@dataclass(frozen=True)
class Asked:
    """A photo to correct.

    Attributes:
        sample: the photo.
        doubt: `doubt_in` it, 0 to 1.
        rare: its class with the fewest corrected masks so far, as index; 0 where it has no tags.
    """

    sample: Sample
    doubt: float
    rare: int


def choose_next(
    photos: Sequence[tuple[Sample, Doubt]], corrected: Container[str], count: int, look: Look | None = None
) -> list[Asked]:
    r"""Return the photos whose correction is likely to help most, the most helpful first.

    One by one the photo of the largest value is taken, $v = (a + d) \, n \sum_c \frac{1}{1 + k_c} / \sqrt{m}$: d is its
    doubt (`doubt_in`), $k_c$ how many photos of its class c are corrected or taken, m the number of its tags, and n how
    little it resembles photos that are corrected or taken (0 for the same picture, as in a film, 1 for another).

    Args:
        photos: with their doubt, as `tag2mask.report.survey.survey` gives them.
        corrected: names of those that are corrected.
        count: how many to name.
        look: gives what is compared, float N; None for thumbnails.

    >>> from pathlib import Path
    >>> ranked = [(Sample(name, Path(name), (1,)), Doubt(d, ())) for name, d in (("a", 0.9), ("b", 0.1))]
    >>> ranked += [(Sample("c", Path("c"), (2,)), Doubt(0.0, ()))]
    >>> [asked.sample.name for asked in choose_next(ranked, "", 2, look=lambda sample: None)]
    ['a', 'c']
    """
    known: Counter[int] = Counter(label for one, _ in photos if one.name in corrected for label in one.labels)
    left = {one.name: (one, doubt) for one, doubt in photos if one.name not in corrected}
    best = sorted(left.values(), key=lambda item: -_value(item[0], item[1], known))[: max(200, SHORTLIST * count)]
    seen = [one for one, _ in photos if one.name in corrected]
    looks = dict(_looks([one for one, _ in best] + seen, look or thumbnail))
    resembles = {one.name: max((_alike(looks, one, other) for other in seen), default=0.0) for one, _ in best}
    asked: list[Asked] = []
    while best and len(asked) < count:
        values = [(1 - resembles[one.name]) * _value(one, doubt, known) for one, doubt in best]
        sample, doubt = best.pop(int(np.argmax(values)))
        rare = min(sample.labels, key=lambda label: known[label], default=0)
        asked.append(Asked(sample, doubt_in(doubt), rare))
        known.update(sample.labels)
        for one, _ in best:
            resembles[one.name] = max(resembles[one.name], _alike(looks, one, sample))
    return asked


def thumbnail(sample: Sample) -> NDArray[np.float64] | None:
    """Return a photo as it is compared, float N of mean 0 and length 1; None where it cannot be read."""
    try:
        photo = Image.fromarray(sample.read(draft_size=4 * SIDE))
    except DataError:
        return None
    pixels = np.asarray(photo.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64).ravel()
    pixels -= pixels.mean()
    return pixels / max(float(np.linalg.norm(pixels)), 1e-9)


def _value(sample: Sample, doubt: Doubt, known: Counter[int]) -> float:
    need = sum(1 / (1 + known[label]) for label in sample.labels) / max(1, len(sample.labels)) ** 0.5
    return (CERTAIN + doubt_in(doubt)) * (need or UNTAGGED)


def doubt_in(doubt: Doubt) -> float:
    """Return how doubtful a photo's masks are, 0 to 1: what its lowest confidence lacks, else the pixels that differ.

    >>> doubt_in(Doubt(0.25, ())), doubt_in(Doubt(None, (2,)))
    (0.25, 1.0)
    """
    if doubt.missing:
        return 1.0
    return 1 - doubt.lowest if doubt.lowest is not None else doubt.pixels or 0.0


def _looks(samples: Sequence[Sample], look: Look) -> list[tuple[str, NDArray[np.float64] | None]]:
    return [
        (sample.name, seen) for sample, seen in zip(samples, map_ahead(look, samples), strict=True) if seen is not None
    ]


def _alike(looks: dict[str, NDArray[np.float64] | None], one: Sample, other: Sample) -> float:
    """Return how alike two photos look, 0 for a correlation of thumbnails up to a half, 1 for the same picture."""
    first, second = looks.get(one.name), looks.get(other.name)
    return 0.0 if first is None or second is None else max(0.0, 2 * float(first @ second) - 1)
