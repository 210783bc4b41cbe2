r"""Mean-field inference in the fully connected CRF (Krähenbühl and Koltun, 2011, Algorithm 1).

All kernels share one table of vertex values, and each pixel has one row of vertices and weights in it: the
corners of its simplex in every lattice, one after the other. A step is then, for each pixel,

.. math:: Q_i \propto \exp\Big(-\psi_u(i) + \sum_t w_{it} V[v_{it}]\Big), \quad V'[v_{it}] \mathrel{+}= w_{it} Q_i

(slice, softmax, splat) in a single pass over the image, and a blur of the table between two passes. The
symmetric normalisation :math:`n_i = (\sum_j k(f_i, f_j))^{-1/2}` is part of the weights.

Labels come last in memory, padded to whole SIMD vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tag2mask.crf import simd
from tag2mask.crf.lattice import Floats, Integers, Lattice, gain
from tag2mask.crf.simd import jit

Lanes = tuple[int, ...]

_NEVER = -1e30  # the logit of a label that only pads


def mean_field(logits: Floats, lattices: Sequence[Lattice], factors: Sequence[Floats], steps: int) -> Floats:
    """Return the labels' probabilities after some mean-field steps.

    Args:
        logits: float32, C x N, minus the unary energies.
        lattices: one for each kernel, with rows one after the other in one table.
        factors: for each kernel what the filtered probabilities are multiplied with, to be added to the
            logits: an array of one number (Potts), or C x C.
        steps: how many steps; 0 gives the softmax of the logits.

    Returns:
        float32, C x N, sums to 1 over the labels.
    """
    labels, pixels = logits.shape
    lanes = simd.LANES[4 if labels <= 4 else 8]
    padded = -(-labels // len(lanes)) * len(lanes)
    unary = _labels_last(logits, padded)
    vertices, weights = _normalised(lattices)
    rows = lattices[-1].first + lattices[-1].count if lattices else 1
    source, target = np.zeros((2, rows * padded), np.float32)
    out = np.empty((labels, pixels), np.float32)
    for step in range(steps + 1):
        last = step == steps
        target[:] = 0
        _pass(unary, vertices, weights, source, target, out, padded, last, lanes)
        if last:
            break
        for lattice, factor in zip(lattices, factors, strict=True):
            _blur(target, source, lattice, factor, padded, lanes)
    return out


@jit
def _labels_last(logits: Floats, padded: int) -> Floats:
    """Return N x C', flat, C' padded with labels that never win."""
    labels, pixels = logits.shape
    out = np.full(pixels * padded, np.float32(_NEVER), np.float32)
    for start in range(0, pixels, 256):
        for label in range(labels):
            for pixel in range(start, min(start + 256, pixels)):
                out[pixel * padded + label] = logits[label, pixel]
    return out


@jit
def _pass(
    unary: Floats,
    vertices: Integers,
    weights: Floats,
    source: Floats,
    target: Floats,
    out: Floats,
    padded: int,
    last: bool,
    lanes: Lanes,
) -> None:
    """Slice, softmax and splat every pixel; the last time write the probabilities instead."""
    corners = vertices.shape[1]
    row = np.empty(padded, np.float32)
    for pixel in range(vertices.shape[0]):
        peak = simd.spread(np.float32(_NEVER), lanes)
        for block in range(0, padded, len(lanes)):
            logit = simd.load(unary, pixel * padded + block, lanes)
            for t in range(corners):
                value = simd.load(source, vertices[pixel, t] * padded + block, lanes)
                logit = simd.multiply_add(weights[pixel, t], value, logit)
            simd.store(row, block, logit)
            peak = simd.maximum(peak, logit)
        highest = simd.spread(-simd.largest(peak), lanes)
        mass = simd.spread(np.float32(0.0), lanes)
        for block in range(0, padded, len(lanes)):
            share = simd.exp_flushed(simd.add(simd.load(row, block, lanes), highest))
            simd.store(row, block, share)
            mass = simd.add(mass, share)
        scale = np.float32(1.0) / simd.total(mass)
        if last:
            for label in range(out.shape[0]):
                out[label, pixel] = row[label] * scale
            continue
        for block in range(0, padded, len(lanes)):
            share = simd.multiply(simd.load(row, block, lanes), scale)
            for t in range(corners):
                where = vertices[pixel, t] * padded + block
                simd.store(
                    target, where, simd.multiply_add(weights[pixel, t], share, simd.load(target, where, lanes))
                )


def _blur(table: Floats, spare: Floats, lattice: Lattice, factor: Floats, padded: int, lanes: Lanes) -> None:
    """Blur a lattice's rows along all axes, apply the compatibility; the result ends in ``spare``."""
    axes = len(lattice.neighbours)
    scale = np.float32(gain(axes - 1))
    matrix = factor.size > 1
    rows = slice(lattice.first * padded, (lattice.first + lattice.count) * padded)
    for axis, neighbours in enumerate(lattice.neighbours):
        final = axis == axes - 1
        weight = np.float32(1.0 if not final else scale if matrix else scale * factor.item())
        _blur_axis(table, spare, neighbours, lattice.first, padded, weight, lanes)
        table, spare = spare, table
    if axes % 2 == 0:
        spare[rows] = table[rows]
    if matrix:
        labels = factor.shape[0]
        values = (table if axes % 2 else spare)[rows].reshape(-1, padded)
        values[:, :labels] = values[:, :labels] @ factor.T


