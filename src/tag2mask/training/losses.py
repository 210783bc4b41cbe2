"""Losses: those that grow a segmentation from seeds, SEC (Kolesnikov and Lampert 2016), DSRG (Huang et al. 2018); Dice.

Seeds are masks in which 255 stands for what is not known. Pure functions on tensors; f is the network's
probability of a class at a position, n the number of positions, C(X) the classes of the photo's tags.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from tag2mask.crf import dense_crf_many
from tag2mask.names import IGNORE, Teaching
from tag2mask.resize import masks_like, resize

FLOOR = 1e-4
"""Added to every probability before they are normalised again, as SEC's authors do: no logarithm is infinite."""

MAP = 41 * 41
"""Positions of the map for which SEC's decays and `SHRINK` are given."""

SHRINK = 12.0
"""SEC divides the CRF's distances in pixels by this, for a CRF on a map of 41 x 41 instead of the photo."""


def seeded_loss(method: str, logits: Tensor, images: Tensor, masks: Tensor, present: Tensor) -> Tensor:
    r"""Return $L_{seed} + L_{expand} + L_{constrain}$ (``sec``) or $L_{seed} + L_{boundary}$ (``dsrg``).

    DSRG's boundary loss is SEC's constraint. Its seeds are grown first, from the same start in every step, where the
    refined probabilities are large, as in the code of its authors (``DSRGLayer``).

    Args:
        method: ``sec`` or ``dsrg``.
        logits: float N x (C + 1) x h x w, of whole photos.
        images: N x 3 x H x W, RGB, 0..255.
        masks: uint8 N x H x W, the seeds; the nearest pixel counts at each position of the logits.
        present: float N x C of zeros and ones, the image-level labels.

    Returns:
        The loss, one number.
    """
    probabilities = logits.softmax(1) + FLOOR
    probabilities = probabilities / probabilities.sum(1, keepdim=True)
    seeds = masks_like(masks, logits)
    refined = refine(images, probabilities)
    constrain = constrain_loss(probabilities, refined)
    if method == Teaching.SEC:
        return seed_loss(probabilities, seeds) + expand_loss(probabilities, present) + constrain
    return balanced_seed_loss(probabilities, grow_seeds(refined, seeds, present)) + constrain


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    r"""Return the Dice loss (Milletari et al. 2016), in which a small object weighs as much as a large one:

    $1 - \frac{1}{|C|} \sum_{c \in C} \frac{2 \sum_u f_{u,c} t_{u,c}}{\sum_u f_{u,c} + t_{u,c}}$

    C are the classes, background among them, that the mask of a photo has; t is 1 where it has class c, u known. The
    mean over photos, each counted as often as it has known positions.

    Args:
        logits: float N x (C + 1) x h x w.
        targets: int N x h x w, 255 for what is not known.
    """
    known = (targets != IGNORE).float()
    found = logits.softmax(1) * known[:, None]
    true = functional.one_hot(targets.masked_fill(targets == IGNORE, 0), found.shape[1]).movedim(-1, 1) * known[:, None]
    in_both, in_mask, area = (one.sum((2, 3)) for one in (found * true, true, found + true))
    present = in_mask > 0
    share = (2 * in_both / area.clamp_min(FLOOR) * present).sum(1) / present.sum(1).clamp_min(1)
    counted = known.sum((1, 2))
    return ((1 - share) * counted).sum() / counted.sum().clamp_min(1)


def seed_loss(probabilities: Tensor, seeds: Tensor) -> Tensor:
    r"""Return SEC's seeding loss, the mean over images of

    $L_{seed} = -\frac{1}{\sum_c |S_c|} \sum_c \sum_{u \in S_c} \log f_{u,c}$, c over C(X) and background.

    Args:
        probabilities: float N x K x h x w, above 0.
        seeds: int N x h x w, 0..K-1 or 255.
    """
    return _mean_where(_surprise(probabilities, seeds), seeds != IGNORE)


def balanced_seed_loss(probabilities: Tensor, seeds: Tensor) -> Tensor:
    r"""Return DSRG's balanced seeding loss: foreground and background each by their own number,

    $-\frac{1}{\sum_{c \ne 0} |S_c|} \sum_{c \ne 0} \sum_{u \in S_c} \log f_{u,c}
    - \frac{1}{|S_0|} \sum_{u \in S_0} \log f_{u,0}$, the mean over images.

    Args:
        probabilities: float N x K x h x w, above 0.
        seeds: int N x h x w, 0..K-1 or 255.
    """
    surprise = _surprise(probabilities, seeds)
    return _mean_where(surprise, (seeds != IGNORE) & (seeds != 0)) + _mean_where(surprise, seeds == 0)


def rank_pooling(scores: Tensor, decay: float) -> Tensor:
    r"""Return the global weighted rank pooling of each map (SEC), between its maximum and its mean.

    $G(f; d) = \sum_{j=1}^n d^{j-1} f_{(j)} \big/ \sum_{j=1}^n d^{j-1}$ with $f_{(1)} \ge f_{(2)} \ge \dots$

    Args:
        scores: float N x C x h x w.
        decay: d; 0 gives the maximum, 1 the mean.

    Returns:
        float N x C.

    >>> rank_pooling(torch.tensor([[[[1.0, 4.0]]]]), 0.5)
    tensor([[3.]])
    """
    ranked = scores.flatten(2).sort(2, descending=True).values
    weights = torch.tensor(decay, device=scores.device) ** torch.arange(ranked.shape[2], device=scores.device)
    return (ranked * (weights / weights.sum())).sum(2)


