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
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

Function = TypeVar("Function", bound=Callable[..., Any])

LANES = {n: (0,) * n for n in (4, 8, 16)}

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)


def jit(function: Function) -> Function:
    """Compile with numba: no Python objects, no interpreter lock, kept in numba's cache on disk."""
    compiled: Function = numba.njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)(function)
    return compiled


class Vector(types.Type):  # type: ignore[misc]
    """The numba type of a vector of ``lanes`` float32 numbers."""

    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"Vector({lanes})")
        self.lanes = lanes


@register_model(Vector)  # type: ignore[misc]
class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    """A vector is one LLVM vector value."""

    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(_FLOAT, vector.lanes))


def _constant(value: float, lanes: int, kind: ir.Type = _FLOAT) -> ir.Constant:
    return ir.Constant(ir.VectorType(kind, lanes), [value] * lanes)


def _spread(builder: Any, scalar: Any, lanes: int) -> Any:
    undefined = ir.Constant(ir.VectorType(_FLOAT, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT(0))
    return builder.shuffle_vector(first, undefined, _constant(0, lanes, _INT))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, lanes: int) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ir.VectorType(_FLOAT, lanes).as_pointer())


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    """Call an LLVM intrinsic whose arguments and result are all of one vector type."""
    kind = arguments[0].type
    full = f"llvm.{name}.v{kind.count}f32"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(arguments)), full
    )
    return builder.call(function, arguments)


@intrinsic  # type: ignore[misc]
def load(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Read ``len(lanes)`` numbers of ``array`` from ``index`` on."""
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        where = _address(context, builder, array, arguments[0], arguments[1], vector.lanes)
        return builder.load(where, align=4)

    return vector(array, types.intp, lanes), generate


@intrinsic  # type: ignore[misc]
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the vector ``value`` into ``array`` from ``index`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        where = _address(context, builder, array, arguments[0], arguments[1], value.lanes)
        builder.store(arguments[2], where, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic  # type: ignore[misc]
def spread(typing: Any, scalar: Any, lanes: Any) -> Any:
    """Return a vector whose lanes all hold ``scalar``."""
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _spread(builder, arguments[0], vector.lanes)

    return vector(types.float32, lanes), generate


@intrinsic  # type: ignore[misc]
def add(typing: Any, a: Any, b: Any) -> Any:
    """Return ``a + b``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments)

    return a(a, a), generate


@intrinsic  # type: ignore[misc]
def multiply(typing: Any, a: Any, scalar: Any) -> Any:
    """Return the vector ``a`` times a scalar."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(arguments[0], _spread(builder, arguments[1], a.lanes))

    return a(a, types.float32), generate


@intrinsic  # type: ignore[misc]
def multiply_add(typing: Any, scalar: Any, b: Any, c: Any) -> Any:
    """Return ``scalar * b + c``, fused where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "fmuladd", _spread(builder, arguments[0], b.lanes), *arguments[1:])

    return b(types.float32, b, b), generate


@intrinsic  # type: ignore[misc]
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """Return the larger number, lane by lane (no NaN among them)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return a(a, a), generate


def _fold(builder: Any, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Reduce a vector to its first lane by halves (lanes are a power of two)."""
    while value.type.count > 1:
        half = value.type.count // 2
        ends = [ir.Constant(ir.VectorType(_INT, half), [*range(k, k + half)]) for k in (0, half)]
        value = combine(*[builder.shuffle_vector(value, value, end) for end in ends])
    return builder.extract_element(value, _INT(0))


@intrinsic  # type: ignore[misc]
def largest(typing: Any, a: Any) -> Any:
    """Return the largest lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fold(builder, arguments[0], lambda x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))

    return types.float32(a), generate


@intrinsic  # type: ignore[misc]
def total(typing: Any, a: Any) -> Any:
    """Return the sum of all lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fold(builder, arguments[0], builder.fadd)

    return types.float32(a), generate


@intrinsic  # type: ignore[misc]
def exp_flushed(typing: Any, a: Any) -> Any:
    r"""Return :math:`e^a` for :math:`a \le 0`, and exactly 0 below 1e-8 (relative error under 2e-7).

    :math:`e^a = 2^n e^r` with integer :math:`n` and :math:`|r| \le \ln 2 / 2`; :math:`e^r` by its series,
    :math:`2^n` by adding ``n`` to the exponent bits. The flush keeps denormal numbers, which cost some hundred
    cycles each, out of the lattice; it changes no logit by more than 1e-8 times the compatibility.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = a.lanes
        integers = ir.VectorType(_INT, lanes)

        def constant(value: float) -> ir.Constant:
            return _constant(value, lanes)

        (x,) = arguments
        # Adding 1.5 * 2^23 rounds to an integer, which then stands in the lowest bits.
        shifted = _call(builder, "fmuladd", x, constant(1.4426950408889634), constant(12582912.0))
        n = builder.fsub(shifted, constant(12582912.0))
        r = _call(builder, "fmuladd", n, constant(-0.693359375), x)
        r = _call(builder, "fmuladd", n, constant(2.12194440e-4), r)
        series = constant(1 / 720)
        for coefficient in (1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
            series = _call(builder, "fmuladd", series, r, constant(coefficient))
        exponent = builder.shl(builder.bitcast(shifted, integers), _constant(23, lanes, _INT))
        bits = builder.add(builder.bitcast(series, integers), exponent)
        power = builder.bitcast(bits, ir.VectorType(_FLOAT, lanes))
        return builder.select(builder.fcmp_ordered(">", x, constant(-18.420681)), power, constant(0.0))

    return a(a), generate
