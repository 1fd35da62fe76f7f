"""Writes checkpoints as PyTorch and safetensors do, honest ones and others, without either.

``pickled`` makes the bytes of a pickle (protocol 2) from plain values and from the stand-ins below, which may name and
call anything: that is how the files are made that a reader must refuse.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "uint8": "Byte",
    "int8": "Char",
    "int16": "Short",
    "int32": "Int",
    "int64": "Long",
    "bool": "Bool",
    "complex64": "ComplexFloat",
}
SAFETENSORS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "bool": "BOOL",
    "complex64": "C64",
}
MARK_NUMBER = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Name:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Any
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Built:
    target: Any
    state: Any


@dataclass(frozen=True)
class Persistent:
    id: Any


@dataclass(frozen=True)
class Raw:
    """Instructions as they are."""

    code: bytes


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + code_of(value) + b"."


def code_of(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode("utf-8", "surrogatepass")
            return b"X" + struct.pack("<I", len(data)) + data
        case bytes():
            return code_of(Call(Name("_codecs", "encode"), (value.decode("latin-1"), "latin1")))
        case tuple():
            return b"(" + b"".join(map(code_of, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code_of, value)) + b"e"
        case dict():
            return b"}(" + b"".join(code_of(key) + code_of(item) for key, item in value.items()) + b"u"
        case Name():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return code_of(value.function) + code_of(value.arguments) + b"R"
        case Built():
            return code_of(value.target) + code_of(value.state) + b"b"
        case Persistent():
            return code_of(value.id) + b"Q"
        case Raw():
            return value.code
    raise TypeError(type(value))


def storage(kind: str, key: str, count: int, *view: Any) -> Persistent:
    """``kind`` is a storage class's beginning: Float, Long, ..."""
    return Persistent(("storage", Name("torch", f"{kind}Storage"), key, "cpu", count, *view))


def tensor(
    of: Any, shape: Sequence[int], strides: Sequence[int] | None = None, offset: int = 0, metadata: tuple[Any, ...] = ()
) -> Call:
    if strides is None:
        strides = packed_strides(shape)
    hooks = Call(Name("collections", "OrderedDict"))
    arguments = (of, offset, tuple(shape), tuple(strides), False, hooks, *metadata)
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def packed_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :], dtype=np.int64)) for axis in range(len(shape)))


def described(arrays: Mapping[str, np.ndarray[Any, Any]]) -> tuple[dict[str, Call], dict[str, np.ndarray[Any, Any]]]:
    """(what stands for the arrays in a pickle, their storages by key)."""
    calls: dict[str, Call] = {}
    storages: dict[str, np.ndarray[Any, Any]] = {}
    for number, (name, array) in enumerate(arrays.items()):
        calls[name] = tensor(storage(STORAGES[str(array.dtype)], str(number), array.size), array.shape)
        storages[str(number)] = np.ascontiguousarray(array)
    return calls, storages


def write_zip(
    path: Path, pickle: bytes, storages: Mapping[str, np.ndarray[Any, Any]], byteorder: str = "little", **more: bytes
) -> Path:
    """``more``: further entries by name, in which __ stands for a slash."""
    entries = {"data.pkl": pickle, "byteorder": byteorder.encode(), "version": b"3\n"}
    order = "<" if byteorder == "little" else ">"
    entries |= {f"data/{key}": data.astype(data.dtype.newbyteorder(order)).tobytes() for key, data in storages.items()}
    entries |= {name.replace("__", "/"): data for name, data in more.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(f"{path.stem}/{name}", data)
    return path


def write_legacy(path: Path, pickle: bytes, storages: Mapping[str, np.ndarray[Any, Any]]) -> Path:
    sizes = {"short": 2, "int": 4, "long": 4}
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    parts = [pickled(MARK_NUMBER), pickled(1001), pickled(about), pickle, pickled(list(storages))]
    parts += [struct.pack("<q", data.size) + data.tobytes() for data in storages.values()]
    path.write_bytes(b"".join(parts))
    return path


def safetensors_bytes(arrays: Mapping[str, np.ndarray[Any, Any]], metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    place = 0
    for name, array in arrays.items():
        offsets = [place, place + array.nbytes]
        header[name] = {"dtype": SAFETENSORS[str(array.dtype)], "shape": list(array.shape), "data_offsets": offsets}
        place += array.nbytes
    return raw_safetensors(json.dumps(header), b"".join(array.tobytes() for array in arrays.values()))


def raw_safetensors(header: str, data: bytes) -> bytes:
    text = header.encode()
    return struct.pack("<Q", len(text)) + text + data


def save(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], form: str = "zip", wrap: Any = None) -> Path:
    """A checkpoint of ``arrays`` in the form "zip", "legacy" or "safetensors"; ``wrap`` makes the pickled value of the
    dict of tensors (None: the dict itself)."""
    if form == "safetensors":
        path.write_bytes(safetensors_bytes(arrays, {"format": "pt"}))
        return path
    calls, storages = described(arrays)
    pickle = pickled(wrap(calls) if wrap else calls)
    return write_zip(path, pickle, storages) if form == "zip" else write_legacy(path, pickle, storages)
