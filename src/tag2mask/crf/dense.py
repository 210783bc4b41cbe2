"""The dense CRF on an image: checks, unary energies, kernels."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from tag2mask.crf import simd
from tag2mask.crf.lattice import Bytes, Floats, Integers, Lattice, build
from tag2mask.crf.mean_field import labels_last, mean_field, padded
from tag2mask.errors import UserError
from tag2mask.resize import resize
from tag2mask.threads import map_ahead

Compatibility = float | npt.NDArray[np.float32]
Widths = tuple[float, ...]

FLOOR = 1e-5  # below it a probability says nothing, as in pydensecrf's unary_from_softmax
SHARED = 2**20  # pixels up to which images of one size share the Gaussian kernel's lattice
CHUNK = 2048  # pixels whose logarithms are taken at once, in the processor's cache


def dense_crf(
    image: Bytes,
    probabilities: npt.NDArray[np.float32],
    *,
    gaussian: tuple[float, Compatibility] | None = (3, 3),
    bilateral: tuple[float, float, Compatibility] | None = (80, 13, 10),
    steps: int = 10,
    tolerance: float = 0.0,
    side: int | None = None,
) -> Floats:
    r"""Refine label probabilities with the fully connected CRF of Krähenbühl and Koltun (2011).

    Minimises :math:`E(x) = \sum_i \psi_u(x_i) + \sum_{i<j} \mu(x_i, x_j) \sum_m k_m(f_i, f_j)` by mean field,
    with :math:`\psi_u = -\log p`, a Gaussian kernel in position and one in position and colour.

    Args:
        image: uint8, H x W x 3.
        probabilities: float32, C x H x W, 0 to 1. Values under 1e-5 count as 1e-5; a label that is nowhere
            above stays out, its result is 0.
        gaussian: (sigma in pixels, compatibility), or None.
        bilateral: (sigma in pixels, sigma in colour levels of 0 to 255, compatibility), or None.
        steps: mean-field steps.
        tolerance: stop early when no pixel's largest probability changes by this much in a step; 0: never.
        side: a larger image is first brought to this many pixels of its longer side, and the result back to its size;
            widths are pixels of the smaller image. None: never.

    A compatibility is the Potts model's weight or a symmetric matrix C x C of energies :math:`\mu`.

    Returns:
        float32, C x H x W, sums to 1 over the labels.

    Raises:
        UserError: an argument has the wrong shape, type or range.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((4, 6, 3), np.uint8)
        >>> image[:, 3:] = 255
        >>> probabilities = np.full((2, 4, 6), 0.5, np.float32)
        >>> probabilities[:, 1, 1] = [0.9, 0.1]
        >>> probabilities[:, 2, 4] = [0.1, 0.9]
        >>> dense_crf(image, probabilities).argmax(0)[0].tolist()
        [0, 0, 0, 1, 1, 1]
    """
    image, probabilities = _checked(image, probabilities)
    kernels = _kernels(gaussian, bilateral)
    steps, tolerance = _whole(steps, "steps"), _number(tolerance, "the tolerance")
    if steps < 0 or not tolerance >= 0:
        raise UserError(f"steps and tolerance must not be negative: {steps}, {tolerance}")
    if side is not None and _whole(side, "the side") < 1:
        raise UserError(f"the side must be at least 1 pixel, not {side}")
    if side is None or max(image.shape[:2]) <= side:
        return _refine(image, probabilities, kernels, steps, tolerance)
    small = at_side(image, side)
    refined = _refine(small, _resized(probabilities, small.shape[:2]), kernels, steps, tolerance)
    return _resized(refined, image.shape[:2])


def at_side(image: Bytes, side: int) -> Bytes:
    """Return an image, uint8 H x W x 3, brought to the longer side if its own is larger."""
    size = image.shape[:2]
    if max(size) <= side:
        return image
    height, width = (max(1, round(length * side / max(size))) for length in size)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _resized(probabilities: Floats, size: tuple[int, ...]) -> Floats:
    return resize(torch.from_numpy(probabilities)[None], size, antialias=True)[0].numpy()


def _refine(
    image: Bytes,
    probabilities: Floats,
    kernels: list[tuple[Widths, Compatibility]],
    steps: int,
    tolerance: float,
) -> Floats:
    labels, height, width = probabilities.shape
    flat = probabilities.reshape(labels, -1)
    present = np.flatnonzero(flat.max(axis=1) > FLOOR)
    if len(present) == 0:
        raise UserError(f"no probability is above {FLOOR} anywhere")
    factors = [_factor(compatibility, labels, present) for _, compatibility in kernels]
    lattices, vertices, weights = _lattices(image, [widths for widths, _ in kernels])
    out = np.zeros_like(flat)
    mean_field(_unary(flat, present), vertices, weights, lattices, factors, steps, tolerance, out, present)
    return out.reshape(labels, height, width)


def _kernels(
    gaussian: tuple[float, Compatibility] | None, bilateral: tuple[float, float, Compatibility] | None
) -> list[tuple[Widths, Compatibility]]:
    """Return each kernel's widths, one a dimension, and its compatibility."""
    kernels: list[tuple[Widths, Compatibility]] = []
    if gaussian is not None:
        (sigma,), compatibility = _parts(gaussian, "gaussian", "(sigma, compatibility)")
        kernels.append(((sigma,) * 2, compatibility))
    if bilateral is not None:
        (sigma, colour), compatibility = _parts(bilateral, "bilateral", "(sigma, sigma in colour, compatibility)")
        kernels.append(((sigma,) * 2 + (colour,) * 3, compatibility))
    return kernels


