"""The leading eigenvector of a covariance, oriented (Eq. 2), and the scores along it (Eq. 3). Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh
from torch import Tensor

from tag2mask.patterns.moments import Moments


@dataclass
class Pattern:
    """One class's pattern.

    Attributes:
        mean: float32 D, the subset's mean descriptor.
        direction: float32 D, unit length, pointing to the class.
        spectrum: float32, variances of the subset along the leading eigenvectors; without contrast these are the
            leading eigenvalues of the covariance.
        variance: the covariance's trace.
        evidence: float32 E, correlations (see `EVIDENCE`) after orientation; the first known one is >= 0.
    """

    mean: Tensor
    direction: Tensor
    spectrum: Tensor
    variance: float
    evidence: Tensor


def leading_pattern(moments: Moments, components: int, rest: Moments | None = None, contrast: float = 0.0) -> Pattern:
    r"""Return the oriented leading eigenvector of the covariance (Eq. 2).

    With contrast (ours) it is that of $\Sigma_c - \gamma \Sigma_{\bar c}$: what varies as much where the class is
    not, as much of the background does, loses against what varies with the class alone.

    The sign is that for which the scores correlate with the class activation; where that is unknown or
    exactly zero, with the centre prior.

    $\rho = \xi^T \big(\sum_u e_u t_u\big) / \sqrt{K \lambda \, \sum_u e_u^2}$

    Args:
        moments: of the semantic subset.
        components: how many eigenvalues to keep.
        rest: of photos without the class, for the contrast.
        contrast: gamma.
    """
    covariance = (moments.scatter.double() / moments.count).cpu().numpy()
    if rest is None or not rest.count:
        values, vectors = leading_eigenpairs(covariance, components)
    else:
        others = (rest.scatter.double() / rest.count).cpu().numpy()
        _, vectors = leading_eigenpairs(covariance - contrast * others, components)
        values = (vectors * (covariance @ vectors)).sum(0)
    direction = torch.from_numpy(vectors[:, 0].copy())
    norm = (moments.energy.cpu() * max(values[0], 0.0) * moments.count).sqrt()
    evidence = torch.nan_to_num(moments.cross.cpu() @ direction / norm, nan=0.0, posinf=0.0, neginf=0.0)
    known = evidence[evidence != 0]
    sign = -1.0 if len(known) and known[0] < 0 else 1.0
    return Pattern(
        moments.mean.float().cpu(),
        (sign * direction).float(),
        torch.from_numpy(values.copy()).float(),
        float(np.trace(covariance)),
        (sign * evidence + 0.0).float(),  # what is unknown is 0, not -0
    )


def leading_eigenpairs(covariance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues, descending, and their eigenvectors as columns.

    Args:
        covariance: float64 D x D, symmetric.
        count: how many; at most D are returned.
    """
    size = len(covariance)
    if count >= size - 1 or size <= 64 or not covariance.any():
        values, vectors = eigh(covariance)
    else:
        values, vectors = eigsh(covariance, count, which="LA", v0=np.ones(size))
    order = np.argsort(values)[::-1][:count]
    return values[order], vectors[:, order]


def score(features: Tensor, mean: Tensor, direction: Tensor) -> Tensor:
    r"""Return $q_c(u) = (t_u - \bar t_c)^T \xi_c$ (Eq. 3).

    Args:
        features: float N x D x h x w.
        mean: float C x D.
        direction: float C x D.

    Returns:
        float N x C x h x w.
    """
    projected = torch.einsum("ndhw,cd->nchw", features, direction)
    return projected - (mean * direction).sum(1)[None, :, None, None]
