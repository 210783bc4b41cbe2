"""Algorithm 1 and the CRF's input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tag2mask.proxy import assign, proxy_mask, resize_scores, score_probabilities

SCORES = st.floats(-5, 5, width=32)


def test_the_three_cases_by_hand():
    scores = np.array([[[-1, 2, -1, 3], [0, 0, -2, 1]], [[-2, -1, 1, 1], [0, 1, -1, 5]]], np.float32)
    assert assign(scores, [4, 9]).tolist() == [[0, 4, 9, 255], [0, 9, 0, 255]]


def test_conflicts_to_the_strongest():
    scores = np.array([[[-1, 2, -1, 3], [0, 0, -2, 1]], [[-2, -1, 1, 1], [0, 1, -1, 5]]], np.float32)
    assert assign(scores, [4, 9], conflict="strongest").tolist() == [[0, 4, 9, 4], [0, 9, 0, 9]]


def test_a_score_at_the_threshold_is_background():
    scores = np.array([[[0.3, 0.30001, 0.2]]], np.float32)
    assert assign(scores, [2], threshold=float(np.float32(0.3))).tolist() == [[0, 2, 0]]
    assert assign(np.zeros((1, 1, 1), np.float32), [2]).tolist() == [[0]]


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (6, 3, 4), elements=SCORES),
    st.sets(st.integers(1, 6)),
    st.sampled_from(["ignore", "strongest"]),
    SCORES,
)
def test_labels_outside_the_image_never_appear(scores, labels, conflict, threshold):
    mask = proxy_mask(scores, sorted(labels), (9, 11), threshold=threshold, conflict=conflict)
    assert mask.shape == (9, 11)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, *labels} | ({255} if conflict == "ignore" and len(labels) > 1 else set())


def test_the_scores_of_absent_classes_do_not_matter():
    scores = np.random.default_rng(0).normal(size=(5, 4, 4)).astype(np.float32)
    other = scores.copy()
    other[[0, 2, 4]] = 100
    np.testing.assert_array_equal(proxy_mask(scores, [2, 4], (8, 8)), proxy_mask(other, [2, 4], (8, 8)))


def test_no_labels_is_background():
    scores = np.ones((3, 2, 2), np.float32)
    assert not proxy_mask(scores, [], (5, 7)).any()
    assert proxy_mask(scores, [], (5, 7)).shape == (5, 7)
    assert assign(scores[:0], []).tolist() == [[0, 0], [0, 0]]


def test_scores_are_resized_before_the_threshold():
    scores = np.array([[[-1.0, 3.0]]], np.float32)
    # Bilinear at eight columns: -1 -1 -0.5 0.5 1.5 2.5 3 3; a mask resized after the threshold has four columns of it.
    assert proxy_mask(scores, [1], (1, 8)).tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]]


def test_resize_keeps_constants_and_range():
    np.testing.assert_allclose(resize_scores(np.full((2, 3, 4), 1.5, np.float32), 7, 5), 1.5, rtol=1e-6)
    scores = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(resize_scores(scores, 3, 4), scores)
    larger = resize_scores(scores, 50, 30)
    assert larger.shape == (2, 50, 30)
    assert larger.dtype == np.float32
    assert scores.min() <= larger.min() < larger.max() <= scores.max()


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (3, 2, 5), elements=st.floats(-50, 50, width=32)), st.floats(-1, 1), st.floats(0.1, 20))
def test_probabilities_sum_to_one_and_follow_the_scores(scores, threshold, sharpness):
    likely = score_probabilities(scores, threshold=threshold, sharpness=sharpness)
    assert likely.shape == (4, 2, 5)
    np.testing.assert_allclose(likely.sum(0), 1, rtol=1e-5)
    assert (likely >= 0).all()
    above = scores > threshold + 1e-3
    below = scores < threshold - 1e-3
    assert (likely[1:][above] >= likely[:1].repeat(3, 0)[above]).all()
    assert (likely[1:][below] <= likely[:1].repeat(3, 0)[below]).all()


@pytest.mark.parametrize("threshold", [0, 0.3, -0.5])
def test_a_single_class_crosses_one_half_at_the_threshold(threshold):
    scores = np.array([[[threshold - 0.01, threshold, threshold + 0.01]]], np.float32)
    below, at, above = score_probabilities(scores, threshold=threshold, sharpness=3)[1, 0]
    assert below < 0.5 < above
    assert at == pytest.approx(0.5, abs=1e-6)


def test_probabilities_by_hand():
    likely = score_probabilities(np.array([[[1.0]], [[-0.5]]], np.float32), threshold=0.5, sharpness=2).ravel()
    parts = np.exp([0, 1, -2])
    np.testing.assert_allclose(likely, parts / parts.sum(), rtol=1e-6)
