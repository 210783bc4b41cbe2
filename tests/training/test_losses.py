"""Losses on seeds: small cases by hand, region growing against a plain search, and a segmenter that learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tag2mask.crf import dense_crf
from tag2mask.names import IGNORE
from tag2mask.training.losses import (
    FLOOR,
    balanced_seed_loss,
    constrain_loss,
    dice_loss,
    expand_loss,
    grow_seeds,
    rank_pooling,
    refine,
    seed_loss,
    seeded_loss,
)

ALL = 255


def maps(*rows):
    """Return one image's probabilities, 1 x K x 1 x n, from a row a class."""
    return torch.tensor(rows, dtype=torch.float32)[None, :, None, :]


def seeds(*values):
    return torch.tensor(values)[None, None, :]


def random_maps(seed, classes=3, side=6, images=2):
    random = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(images, classes, side, side, generator=random)).softmax(1)


def test_dice_loss_by_hand():
    probabilities = torch.tensor([[[0.75, 0.5], [0.25, 0.5]], [[0.5, 0.5], [0.5, 0.5]]])[..., None]
    targets = torch.tensor([[[0], [1]], [[1], [IGNORE]]])
    first = 1 - (2 * 0.75 / (1.25 + 1) + 2 * 0.5 / (0.75 + 1)) / 2
    second = 1 - 2 * 0.5 / (0.5 + 1)  # of one known position, which is background's nowhere
    found = float(dice_loss(probabilities.log(), targets))
    assert found == pytest.approx((2 * first + second) / 3, abs=1e-6)


def test_dice_loss_is_nothing_where_masks_are_right_or_not_known():
    targets = torch.tensor([[[0, 2], [2, IGNORE]]])
    right = 50.0 * torch.nn.functional.one_hot(targets % 3, 3).movedim(-1, 1).float()
    assert float(dice_loss(right, targets)) == pytest.approx(0, abs=1e-6)
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    loss = dice_loss(logits, torch.full((1, 2, 2), IGNORE))
    loss.backward()
    assert float(loss) == 0
    assert not logits.grad.any()


def test_seed_loss_by_hand():
    f = maps([0.5, 0.1, 0.2, 0.9], [0.25, 0.8, 0.7, 0.05], [0.25, 0.1, 0.1, 0.05])
    assert seed_loss(f, seeds(0, 1, 1, ALL)).item() == pytest.approx(-math.log(0.5 * 0.8 * 0.7) / 3, rel=1e-5)
    wanted = -math.log(0.8 * 0.7) / 2 - math.log(0.5)
    assert balanced_seed_loss(f, seeds(0, 1, 1, ALL)).item() == pytest.approx(wanted, rel=1e-5)
    assert balanced_seed_loss(f, seeds(ALL, 1, 2, ALL)).item() == pytest.approx(-math.log(0.8 * 0.1) / 2, rel=1e-5)


@pytest.mark.parametrize("loss", [seed_loss, balanced_seed_loss])
def test_seed_losses_average_over_images_and_take_images_without_seeds(loss):
    f, one = random_maps(0), torch.full((2, 6, 6), ALL)
    one[0, 2:4, 1], one[0, 0, 0], one[1, 5, 5] = 1, 0, 2
    each = [loss(f[row : row + 1], one[row : row + 1]) for row in range(2)]
    torch.testing.assert_close(loss(f, one), (each[0] + each[1]) / 2)
    assert loss(f, torch.full((2, 6, 6), ALL)).item() == 0


