"""Tensors as a checkpoint describes them, and how their bytes become arrays.

Nothing is read while a file is being understood: a tensor is a view (offset, shape, strides) of a storage somewhere in
the file. Only the tensors that somebody wants are then read, each storage once, so that the optimizer's state in a
training checkpoint costs nothing. The element types are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from segcam.errors import CheckpointError
from segcam.networks.words import dims

ByteOrder = Literal["<", ">", "=", "|"]

#: PyTorch's types that NumPy has too: name -> NumPy's code.
NATIVE = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "uint8": "u1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "int8": "i1",
    "int16": "i2",
    "int32": "i4",
    "int64": "i8",
    "bool": "u1",
    "complex64": "c8",
    "complex128": "c16",
}
#: Types that NumPy has not, and that come out as float32.
_EXACT_IN_FLOAT32 = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
#: NumPy 1.x has no arrays of more.
_MOST_DIMENSIONS = 32
#: A view may repeat its storage (PyTorch's expand): so much room beyond the file's size is given.
_COPY_ALLOWANCE = 1 << 20
#: No file reaches so far.
_FAR = 1 << 61


def item_size(dtype: str) -> int:
    """Bytes of one element of a storage."""
    if dtype in NATIVE:
        return np.dtype(NATIVE[dtype]).itemsize
    return {"bfloat16": 2, "qint32": 4}.get(dtype, 1)


def known(dtype: str) -> bool:
    """Whether tensors of this type can be read."""
    return dtype in NATIVE or dtype in _EXACT_IN_FLOAT32


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of the file: ``size`` of them, from ``start`` on within what the file keeps under ``key``.

    ``whole`` is the number of bytes that the file keeps there, ``dtype`` the type that the storage is declared with.
    """

    key: str
    dtype: str
    start: int
    size: int
    whole: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; ``offset`` and ``strides`` count elements. Checked to lie within its storage."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take, each counted once."""
        return self.count * item_size(self.dtype)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something in a tensor's place that is no plain tensor; ``what`` says so in words, article included."""

    what: str


def make_tensor(storage: Storage, dtype: str, offset: object, shape: object, strides: object) -> Tensor:
    """A checked view. Raises CheckpointError for anything but whole numbers, or for a view that leaves its storage."""
    sizes, steps = _whole_numbers(shape, "shape"), _whole_numbers(strides, "strides")
    (begin,) = _whole_numbers((offset,), "offset")
    if len(sizes) != len(steps):
        raise CheckpointError(f"a tensor of {len(sizes)} dimensions with {len(steps)} strides")
    if 0 in sizes:
        if math.prod(size for size in sizes if size) > 1 << 40:
            raise CheckpointError("an empty tensor of an impossible shape")
    else:
        end = begin + 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
        if end * item_size(dtype) > storage.size:
            last = end * item_size(dtype)
            raise CheckpointError(f"a tensor of shape {dims(sizes)} reaches byte {last} of a storage of {storage.size}")
    # The stride along a dimension of one element means nothing, and PyTorch writes any number there.
    return Tensor(
        storage, dtype, begin, sizes, tuple(0 if n == 1 else step for n, step in zip(sizes, steps, strict=True))
    )


def make_packed_tensor(storage: Storage, dtype: str, shape: object) -> Tensor:
    """The checked view of a storage whose elements lie in C order. Raises CheckpointError like ``make_tensor``."""
    sizes = _whole_numbers(shape, "shape")
    return make_tensor(storage, dtype, 0, sizes, tuple(min(math.prod(sizes[i + 1 :]), _FAR) for i in range(len(sizes))))