def expand_loss(
    probabilities: Tensor,
    present: Tensor,
    decays: tuple[float, float, float] = (0.996, 0.0, 0.999),
) -> Tensor:
    r"""Return SEC's expansion loss, the mean over images of

    $-\frac{1}{|C(X)|} \sum_{c \in C(X)} \log G_c(d_+) - \frac{1}{|\bar C(X)|} \sum_{c \notin C(X)}
    \log(1 - G_c(d_-)) - \log G_0(d_0)$.

    Args:
        probabilities: float N x (C + 1) x h x w, above 0 and below 1.
        present: float N x C of zeros and ones.
        decays: $d_+, d_-, d_0$ of classes present, absent, and background, on a map of 41 x 41. On one of n
            positions $d^{1681 / n}$ is used (ours), so that the same share of them carries the same weight.
    """
    power = MAP / probabilities[0, 0].numel()
    foreground, background = probabilities[:, 1:], probabilities[:, :1]
    found, ruled_out, behind = (
        rank_pooling(maps, decay**power)
        for maps, decay in zip((foreground, foreground, background), decays, strict=True)
    )
    wanted = _mean_where(-found.log(), present > 0)
    unwanted = _mean_where(-torch.log1p(-ruled_out), present == 0)
    return wanted + unwanted - behind.log().mean()


def constrain_loss(probabilities: Tensor, refined: Tensor) -> Tensor:
    r"""Return SEC's constraint, the mean over images of

    $L_{constrain} = \frac1n \sum_u \sum_c Q_{u,c} \log (Q_{u,c} / f_{u,c})$

    Args:
        probabilities: float N x K x h x w, f, above 0.
        refined: float N x K x h x w, Q, what the CRF makes of them; taken as constant (the
            code of SEC's authors also sends a gradient through the CRF).
    """
    divergence = functional.kl_div(probabilities.log(), refined.detach(), reduction="none")
    return divergence.sum(1).mean()


def refine(images: Tensor, probabilities: Tensor) -> Tensor:
    r"""Return what the dense CRF makes of probabilities at their own size, on images shrunk to it.

    SEC's parameters: Gaussian (3 / 12 pixels, 3), bilateral (80 / 12 pixels, 13 colour levels, 10), 10 steps, on a map
    of 41 x 41. On one of n positions the pixels are multiplied by $\sqrt{n / 1681}$ (ours), so that they are the same
    share of the photo.

    Args:
        images: N x 3 x H x W, RGB, 0..255.
        probabilities: float N x K x h x w.

    Returns:
        float N x K x h x w, without gradient.
    """
    size = probabilities.shape[2:]
    shrink = SHRINK * math.sqrt(MAP / size.numel())
    small = resize(images.cpu().float(), size, antialias=True)
    pixels = small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    refined = dense_crf_many(
        zip(pixels, probabilities.detach().cpu().numpy(), strict=True),
        gaussian=(3 / shrink, 3),
        bilateral=(80 / shrink, 13, 10),
        steps=10,
    )
    return torch.from_numpy(np.stack(list(refined))).to(probabilities.device)


def grow_seeds(
    probabilities: Tensor, seeds: Tensor, present: Tensor, foreground: float = 0.85, background: float = 0.99
) -> Tensor:
    r"""Grow seeds into what is not known (DSRG's seeded region growing).

    A position of unknown class that touches a region of class c, with 8 neighbours, joins it where
    $Q_{u,c} \ge \theta_c$ ($\theta_0$ for background), until none is left. Above one half, no two can claim it.

    Args:
        probabilities: float N x (C + 1) x h x w, Q, refined by `refine`.
        seeds: int N x h x w, 0..C or 255.
        present: float N x C of zeros and ones; other classes do not grow.
        foreground: $\theta_c$ of the classes, above 0.5.
        background: $\theta_0$, above 0.5.

    Returns:
        int N x h x w, ``seeds`` with some of the 255 filled in.
    """
    grown = seeds.cpu().numpy().copy()
    likely = probabilities.detach().cpu().numpy()
    for mask, maps, labels in zip(grown, likely, present.cpu().numpy(), strict=True):
        unknown = mask == IGNORE
        for label in (0, *(1 + np.flatnonzero(labels))):
            start = mask == label
            joining = unknown & (maps[label] >= (foreground if label else background))
            regions, _ = ndimage.label(start | joining, np.ones((3, 3)))
            mask[np.isin(regions, np.unique(regions[start]))] = label
    return torch.from_numpy(grown).to(seeds.device)


def _surprise(probabilities: Tensor, seeds: Tensor) -> Tensor:
    """Return -log f at each position's seed, N x h x w; whatever where there is none."""
    index = seeds.masked_fill(seeds == IGNORE, 0)[:, None]
    return -probabilities.gather(1, index)[:, 0].log()


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean over images of each image's mean where asked for; an image with none counts as 0."""
    values, where = values.flatten(1), where.flatten(1)
    return (values.masked_fill(~where, 0).sum(1) / where.sum(1).clamp_min(1)).mean()
