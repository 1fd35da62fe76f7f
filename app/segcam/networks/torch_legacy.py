"""PyTorch's format before 1.6: five pickles in a row (a mark, a version, sizes of C's types, the object, the order of
the storages), then every storage as a count (int64) and its bytes, always little-endian."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from segcam.errors import CheckpointError
from segcam.networks.file import WeightsFile
from segcam.networks.inert import storage_id
from segcam.networks.tensors import Storage, Tensor, item_size, read_tensors
from segcam.networks.unpickle import load
from segcam.networks.words import shown

_MARK = 0x1950A86A20F9469CFC6C
_VERSION = 1001
#: What a pickle begins with: a protocol, or (protocol 1) a long number.
BEGINNINGS = (b"\x80", b"L")


class TorchLegacy:
    """The value that an open file holds (``value``), and its tensors' content on demand. Raises CheckpointError."""

    def __init__(self, file: WeightsFile) -> None:
        self._file = file
        self._declared: dict[str, tuple[int, int]] = {}
        file.stream.seek(0)
        if self._next() != _MARK:
            raise CheckpointError(
                "it is a pickle, but not one of PyTorch's", "Give a file that torch.save wrote, or .safetensors."
            )
        version = self._next()
        if version != _VERSION:
            raise CheckpointError(f"it has version {shown(str(version)[:40])} of PyTorch's old format; 1001 is known")
        self._next()
        self.value = load(file.stream, file.size, file.size, self._storage)
        self._places = self._find_storages(self._next())

    def read(self, tensors: dict[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
        """Their arrays (see ``read_tensors``)."""
        return read_tensors(tensors, self._storage_bytes, "<", self._file.size)

    def _next(self) -> object:
        return load(self._file.stream, self._file.size, self._file.size, _refuse)

    def _storage(self, given: object) -> Storage:
        dtype, key, count, view = storage_id(given)
        step = item_size(dtype)
        if self._declared.setdefault(key, (step, count)) != (step, count):
            raise CheckpointError(f"its pickle says two different things about storage {shown(key)}")
        start, size = 0, count
        if view is not None:
            match view:
                case (str(), int() as start, int() as size) if 0 <= start <= start + size <= count and size >= 0:
                    pass
                case _:
                    raise CheckpointError(f"a view leaves its storage {shown(key)}")
        return Storage(key, dtype, start * step, size * step, count * step)

    def _find_storages(self, keys: object) -> dict[str, int]:
        if not isinstance(keys, list):
            raise CheckpointError("the order of its storages is missing")
        places: dict[str, int] = {}
        place = self._file.stream.tell()
        for key in keys:
            if not isinstance(key, str) or key not in self._declared or key in places:
                raise CheckpointError("the order of its storages names one that its pickle does not know")
            step, expected = self._declared[key]
            (count,) = struct.unpack("<q", self._file.bytes_at(place, 8))
            if count != expected:
                raise CheckpointError(f"storage {shown(key)} has {count:,} elements, its pickle says {expected:,}")
            places[key] = place + 8
            place += 8 + step * count
        if place > self._file.size:
            raise CheckpointError(
                f"it ends early: it has {self._file.size:,} bytes, its storages need {place:,}", "Download it again."
            )
        return places

    def _storage_bytes(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if key not in self._places:
            raise CheckpointError(f"it has no storage {shown(key)}")
        return self._file.array_at(self._places[key], size)


def _refuse(given: object) -> object:
    raise CheckpointError("it refers to a storage where none can be")