def test_rank_pooling_by_hand():
    scores = torch.tensor([[[[0.2, 0.8], [0.4, 0.6]]]])
    wanted = (0.8 + 0.5 * 0.6 + 0.25 * 0.4 + 0.125 * 0.2) / 1.875
    assert rank_pooling(scores, 0.5).item() == pytest.approx(wanted)
    assert rank_pooling(scores, 0.0).item() == pytest.approx(0.8)
    assert rank_pooling(scores, 1.0).item() == pytest.approx(0.5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_rank_pooling_falls_from_the_maximum_to_the_mean(seed, first, second):
    scores = random_maps(seed)
    low, high = (rank_pooling(scores, decay) for decay in sorted([first, second]))
    assert (low >= high - 1e-6).all()
    assert (low <= scores.amax((2, 3)) + 1e-6).all()
    assert (high >= scores.mean((2, 3)) - 1e-6).all()


def test_half_of_the_weight_lies_on_a_tenth_of_the_published_map():
    """What SEC says of its decays: a tenth of the positions carries half of an object's weight."""
    scores = torch.zeros(1, 2, 41, 41)
    scores[0, :, :4] = 1
    assert rank_pooling(scores, 0.996)[0, 0].item() == pytest.approx(0.5, abs=0.03)


def test_expand_loss_by_hand():
    f = maps([0.5, 0.1], [0.3, 0.7], [0.2, 0.2])
    power = 41 * 41 / 2
    plus, zero = 0.996**power, 0.999**power
    found = (0.7 + plus * 0.3) / (1 + plus)
    behind = (0.5 + zero * 0.1) / (1 + zero)
    wanted = -math.log(found) - math.log(1 - 0.2) - math.log(behind)
    assert expand_loss(f, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(wanted, rel=1e-5)


def test_expand_loss_averages_classes_and_takes_photos_without_tags():
    f = maps([0.4, 0.4], [0.1, 0.1], [0.2, 0.2], [0.3, 0.3])
    both = -(math.log(0.1) + math.log(0.3)) / 2 - math.log(0.8) - math.log(0.4)
    assert expand_loss(f, torch.tensor([[1.0, 0.0, 1.0]])).item() == pytest.approx(both, rel=1e-5)
    none = -(math.log(0.9) + math.log(0.8) + math.log(0.7)) / 3 - math.log(0.4)
    assert expand_loss(f, torch.zeros(1, 3)).item() == pytest.approx(none, rel=1e-5)


def test_the_constraint_is_the_divergence_from_the_crf():
    f, refined = maps([0.5, 0.1], [0.5, 0.9]), maps([0.5, 0.0], [0.5, 1.0])
    assert constrain_loss(f, refined).item() == pytest.approx(-math.log(0.9) / 2, rel=1e-5)
    assert constrain_loss(f, f).item() == pytest.approx(0, abs=1e-7)


def test_the_constraints_gradient_reaches_the_network_alone():
    f, refined = random_maps(0).requires_grad_(), random_maps(1).requires_grad_()
    constrain_loss(f, refined).backward()
    assert refined.grad is None
    assert f.grad.abs().sum() > 0


@pytest.mark.parametrize("times", [1, 4])
def test_refining_is_the_crf_on_the_shrunk_image(times):
    """Distances in pixels are those of a map of 41 x 41, scaled to this one of 12 x 10."""
    rows, columns = np.mgrid[: 12 * times, : 10 * times] / times
    photo = np.stack([20 * rows, 25 * columns, 10 * (rows + columns)], 2).astype(np.uint8)
    small = np.asarray(Image.fromarray(photo).resize((10, 12), Image.Resampling.BILINEAR))
    f = (2 * torch.randn(1, 3, 12, 10)).softmax(1)
    scale = math.sqrt(12 * 10) / 41
    wanted = dense_crf(small, f[0].numpy(), gaussian=(3 / 12 * scale, 3), bilateral=(80 / 12 * scale, 13, 10), steps=10)
    found = refine(torch.from_numpy(photo.transpose(2, 0, 1).copy())[None], f.requires_grad_())
    assert not found.requires_grad
    assert (np.abs(found[0].numpy() - wanted) < 0.01).mean() > (0.999 if times == 1 else 0.95)
    np.testing.assert_allclose(found.sum(1).numpy(), 1, rtol=1e-4)


def test_regions_grow_by_hand():
    """The class creeps along a diagonal and a row; it stops at 0.8, at other seeds and where nothing touches."""
    disc = torch.tensor(
        [
            [0.10, 0.10, 0.10, 0.10, 0.90],
            [0.10, 0.90, 0.10, 0.10, 0.10],
            [0.10, 0.10, 0.86, 0.85, 0.80],
            [0.10, 0.10, 0.10, 0.90, 0.90],
            [0.90, 0.10, 0.10, 0.90, 0.90],
        ]
    )
    f = torch.stack([1 - disc, disc, torch.zeros(5, 5)])[None]
    start = torch.full((1, 5, 5), ALL)
    start[0, 0, 0], start[0, 3, 4] = 1, 0
    wanted = torch.tensor(
        [
            [1, ALL, ALL, ALL, ALL],
            [ALL, 1, ALL, ALL, ALL],
            [ALL, ALL, 1, 1, ALL],
            [ALL, ALL, ALL, 1, 0],
            [ALL, ALL, ALL, 1, 1],
        ]
    )[None]
    assert torch.equal(grow_seeds(f, start, torch.tensor([[1.0, 0.0]])), wanted)
    assert start[0, 1, 1] == ALL
    absent = grow_seeds(f, start, torch.tensor([[0.0, 1.0]]))
    assert torch.equal(absent, start)


def test_background_needs_more_to_grow():
    f = maps([0.995, 0.98, 0.995, 0.999], [0.005, 0.02, 0.005, 0.001])
    assert grow_seeds(f, seeds(0, ALL, ALL, ALL), torch.ones(1, 1)).flatten().tolist() == [0, ALL, ALL, ALL]
    grown = grow_seeds(f, seeds(0, ALL, ALL, ALL), torch.ones(1, 1), background=0.9)
    assert grown.flatten().tolist() == [0, 0, 0, 0]


def grown_one_by_one(f, start, present, foreground, background):
    """Seeded region growing as it is told: neighbours join, one at a time, until none does."""
    mask, side = start.clone(), len(start)
    changed = True
    while changed:
        changed = False
        for row, column in np.ndindex(side, side):
            label = int(mask[row, column])
            if label == ALL or (label and not present[label - 1]):
                continue
            for below, beside in np.ndindex(3, 3):
                r, c = row + below - 1, column + beside - 1
                inside = 0 <= r < side and 0 <= c < side and mask[r, c] == ALL
                if inside and f[label, r, c] >= (foreground if label else background):
                    mask[r, c], changed = label, True
    return mask


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.51, 0.99), st.floats(0.51, 0.99))
def test_growing_is_that_of_neighbours_joining_one_by_one(seed, foreground, background):
    f = random_maps(seed, images=1)
    random = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 3, (1, 6, 6), generator=random)
    start[torch.rand(1, 6, 6, generator=random) < 0.8] = ALL
    present = torch.randint(0, 2, (1, 2), generator=random)
    found = grow_seeds(f, start, present, foreground, background)
    assert torch.equal(found[0], grown_one_by_one(f[0], start[0], present[0], foreground, background))


