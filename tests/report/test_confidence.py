"""Confidence of a class in a photo's mask: each part of it by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tag2mask.names import IGNORE
from tag2mask.report.confidence import agreement, confidence_of, judged, rarity, region_of


def mask(*values):
    return np.array([values], np.uint8)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (mask(1, 1, 0, 0), mask(1, 0, 1, 0), 1 / 3),
        (mask(1, 1, IGNORE, 0), mask(1, 1, 1, 0), 1),
        (mask(1, 1, 1, 0), mask(1, IGNORE, 2, 0), 1 / 2),
        (mask(0, 0), mask(0, 2), 0),
        (mask(IGNORE, IGNORE), mask(1, 1), 0),
    ],
)
def test_agreement_of_two_masks(first, second, wanted):
    assert agreement(first, second, 1) == agreement(second, first, 1) == pytest.approx(wanted)


def test_the_classes_that_are_judged():
    assert judged((3, 1), mask(0, 2)) == [3, 1]
    assert judged((), mask(0, 2, 2, IGNORE)) == [2]
    assert judged((), mask(0, 0)) == []


def test_a_region_keeps_its_share_of_the_photo_however_small():
    drawn = np.zeros((96, 160), np.uint8)
    drawn[20:23, 30:33] = 2
    region = region_of(drawn, 2, (12, 20))
    assert region.shape == (12, 20)
    assert 0 < region.max() < 1
    assert region.mean() == pytest.approx((drawn == 2).mean(), rel=0.2)
    assert not region_of(drawn, 1, (12, 20)).any()


def test_rarity_is_the_share_of_the_region_with_rare_scores():
    scores = np.float32([[0, 1, 2, 3]])
    assert rarity(np.float32([[0, 1, 1, 0.5]]), scores, 1) == pytest.approx(1.5 / 2.5)
    assert rarity(np.float32([[1, 1, 0, 0]]), scores, 1) == 0
    assert rarity(np.zeros((1, 4), np.float32), scores, 1) == 0


@pytest.mark.parametrize(
    ("area", "rare", "agreed", "sign", "wanted"),
    [
        (0.2, 0.8, 1.0, 1.0, 0.8),
        (0.2, 0.8, 0.2, 1.0, 0.8),
        (0.2, 0.8, 0.1, 0.5, 0.2),
        (0.2, 0.8, None, 1.0, 0.8),
        (0.2, None, 0.05, 1.0, 0.25),
        (0.2, 0.8, 0.0, 1.0, 0.0),
        (0.0, None, None, 1.0, 0.0),
    ],
)
def test_what_a_confidence_is_made_of(area, rare, agreed, sign, wanted):
    assert confidence_of(area, rare, agreed, sign) == pytest.approx(wanted)
