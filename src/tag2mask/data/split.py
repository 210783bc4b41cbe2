"""Photos in two parts with the same classes in both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def divide(labels: Sequence[Sequence[int]], share: float, seed: int) -> list[bool]:
    """Return which photos go to the first of two parts.

    The rarest class is dealt first: each of its photos goes where most of that class is still wanted, as long as there
    is room (iterative stratification, Sechidis et al. 2011). Of each class of two photos or more both parts want one at
    least. Where a part is then without a class, a photo is moved there if no class is lost by that.

    Args:
        labels: class indices of each photo, from 1; none where there are none.
        share: of the photos, and of each class's, that go to the first part; 0 < share < 1.
        seed: of the order in which photos are dealt.

    >>> divide([(1,), (1,), (1, 2), (2,)], 0.5, seed=0)
    [True, False, True, False]
    """
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    groups = [tuple(row) or (0,) for row in labels]
    photos: dict[int, list[int]] = {}
    for place in order:
        for label in groups[place]:
            photos.setdefault(label, []).append(place)
    wanted = {label: _quota(len(places), share) for label, places in photos.items()}
    room = list(_quota(len(labels), share))
    part: dict[int, int] = {}
    while left := {
        label: rest for label, places in photos.items() if (rest := [place for place in places if place not in part])
    }:
        rarest = min(left, key=lambda label: (label == 0, len(left[label]), label))
        for place in left[rarest]:
            side = max((0, 1), key=lambda side: (room[side] > 0, wanted[rarest][side], room[side]))
            part[place] = side
            room[side] -= 1
            for label in groups[place]:
                wanted[label][side] -= 1
    _give_each_part_each_class(photos, groups, part)
    return [part[place] == 0 for place in range(len(labels))]


def _quota(count: int, share: float) -> list[int]:
    """Return how many of ``count`` photos each part wants; one at least where there are two."""
    first = round(count * share)
    first = min(max(first, 1), count - 1) if count > 1 else first
    return [first, count - first]


def _give_each_part_each_class(
    photos: dict[int, list[int]], groups: Sequence[tuple[int, ...]], part: dict[int, int]
) -> None:
    counts = {label: [0, 0] for label in photos}
    for place, side in part.items():
        for label in groups[place]:
            counts[label][side] += 1
    for label in sorted(set(photos) - {0}, key=lambda label: len(photos[label])):
        for side in (0, 1):
            if counts[label][side] == 0:
                movable = (place for place in photos[label] if all(counts[one][1 - side] > 1 for one in groups[place]))
                for place in list(movable)[:1]:
                    part[place] = side
                    for one in groups[place]:
                        counts[one][side] += 1
                        counts[one][1 - side] -= 1
