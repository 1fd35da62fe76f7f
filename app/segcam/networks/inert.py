"""The values that a checkpoint's pickle is made of: nothing here does anything but hold what it was given.

Every maker takes the arguments of the call that it stands for, and ``charge``, which is told of memory (bytes) that it
takes besides the value's own. Arguments that make no sense raise CheckpointError. The names that lead here are in
``segcam.networks.allowed``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from segcam.errors import CheckpointError
from segcam.networks.tensors import ByteOrder, Storage, Tensor, Unreadable, known, make_tensor

Charge: TypeAlias = Callable[[int], None]
Arguments: TypeAlias = tuple[object, ...]
Maker: TypeAlias = Callable[[Arguments, Charge], object]
Key: TypeAlias = str | int | float | bytes | None


@dataclass(frozen=True)
class Name:
    """An allowed name. ``make`` makes the value of a call, if it can be called; ``dtype`` is set for element types."""

    full: str
    make: Maker | None = None
    dtype: str = ""
    storage: str = ""


@dataclass(slots=True)
class Record:
    """An object known by its class's name and nothing more (argparse.Namespace, a path)."""

    full: str
    state: object = None


@dataclass(slots=True)
class NumpyType:
    """NumPy's dtype: kind and size, and the byte order that its state adds."""

    code: str
    order: ByteOrder = "="


@dataclass(slots=True)
class NumpyArray:
    """An array being made: its content comes as state."""

    array: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty(0))

    def plain(self) -> np.ndarray[Any, Any]:
        """A C-contiguous copy in native byte order."""
        return np.array(self.array, self.array.dtype.newbyteorder("="), order="C")


def add_state(target: object, state: object, charge: Charge) -> object:
    """``target`` after its state was given to it. Raises CheckpointError where the two don't fit."""
    if isinstance(target, Record):
        target.state = state
    elif isinstance(target, NumpyType):
        _add_type_state(target, state)
    elif isinstance(target, NumpyArray):
        target.array = _array_from_state(state, charge)
    elif type(target) is not dict:
        # An OrderedDict's attributes (PyTorch's _metadata) say nothing about tensors.
        raise CheckpointError(f"its pickle gives a state to a value of type {type(target).__name__}")
    return target


def storage_id(given: object) -> tuple[str, str, int, object]:
    """(element type, key, number of elements, view) of a persistent id, PyTorch's only one:
    ``("storage", type, key, location, count[, view])``. Raises CheckpointError for any other."""
    match given:
        case ("storage", Name(storage=dtype), str() as key, _, int() as count, *rest) if (
            dtype and 0 <= count < 1 << 62 and len(rest) <= 1
        ):
            return dtype, key, count, rest[0] if rest else None
    raise CheckpointError("its pickle refers to something that is no storage of numbers")


def checked_key(key: object) -> Key:
    """``key`` if it can be a dict's: text, bytes, a number of at most 8 bytes, or None. Long numbers and tuples can be
    made to collide, which takes forever, and hashing deep tuples overflows the stack. CheckpointError for others."""
    if type(key) is int and not -(1 << 63) <= key < 1 << 64:
        raise CheckpointError("its pickle has a dict with a very long number as key")
    if key is not None and type(key) not in (str, bytes, int, float, bool):
        raise CheckpointError(f"its pickle has a dict with a key of type {type(key).__name__}")
    return cast(Key, key)


# Containers


def make_dict(arguments: Arguments, _: Charge) -> object:
    pairs = arguments[0] if arguments else ()
    if len(arguments) > 1 or not isinstance(pairs, (tuple, list, dict)):
        raise CheckpointError("its pickle makes a dict of something else")
    if isinstance(pairs, dict):
        return dict(pairs)
    made: dict[Key, object] = {}
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise CheckpointError("its pickle makes a dict of something else")
        made[checked_key(pair[0])] = pair[1]
    return made


def make_default_dict(arguments: Arguments, charge: Charge) -> object:
    return make_dict(arguments[1:], charge)


def make_list(arguments: Arguments, _: Charge) -> object:
    """A set or a list: the list itself, which the pickle made for it."""
    if not arguments:
        return []
    if len(arguments) != 1 or not isinstance(arguments[0], (tuple, list)):
        raise CheckpointError("its pickle makes a set or list of something else")
    return arguments[0]


def make_bytes(arguments: Arguments, _: Charge) -> object:
    """``bytes()``, ``bytearray(bytes)``, ``bytearray(text, "latin-1")`` and ``_codecs.encode(text, "latin1")``."""
    match arguments:
        case ():
            return b""
        case (bytes() as data,):
            return data
        case (str() as text, "latin1" | "latin-1"):
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                pass
    raise CheckpointError("its pickle makes bytes of something else")


def make_complex(arguments: Arguments, _: Charge) -> object:
    match arguments:
        case (int() | float() as real, int() | float() as imaginary):
            return complex(float(real), float(imaginary))
    raise CheckpointError("its pickle makes a complex number of something else")


def record(full: str) -> Maker:
    return lambda arguments, _: Record(full, arguments)


# PyTorch


