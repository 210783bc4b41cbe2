"""The dense CRF: its model, its lattice, its manners, and agreement with pydensecrf where that is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.crf import dense, dense_crf, dense_crf_many, prepare, simd
from tag2mask.crf.lattice import blur, build
from tag2mask.errors import UserError

PHOTOS = Path(__file__).parents[3] / "shared/data/voc2012/JPEGImages"
BOTH = {"gaussian": (3, 3), "bilateral": (80, 13, 10)}


def photo(height, width, seed=0):
    """Smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def scores(labels, height, width, seed=0, sharpness=3.0):
    """Smooth random probabilities."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(labels, height // 16 + 2, width // 16 + 2)).astype(np.float32)
    smooth = [np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR)) for c in coarse]
    return softmax(sharpness * np.stack(smooth))


def softmax(logits):
    grown = np.exp(logits - logits.max(0))
    return (grown / grown.sum(0)).astype(np.float32)


def reference(image, probabilities, gaussian, bilateral, steps, mixes=None):
    """pydensecrf's answer."""
    peer = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not installed (pip install '.[bench]')")
    labels, height, width = probabilities.shape
    crf = peer.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(-np.log(np.maximum(probabilities, np.float32(1e-5))).reshape(labels, -1))
    if gaussian:
        crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
    if bilateral:
        crf.addPairwiseBilateral(sxy=bilateral[0], srgb=bilateral[1], rgbim=image, compat=bilateral[2])
    return np.array(crf.inference(steps)).reshape(probabilities.shape)


def assert_agrees(ours, peers):
    assert (ours.argmax(0) == peers.argmax(0)).mean() >= 0.9999
    np.testing.assert_allclose(ours, peers, atol=1e-3)


# The model


@pytest.mark.parametrize("labels", [2, 4, 5, 8, 9, 21, 81])
def test_agrees_with_pydensecrf(labels):
    image, probabilities = photo(90, 122), scores(labels, 90, 122)
    assert_agrees(dense_crf(image, probabilities), reference(image, probabilities, **BOTH, steps=10))


def test_agrees_with_pydensecrf_when_its_blocks_of_four_leave_a_rest():
    """It fills the rest with black pixels at the origin, whose vertices stay in its lattice; none is near here."""
    image, probabilities = np.maximum(photo(91, 123), 150), scores(5, 91, 123)
    assert_agrees(dense_crf(image, probabilities), reference(image, probabilities, **BOTH, steps=10))


@pytest.mark.parametrize("labels", [2, 5, 21, 81])
def test_agrees_with_pydensecrf_on_photos(labels):
    pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not installed (pip install '.[bench]')")
    if not PHOTOS.is_dir():
        pytest.skip("no photos beside the repository (shared/data/voc2012)")
    for seed, path in enumerate(sorted(PHOTOS.glob("*.jpg"))[: 5 if labels < 81 else 1]):
        image = np.array(Image.open(path).convert("RGB"))
        probabilities = scores(labels, *image.shape[:2], seed, sharpness=6)
        assert_agrees(dense_crf(image, probabilities), reference(image, probabilities, **BOTH, steps=10))


@pytest.mark.parametrize(
    ("gaussian", "bilateral"),
    [((1, 4), None), (None, (20, 5, 4)), ((40, 2), (300, 60, 30)), ((0.5, 3), (2, 1, 5)), ((3, 0.5), (9, 200, 1))],
)
def test_agrees_with_pydensecrf_at_other_widths(gaussian, bilateral):
    image, probabilities = photo(50, 62), scores(3, 50, 62)
    ours = dense_crf(image, probabilities, gaussian=gaussian, bilateral=bilateral, steps=5)
    assert_agrees(ours, reference(image, probabilities, gaussian, bilateral, 5))


def test_agrees_with_pydensecrf_on_a_matrix():
    image, probabilities = photo(50, 62), scores(4, 50, 62)
    matrix = np.random.default_rng(0).uniform(0, 4, (4, 4)).astype(np.float32)
    matrix += matrix.T
    kernels = {"gaussian": (3, matrix), "bilateral": (30, 13, 2 * matrix)}
    assert_agrees(dense_crf(image, probabilities, **kernels), reference(image, probabilities, **kernels, steps=10))


def test_a_matrix_says_what_its_potts_model_says():
    image, probabilities = photo(40, 50), scores(5, 40, 50)
    potts = dense_crf(image, probabilities, gaussian=(3, 3), bilateral=(30, 13, 10))
    same = [np.float32(weight) * -np.eye(5, dtype=np.float32) for weight in (3, 10)]
    matrix = dense_crf(image, probabilities, gaussian=(3, same[0]), bilateral=(30, 13, same[1]))
    np.testing.assert_allclose(matrix, potts, atol=1e-5)


