r"""The permutohedral lattice: Gaussian filtering in many dimensions (Adams, Baek and Davis, 2010).

A pixel with feature vector :math:`f` (position and colour in units of the kernel's widths) lies in one
simplex of the lattice. Its value is *splatted* onto the ``d + 1`` corners with barycentric weights, the
corners are *blurred* along each of the ``d + 1`` axes, and the result is *sliced* back with the same weights.
The lattice is built once per image and used in every mean-field step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tag2mask.crf import simd
from tag2mask.crf.simd import Lanes, inlined, jit
from tag2mask.errors import UserError

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]
Integers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Lattice:
    """The vertices of one kernel's lattice, as rows of a table of values that several lattices share.

    Row 0 of the table stands for all vertices that do not exist and holds zeros.
    """

    first: int  #: the row of the first vertex; the others follow
    neighbours: Integers  #: (d + 1) x m x 2, the rows before and after each vertex along each axis, 0: none

    @property
    def last(self) -> int:
        """The row of the last vertex."""
        return self.first + int(self.neighbours.shape[1]) - 1


def build(
    image: Bytes, widths: Sequence[float], first: int, vertices: Integers, weights: Floats, column: int
) -> Lattice:
    """Build the lattice of a Gaussian kernel in position, or in position and colour.

    Args:
        image: uint8, H x W x 3, C order.
        widths: the kernel's standard deviations: horizontal and vertical in pixels and, if the kernel sees
            colour, red, green and blue in levels of 0 to 255.
        first: the row of the first vertex in the table of values.
        vertices: int32, N x T; the columns from ``column`` on get the rows of the corners of each pixel's simplex.
        weights: float32, N x T; likewise, the corners' barycentric weights times the symmetric normalisation
            :math:`n_i = (\\sum_j k(f_i, f_j))^{-1/2}`.
        column: where this lattice's ``len(widths) + 1`` columns begin.

    Raises:
        UserError: the widths are so small that lattice coordinates would overflow.
    """
    height, width = image.shape[:2]
    extents = np.array([width - 1, height - 1, 255, 255, 255][: len(widths)]) / np.array(widths)
    scales = _scales(len(widths))
    shifts, origin = _packing(extents, scales)
    keys, table = np.empty(1 << 15, np.int64), np.zeros(1 << 16, np.int32)
    edges = np.zeros(keys.size * (len(widths) + 1), np.int32)
    done, count = 0, np.int64(0)
    while True:
        done, count = _enclose(
            image.reshape(-1, 3),
            width,
            np.array(widths, np.float32),
            scales.astype(np.float32),
            shifts,
            origin,
            first - 1,
            vertices,
            weights,
            column,
            done,
            count,
            keys,
            table,
            edges,
            simd.LANES[8],
        )
        if done == height * width:
            break
        keys = np.concatenate([keys, np.empty_like(keys)])
        edges = np.concatenate([edges, np.zeros_like(edges)])
        table = _larger_table(keys, int(count), 2 * table.size)
    keys = keys[: count + 1]
    lattice = Lattice(first, _neighbours(keys, table, shifts, first - 1))
    _normalise(lattice, vertices, weights, column)
    return lattice


def blur(table: Floats, result: Floats, lattice: Lattice, factor: Floats, lanes: Lanes, room: int) -> None:
    """Blur a lattice's rows of a table of values along all axes, and multiply them with ``factor``.

    Args:
        table: flat, rows x ``room``; its rows of this lattice are spent.
        result: the same size; gets the rows of this lattice.
        lattice: which rows.
        factor: one number, or a matrix C x C applied to the first C numbers of each row.
        lanes: a tuple as long as the SIMD vectors.
        room: numbers in a row.
    """
    axes = len(lattice.neighbours)
    rows = slice(lattice.first * room, (lattice.last + 1) * room)
    # The stencil doubles the weight on each axis; this constant makes the kernel as peaked as a Gaussian.
    scale = np.float32(1.0 / (1.0 + 2.0 ** -(axes - 1))) * (factor.item() if factor.size == 1 else 1)
    source, target = table, result
    for axis, neighbours in enumerate(lattice.neighbours):
        weight = scale if axis == axes - 1 else 1.0
        _blur_axis(source, target, neighbours, lattice.first, np.float32(weight), lanes, room)
        source, target = target, source
    if factor.size > 1:
        values = source[rows].reshape(-1, room)[:, : len(factor)]
        values[:] = values @ factor.T
    if source is table:
        result[rows] = table[rows]


@jit
def _blur_axis(
    source: Floats, target: Floats, neighbours: Integers, first: int, weight: np.float32, lanes: Lanes, room: int
) -> None:
    """Apply the stencil (1/2, 1, 1/2) along one axis, times ``weight``."""
    for vertex in range(neighbours.shape[0]):
        here = (first + vertex) * room
        before = neighbours[vertex, 0] * room
        after = neighbours[vertex, 1] * room
        for block in range(0, room, len(lanes)):
            both = simd.add(simd.load(source, before + block, lanes), simd.load(source, after + block, lanes))
            value = simd.scale_add(np.float32(0.5), both, simd.load(source, here + block, lanes))
            simd.store(target, here + block, simd.scale(weight, value))


def _normalise(lattice: Lattice, vertices: Integers, weights: Floats, column: int) -> None:
    """Divide each pixel's weights by the square root of the filtered ones."""
    ones, filtered = simd.zeros(lattice.last + 1), simd.zeros(lattice.last + 1)
    stop = column + len(lattice.neighbours)
    _splat_ones(vertices, weights, column, stop, ones)
    blur(ones, filtered, lattice, np.ones(1, np.float32), simd.LANES[1], 1)
    _divide(vertices, weights, column, stop, filtered)