def _parts(kernel: Any, name: str, form: str) -> tuple[Widths, Compatibility]:
    """Return the widths of a kernel that was given, and its compatibility."""
    values = [] if isinstance(kernel, str) or not isinstance(kernel, Iterable) else list(kernel)
    if len(values) != len(form.split(",")):
        raise UserError(f"{name} must be {form} or None, not {kernel!r}")
    widths = tuple(_number(width, f"a width of {name}") for width in values[:-1])
    if not all(0 < width < math.inf for width in widths):
        raise UserError(f"a dense CRF's kernel widths must be positive, finite numbers, not {widths}")
    compatibility = _array(values[-1], f"the compatibility of {name}")
    if compatibility.dtype.kind not in "iuf" or not np.isfinite(compatibility).all():
        raise UserError(f"the compatibility of {name} must be a finite number or a matrix of them, not {values[-1]!r}")
    return widths, compatibility.astype(np.float32)


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be a number, not {value!r}") from None


def _whole(value: Any, name: str) -> int:
    try:
        return index(value)
    except TypeError:
        raise UserError(f"{name} must be a whole number, not {value!r}") from None


def _array(values: Any, name: str) -> npt.NDArray[Any]:
    """Return what was given as an array; a tensor that has a gradient or lies on a GPU is none."""
    try:
        return np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise UserError(f"{name} cannot be an array ({said}); of a tensor give .detach().cpu().numpy()") from None


def _lattices(image: Bytes, kernels: list[Widths]) -> tuple[list[Lattice], Integers, Floats]:
    """Build the lattices of some kernels; return them and their vertices and weights side by side, N x T."""
    height, width = image.shape[:2]
    corners = sum(len(widths) + 1 for widths in kernels)
    vertices = np.empty((height * width, corners), np.int32)
    weights = np.empty((height * width, corners), np.float32)
    lattices: list[Lattice] = []
    column, first = 0, 1
    for widths in kernels:
        if len(widths) == 2 and height * width <= SHARED:
            lattice, *columns = _gaussian(height, width, widths)
            vertices[:, :3], weights[:, :3] = columns
        else:
            lattice = build(image, widths, first, vertices, weights, column)
        lattices.append(lattice)
        column, first = column + len(widths) + 1, lattice.last + 1
    return lattices, vertices, weights


