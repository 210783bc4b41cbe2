"""Moments of descriptors: count, mean and scatter, exact under any split of the data (Eqs. 1 and 2). Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.blas import ssyrk
from torch import Tensor

_BLOCK, _POSITIONS = 256, 1024
"""Rows of a matrix, and positions, that are worked on at a time."""


@dataclass
class Moments:
    r"""Count, mean and centred second moment of descriptors, exact under any split of the data.

    Attributes:
        count: K, the number of positions.
        mean: float64 D, $\bar t = \frac1K \sum_u t_u$ (Eq. 1).
        scatter: float D x D, $\sum_u (t_u - \bar t)(t_u - \bar t)^T$ (K times the covariance of Eq. 2); float32
            of one chunk of descriptors, float64 as soon as chunks are merged.
        cross: float64 E x D, $\sum_u e_u t_u$ for each evidence e, which sums to zero in each image.
        energy: float64 E, $\sum_u e_u^2$.
    """

    count: int
    mean: Tensor
    scatter: Tensor
    cross: Tensor
    energy: Tensor

    @classmethod
    def of(cls, descriptors: Tensor, evidence: Tensor) -> Moments:
        """Return the moments of some positions.

        Args:
            descriptors: float K x D.
            evidence: float E x K, each row of zero sum.
        """
        mean = _mean(descriptors)
        shift = mean.to(descriptors.dtype)
        scatter, cross = _products(descriptors, shift, evidence.to(descriptors.dtype))
        rest = (mean - shift).to(scatter.dtype)  # what rounding left of the mean
        scatter.addr_(rest, rest, alpha=-len(descriptors))
        return cls(len(descriptors), mean, scatter, cross.double(), evidence.double().square().sum(1))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of positions together (Chan, Golub and LeVeque 1979)."""
        return self.copy().update(other)

    def copy(self) -> Moments:
        """Return moments of their own memory, all of them float64."""
        tensors = (self.mean, self.scatter, self.cross, self.energy)
        return Moments(self.count, *(tensor.to(torch.float64, copy=True) for tensor in tensors))

    def update(self, other: Moments) -> Moments:
        """Do `merge` in place."""
        count = self.count + other.count
        delta = other.mean - self.mean
        self.scatter.addr_(delta, delta, alpha=self.count * other.count / count)
        for rows, more in zip(self.scatter.split(_BLOCK), other.scatter.split(_BLOCK), strict=True):
            rows += more
        self.mean += delta * (other.count / count)
        self.cross += other.cross
        self.energy += other.energy
        self.count = count
        return self

    def without(self, part: Moments) -> Moments:
        """Return the moments of the positions that are not among those of ``part``; no evidence is left."""
        count = self.count - part.count
        mean = (self.mean * self.count - part.mean * part.count) / max(count, 1)
        delta = mean - part.mean
        scatter = (self.scatter - part.scatter).addr_(delta, delta, alpha=-part.count * count / self.count)
        return Moments(count, mean, scatter, torch.zeros_like(self.cross), torch.zeros_like(self.energy))

    def per_class(self, classes: int) -> Iterator[Moments]:
        """Yield one for each of the classes whose evidence was given one after the other; they share the scatter."""
        for cross, energy in zip(self.cross.chunk(classes), self.energy.chunk(classes), strict=True):
            yield Moments(self.count, self.mean, self.scatter, cross, energy)


def _mean(descriptors: Tensor) -> Tensor:
    """Return the float64 mean; on a CPU NumPy sums on the way, where torch would first convert all descriptors."""
    if descriptors.device.type != "cpu":
        return descriptors.mean(0, dtype=torch.float64)
    return torch.from_numpy(descriptors.numpy().mean(0, dtype=np.float64))


def _products(descriptors: Tensor, shift: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scatter about ``shift``, D x D, and the cross sums, E x D.

    On a CPU by BLAS's symmetric rank-k update, which does half the work of a product of matrices, for some
    positions at a time, so that what is centred stays in the processor's cache.
    """
    if descriptors.device.type != "cpu":
        centred = descriptors - shift
        return centred.T @ centred, evidence @ centred
    size = len(shift)
    upper, cross = np.zeros((size, size), np.float32, order="F"), torch.zeros(len(evidence), size)
    for rows, weights in zip(descriptors.split(_POSITIONS), evidence.split(_POSITIONS, 1), strict=True):
        centred = (rows - shift).contiguous()
        upper = ssyrk(1.0, centred.numpy().T, beta=1.0, c=upper, overwrite_c=True)
        cross += weights @ centred
    for start in range(0, size, _BLOCK):
        end = start + _BLOCK
        upper[end:, start:end] = upper[start:end, end:].T
        upper[start:end, start:end] += np.triu(upper[start:end, start:end], 1).T
    return torch.from_numpy(upper.T), cross