def rebuild(arguments: Arguments, _: Charge) -> object:
    """``_rebuild_tensor(storage, offset, shape, strides)`` and ``_rebuild_tensor_v2(..., grad, hooks[, metadata])``."""
    if len(arguments) not in (4, 6, 7):
        raise CheckpointError("a tensor with the wrong number of arguments")
    storage = arguments[0]
    return _view(storage, storage.dtype if isinstance(storage, Storage) else "", arguments[1:4], arguments[6:])


def rebuild_typed(arguments: Arguments, _: Charge) -> object:
    """``_rebuild_tensor_v3(storage, offset, shape, strides, grad, hooks, dtype[, metadata])``."""
    if len(arguments) not in (7, 8):
        raise CheckpointError("a tensor with the wrong number of arguments")
    dtype = arguments[6]
    if not isinstance(dtype, Name) or not dtype.dtype:
        raise CheckpointError("a tensor without an element type")
    return _view(arguments[0], dtype.dtype, arguments[1:4], arguments[7:])


def _view(storage: object, dtype: str, place: Arguments, metadata: Arguments) -> object:
    if isinstance(storage, Unreadable):
        return storage
    if not isinstance(storage, Storage):
        raise CheckpointError("a tensor without a storage")
    if metadata and metadata[0]:
        return Unreadable("a tensor to be conjugated or negated")
    if not known(dtype):
        return Unreadable(f"a tensor of type {dtype}")
    return make_tensor(storage, dtype, *place)


def rebuild_parameter(arguments: Arguments, _: Charge) -> object:
    """``_rebuild_parameter(data, grad, hooks[, state])``: the data."""
    if len(arguments) not in (3, 4) or not isinstance(arguments[0], (Tensor, Unreadable)):
        raise CheckpointError("a parameter without a tensor")
    return arguments[0]


def rebuild_subclass(arguments: Arguments, charge: Charge) -> object:
    """``_rebuild_from_type_v2(function, type, arguments, state)``: a tensor with attributes, which are dropped."""
    match arguments:
        case (Name(make=make), Name(full="torch.Tensor" | "torch.nn.parameter.Parameter"), tuple() as given, _):
            if make in (rebuild, rebuild_typed, rebuild_parameter):
                return make(given, charge)
    return Unreadable("a tensor subclass")


def unreadable(what: str) -> Maker:
    return lambda arguments, charge: Unreadable(what)


def make_size(arguments: Arguments, _: Charge) -> object:
    """``torch.Size(tuple)``: the tuple."""
    if len(arguments) != 1 or not isinstance(arguments[0], (tuple, list)):
        raise CheckpointError("its pickle makes a shape of something else")
    return arguments[0]


# NumPy


def make_numpy_type(arguments: Arguments, _: Charge) -> object:
    match arguments:
        case (str() as code, *_) if re.fullmatch("[biufc][0-9]{1,2}", code):
            return NumpyType(code)
    raise CheckpointError("its pickle has a NumPy type that is no number")


def _add_type_state(target: NumpyType, state: object) -> None:
    match state:
        case (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_):
            target.order = order
        case _:
            raise CheckpointError("its pickle has a NumPy type that is no number")


def _from_bytes(
    dtype: object, data: object, shape: tuple[int, ...], order: Literal["C", "F"], charge: Charge
) -> np.ndarray[Any, Any]:
    if isinstance(data, str):
        # Python 2's bytes, which were taken for text because they happen to be UTF-8.
        charge(4 * len(data))
        data = data.encode("utf-8", "surrogatepass")
    if not isinstance(dtype, NumpyType) or not isinstance(data, bytes):
        raise CheckpointError("its pickle has a NumPy value without type or bytes")
    charge(len(data))
    try:
        element = np.dtype(dtype.code).newbyteorder(dtype.order)
        return np.ndarray((len(data) // element.itemsize,), element, data).reshape(shape, order=order)
    except (ValueError, TypeError):
        raise CheckpointError("its pickle has a NumPy value whose bytes don't fit its type and shape") from None


def make_numpy_scalar(arguments: Arguments, charge: Charge) -> object:
    if len(arguments) != 2:
        raise CheckpointError("its pickle has a NumPy number without type or bytes")
    return _from_bytes(*arguments, (), "C", charge).item()


def make_numpy_array(arguments: Arguments, _: Charge) -> object:
    return NumpyArray()


def make_numpy_array_of_bytes(arguments: Arguments, charge: Charge) -> object:
    """``_frombuffer(bytes, dtype, shape, order)``, which protocol 5 has in place of a state."""
    match arguments:
        case (data, dtype, shape, "C" | "F" as order):
            return NumpyArray(_from_bytes(dtype, data, _checked_shape(shape), order, charge))
    raise CheckpointError("its pickle has a NumPy array without shape or bytes")


def _array_from_state(state: object, charge: Charge) -> np.ndarray[Any, Any]:
    match state:
        case (int(), shape, dtype, bool() as fortran, data):
            return _from_bytes(dtype, data, _checked_shape(shape), "F" if fortran else "C", charge)
    raise CheckpointError("its pickle has a NumPy array without shape or bytes")


def _checked_shape(shape: object) -> tuple[int, ...]:
    if isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
        return shape
    raise CheckpointError("its pickle has a NumPy array of an impossible shape")
