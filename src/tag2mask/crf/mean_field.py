r"""Mean-field inference in the fully connected CRF (Krähenbühl and Koltun, 2011, Algorithm 1).

All kernels share one table of vertex values :math:`V`, and each pixel :math:`i` has one row of vertices
:math:`v_{it}` and weights :math:`w_{it}`: the corners of its simplex in every lattice, side by side. A step is
a single pass over the pixels (slice, softmax, splat) and a blur of the new table :math:`V'`:

.. math::
    Q_i \propto \exp\Big(-\psi_u(i) + \sum_t w_{it} V_{v_{it}}\Big), \qquad
    V'_{v_{it}} \leftarrow V'_{v_{it}} + w_{it} Q_i

The symmetric normalisation is part of the weights, the compatibility part of the blur. Labels come last in
memory, padded to whole SIMD vectors (see `simd`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tag2mask.crf import simd
from tag2mask.crf.lattice import Floats, Integers, Lattice, Longs, blur
from tag2mask.crf.simd import Lanes, jit

NEVER = -1e30  #: the logit of a label that only pads

_NEGLIGIBLE = np.float32(np.log(2.0**-24))
"""Below this logit under the largest a probability counts as 0: float32 loses it beside a 1 anyway.

It keeps denormal numbers, which cost a processor some hundred cycles each, out of the lattice. No logit
changes by more than 2^-24 times the compatibility."""


def padded(labels: int) -> int:
    """Return the room that the labels of one pixel take: one vector of 4 lanes, or whole vectors of 8."""
    return 4 if labels <= 4 else -(-labels // 8) * 8


def mean_field(
    unary: Floats,
    vertices: Integers,
    weights: Floats,
    lattices: Sequence[Lattice],
    factors: Sequence[Floats],
    steps: int,
    tolerance: float,
    out: Floats,
    present: Longs,
) -> None:
    """Run mean-field steps from the softmax of the unary logits, and write the labels' probabilities.

    Args:
        unary: float32, flat N x padded labels: minus the unary energies, `NEVER` for labels that only pad;
            overwritten.
        vertices: int32, N x T, the pixels' rows in the table of values.
        weights: float32, N x T, barycentric weights times the symmetric normalisation.
        lattices: one for each kernel.
        factors: for each kernel what the filtered probabilities are multiplied with before they are added to
            the logits: an array of one number (Potts), or C x C.
        steps: how many steps.
        tolerance: stop before when no pixel's largest probability changed by as much in a step.
        out: float32, C' x N, filled at the rows ``present``.
        present: the C labels' rows in ``out``.
    """
    room = padded(len(present))
    lanes = simd.LANES[min(room, 8)]
    single = simd.LANES[1] if room <= 8 else ()
    corners = (0,) * vertices.shape[1]
    rows = max((lattice.last for lattice in lattices), default=0) + 1
    source, target = simd.zeros(rows * room), simd.zeros(rows * room)
    row = simd.zeros(room)
    tops = np.zeros(len(vertices), np.float32)
    change = np.float32(np.inf)
    for step in range(steps + 1):
        final = step == steps or bool(change < tolerance)
        change = _pass(unary, vertices, weights, source, target, row, tops, step > 0, final, lanes, corners, single)
        if final:
            break
        for lattice, factor in zip(lattices, factors, strict=True):
            blur(target, source, lattice, factor, lanes, room)
        target[:] = 0
    _labels_first(unary, room, out, present)


@jit
def labels_last(logits: Floats, out: Floats, room: int) -> None:
    """Transpose C x N to N x ``room``, flat; what is left of each row gets `NEVER`."""
    labels, pixels = logits.shape
    for start in range(0, pixels, 16):
        for label in range(room):
            for pixel in range(start, min(start + 16, pixels)):
                out[pixel * room + label] = logits[label, pixel] if label < labels else np.float32(NEVER)


@jit
def _labels_first(rows: Floats, room: int, out: Floats, present: Longs) -> None:
    """Transpose N x ``room``, flat, to the rows ``present`` of ``out``, C' x N."""
    for start in range(0, out.shape[1], 16):
        for label in range(present.size):
            for pixel in range(start, min(start + 16, out.shape[1])):
                out[present[label], pixel] = rows[pixel * room + label]


@jit
def _pass(
    unary: Floats,
    vertices: Integers,
    weights: Floats,
    source: Floats,
    target: Floats,
    row: Floats,
    tops: Floats,
    sliced: bool,
    final: bool,
    lanes: Lanes,
    corners: Lanes,
    single: Lanes,
) -> np.float32:
    """Slice (if ``sliced``), softmax, and splat (if ``final``: overwrite ``unary``) pixel by pixel.

    The lengths of ``lanes``, ``corners`` and ``single`` are known to the compiler: the SIMD width, T, and
    whether all labels fit in one vector. ``tops`` keeps each pixel's largest probability.

    Returns:
        The largest change in ``tops``.
    """
    width = len(lanes)
    room = width if len(single) == 1 else row.size
    nothing = simd.spread(np.float32(0.0), lanes)
    change = np.float32(0.0)
    for pixel in range(vertices.shape[0]):
        peaks = simd.spread(np.float32(NEVER), lanes)
        for block in range(0, room, width):
            logit = simd.load(unary, pixel * room + block, lanes)
            if sliced:
                for t in range(len(corners)):
                    value = simd.load(source, vertices[pixel, t] * room + block, lanes)
                    logit = simd.scale_add(weights[pixel, t], value, logit)
            simd.store(row, block, logit)
            peaks = simd.maximum(peaks, logit)
        peak = simd.spread(simd.largest(peaks), lanes)
        mass = nothing
        for block in range(0, room, width):
            share = simd.exp(simd.subtract(simd.load(row, block, lanes), peak), _NEGLIGIBLE)
            simd.store(row, block, share)
            mass = simd.add(mass, share)
        top = np.float32(1.0) / simd.total(mass)
        change = max(change, abs(top - tops[pixel]))
        tops[pixel] = top
        for block in range(0, room, width):
            share = simd.load(row, block, lanes)
            if final:
                simd.store(unary, pixel * room + block, simd.scale(top, share))
                continue
            if len(single) == 1 or simd.any_above(share, np.float32(0.0)):
                share = simd.scale(top, share)
                for t in range(len(corners)):
                    here = vertices[pixel, t] * room + block
                    value = simd.load(target, here, lanes)
                    simd.store(target, here, simd.scale_add(weights[pixel, t], share, value))
    return change