def brute_force(features):
    squares = ((features[:, None] - features[None]) ** 2).sum(-1)
    return np.exp(-squares / 2)


@pytest.mark.parametrize("widths", [(3.0, 3.0), (12.0, 12.0, 20.0, 20.0, 20.0)])
def test_the_lattice_filters_like_a_gaussian(widths):
    """Within the lattice's error: some percent of a smooth signal, symmetrically normalised."""
    image, signal = photo(24, 30), scores(2, 24, 30)[0].ravel()
    vertices = np.empty((signal.size, len(widths) + 1), np.int32)
    weights = np.empty(vertices.shape, np.float32)
    lattice = build(image, widths, 1, vertices, weights, 0)
    table, blurred = simd.zeros(lattice.last + 1), simd.zeros(lattice.last + 1)
    np.add.at(table, vertices, weights * signal[:, None])
    blur(table, blurred, lattice, np.ones(1, np.float32), simd.LANES[1], 1)
    ours = (weights * blurred[vertices]).sum(1)
    y, x = np.mgrid[:24, :30]
    features = np.stack([x.ravel(), y.ravel(), *image.reshape(-1, 3).T], 1)[:, : len(widths)] / widths
    kernel = brute_force(features)
    norm = 1 / np.sqrt(kernel.sum(1))
    exact = norm * (kernel @ (norm * signal))
    assert np.corrcoef(ours, exact)[0, 1] > 0.97
    assert np.abs(ours - exact).mean() < 0.05 * exact.mean()


@pytest.mark.parametrize("widths", [(3.0, 3.0), (12.0, 12.0, 20.0, 20.0, 20.0)])
def test_weights_lie_on_vertices_of_the_lattice(widths):
    image = photo(40, 30)
    vertices = np.full((1200, len(widths) + 1), -1, np.int32)
    weights = np.empty(vertices.shape, np.float32)
    lattice = build(image, widths, 7, vertices, weights, 0)
    assert (vertices.min(), vertices.max()) == (7, lattice.last)
    assert weights.min() > -1e-6
    before, after = lattice.neighbours[..., 0], lattice.neighbours[..., 1]
    for axis in range(len(widths) + 1):
        has = np.flatnonzero(after[axis])
        assert np.array_equal(before[axis, after[axis, has] - 7], has + 7)


def test_exp_is_exact_and_flushed():
    @simd.jit
    def run(values, out, lanes):
        for i in range(0, values.size, len(lanes)):
            simd.store(out, i, simd.exp(simd.load(values, i, lanes), np.float32(-20)))

    values = np.linspace(-25, 0, 8000, dtype=np.float32)
    out = np.empty_like(values)
    run(values, out, simd.LANES[8])
    assert not out[values <= -20].any()
    kept = values > -20
    np.testing.assert_allclose(out[kept], np.exp(values[kept].astype(np.float64)), rtol=3e-7)


# Properties


@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(1, 12),
    st.floats(0.5, 100),
    st.floats(1, 100),
    st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_probabilities_sum_to_one(height, width, labels, sigma, colour, seed):
    image, probabilities = photo(height, width, seed), scores(labels, height, width, seed)
    refined = dense_crf(image, probabilities, bilateral=(sigma, colour, 10), steps=3)
    assert refined.shape == probabilities.shape
    assert refined.dtype == np.float32
    assert refined.min() >= 0
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