@jit
def _splat_ones(vertices: Integers, weights: Floats, column: int, stop: int, table: Floats) -> None:
    for pixel in range(vertices.shape[0]):
        for t in range(column, stop):
            table[vertices[pixel, t]] += weights[pixel, t]


@jit
def _divide(vertices: Integers, weights: Floats, column: int, stop: int, table: Floats) -> None:
    for pixel in range(vertices.shape[0]):
        sliced = np.float32(1e-20)
        for t in range(column, stop):
            sliced += weights[pixel, t] * table[vertices[pixel, t]]
        norm = np.float32(1.0) / np.sqrt(sliced)
        for t in range(column, stop):
            weights[pixel, t] *= norm


def _scales(dimensions: int) -> npt.NDArray[np.float64]:
    """Return the diagonal of the matrix that brings features into the lattice's plane (p. 5 and 6)."""
    deviation = float(np.float32(np.sqrt(2.0 / 3.0) * (dimensions + 1)))
    i = np.arange(dimensions)
    return deviation / np.sqrt((i + 1.0) * (i + 2.0))


def _packing(extents: npt.NDArray[np.float64], scales: npt.NDArray[np.float64]) -> tuple[Longs, Longs]:
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
def _moves(shifts: Longs) -> Longs:
    """Return what is added to a vertex's key to go to its next one along each axis."""
    d = shifts.size
    moves = np.full(d + 1, (np.int64(1) << shifts).sum(), np.int64)
    for axis in range(d):
        moves[axis] -= np.int64(d + 1) << shifts[axis]
    return moves


@inlined
def _slot(key: np.int64, keys: Longs, table: Integers) -> np.int64:
    """Return the table's slot where ``key`` is, or the empty one where it belongs."""
    mask = table.size - 1
    slot = np.int64((key * 0x9E3779B97F4A7C1 >> 20) & mask)
    while table[slot] != 0 and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@jit
def _larger_table(keys: Longs, count: int, size: int) -> Integers:
    """Return a hash table of ``size`` slots (a power of two) with the first ``count`` vertices."""
    table = np.zeros(size, np.int32)
    for vertex in range(1, count + 1):
        table[_slot(keys[vertex], keys, table)] = vertex
    return table


@jit
def _enclose(
    image: Bytes,
    width: int,
    widths: Floats,
    scales: Floats,
    shifts: Longs,
    origin: Longs,
    offset: int,
    vertices: Integers,
    weights: Floats,
    column: int,
    begin: int,
    count: np.int64,
    keys: Longs,
    table: Integers,
    edges: Integers,
    lanes: Lanes,
) -> tuple[int, np.int64]:
    """Find the simplex around each pixel from ``begin`` on, as far as there is room for vertices.

    ``keys`` and the hash ``table`` hold ``count`` vertices and get more; ``edges`` are those walked so far.

    Returns:
        The next pixel to do, and the number of vertices.
    """
    d, group, pixels = widths.size, len(lanes), image.shape[0]
    elevated = np.empty((d + 1) * group, np.float32)
    nearest = np.empty((d + 1) * group, np.float32)
    rank = np.empty((d + 1) * group, np.float32)
    by_rank = np.empty(d + 1, np.int64)
    moves = _moves(shifts)
    last_key = np.int64(-1)
    last_vertex = edge = np.int64(0)
    for start in range(begin, pixels, group):
        if count + group * (d + 1) >= keys.size:
            return start, count
        _features(start, min(pixels, start + group), width, image, widths, elevated, group)
        _elevate(elevated, scales, lanes)
        _round(elevated, nearest, rank, lanes)
        for lane in range(min(group, pixels - start)):
            pixel = start + lane
            key = _first_corner(rank, nearest, lane, group, shifts, origin, by_rank)
            _barycentric(elevated, lane, group, by_rank, weights, pixel, column)
            # The corners: from each to the next all coordinates grow by 1, and one falls by d + 1. Such an
            # edge, once walked, is remembered: following it is faster than hashing.
            vertex = last_vertex if key == last_key else np.int64(0)
            last_key = key
            for j in range(d + 1):
                if vertex == 0:
                    slot = _slot(key, keys, table)
                    vertex = np.int64(table[slot])
                    if vertex == 0:
                        count += np.int64(1)
                        vertex = count
                        keys[vertex] = key
                        table[slot] = vertex
                    if j > 0:
                        edges[edge] = vertex
                if j == 0:
                    last_vertex = vertex
                vertices[pixel, column + j] = vertex + offset
                axis = by_rank[j]
                edge = vertex * (d + 1) + axis
                vertex = np.int64(edges[edge])
                key += moves[axis]
    return pixels, count