@lru_cache(maxsize=4)
def _gaussian(height: int, width: int, widths: Widths) -> tuple[Lattice, Integers, Floats]:
    """Return the lattice of a kernel in position alone, which images of one size share."""
    vertices = np.empty((height * width, 3), np.int32)
    weights = np.empty((height * width, 3), np.float32)
    lattice = build(np.zeros((height, width, 3), np.uint8), widths, 1, vertices, weights, 0)
    return lattice, vertices, weights


def _unary(probabilities: Floats, present: npt.NDArray[np.int64]) -> Floats:
    """Return the logarithms of the present labels' probabilities, labels last and padded, flat."""
    pixels, room = probabilities.shape[1], padded(len(present))
    out = simd.empty(pixels * room)
    for start in range(0, pixels, CHUNK):
        chunk = probabilities[:, start : start + CHUNK][present]
        np.maximum(chunk, np.float32(FLOOR), out=chunk)
        np.log(chunk, out=chunk)
        labels_last(chunk, out[start * room :], room)
    return out


def _factor(compatibility: Compatibility, labels: int, present: npt.NDArray[np.int64]) -> Floats:
    """Return what filtered probabilities are multiplied with: the Potts weight, or minus the matrix."""
    matrix = np.asarray(compatibility, np.float32)
    if matrix.ndim == 0:
        return matrix.reshape(1)
    if matrix.shape != (labels, labels):
        raise UserError(f"a compatibility is one number or a {labels} x {labels} matrix, not {matrix.shape}")
    symmetric = np.float32(0.5) * (matrix + matrix.T)
    return -np.ascontiguousarray(symmetric[np.ix_(present, present)], np.float32)


def _checked(image: Any, probabilities: Any) -> tuple[Bytes, Floats]:
    """Return both as C-ordered arrays of the right type, or say what is wrong with them."""
    image, probabilities = _array(image, "the image"), _array(probabilities, "probabilities")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(f"the image must be uint8, H x W x 3; it is {image.dtype}, shape {image.shape}")
    if probabilities.ndim != 3 or probabilities.shape[1:] != image.shape[:2]:
        raise UserError(
            f"probabilities must be C x H x W with the image's H x W {image.shape[:2]}; shape {probabilities.shape}"
        )
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise UserError(f"probabilities must be floating-point numbers, not {probabilities.dtype}")
    probabilities = np.ascontiguousarray(probabilities, np.float32)
    if probabilities.size == 0:
        raise UserError(f"nothing to refine: probabilities have shape {probabilities.shape}")
    if not (probabilities.min() >= 0 and probabilities.max() <= 1.001):
        raise UserError("probabilities must lie between 0 and 1, without NaN (softmax the scores first)")
    return np.ascontiguousarray(image), probabilities


def dense_crf_many(
    pairs: Iterable[tuple[Bytes, Floats]], *, workers: int | None = None, **options: Any
) -> Iterator[Floats]:
    """Refine many images, one thread an image, and yield the results in order.

    One image never splits over threads: they would wait for each other at every step. The compiled code runs
    outside Python's lock, so threads do as well as processes here, and share the compiled code.

    Args:
        pairs: (image, probabilities) as for `dense_crf`; taken from the iterable at most two a worker ahead.
        workers: threads; one per core if not given.
        options: as for `dense_crf`.

    Example:
        >>> import numpy as np
        >>> pairs = ((np.zeros((4, 6, 3), np.uint8), np.full((2, 4, 6), 0.5, np.float32)) for _ in range(3))
        >>> [refined.shape for refined in dense_crf_many(pairs, workers=2)]
        [(2, 4, 6), (2, 4, 6), (2, 4, 6)]
    """
    return map_ahead(lambda pair: dense_crf(*pair, **options), pairs, workers)


def prepare() -> float:
    """Compile all that `dense_crf` needs, some seconds the first time on a machine; return the seconds taken.

    Numba keeps the compiled code in its cache on disk: from the second process on this only loads it.
    """
    start = time.perf_counter()
    image = np.zeros((3, 5, 3), np.uint8)
    for labels in (2, 5, 9):  # one vector of 4, one of 8, several
        dense_crf(image, np.full((labels, 3, 5), 1 / labels, np.float32), steps=1)
    return time.perf_counter() - start