@given(st.permutations(range(6)), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_a_permutation_of_labels_permutes_the_result(order, seed):
    image, probabilities = photo(30, 40, seed), scores(6, 30, 40, seed)
    refined = dense_crf(image, probabilities, steps=5)
    np.testing.assert_allclose(dense_crf(image, probabilities[order], steps=5), refined[order], atol=1e-4)


@given(st.integers(1, 10), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_no_compatibility_returns_the_softmax_of_the_unary(labels, seed):
    image, probabilities = photo(20, 30, seed), np.maximum(scores(labels, 20, 30, seed), np.float32(1e-5))
    for kernels in ({"gaussian": (3, 0), "bilateral": (80, 13, 0)}, {"gaussian": None, "bilateral": None}):
        refined = dense_crf(image, probabilities, **kernels)
        np.testing.assert_allclose(refined, probabilities / probabilities.sum(0), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_mirrored_image_gives_nearly_the_mirrored_result(seed):
    """Nearly: the lattice's origin is the upper left corner."""
    image, probabilities = photo(60, 80, seed), scores(3, 60, 80, seed)
    kernels = {"gaussian": (3, 3), "bilateral": (20, 13, 5)}
    refined = dense_crf(image, probabilities, **kernels)
    mirrored = dense_crf(image[:, ::-1], probabilities[:, :, ::-1], **kernels)[:, :, ::-1]
    assert np.abs(mirrored - refined).mean() < 0.05
    assert (mirrored.argmax(0) == refined.argmax(0)).mean() > 0.95


def test_no_steps_return_the_input():
    probabilities = scores(3, 20, 30)
    np.testing.assert_allclose(dense_crf(photo(20, 30), probabilities, steps=0), probabilities, atol=2e-5)


def test_absent_labels_stay_out():
    image, probabilities = photo(40, 50), np.zeros((30, 40, 50), np.float32)
    probabilities[[2, 17]] = scores(2, 40, 50)
    refined = dense_crf(image, probabilities)
    np.testing.assert_array_equal(refined[[2, 17]], dense_crf(image, probabilities[[2, 17]]))
    assert not np.delete(refined, [2, 17], axis=0).any()


def test_tolerance_stops_when_nothing_changes():
    image, probabilities = photo(40, 50), scores(3, 40, 50)
    long = dense_crf(image, probabilities, steps=100)
    np.testing.assert_allclose(dense_crf(image, probabilities, steps=100, tolerance=1e-5), long, atol=1e-3)
    one = dense_crf(image, probabilities, steps=1)
    np.testing.assert_array_equal(dense_crf(image, probabilities, steps=100, tolerance=2), one)


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (3, 80)])
def test_a_larger_image_is_refined_at_a_smaller_side(size, monkeypatch):
    """An enlarged image gets the labels of the one that it was made from, and no lattice of it is built."""
    image, probabilities = photo(*size), scores(3, *size)
    small = dense_crf(image, probabilities, bilateral=(20, 13, 10))
    np.testing.assert_array_equal(dense_crf(image, probabilities, bilateral=(20, 13, 10), side=80), small)
    large, likely = image.repeat(4, 0).repeat(4, 1), probabilities.repeat(4, 1).repeat(4, 2)
    pixels = []
    monkeypatch.setattr(dense, "build", lambda image, *rest: pixels.append(image.shape[:2]) or build(image, *rest))
    refined = dense_crf(large, likely, bilateral=(20, 13, 10), side=80)
    assert refined.shape == likely.shape
    assert {*pixels} <= {size}
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)
    assert (refined.argmax(0) == small.argmax(0).repeat(4, 0).repeat(4, 1)).mean() > 0.97


# Manners


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_tiny_images(size):
    image, probabilities = photo(*size), scores(3, *size)
    np.testing.assert_allclose(dense_crf(image, probabilities).sum(0), 1, atol=1e-5)


def test_a_constant_image_and_certain_labels():
    probabilities = np.zeros((3, 40, 50), np.float32)
    probabilities[0, :, :25] = probabilities[1, :, 25:] = 1
    refined = dense_crf(np.full((40, 50, 3), 255, np.uint8), probabilities)
    assert np.isfinite(refined).all()
    assert not refined[2].any()
    assert set(np.unique(refined.argmax(0))) <= {0, 1}


def test_any_order_and_float_type():
    image, probabilities = photo(30, 41), scores(3, 30, 41)
    refined = dense_crf(image, probabilities)
    np.testing.assert_array_equal(dense_crf(np.asfortranarray(image), np.asfortranarray(probabilities)), refined)
    np.testing.assert_array_equal(dense_crf(image, probabilities.astype(np.float64)), refined)
    image.flags.writeable = probabilities.flags.writeable = False
    np.testing.assert_array_equal(dense_crf(image, probabilities), refined)


def test_the_arguments_stay_as_they_were():
    image, probabilities = photo(30, 41), scores(3, 30, 41)
    copies = image.copy(), probabilities.copy()
    dense_crf(image, probabilities)
    np.testing.assert_array_equal(image, copies[0])
    np.testing.assert_array_equal(probabilities, copies[1])


def test_hundreds_of_labels():
    refined = dense_crf(photo(30, 40), scores(300, 30, 40), steps=3)
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


GOOD = (np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), 0.5, np.float32))