@inlined
def _first_corner(
    rank: Floats, nearest: Floats, lane: int, group: int, shifts: Longs, origin: Longs, by_rank: Longs
) -> np.int64:
    """Return the key of a pixel's vertex of remainder 0; list the coordinates from the highest rank down."""
    d = shifts.size
    key = np.int64(0)
    for i in range(d):
        by_rank[d - int(rank[i * group + lane])] = i
        key += (np.int64(nearest[i * group + lane]) - origin[i]) << shifts[i]
    by_rank[d - int(rank[d * group + lane])] = d
    return key


@inlined
def _barycentric(
    differences: Floats, lane: int, group: int, by_rank: Longs, weights: Floats, pixel: int, column: int
) -> None:
    """Write a pixel's barycentric weights (p. 10)."""
    corners = by_rank.size
    before = differences[by_rank[corners - 1] * group + lane] - np.float32(1.0)
    for j in range(corners):
        here = differences[by_rank[j] * group + lane]
        weights[pixel, column + j] = here - before
        before = here


@inlined
def _features(start: int, stop: int, width: int, image: Bytes, widths: Floats, out: Floats, group: int) -> None:
    """Write the features of some pixels, in units of the kernel's widths, one row of ``out`` a dimension."""
    for pixel in range(start, stop):
        lane = pixel - start
        out[lane] = np.float32(pixel % width) / widths[0]
        out[group + lane] = np.float32(pixel // width) / widths[1]
        for k in range(2, widths.size):
            out[k * group + lane] = np.float32(image[pixel, k - 2]) / widths[k]


@inlined
def _elevate(features: Floats, scales: Floats, lanes: Lanes) -> None:
    """Bring features into the plane where all coordinates sum to 0 (y = E f, p. 5), in place."""
    group = len(lanes)
    partial = simd.spread(np.float32(0.0), lanes)
    for j in range(scales.size, 0, -1):
        scaled = simd.scale(scales[j - 1], simd.load(features, (j - 1) * group, lanes))
        simd.store(features, j * group, simd.subtract(partial, simd.scale(np.float32(j), scaled)))
        partial = simd.add(partial, scaled)
    simd.store(features, 0, partial)


@inlined
def _round(elevated: Floats, nearest: Floats, rank: Floats, lanes: Lanes) -> None:
    """Find the nearest vertex of remainder 0 and each coordinate's rank in the difference to it.

    ``elevated`` becomes that difference, divided by d + 1.
    """
    group = len(lanes)
    corners = elevated.size // group
    full = np.float32(corners)
    down = np.float32(1.0) / full
    zero = simd.spread(np.float32(0.0), lanes)
    one = simd.spread(np.float32(1.0), lanes)
    top = simd.spread(full - np.float32(1.0), lanes)
    excess = zero
    for i in range(corners):
        rounded = simd.nearest_integer(simd.scale(down, simd.load(elevated, i * group, lanes)))
        simd.store(nearest, i * group, simd.scale(full, rounded))
        simd.store(rank, i * group, zero)
        excess = simd.add(excess, rounded)
    for i in range(corners):
        mine = simd.subtract(simd.load(elevated, i * group, lanes), simd.load(nearest, i * group, lanes))
        place = simd.load(rank, i * group, lanes)
        for j in range(i + 1, corners):
            other = simd.subtract(simd.load(elevated, j * group, lanes), simd.load(nearest, j * group, lanes))
            behind = simd.less(mine, other)
            place = simd.add(place, behind)
            ahead = simd.subtract(one, behind)
            simd.store(rank, j * group, simd.add(simd.load(rank, j * group, lanes), ahead))
        simd.store(rank, i * group, place)
    # Rounding may have left the plane by `excess`; the coordinates of extreme rank bring it back.
    for i in range(corners):
        place = simd.add(simd.load(rank, i * group, lanes), excess)
        back = simd.scale(full, simd.subtract(simd.less(place, zero), simd.less(top, place)))
        vertex = simd.add(simd.load(nearest, i * group, lanes), back)
        difference = simd.subtract(simd.load(elevated, i * group, lanes), vertex)
        simd.store(rank, i * group, simd.add(place, back))
        simd.store(nearest, i * group, vertex)
        simd.store(elevated, i * group, simd.scale(down, difference))


@jit
def _neighbours(keys: Longs, table: Integers, shifts: Longs, offset: int) -> Integers:
    """Look up the vertices before and after each vertex along each axis."""
    d = shifts.size
    neighbours = np.zeros((d + 1, keys.size - 1, 2), np.int32)
    moves = _moves(shifts)
    for axis in range(d + 1):
        for vertex in range(1, keys.size):
            other = table[_slot(keys[vertex] + moves[axis], keys, table)]
            if other != 0:
                neighbours[axis, vertex - 1, 1] = other + offset
                neighbours[axis, other - 1, 0] = vertex + offset
    return neighbours
