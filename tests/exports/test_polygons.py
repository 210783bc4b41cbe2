"""Components, run lengths and polygons against pycocotools' and matplotlib's own drawing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path
from pycocotools import mask as rle

from tag2mask.exports.polygons import AGREEMENT, Component, components, draw, polygon, run_lengths

MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255]))
)


def in_mask(component, shape):
    full = np.zeros(shape, np.uint8, order="F")
    rows, columns = component.inside.shape
    full[component.top : component.top + rows, component.left : component.left + columns] = component.inside
    return full


def matplotlib_drawing(corners, shape):
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel(), rows.ravel()], 1) + 0.5
    return Path(np.vstack([corners, corners[:1]])).contains_points(centres).reshape(shape)


def coco_drawing(corners, shape):
    return rle.decode(rle.frPyObjects([corners.ravel().tolist()], *shape))[..., 0] > 0


def iou(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_components_and_exact_polygons_give_the_mask_back(mask):
    back = np.zeros_like(mask)
    for component in components(mask):
        wanted = in_mask(component, mask.shape)
        corners = polygon(component, tolerance=0)
        assert (draw(corners, *mask.shape) == wanted).all()
        assert (matplotlib_drawing(corners, mask.shape) == wanted).all()
        assert (coco_drawing(corners, mask.shape) == wanted).all()
        assert (back[wanted > 0] == 0).all()
        back[wanted > 0] = component.label
    assert (back == np.where(mask == 255, 0, mask)).all()


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_run_lengths_are_those_of_pycocotools(mask):
    for component in components(mask):
        counts = run_lengths(component, *mask.shape)
        packed = rle.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape)
        assert packed == rle.encode(in_mask(component, mask.shape))


@given(MASKS, st.floats(0, 5))
@settings(max_examples=100, deadline=None)
def test_a_simplified_polygon_agrees_with_its_component(mask, tolerance):
    for component in components(mask):
        drawn = draw(polygon(component, tolerance), *mask.shape)
        assert iou(drawn, in_mask(component, mask.shape) > 0) >= AGREEMENT


def blob(height=180, width=240, hole=True):
    """Return an ellipse with a wavy border and two round holes."""
    rows, columns = np.indices((height, width))
    y, x = rows - height / 2 + 0.3, columns - width / 2 + 0.8
    radius = np.hypot(y / 70, x / 95) * (1 + 0.1 * np.sin(5 * np.arctan2(y, x)))
    inside = radius < 1
    if hole:
        inside &= np.hypot(y - 10, x - 35) > 15
        inside &= np.hypot(y + 15, x + 25) > 22
    return inside.astype(np.uint8)


@pytest.mark.parametrize("hole", [False, True])
def test_smooth_shapes_need_few_corners_and_lose_little(hole):
    mask = blob(hole=hole)
    (component,) = components(mask)
    exact, simple = polygon(component, 0), polygon(component)
    assert len(simple) < 0.5 * len(exact)
    for drawing in (coco_drawing, matplotlib_drawing):
        assert iou(drawing(simple, mask.shape), mask > 0) > 0.99


def test_a_ring_by_hand():
    """The hole's leftmost corner (1.5, 2) or (2, 1.5) is joined to the outline's left side, both ways."""
    mask = np.ones((3, 3), np.uint8)
    mask[1, 1] = 0
    (component,) = components(mask)
    corners = polygon(component, 0).tolist()
    outline = [[0, 0.5], [0.5, 0], [2.5, 0], [3, 0.5], [3, 2.5], [2.5, 3], [0.5, 3], [0, 2.5]]
    hole = [[1, 1.5], [1.5, 1], [2, 1.5], [1.5, 2]]
    assert {tuple(corner) for corner in corners} == {tuple(corner) for corner in [*outline, *hole, [0, 1.5]]}
    assert corners.count([0, 1.5]) == corners.count([1, 1.5]) == 2
    assert len(corners) == len(outline) + len(hole) + 3


def test_many_holes_in_one_piece():
    mask = np.ones((41, 61), np.uint8)
    mask[2::4, 2::4] = 0
    mask[7:9, 7:30] = 255
    (component,) = components(mask)
    assert (draw(polygon(component), *mask.shape) == (mask == 1)).mean() > 0.99
    assert (coco_drawing(polygon(component, 0), mask.shape) == (mask == 1)).all()


def test_components_hang_together_by_edges_and_small_ones_are_left_out():
    mask = np.array([[1, 1, 0, 2], [0, 0, 1, 255], [2, 2, 1, 255]], np.uint8)
    found = [(one.label, one.top, one.left, int(one.inside.sum())) for one in components(mask)]
    assert found == [(1, 0, 0, 2), (1, 1, 2, 2), (2, 0, 3, 1), (2, 2, 0, 2)]
    assert [one.label for one in components(mask, min_area=2)] == [1, 1, 2]


def test_a_line_one_pixel_wide_stays():
    mask = np.zeros((20, 20), np.uint8)
    mask[3:17, 5] = mask[16, 5:18] = 1
    (component,) = components(mask)
    assert (draw(polygon(component, 3), 20, 20) == (mask == 1)).all()


def test_a_full_mask_has_runs_over_whole_columns():
    assert run_lengths(Component(1, 0, 0, np.ones((3, 4), bool)), 3, 4) == [0, 12]
    assert run_lengths(Component(1, 0, 1, np.ones((3, 2), bool)), 3, 4) == [3, 6, 3]
