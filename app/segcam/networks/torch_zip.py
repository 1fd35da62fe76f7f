"""PyTorch's format since 1.6: an uncompressed zip of one pickle (``NAME/data.pkl``) and a file for each storage
(``NAME/data/KEY``).

Zip as PKWARE's APPNOTE 6.3 describes it, 64-bit sizes included. Only stored entries are read, so nothing can unpack to
more than the file's size.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from segcam.errors import CheckpointError
from segcam.networks.file import WeightsFile
from segcam.networks.inert import storage_id
from segcam.networks.tensors import ByteOrder, Storage, Tensor, item_size, read_tensors
from segcam.networks.unpickle import load
from segcam.networks.words import shown

_END = b"PK\5\6"
_END_64 = b"PK\6\6"
_LOCATOR_64 = b"PK\6\7"
_ENTRY = b"PK\1\2"
_LOCAL = b"PK\3\4"
_LONGEST_COMMENT = 65535
_MOST_ENTRIES = 500_000


@dataclass(frozen=True, slots=True)
class _Entry:
    header: int
    size: int
    packed_size: int
    method: int
    flags: int
    checksum: int


class TorchZip:
    """The value that an open file holds (``value``), and its tensors' content on demand. Raises CheckpointError."""

    def __init__(self, file: WeightsFile) -> None:
        self._file = file
        self._entries = _directory(file)
        self._folder = self._find_folder()
        order = self._entry("byteorder") if f"{self._folder}byteorder" in self._entries else b"little"
        if order not in (b"little", b"big"):
            raise CheckpointError(f"its byte order is {shown(order.decode('latin-1'))}; little or big is expected")
        self._order: ByteOrder = "<" if order == b"little" else ">"
        pickle = self._entry("data.pkl")
        self.value = load(io.BytesIO(pickle), len(pickle), file.size, self._storage)

    def read(self, tensors: dict[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
        """Their arrays (see ``read_tensors``)."""
        return read_tensors(tensors, self._storage_bytes, self._order, self._file.size)

    def _find_folder(self) -> str:
        parts = [name.split("/") for name in self._entries]
        folders = ["/".join([*folder, ""]) for *folder, name in parts if name == "data.pkl" and len(folder) < 2]
        if len(folders) != 1:
            raise CheckpointError(
                f"it is a zip with {len(folders)} data.pkl where torch.save writes one",
                "Give the file as it was downloaded, not an archive around it.",
            )
        folder = folders[0]
        if any(name == f"{folder}constants.pkl" or name.startswith(f"{folder}code/") for name in self._entries):
            raise CheckpointError(
                "it is a TorchScript program, not a file of tensors",
                'Where PyTorch is installed: torch.save(torch.jit.load("x.pt").state_dict(), "weights.pt").',
            )
        return folder

    def _storage(self, given: object) -> Storage:
        dtype, key, count, view = storage_id(given)
        entry = self._entries.get(f"{self._folder}data/{key}")
        size = count * item_size(dtype)
        if view is not None or entry is None:
            raise CheckpointError(f"it has no storage {shown(key)}")
        if entry.size != size:
            raise CheckpointError(f"storage {shown(key)} has {entry.size:,} bytes, its pickle says {size:,}")
        return Storage(key, dtype, 0, size, size)

    def _storage_bytes(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        start, checksum = self._place(f"data/{key}")
        data = self._file.array_at(start, size)
        self._verify(f"data/{key}", checksum, zlib.crc32(data.data))
        return data

    def _entry(self, name: str) -> bytes:
        start, checksum = self._place(name)
        data = self._file.bytes_at(start, self._entries[self._folder + name].size)
        self._verify(name, checksum, zlib.crc32(data))
        return data

    def _place(self, name: str) -> tuple[int, int]:
        entry = self._entries[self._folder + name]
        if entry.flags & 1:
            raise CheckpointError(f"{shown(name)} in it is encrypted")
        if entry.method or entry.packed_size != entry.size:
            raise CheckpointError(
                f"{shown(name)} in it is compressed, which torch.save never does",
                "Give the file as it was downloaded, or pack it again without compression: zip -0.",
            )
        local = self._file.bytes_at(entry.header, 30)
        if local[:4] != _LOCAL:
            raise CheckpointError(f"its zip directory is wrong about {shown(name)}")
        return entry.header + 30 + sum(struct.unpack("<HH", local[26:])), entry.checksum

    def _verify(self, name: str, expected: int, found: int) -> None:
        # PyTorch writes 0 when it is told not to compute checksums.
        if expected not in (0, found):
            raise CheckpointError(
                f"it is damaged: the checksum of {shown(name)} is wrong", "Download or copy it again."
            )


def _directory(file: WeightsFile) -> dict[str, _Entry]:
    count, size, start = _end_record(file)
    if count > _MOST_ENTRIES:
        raise CheckpointError(f"it is a zip of {count:,} entries; at most {_MOST_ENTRIES:,} are read")
    data = file.bytes_at(start, size)
    entries: dict[str, _Entry] = {}
    place = 0
    for _ in range(count):
        if data[place : place + 4] != _ENTRY or len(data) < place + 46:
            raise CheckpointError("its zip directory is damaged", "Download or copy it again.")
        flags, method, checksum, packed, whole, name_size, extra_size, comment_size, header = struct.unpack(
            "<8x2H4x3I3H8xI", data[place : place + 46]
        )
        place += 46
        name = data[place : place + name_size].decode("utf-8", "replace")
        extra = data[place + name_size : place + name_size + extra_size]
        place += name_size + extra_size + comment_size
        whole, packed, header = _widened(extra, [whole, packed, header])
        if name in entries:
            raise CheckpointError(f"it has {shown(name)} twice")
        entries[name] = _Entry(header, whole, packed, method, flags, checksum)
    return entries


def _end_record(file: WeightsFile) -> tuple[int, int, int]:
    """(number of entries, size of the directory, its place)."""
    tail_start = max(0, file.size - 22 - _LONGEST_COMMENT)
    tail = file.bytes_at(tail_start, file.size - tail_start)
    place = len(tail)
    # A comment may hold anything, the signature too: the record's own length tells.
    while (place := tail.rfind(_END, 0, place)) >= 0:
        if place + 22 <= len(tail) == place + 22 + int.from_bytes(tail[place + 20 : place + 22], "little"):
            break
    else:
        raise CheckpointError("it ends early: the directory at the end of the zip is missing", "Download it again.")
    count, size, start = struct.unpack("<10xHII2x", tail[place : place + 22])
    if place >= 20 and tail[place - 20 : place - 16] == _LOCATOR_64:
        (end_64,) = struct.unpack("<Q", tail[place - 12 : place - 4])
        record = file.bytes_at(end_64, 56)
        if record[:4] != _END_64:
            raise CheckpointError("its zip directory is damaged", "Download or copy it again.")
        count, size, start = struct.unpack("<32x3Q", record)
    return count, size, start


def _widened(extra: bytes, values: list[int]) -> list[int]:
    """Sizes and place; those that don't fit 32 bits come from the 64-bit extra field, where they stand in order."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == 1:
            whole = min(size, len(extra) - 4) // 8
            wide = iter(struct.unpack(f"<{whole}Q", extra[4 : 4 + 8 * whole]))
            return [next(wide, value) if value == 0xFFFFFFFF else value for value in values]
        extra = extra[4 + size :]
    return values
