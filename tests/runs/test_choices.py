"""Thresholds that corrected masks choose: near the default with few photos, right with many."""

from __future__ import annotations

import numpy as np
import pytest

from tag2mask.names import IGNORE
from tag2mask.runs.choices import Evidence, add_photo, as_offsets, chosen, offsets

SPREAD, TEMPERATURE = 0.5, 0.2


def evidence_of(photos, edge):
    """Return what photos say whose object is where the score exceeds ``edge``."""
    evidence = {1: Evidence(), 2: Evidence()}
    scores = np.tile(np.linspace(-3, 3, 32, dtype=np.float32), (32, 1))
    for _ in range(photos):
        add_photo(evidence, scores[None], [1], (scores > edge).astype(np.uint8), SPREAD)
    return evidence


def test_more_photos_move_a_threshold_further():
    moved = [evidence_of(photos, 1.0)[1].offset(SPREAD, TEMPERATURE) for photos in (0, 1, 3, 50)]
    assert moved[0] == 0
    assert moved == sorted(moved)
    assert 0.1 < moved[1] < 0.7
    assert moved[3] == pytest.approx(1.0, abs=0.15)
    assert evidence_of(3, -1.0)[1].offset(SPREAD, TEMPERATURE) == pytest.approx(-moved[2], abs=0.15)


def test_what_is_recorded():
    choices = chosen(evidence_of(3, 1.0), ("cat", "dog"), SPREAD, TEMPERATURE)
    assert choices["cat"]["photos"] == 3
    assert set(choices) == {"cat"}
    assert as_offsets(choices, ("dog", "cat")).tolist() == pytest.approx([0, choices["cat"]["offset"]])
    assert 0.0 in offsets(SPREAD)


def test_pixels_of_255_and_classes_that_a_mask_does_not_show_say_nothing():
    evidence, scores = {1: Evidence(), 2: Evidence()}, np.zeros((2, 8, 8), np.float32)
    add_photo(evidence, scores, [1, 2], np.full((8, 8), IGNORE, np.uint8), SPREAD)
    assert evidence[1].photos == evidence[2].photos == 0
    mask = np.where(np.arange(8) < 4, 1, IGNORE).astype(np.uint8)[None].repeat(8, 0)
    add_photo(evidence, scores, [1, 2], mask, SPREAD)
    assert (evidence[1].photos, evidence[2].photos) == (1, 0)
    assert evidence[1].iou[:30] == pytest.approx(1)  # what is left out is neither right nor wrong
