r"""The permutohedral lattice: Gaussian filtering in many dimensions (Adams, Baek and Davis, 2010).

A pixel with feature vector :math:`f` (position and colour in units of the kernel's widths) lies in one
simplex of the lattice. Its value is *splatted* onto the ``d + 1`` corners with barycentric weights, the
corners are *blurred* along each of the ``d + 1`` axes with the stencil (1/2, 1, 1/2), and the result is
*sliced* back with the same weights. The lattice is built once per image and used in every mean-field step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tag2mask.crf.simd import jit
from tag2mask.errors import UserError

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Lattice:
    """The lattice of one kernel on one image of ``n`` pixels.

    Vertices are rows of a table of values that several lattices may share; this one's are the rows
    ``first`` to ``first + count - 1``. Row 0 stands for vertices that do not exist and holds zeros.
    """

    first: int  #: the row of the first vertex
    vertices: Integers  #: n x (d + 1), the rows of the simplex around each pixel
    weights: Floats  #: n x (d + 1), barycentric weights, each row sums to 1
    neighbours: Integers  #: (d + 1) x m x 2, the rows before and after each vertex on each axis; 0: none

    @property
    def count(self) -> int:
        """The number of vertices, ``m``."""
        return int(self.neighbours.shape[1])


def gain(dimensions: int) -> float:
    """Return the constant that makes the lattice's stencil a Gaussian of unit weight."""
    return 1.0 / (1.0 + 2.0**-dimensions)


def build(
    height: int, width: int, sigma: float, image: npt.NDArray[np.uint8], sigma_colour: float, first: int = 1
) -> Lattice:
    """Build the lattice of a Gaussian kernel in position and colour.

    Args:
        height: rows of the image.
        width: columns of the image.
        sigma: the kernel's standard deviation in pixels.
        image: uint8, H x W x 3, C order; H x W x 0 for a kernel in position alone.
        sigma_colour: the kernel's standard deviation in colour levels, 0 to 255.
        first: the row of the first vertex in the table of values.

    Raises:
        UserError: the widths are so small that lattice coordinates would overflow.
    """
    colours = image.shape[2]
    extents = np.array([(width - 1) / sigma, (height - 1) / sigma] + [255.0 / sigma_colour] * colours)
    scales = _scales(len(extents))
    shifts, origin = _packing(extents, scales)
    widths = np.array([sigma, sigma] + [sigma_colour] * colours, np.float32)
    vertices, weights, keys, table = _enclose(
        height, width, image.reshape(-1), widths, scales.astype(np.float32), shifts, origin
    )
    if first > 1:
        vertices += np.int32(first - 1)
    return Lattice(first, vertices, weights, _neighbours(keys, table, shifts, first))


def _scales(dimensions: int) -> npt.NDArray[np.float64]:
    """Return the diagonal of the matrix that brings features into the lattice's plane (p. 5 and 6)."""
    deviation = float(np.float32(np.sqrt(2.0 / 3.0) * (dimensions + 1)))
    i = np.arange(dimensions)
    return deviation / np.sqrt((i + 1.0) * (i + 2.0))


