"""Learning a segmentation from tags alone: expectation-maximisation with adaptive biases (Papandreou et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ROUNDS = 5
"""How often the biases of all classes are set in turn."""


def em_loss(logits: Tensor, present: Tensor) -> Tensor:
    r"""Return the loss of the M-step, $-\frac1M \sum_m \log P(\hat y_m \mid x; \theta)$ (Eq. 4), a mean over images.

    Args:
        logits: float N x (C + 1) x h x w, f.
        present: float N x C of zeros and ones, the image-level labels.
    """
    return functional.cross_entropy(logits, expected(logits.detach(), present))


def expected(scores: Tensor, present: Tensor, foreground: float = 0.2, background: float = 0.4) -> Tensor:
    r"""Return the segmentation of the E-step, EM-Adapt: $\hat y_m = \arg\max_l f_m(l) + b_l$ over the labels (Eq. 9).

    The biases $b_l \ge 0$ of an image are the smallest with which each of its classes wins at a share of
    $\rho_{fg}$ of the positions or more, and background at $\rho_{bg}$; they are set in turn, `ROUNDS` times, so that
    the shares are nearly these. Classes that are not in the labels win nowhere.

    Args:
        scores: float N x (C + 1) x h x w, f, background first.
        present: float N x C of zeros and ones.
        foreground: $\rho_{fg}$, 0..1.
        background: $\rho_{bg}$, 0..1.

    Returns:
        int N x h x w, 0..C.

    >>> scores = torch.tensor([[[[2.0, 1.5, 1.2, 1.1, 1.0]], [[0.0, 0.0, 0.0, 0.0, 0.0]], [[9.0] * 5]]])
    >>> expected(scores, torch.tensor([[1.0, 0.0]])).tolist()  # class 1 gets the fifth where it is least unlikely
    [[[0, 0, 0, 0, 1]]]
    """
    labels = torch.stack([_expected(*image, foreground, background) for image in zip(scores, present, strict=True)])
    return labels.view(len(scores), *scores.shape[2:])


def _expected(scores: Tensor, present: Tensor, foreground: float, background: float) -> Tensor:
    labels = torch.cat([torch.zeros(1, dtype=torch.long, device=scores.device), 1 + present.nonzero()[:, 0]])
    biased = scores[labels].flatten(1)
    for _ in range(ROUNDS if len(labels) > 1 else 0):
        for row, share in enumerate([background, *[foreground] * (len(labels) - 1)]):
            others = torch.cat([biased[:row], biased[row + 1 :]]).amax(0)
            behind = (others - biased[row]).sort().values
            least = behind[max(0, round(share * len(behind)) - 1)]
            biased[row] += (least + 1e-6).clamp_min(0) if least >= 0 else 0
    return labels[biased.argmax(0)]