@pytest.mark.parametrize(
    ("image", "probabilities", "options", "message"),
    [
        (GOOD[0].astype(np.float32), GOOD[1], {}, "uint8"),
        (GOOD[0][..., 0], GOOD[1], {}, "H x W x 3"),
        (GOOD[0], GOOD[1][:, :3], {}, "C x H x W"),
        (GOOD[0], GOOD[1][0], {}, "C x H x W"),
        (GOOD[0], np.full((2, 4, 5), np.nan, np.float32), {}, "NaN"),
        (GOOD[0], GOOD[1] * 10, {}, "between 0 and 1"),
        (GOOD[0], GOOD[1] - 1, {}, "between 0 and 1"),
        (GOOD[0], GOOD[1] * 0, {}, "no probability"),
        (GOOD[0], np.ones((2, 4, 5), int), {}, "floating"),
        (GOOD[0][:0], GOOD[1][:, :0], {}, "nothing"),
        (*GOOD, {"steps": -1}, "negative"),
        (*GOOD, {"side": 0}, "at least 1 pixel"),
        (*GOOD, {"side": 2.5}, "whole number"),
        (*GOOD, {"gaussian": (0, 3)}, "positive"),
        (*GOOD, {"bilateral": (80, float("nan"), 10)}, "positive"),
        (*GOOD, {"gaussian": (3, float("inf"))}, "finite"),
        (*GOOD, {"gaussian": (3, np.ones((3, 3)))}, "2 x 2"),
        (*GOOD, {"gaussian": (1e-5, 3)}, "too small"),
        (*GOOD, {"bilateral": (80, 1e-3, 10)}, "too small"),
        (*GOOD, {"gaussian": (3,)}, r"gaussian must be \(sigma, compatibility\) or None, not \(3,\)"),
        (*GOOD, {"gaussian": (3, 3, 3)}, "gaussian must be"),
        (*GOOD, {"gaussian": 3}, "gaussian must be"),
        (*GOOD, {"gaussian": "33"}, "gaussian must be"),
        (*GOOD, {"bilateral": (80, 13)}, "bilateral must be"),
        (*GOOD, {"bilateral": (80, "x", 10)}, "a width of bilateral must be a number, not 'x'"),
        (*GOOD, {"bilateral": (80, None, 10)}, "a width of bilateral must be a number"),
        (*GOOD, {"gaussian": (3, "x")}, "compatibility of gaussian must be a finite number or a matrix"),
        (*GOOD, {"gaussian": (3, [[0, 1], [1]])}, "compatibility of gaussian"),
        (*GOOD, {"gaussian": (3, 1j)}, "compatibility of gaussian"),
        (*GOOD, {"steps": 2.5}, "steps must be a whole number, not 2.5"),
        (*GOOD, {"steps": "5"}, "steps must be a whole number"),
        (*GOOD, {"tolerance": None}, "tolerance must be a number"),
        (
            GOOD[0],
            torch.tensor(GOOD[1], requires_grad=True),
            {},
            r"probabilities cannot be an array .*give .detach\(\)",
        ),
    ],
)
def test_bad_input_is_refused(image, probabilities, options, message):
    with pytest.raises(UserError, match=message):
        dense_crf(image, probabilities, **options)


def test_what_stands_for_tuples_and_arrays_is_taken():
    wanted = dense_crf(*GOOD, gaussian=(3, 2), steps=3)
    given = dense_crf(
        torch.tensor(GOOD[0]),
        torch.tensor(GOOD[1]),
        gaussian=np.array([3, 2]),
        bilateral=[80, 13, 10],
        steps=np.int64(3),
    )
    np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize("bilateral", [(0.05, 1, 10), (1e30, 1e30, 10), (80, 0.5, 10), (1, 1, 1)])
def test_extreme_widths_are_right(bilateral):
    image, probabilities = photo(30, 40), scores(3, 30, 40)
    refined = dense_crf(image, probabilities, bilateral=bilateral)
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)
    assert_agrees(refined, reference(image, probabilities, (3, 3), bilateral, 10))


def test_a_large_photo_has_more_vertices_than_the_first_table():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)
    probabilities = scores(2, 300, 400)
    refined = dense_crf(image, probabilities, gaussian=None, bilateral=(20, 10, 5), steps=2)
    assert_agrees(refined, reference(image, probabilities, None, (20, 10, 5), 2))


# Many images, compilation


def test_many_images_come_in_order_and_few_at_once():
    taken = []

    def pairs():
        for seed in range(9):
            taken.append(seed)
            yield photo(20, 30, seed), scores(3, 20, 30, seed)

    results = dense_crf_many(pairs(), workers=2, steps=2)
    for seed, refined in enumerate(results):
        assert len(taken) <= seed + 4
        np.testing.assert_array_equal(refined, dense_crf(photo(20, 30, seed), scores(3, 20, 30, seed), steps=2))
    assert seed == 8


def test_an_error_in_one_of_many_is_raised():
    pairs = [(photo(20, 30), scores(3, 20, 30)), (photo(20, 30), scores(3, 20, 31))]
    results = dense_crf_many(pairs, workers=1)
    next(results)
    with pytest.raises(UserError):
        next(results)


def test_compiled_code_is_found_by_the_next_process(tmp_path):
    code = "from tag2mask.crf import prepare; print(prepare())"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = [
        float(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
        for _ in range(2)
    ]
    assert second < 0.3 * first
    assert prepare() < 0.3 * first
