"""The leading eigenvector of a covariance, oriented (Eq. 2), and the scores along it (Eq. 3). Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from scipy.special import softmax
from torch import Tensor

from tag2mask.patterns.moments import Moments
from tag2mask.patterns.orientation import log_odds

WHITENED, TEMPERATURE = 2, 0.6
"""Candidates that whitening gives, and of the softmax over what speaks for all candidates."""


@dataclass
class Pattern:
    """One class's pattern.

    Attributes:
        mean: float32 D, the subset's mean descriptor.
        direction: float32 D, unit length, pointing to the class.
        spectrum: float32, variances of the subset along the direction and those that come after it; the leading
            eigenvalues of the covariance where there is neither contrast nor whitening.
        variance: the covariance's trace.
        evidence: float32 E, correlations after orientation (see `EVIDENCE`).
        confidence: that the direction points to the class, 0.5 to 1, as the evidence has it.
    """

    mean: Tensor
    direction: Tensor
    spectrum: Tensor
    variance: float
    evidence: Tensor
    confidence: float


def find_pattern(
    moments: Moments,
    components: int,
    rest: Moments | None = None,
    *,
    contrast: float = 0.0,
    whitening: float = 0.0,
    trust: float = 1.0,
) -> Pattern:
    r"""Return a class's pattern: the leading eigenvector of the covariance (Eq. 2), oriented.

    With contrast (ours) it is that of $\Sigma_c - \gamma \Sigma_{\bar c}$: what varies as much where the class is
    not, as much of the background does, loses against what varies with the class alone.

    With whitening (ours) the two leading solutions of $\Sigma_c v = \lambda (\Sigma_{\bar c} + r \frac{\mathrm{tr}
    \Sigma_{\bar c}}{D} I) v$ are candidates too: they vary more with the class than without it. Where photos with and
    without the class show the same world, as those of sound and of damaged parts do, they are what the latter lack; the
    leading eigenvector is then what all of them show. The pattern is the mean of the oriented candidates, each in
    standard deviations of its scores, weighted by the softmax of what speaks for them over `TEMPERATURE`: the log-odds
    of the sign, plus the logarithm of the variance with the class over that without it.

    The sign is the one for which the evidence, correlations of the scores weighted as in `WEIGHTS`, is positive.

    $\rho = \xi^T \big(\sum_u e_u t_u\big) / \sqrt{K \lambda \, \sum_u e_u^2}$

    Args:
        moments: of the semantic subset.
        components: how many eigenvalues to keep.
        rest: of photos without the class, for contrast and whitening.
        contrast: gamma.
        whitening: r; 0 for no such candidate.
        trust: in the class activation, 0 to 1 (`trust_in_classifier`), which its correlation is multiplied by.
    """
    covariance = (moments.scatter.double() / moments.count).cpu().numpy()
    if rest is None or not rest.count:
        _, vectors = leading_eigenpairs(covariance, components)
        return _oriented(moments, covariance, vectors, trust)
    others = (rest.scatter.double() / rest.count).cpu().numpy()
    _, vectors = leading_eigenpairs(covariance - contrast * others, components)
    noise = whitening * np.trace(others) / len(others)
    if not noise > 0:
        return _oriented(moments, covariance, vectors, trust)
    whitened = leading_generalised(covariance, others + noise * np.eye(len(others)), WHITENED)
    found = [_oriented(moments, covariance, one[:, None], trust) for one in (vectors[:, 0], *whitened.T)]
    weights = softmax([_credit(one, others) / TEMPERATURE for one in found])
    blend = sum(
        weight * one.direction.double().numpy() / max(float(one.spectrum[0]), 1e-12) ** 0.5
        for weight, one in zip(weights, found, strict=True)
    )
    blended = np.concatenate([(blend / np.linalg.norm(blend))[:, None], vectors[:, 1:]], 1)
    return _oriented(moments, covariance, blended, trust)


def _oriented(moments: Moments, covariance: np.ndarray, vectors: np.ndarray, trust: float) -> Pattern:
    """Return the pattern that is the first of some directions, D x k."""
    values = (vectors * (covariance @ vectors)).sum(0)
    direction = torch.from_numpy(vectors[:, 0].copy())
    norm = (moments.energy.cpu() * max(values[0], 0.0) * moments.count).sqrt()
    evidence = torch.nan_to_num(moments.cross.cpu() @ direction / norm, nan=0.0, posinf=0.0, neginf=0.0)
    evidence[0] *= trust
    odds = float(log_odds(evidence))
    sign = -1.0 if odds < 0 else 1.0
    return Pattern(
        moments.mean.float().cpu(),
        (sign * direction).float(),
        torch.from_numpy(values.copy()).float(),
        float(np.trace(covariance)),
        (sign * evidence + 0.0).float(),  # what is unknown is 0, not -0
        float(torch.tensor(abs(odds)).sigmoid()),
    )


def _credit(found: Pattern, others: np.ndarray) -> float:
    """Return what speaks for a candidate, given the covariance of photos without the class."""
    along = found.direction.double().numpy()
    ratio = float(found.spectrum[0]) / max(float(along @ others @ along), 1e-12)
    return float(log_odds(found.evidence)) + float(np.log(max(ratio, 1e-12)))


def leading_generalised(covariance: np.ndarray, noise: np.ndarray, count: int) -> np.ndarray:
    """Return unit vectors as columns that solve S v = l N v, those of the largest l first.

    Args:
        covariance: S, float64 D x D, symmetric.
        noise: N, float64 D x D, positive definite.
        count: how many; at most D are returned.
    """
    size = len(covariance)
    _, vectors = eigh(covariance, noise, subset_by_index=[max(0, size - count), size - 1])
    return vectors[:, ::-1] / np.linalg.norm(vectors, axis=0)[::-1]


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
        try:
            values, vectors = eigsh(covariance, count, which="LA", v0=np.ones(size))
        except ArpackNoConvergence:  # of a covariance of low rank, as that of maps of one position
            values, vectors = eigh(covariance)
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
