"""Short vectors of float32 for numba kernels.

Plain numba loops over a dozen labels are slow: the compiler cannot know that two arrays do not overlap and
checks it again for every pixel. Here a vector of ``n`` lanes is a numba value that lives in registers; LLVM
splits it into whatever the processor has (SSE, AVX, AVX-512, NEON).

The number of lanes is the length of a tuple, ``LANES[n]``, because numba specialises a kernel on the types of
its arguments and not on their values. Arrays are flat (1-D, C order, float32); indices count elements. All
intrinsics are module globals, never closure variables, or numba's compile cache would miss in each process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, register_model

Function = TypeVar("Function", bound=Callable[..., Any])
Lanes = tuple[int, ...]
Generator = Callable[[Any, list[Any]], Any]

LANES: dict[int, Lanes] = {n: (0,) * n for n in (1, 4, 8)}

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)


def jit(function: Function) -> Function:
    """Compile with numba: no Python objects, no interpreter lock, kept in numba's cache on disk."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that numba could keep its cache in
        compiled = numba.njit(**options)(function)
    return compiled


def inlined(function: Function) -> Function:
    """Compile into the kernels that call it: a call would count references to each array, for each pixel."""
    compiled: Function = numba.njit(inline="always", error_model="numpy")(function)
    return compiled


def empty(size: int) -> npt.NDArray[np.float32]:
    """Return float32 room that starts on a cache line, so that no vector of it straddles two."""
    room = np.empty(size + 16, np.float32)
    start = -room.ctypes.data // 4 % 16
    return room[start : start + size]


def zeros(size: int) -> npt.NDArray[np.float32]:
    """Return float32 zeros that start on a cache line."""
    room = empty(size)
    room.fill(0)
    return room


class Vector(types.Type):  # type: ignore[misc]
    """The numba type of a vector of ``lanes`` float32 numbers."""

    def __init__(self, lanes: int) -> None:
        """Name the type by its lanes, so that equal ones are one type."""
        super().__init__(name=f"Vector({lanes})")
        self.lanes = lanes


class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    """A vector is one LLVM vector value."""

    def __init__(self, manager: Any, vector: Vector) -> None:
        """Represent ``vector`` in LLVM."""
        super().__init__(manager, vector, _vector(vector.lanes))


register_model(Vector)(VectorModel)


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Declare a numba intrinsic; in a kernel it is called without its first argument."""
    return numba_intrinsic(function)


def _vector(lanes: int, kind: ir.Type = _FLOAT) -> ir.VectorType:
    return ir.VectorType(kind, lanes)


def _constant(value: float, lanes: int, kind: ir.Type = _FLOAT) -> ir.Constant:
    return ir.Constant(_vector(lanes, kind), [value] * lanes)


def _spread(builder: Any, scalar: Any, lanes: int) -> Any:
    undefined = ir.Constant(_vector(lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT(0))
    return builder.shuffle_vector(first, undefined, _constant(0, lanes, _INT))


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any, lanes: int) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _vector(lanes).as_pointer())


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    """Call an LLVM intrinsic whose arguments and result are all of one vector type."""
    kind = arguments[0].type
    signature = ir.FunctionType(kind, [kind] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{kind.count}f32")
    return builder.call(function, arguments)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _fold(builder: Any, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Reduce a vector to one number by halves; its lanes are a power of two."""
    while value.type.count > 1:
        half = value.type.count // 2
        ends = [ir.Constant(_vector(half, _INT), [*range(k, k + half)]) for k in (0, half)]
        value = combine(*[builder.shuffle_vector(value, value, end) for end in ends])
    return builder.extract_element(value, _INT(0))


def _plain(generate: Generator) -> Callable[[Any, Any, Any, Any], Any]:
    """Adapt a generator that needs neither numba's context nor the signature."""
    return lambda context, builder, signature, arguments: generate(builder, arguments)


