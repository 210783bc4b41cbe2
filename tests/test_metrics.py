"""Scores against scikit-learn and torchmetrics."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.metrics import confusion_matrix as sklearn_matrix
from torchmetrics.classification import MulticlassJaccardIndex

from tag2mask.metrics import average_precision, confusion_matrix, iou, label_accuracy, mean_iou

CLASSES = 5
VALUES = st.sampled_from([*range(CLASSES), 255])


def random_pair(seed, classes=CLASSES, size=(37, 23)):
    random = np.random.default_rng(seed)
    values = np.array([*range(classes), 255], np.uint8)
    return values[random.integers(0, classes + 1, size)], values[random.integers(0, classes + 1, size)]


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, (2, 6, 7), elements=VALUES))
def test_confusion_matrix_is_scikit_learns(pair):
    truth, prediction = pair
    counted = truth != 255
    if not counted.any():
        assert not confusion_matrix(truth, prediction, CLASSES).any()
        return
    shown = np.where(prediction == 255, 0, prediction)
    wanted = sklearn_matrix(truth[counted], shown[counted], labels=range(CLASSES))
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, CLASSES), wanted)


@pytest.mark.parametrize("seed", range(5))
def test_iou_is_torchmetrics(seed):
    pairs = [random_pair(10 * seed + number) for number in range(3)]
    total = sum(confusion_matrix(truth, prediction, CLASSES) for truth, prediction in pairs)
    truth, prediction = (torch.from_numpy(np.stack(part).astype(np.int64)) for part in zip(*pairs, strict=True))
    prediction[prediction == 255] = 0
    for average, mine in (("none", iou(total)), ("macro", mean_iou(total))):
        theirs = MulticlassJaccardIndex(CLASSES, average=average, ignore_index=255)(prediction, truth)
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-6)


def test_a_predicted_255_is_background():
    truth, prediction = random_pair(0)
    assert (prediction == 255).any()
    as_background = np.where(prediction == 255, 0, prediction).astype(np.uint8)
    np.testing.assert_array_equal(
        confusion_matrix(truth, prediction, CLASSES), confusion_matrix(truth, as_background, CLASSES)
    )


def test_true_255_counts_nowhere():
    truth = np.full((4, 4), 255, np.uint8)
    assert confusion_matrix(truth, np.ones((4, 4), np.uint8), 3).sum() == 0


def test_prediction_is_left_as_it_was():
    prediction = np.full((2, 2), 255, np.uint8)
    confusion_matrix(np.zeros((2, 2), np.uint8), prediction, 2)
    assert (prediction == 255).all()


def test_classes_that_occur_nowhere_do_not_count():
    matrix = np.diag([4, 0, 2])
    assert np.isnan(iou(matrix)[1])
    assert mean_iou(matrix) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(mean_iou(np.zeros((3, 3), np.int64)))


def test_a_class_only_predicted_counts_as_zero():
    truth, prediction = np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]], np.uint8)
    assert iou(confusion_matrix(truth, prediction, 2)).tolist() == [0.75, 0]


@pytest.mark.parametrize(
    ("truth", "prediction"), [(np.array([[3]]), np.array([[0]])), (np.array([[0]]), np.array([[3]]))]
)
def test_a_class_beyond_the_others(truth, prediction):
    with pytest.raises(ValueError, match="class 3, beyond the 3 classes"):
        confusion_matrix(truth.astype(np.uint8), prediction.astype(np.uint8), 3)


def test_sizes_that_differ():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=30))
def test_average_precision_is_scikit_learns_with_ties(rows):
    truth = np.array([present for present, _ in rows])
    scores = np.array([value for _, value in rows], np.float64)
    if not truth.any():
        assert np.isnan(average_precision(truth, scores))
    else:
        assert average_precision(truth, scores) == pytest.approx(average_precision_score(truth, scores))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_the_accuracy_of_labels_image_by_image(seed):
    random = np.random.default_rng(seed)
    truth, scores = random.random((12, 4)) < 0.4, random.random((12, 4))
    truth[0, 0] = True
    found = sum(
        len(set(np.argsort(-s)[: t.sum()]) & set(np.flatnonzero(t))) for t, s in zip(truth, scores, strict=True)
    )
    assert label_accuracy(truth, scores) == pytest.approx(found / truth.sum())


def test_the_accuracy_of_one_label_an_image_is_the_usual_one():
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 5, 40), random.random((40, 5))
    assert label_accuracy(np.eye(5, dtype=bool)[labels], scores) == accuracy_score(labels, scores.argmax(1))


def test_the_accuracy_of_labels_where_there_is_nothing_to_tell_apart():
    assert np.isnan(label_accuracy(np.zeros((3, 2), bool), np.ones((3, 2))))
    assert np.isnan(label_accuracy(np.ones((3, 1), bool), np.ones((3, 1))))