def _packing(
    extents: npt.NDArray[np.float64], scales: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where each coordinate stands in a 62-bit key, and the smallest value of each coordinate."""
    d = len(extents)
    if not np.all(extents * scales * d < 2.0**15):
        raise UserError("the dense CRF's widths are too small for an image of this size; use larger widths")
    cf = extents * scales
    highest = np.array([cf[j:].sum() for j in range(d)])
    lowest = np.array([0.0] + [-j * cf[j - 1] for j in range(1, d)])
    margin = 4 * (d + 1)
    origin = np.floor(lowest).astype(np.int64) - margin
    bits = np.ceil(np.log2(highest - origin + 2 * margin)).astype(np.int64)
    if bits.sum() > 62:
        raise UserError("the dense CRF's widths are too small for an image of this size; use larger widths")
    return np.concatenate([[0], np.cumsum(bits)[:-1]]).astype(np.int64), origin


@jit
def _slot(key: int, keys: npt.NDArray[np.int64], table: Integers) -> int:
    """Return the table's slot where ``key`` is, or the empty one where it belongs."""
    mask = table.size - 1
    slot = (key * 0x9E3779B97F4A7C1 >> 20) & mask
    while table[slot] != 0 and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@jit
def _larger_table(keys: npt.NDArray[np.int64], count: int, size: int) -> Integers:
    """Return a hash table of ``size`` slots (a power of two) with the first ``count`` vertices."""
    table = np.zeros(size, np.int32)
    for vertex in range(1, count + 1):
        table[_slot(keys[vertex], keys, table)] = vertex
    return table


@jit
def _enclose(
    height: int,
    width: int,
    image: npt.NDArray[np.uint8],
    widths: Floats,
    scales: Floats,
    shifts: npt.NDArray[np.int64],
    origin: npt.NDArray[np.int64],
) -> tuple[Integers, Floats, npt.NDArray[np.int64], Integers]:
    """Find the simplex around each pixel; return vertices, weights, the vertices' keys and the hash table."""
    d = widths.size
    colours = d - 2
    vertices = np.empty((height * width, d + 1), np.int32)
    weights = np.empty((height * width, d + 1), np.float32)
    feature = np.empty(d, np.float32)
    elevated = np.empty(d + 1, np.float32)
    nearest = np.empty(d + 1, np.float32)
    rank = np.empty(d + 1, np.int64)
    by_rank = np.empty(d + 1, np.int64)
    remainder = np.empty(d + 1, np.float32)
    last_key = np.full(d + 1, -1, np.int64)
    last_vertex = np.zeros(d + 1, np.int32)
    step = (np.int64(1) << shifts).sum()
    count = 0
    table = np.zeros(1 << 16, np.int32)
    keys = np.empty(1 << 15, np.int64)
    full = np.float32(d + 1)
    down = np.float32(1.0) / full
    for pixel in range(height * width):
        feature[0] = np.float32(pixel % width) / widths[0]
        feature[1] = np.float32(pixel // width) / widths[1]
        for k in range(colours):
            feature[2 + k] = np.float32(image[pixel * colours + k]) / widths[2 + k]
        # Into the plane x_0 + ... + x_d = 0 (y = E f, p. 5).
        partial = np.float32(0.0)
        for j in range(d, 0, -1):
            scaled = feature[j - 1] * scales[j - 1]
            elevated[j] = partial - np.float32(j) * scaled
            partial += scaled
        elevated[0] = partial
        # The nearest vertex of remainder 0, by rounding.
        excess = 0
        for i in range(d + 1):
            rounded = np.rint(elevated[i] * down)
            nearest[i] = rounded * full
            excess += int(rounded)
            rank[i] = 0
        for i in range(d):
            for j in range(i + 1, d + 1):
                if elevated[i] - nearest[i] < elevated[j] - nearest[j]:
                    rank[i] += 1
                else:
                    rank[j] += 1
        # Back into the plane where rounding left it.
        for i in range(d + 1):
            rank[i] += excess
            if rank[i] < 0:
                rank[i] += d + 1
                nearest[i] += full
            elif rank[i] > d:
                rank[i] -= d + 1
                nearest[i] -= full
            by_rank[d - rank[i]] = i
            remainder[d - rank[i]] = (elevated[i] - nearest[i]) * down
        # Barycentric weights (p. 10).
        weights[pixel, 0] = remainder[0] + (np.float32(1.0) - remainder[d])
        for j in range(1, d + 1):
            weights[pixel, j] = remainder[j] - remainder[j - 1]
        # The corners: from each to the next all coordinates grow by 1, one falls by d + 1.
        key = np.int64(0)
        for i in range(d):
            key += (np.int64(nearest[i]) - origin[i]) << shifts[i]
        for j in range(d + 1):
            if key != last_key[j]:
                slot = _slot(key, keys, table)
                if table[slot] == 0:
                    count += 1
                    if count == keys.size:
                        keys = np.append(keys, np.empty_like(keys))
                        table = _larger_table(keys, count - 1, 2 * table.size)
                        slot = _slot(key, keys, table)
                    keys[count] = key
                    table[slot] = count
                last_key[j] = key
                last_vertex[j] = table[slot]
            vertices[pixel, j] = last_vertex[j]
            key += step
            if by_rank[j] < d:
                key -= np.int64(d + 1) << shifts[by_rank[j]]
    return vertices, weights, keys[: count + 1].copy(), table


@jit
def _neighbours(keys: npt.NDArray[np.int64], table: Integers, shifts: npt.NDArray[np.int64], first: int) -> Integers:
    """Look up the vertices before and after each vertex along each axis."""
    d = shifts.size
    neighbours = np.zeros((d + 1, keys.size - 1, 2), np.int32)
    step = (np.int64(1) << shifts).sum()
    for axis in range(d + 1):
        jump = -step
        if axis < d:
            jump += np.int64(d + 1) << shifts[axis]
        for vertex in range(1, keys.size):
            other = table[_slot(keys[vertex] + jump, keys, table)]
            if other != 0:
                neighbours[axis, vertex - 1, 0] = other + first - 1
                neighbours[axis, other - 1, 1] = vertex + first - 1
    return neighbours