@jit
def _blur_axis(
    source: Floats, target: Floats, neighbours: Integers, first: int, padded: int, scale: float, lanes: Lanes
) -> None:
    """Apply the stencil (1/2, 1, 1/2) along one axis, times ``scale``."""
    for vertex in range(neighbours.shape[0]):
        here = (first + vertex) * padded
        before = neighbours[vertex, 0] * padded
        after = neighbours[vertex, 1] * padded
        for block in range(0, padded, len(lanes)):
            both = simd.add(simd.load(source, before + block, lanes), simd.load(source, after + block, lanes))
            middle = simd.load(source, here + block, lanes)
            blurred = simd.multiply_add(np.float32(0.5), both, middle)
            simd.store(target, here + block, simd.multiply(blurred, scale))


def _normalised(lattices: Sequence[Lattice]) -> tuple[Integers, Floats]:
    """Return the corners of all lattices side by side, N x T, and their weights, normalised symmetrically."""
    vertices = np.concatenate([lattice.vertices for lattice in lattices], axis=1)
    weights = np.concatenate([lattice.weights * normalisation(lattice)[:, None] for lattice in lattices], axis=1)
    return vertices, weights


def normalisation(lattice: Lattice) -> Floats:
    """Return one over the square root of the filtered ones, pixel by pixel."""
    rows = lattice.first + lattice.count
    lanes = simd.LANES[4]
    source, target = np.zeros((2, rows * 4), np.float32)
    _splat_ones(lattice.vertices, lattice.weights, source, 4)
    _blur(source, target, lattice, np.ones(1, np.float32), 4, lanes)
    filtered = _slice_first(lattice.vertices, lattice.weights, target, 4)
    return np.float32(1.0) / np.sqrt(filtered + np.float32(1e-20))


@jit
def _splat_ones(vertices: Integers, weights: Floats, table: Floats, padded: int) -> None:
    for pixel in range(vertices.shape[0]):
        for t in range(vertices.shape[1]):
            table[vertices[pixel, t] * padded] += weights[pixel, t]


@jit
def _slice_first(vertices: Integers, weights: Floats, table: Floats, padded: int) -> Floats:
    out = np.zeros(vertices.shape[0], np.float32)
    for pixel in range(vertices.shape[0]):
        for t in range(vertices.shape[1]):
            out[pixel] += weights[pixel, t] * table[vertices[pixel, t] * padded]
    return out