@pytest.mark.parametrize("method", ["sec", "dsrg"])
def test_the_whole_loss_is_the_sum_of_its_parts(method):
    torch.manual_seed(1)
    logits = torch.randn(2, 3, 8, 8) * 3
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    small = torch.full((2, 8, 8), ALL)
    small[:, :2], small[0, 4:6, 4:6], small[1, 7] = 0, 1, 2
    masks = small.repeat_interleave(4, 1).repeat_interleave(4, 2).byte()
    present = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    f = (logits.softmax(1) + FLOOR) / (1 + 3 * FLOOR)
    refined = refine(images, f)
    constrain = constrain_loss(f, refined)
    assert not torch.equal(grow_seeds(refined, small, present), grow_seeds(f, small, present))
    wanted = {
        "sec": seed_loss(f, small) + expand_loss(f, present) + constrain,
        "dsrg": balanced_seed_loss(f, grow_seeds(refined, small, present)) + constrain,
    }
    torch.testing.assert_close(seeded_loss(method, logits, images, masks, present), wanted[method], rtol=1e-4, atol=0)


@pytest.mark.parametrize("method", ["sec", "dsrg"])
def test_a_saturated_network_still_learns(method):
    """Logits that are certain and wrong everywhere give a finite loss, and a step down lowers it."""
    logits = torch.full((1, 3, 8, 8), -40.0)
    logits[:, 2] = 40
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    value = seeded_loss(method, logits, images, masks, torch.tensor([[1.0, 0.0]]))
    assert torch.isfinite(value)
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    before = seeded_loss(method, logits, images, masks, torch.tensor([[1.0, 0.0]]))
    before.backward()
    with torch.no_grad():
        after = seeded_loss(method, logits - logits.grad, images, masks, torch.tensor([[1.0, 0.0]]))
    assert after < before


def test_refining_on_a_map_of_41_has_the_published_parameters(monkeypatch):
    asked = []
    crf = "tag2mask.training.losses.dense_crf_many"
    monkeypatch.setattr(crf, lambda pairs, **how: asked.append(how) or [f for _, f in pairs])
    for side in (41, 82):
        refine(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.full((1, 2, side, side), 0.5))
    assert asked[0] == {"gaussian": (3 / 12, 3), "bilateral": (80 / 12, 13, 10), "steps": 10}
    assert asked[1] == {"gaussian": (3 / 6, 3), "bilateral": (80 / 6, 13, 10), "steps": 10}