def read_tensors(
    tensors: Mapping[str, Tensor],
    read: Callable[[str, int], np.ndarray[Any, np.dtype[np.uint8]]],
    order: ByteOrder,
    room: int,
) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays, C-contiguous and in native byte order, under the same names in the same order.

    ``read(key, size)`` gives a storage's bytes, ``order`` their byte order, ``room`` the size of the file in
    bytes: the memory taken is at most a small multiple of it. Floats that NumPy lacks (bfloat16, float8) become
    float32, exactly. Names that are one view in the file get one array. Raises CheckpointError when the tensors claim
    more bytes than the file has.
    """
    by_storage: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        by_storage.setdefault(tensor.storage.key, []).append(name)
    read_left, copy_left = room, room + _COPY_ALLOWANCE
    made: dict[str, np.ndarray[Any, Any]] = {}
    for key, names in by_storage.items():
        whole = tensors[names[0]].storage.whole
        read_left -= whole
        if read_left < 0:
            raise CheckpointError("its storages claim more bytes than the file has")
        raw = read(key, whole)
        views: dict[Tensor, np.ndarray[Any, Any]] = {}
        for name in names:
            tensor = tensors[name]
            if tensor not in views:
                if not _is_whole_storage(tensor):
                    copy_left -= tensor.nbytes
                if copy_left < 0:
                    raise CheckpointError(f"{name} and others repeat their storage until they are larger than the file")
                views[tensor] = _array(tensor, raw, order)
            made[name] = views[tensor]
    return {name: made[name] for name in tensors}


def _is_whole_storage(tensor: Tensor) -> bool:
    """Whether the array can be the storage's own bytes, which have been counted."""
    step = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return tensor.dtype in NATIVE and step * item_size(tensor.dtype) == tensor.storage.whole


def _array(tensor: Tensor, raw: np.ndarray[Any, np.dtype[np.uint8]], order: ByteOrder) -> np.ndarray[Any, Any]:
    size = item_size(tensor.dtype)
    code = NATIVE.get(tensor.dtype, f"u{size}")
    if tensor.count == 0:
        bits: np.ndarray[Any, Any] = np.empty(tensor.shape, code)
    else:
        start = tensor.storage.start + tensor.offset * size
        view: np.ndarray[Any, Any] = np.ndarray(
            tensor.shape, np.dtype(code).newbyteorder(order), raw, start, tuple(step * size for step in tensor.strides)
        )
        bits = np.ascontiguousarray(view.astype(code, copy=False)).reshape(tensor.shape)
        # A small view must not keep a large storage alive.
        if bits.nbytes != raw.nbytes and np.may_share_memory(bits, raw):
            bits = bits.copy()
    if tensor.dtype == "bool":
        return np.asarray(bits != 0)
    if tensor.dtype in NATIVE:
        return bits
    if tensor.dtype == "bfloat16":
        # Its bits are the upper half of a float32's.
        return np.asarray(bits.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(_float8_table(tensor.dtype)[bits])


def _float8_table(dtype: str) -> np.ndarray[Any, Any]:
    """The 256 values of a float of eight bits (OCP 8-bit floating point 1.0, OCP microscaling 1.0; "fnuz": one zero,
    no infinities, the bias one larger)."""
    code = np.arange(256)
    if dtype == "float8_e8m0fnu":
        values = np.ldexp(1.0, code - 127)
        values[255] = np.nan
        return values.astype(np.float32)
    mantissa_bits = 3 if "e4m3" in dtype else 2
    bias = (7 if mantissa_bits == 3 else 15) + dtype.endswith("fnuz")
    exponent = (code & 127) >> mantissa_bits
    fraction = (code & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    values = np.where(
        exponent == 0, np.ldexp(fraction, 1 - bias), np.ldexp(1 + fraction, np.maximum(exponent, 1) - bias)
    ) * np.where(code < 128, 1.0, -1.0)
    if dtype.endswith("fnuz"):
        values[128] = np.nan
    elif mantissa_bits == 3:
        values[[127, 255]] = np.nan
    else:
        values[[124, 252]] = np.inf, -np.inf
        values[[125, 126, 127, 253, 254, 255]] = np.nan
    return values.astype(np.float32)


def _whole_numbers(values: object, what: str) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > _MOST_DIMENSIONS:
        raise CheckpointError(f"a tensor whose {what} is no row of at most {_MOST_DIMENSIONS} numbers")
    if not all(type(v) is int and 0 <= v <= _FAR for v in values):
        raise CheckpointError(f"a tensor whose {what} is not made of whole numbers from 0 on")
    return tuple(values)
