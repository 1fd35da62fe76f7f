"""``.safetensors``: a count (uint64), so many bytes of JSON, then the tensors' bytes without gaps.

The format's own specification (huggingface.co/docs/safetensors, "Format") gives the limits that are checked here.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import numpy as np

from segcam.errors import CheckpointError
from segcam.networks.file import WeightsFile
from segcam.networks.tensors import Storage, Tensor, Unreadable, make_packed_tensor, read_tensors
from segcam.networks.words import shown

#: The specification allows 100 MB, which no honest file comes near; a hundred bytes are one tensor.
_LONGEST_HEADER = 16 << 20
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


class SafeTensors:
    """The tensors of an open file by name (``value``), and their content on demand. Raises CheckpointError."""

    def __init__(self, file: WeightsFile) -> None:
        self._file = file
        length = int.from_bytes(file.bytes_at(0, 8), "little")
        if length > min(file.size - 8, _LONGEST_HEADER):
            raise CheckpointError(
                f"its header claims {length:,} bytes; the file has {file.size:,}", "Download it again."
            )
        self._data = 8 + length
        header = _parse(file.bytes_at(8, length))
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise CheckpointError("its metadata is not a table of texts")
        self.metadata: dict[str, object] = dict(metadata)
        self._places: dict[str, int] = {}
        self._ranges: list[tuple[int, int]] = []
        self.value: dict[str, object] = {name: self._tensor(name, entry) for name, entry in header.items()}
        self._check_gaps()

    def read(self, tensors: dict[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
        """Their arrays (see ``read_tensors``)."""
        return read_tensors(
            tensors, lambda key, size: self._file.array_at(self._places[key], size), "<", self._file.size
        )

    def _tensor(self, name: str, entry: object) -> Tensor | Unreadable:
        match entry:
            case {"dtype": str() as kind, "shape": list() as shape, "data_offsets": [int() as begin, int() as end]}:
                pass
            case _:
                raise CheckpointError(f"the entry {shown(name)} lacks its type, shape or place")
        if not 0 <= begin <= end <= self._file.size - self._data:
            raise CheckpointError(f"it ends early, or {shown(name)} lies outside it", "Download it again.")
        self._places[name] = self._data + begin
        self._ranges.append((begin, end))
        if kind not in _DTYPES:
            return Unreadable(f"a tensor of type {shown(kind)}")
        size = end - begin
        tensor = make_packed_tensor(Storage(name, _DTYPES[kind], 0, size, size), _DTYPES[kind], shape)
        if tensor.nbytes != size:
            raise CheckpointError(f"{shown(name)} has {size:,} bytes; its shape needs {tensor.nbytes:,}")
        return tensor

    def _check_gaps(self) -> None:
        """Bytes that belong to two tensors or to none are a fault by the specification."""
        place = 0
        for begin, end in sorted(self._ranges):
            if begin != place:
                raise CheckpointError("its tensors overlap or leave a gap")
            place = end
        if self._data + place != self._file.size:
            raise CheckpointError(f"it has {self._file.size:,} bytes, its tensors end at {self._data + place:,}")


def _parse(text: bytes) -> dict[str, object]:
    def refuse(text: str) -> NoReturn:
        raise ValueError(f"{text} is no number of a header")

    def whole(text: str) -> int:
        if len(text) > 20:
            refuse(f"{text[:20]}...")
        return int(text)

    def table(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(made := dict(pairs)) != len(pairs):
            raise ValueError("a name stands twice")
        return made

    try:
        header = json.loads(text, object_pairs_hook=table, parse_int=whole, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its header is damaged ({shown(str(error))})", "Download it again.") from None
    if not isinstance(header, dict):
        raise CheckpointError("its header is not a table of tensors")
    return header
