"""Whole registers of 16-bit numbers for Numba: the few vector loops that LLVM does not find by itself.

Each is an intrinsic over an array's memory, LANES numbers at a time, in LLVM's own vector instructions, which every
processor has in some width. Offsets and sizes count numbers, sizes are multiples of LANES; nothing checks bounds.
Scores are bfloat16 as their bits, and compared by *rank*: a bfloat16's place in the order of numbers as a uint16, from
0 for minus infinity upwards; NaNs of either sign come last, past plus infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 32

_I16 = ir.IntType(16)
_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(_I16, LANES)
_RANKS = types.Array(types.uint16, 1, "C")


def _vector(emitter: Callable[..., Any]) -> Callable[..., Any]:
    """``numba.extending.intrinsic``, whose annotations don't know that callers leave out the typing context."""
    made: Callable[..., Any] = intrinsic(emitter)
    return made


def _splat(value: int) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * LANES)


class _Lanes:
    """Emits vector instructions into one function."""

    def __init__(self, context: Any, builder: ir.IRBuilder) -> None:
        self.context, self.builder = context, builder

    def pointer(self, array_type: types.Array, array: ir.Value, offset: ir.Value) -> ir.Value:
        data = self.context.make_array(array_type)(self.context, self.builder, array).data
        return self.builder.gep(data, [offset])

    def load(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        at = self.builder.bitcast(self.builder.gep(pointer, [offset]), _VECTOR.as_pointer())
        return self.builder.load(at, align=2)

    def store(self, value: ir.Value, pointer: ir.Value, offset: ir.Value) -> None:
        at = self.builder.bitcast(self.builder.gep(pointer, [offset]), _VECTOR.as_pointer())
        self.builder.store(value, at, align=2)

    def ranks(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        """See ``rank``, for LANES scores."""
        build, bits = self.builder, self.load(pointer, offset)
        flip = build.or_(build.ashr(bits, _splat(15)), _splat(0x8000))
        return build.sub(build.xor(bits, flip), _splat(0x007F))

    def extreme(self, kind: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """``kind`` is ``>`` for the higher one of each pair, ``<`` for the lower one."""
        return self.builder.select(self.builder.icmp_unsigned(kind, a, b), a, b)

    def highest_of(self, slot: ir.Value) -> ir.Value:
        name = f"llvm.vector.reduce.umax.v{LANES}i16"
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(_I16, [_VECTOR]), name)
        return self.builder.call(function, [self.builder.load(slot)])

    def maximum(self) -> ir.Value:
        """A place for the highest numbers so far, 0 at first."""
        slot = cgutils.alloca_once(self.builder, _VECTOR)
        self.builder.store(_splat(0), slot)
        return slot

    def raise_to(self, slot: ir.Value, value: ir.Value) -> None:
        self.builder.store(self.extreme(">", self.builder.load(slot), value), slot)

    def steps(self, size: ir.Value) -> Any:
        """A loop whose ``index`` goes over the beginnings of whole registers."""
        return cgutils.for_range_slice(self.builder, _I64(0), size, _I64(LANES))


@_vector
def highest(_: Any, scores: Any, begin: Any, mask: Any, row: Any, size: Any) -> Any:
    """uint16: the highest rank of ``scores[begin:begin + size]`` where ``mask[row:]`` has its bits, else 0."""
    given = (_RANKS, types.intp, _RANKS, types.intp, types.intp)

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        lanes = _Lanes(context, builder)
        score, bits = lanes.pointer(given[0], args[0], args[1]), lanes.pointer(given[2], args[2], args[3])
        found = lanes.maximum()
        with lanes.steps(args[4]) as (at, _):
            lanes.raise_to(found, builder.and_(lanes.ranks(score, at), lanes.load(bits, at)))
        return lanes.highest_of(found)

    return types.uint16(*given), emit


@_vector
def first(_: Any, scores: Any, begin: Any, rank: Any, size: Any) -> Any:
    """Index, counted from ``begin``, of the first score of this rank; ``size`` where there is none."""
    given = (_RANKS, types.intp, types.uint16, types.intp)

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        lanes = _Lanes(context, builder)
        score, wanted = lanes.pointer(given[0], args[0], args[1]), _fill(builder, args[2])
        found = lanes.maximum()
        down = ir.Constant(_VECTOR, list(range(LANES, 0, -1)))
        with lanes.steps(args[3]) as (at, _):
            # How far from the end: the first is the one that is farthest.
            left = builder.trunc(builder.sub(builder.sub(args[3], at), _I64(LANES)), _I16)
            distance = builder.add(down, _fill(builder, left))
            equal = builder.icmp_unsigned("==", lanes.ranks(score, at), wanted)
            lanes.raise_to(found, builder.select(equal, distance, _splat(0)))
        return builder.sub(args[3], builder.zext(lanes.highest_of(found), _I64))

    return types.intp(*given), emit


@_vector
def corner_bound(_: Any, scores: Any, corners: Any, mask: Any, row: Any, out: Any, size: Any) -> Any:
    """uint16: the highest rank that some class reaches at all four ``corners`` (offsets of their scores), among those
    where ``mask[row:]`` has its bits; ``out`` (size,) gets each class's highest of the four."""
    given = (_RANKS, types.UniTuple(types.intp, 4), _RANKS, types.intp, _RANKS, types.intp)

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        lanes = _Lanes(context, builder)
        offsets = cgutils.unpack_tuple(builder, args[1], 4)
        points = [lanes.pointer(given[0], args[0], offset) for offset in offsets]
        bits = lanes.pointer(given[2], args[2], args[3])
        written = lanes.pointer(given[4], args[4], _I64(0))
        bound = lanes.maximum()
        with lanes.steps(args[5]) as (at, _):
            a, b, c, d = (lanes.ranks(point, at) for point in points)
            top, low = (
                lanes.extreme(kind, lanes.extreme(kind, a, b), lanes.extreme(kind, c, d)) for kind in (">", "<")
            )
            lanes.store(top, written, at)
            lanes.raise_to(bound, builder.and_(low, lanes.load(bits, at)))
        return lanes.highest_of(bound)

    return types.uint16(*given), emit


@_vector
def at_least(_: Any, ranks: Any, begin: Any, bound: Any) -> Any:
    """uint32: bit i is set where ``ranks[begin + i]``, of LANES, is not below ``bound``."""
    given = (_RANKS, types.intp, types.uint16)

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        lanes = _Lanes(context, builder)
        found = lanes.load(lanes.pointer(given[0], args[0], args[1]), _I64(0))
        return builder.bitcast(builder.icmp_unsigned(">=", found, _fill(builder, args[2])), ir.IntType(32))

    return types.uint32(*given), emit


@_vector
def trailing_zeros(_: Any, bits: Any) -> Any:
    """How many of a uint32's lowest bits are 0; it must not be 0 itself."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.zext(builder.cttz(args[0], ir.IntType(1)(1)), _I64)

    return types.intp(types.uint32), emit


def _fill(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A vector of one 16-bit value."""
    single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), zeros)