@_intrinsic
def load(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Read ``len(lanes)`` numbers of ``array`` from ``index`` on."""
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        where = _address(context, builder, array, arguments[0], arguments[1], vector.lanes)
        return builder.load(where, align=4)

    return vector(array, types.intp, lanes), generate


@_intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the vector ``value`` into ``array`` from ``index`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        where = _address(context, builder, array, arguments[0], arguments[1], value.lanes)
        builder.store(arguments[2], where, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@_intrinsic
def spread(typing: Any, scalar: Any, lanes: Any) -> Any:
    """Return a vector whose lanes all hold ``scalar``."""
    vector = Vector(len(lanes))
    return vector(types.float32, lanes), _plain(lambda builder, args: _spread(builder, args[0], vector.lanes))


@_intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a + b``."""
    return a(a, a), _plain(lambda builder, args: builder.fadd(*args))


@_intrinsic
def subtract(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a - b``."""
    return a(a, a), _plain(lambda builder, args: builder.fsub(*args))


@_intrinsic
def scale(typing: Any, scalar: Any, a: Any) -> Any:
    """Return ``scalar * a``."""
    return a(types.float32, a), _plain(lambda builder, args: builder.fmul(_spread(builder, args[0], a.lanes), args[1]))


@_intrinsic
def scale_add(typing: Any, scalar: Any, a: Any, b: Any) -> Any:
    """Return ``scalar * a + b``, fused where the processor can."""

    def generate(builder: Any, args: list[Any]) -> Any:
        return _call(builder, "fmuladd", _spread(builder, args[0], a.lanes), args[1], args[2])

    return a(types.float32, a, a), _plain(generate)


@_intrinsic
def nearest_integer(typing: Any, a: Any) -> Any:
    """Round to the nearest integer, halves to even."""
    return a(a), _plain(lambda builder, args: _call(builder, "rint", args[0]))


@_intrinsic
def less(typing: Any, a: Any, b: Any) -> Any:
    """Return 1 where ``a < b``, else 0."""

    def generate(builder: Any, args: list[Any]) -> Any:
        one, none = _constant(1.0, a.lanes), _constant(0.0, a.lanes)
        return builder.select(builder.fcmp_ordered("<", *args), one, none)

    return a(a, a), _plain(generate)


@_intrinsic
def any_above(typing: Any, a: Any, bound: Any) -> Any:
    """Return whether any lane is larger than ``bound``."""

    def generate(builder: Any, args: list[Any]) -> Any:
        above = builder.fcmp_ordered(">", args[0], _spread(builder, args[1], a.lanes))
        bits = builder.bitcast(above, ir.IntType(a.lanes))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(a, types.float32), _plain(generate)


@_intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """Return the larger number, lane by lane (no NaN among them)."""
    return a(a, a), _plain(lambda builder, args: _larger(builder, *args))


@_intrinsic
def largest(typing: Any, a: Any) -> Any:
    """Return the largest lane."""

    def generate(builder: Any, args: list[Any]) -> Any:
        return _fold(builder, args[0], lambda x, y: _larger(builder, x, y))

    return types.float32(a), _plain(generate)


@_intrinsic
def total(typing: Any, a: Any) -> Any:
    """Return the sum of all lanes."""
    return types.float32(a), _plain(lambda builder, args: _fold(builder, args[0], builder.fadd))


@_intrinsic
def exp(typing: Any, a: Any, lowest: Any) -> Any:
    r"""Return :math:`e^a` for :math:`-80 < a \le 0`, and exactly 0 from ``lowest`` down.

    :math:`e^a = 2^n e^r` with integer :math:`n` and :math:`|r| \le \ln 2 / 2`: :math:`e^r` by its series to
    the sixth power (relative error under 2e-7), :math:`2^n` by adding :math:`n` to the exponent's bits.
    """

    def generate(builder: Any, args: list[Any]) -> Any:
        lanes = a.lanes
        x, bound = args[0], _spread(builder, args[1], lanes)
        magic = _constant(12582912.0, lanes)  # adding 1.5 * 2^23 leaves a rounded integer in the lowest bits
        shifted = _call(builder, "fmuladd", x, _constant(1.4426950408889634, lanes), magic)
        n = builder.fsub(shifted, magic)
        r = _call(builder, "fmuladd", n, _constant(-0.693359375, lanes), x)  # ln 2 in two parts
        r = _call(builder, "fmuladd", n, _constant(2.12194440e-4, lanes), r)
        power = _constant(1 / 720, lanes)
        for coefficient in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
            power = _call(builder, "fmuladd", power, r, _constant(coefficient, lanes))
        exponent = builder.shl(builder.bitcast(shifted, _vector(lanes, _INT)), _constant(23, lanes, _INT))
        bits = builder.add(builder.bitcast(power, _vector(lanes, _INT)), exponent)
        above = builder.fcmp_ordered(">", x, bound)
        return builder.select(above, builder.bitcast(bits, _vector(lanes)), _constant(0.0, lanes))

    return a(a, types.float32), _plain(generate)
