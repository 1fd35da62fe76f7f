"""Headers of .safetensors files that say what cannot be."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import raw_safetensors

from segcam.errors import CheckpointError
from segcam.networks.checkpoint import read_checkpoint


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape if shape is not None else [2], "data_offsets": [begin, end]}


def header(**entries: dict[str, Any]) -> str:
    return json.dumps(entries)


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "overlap": (header(a=entry(0, 8), b=entry(4, 12)), bytes(12), "overlap or leave a gap"),
    "the same bytes": (header(a=entry(0, 8), b=entry(0, 8)), bytes(8), "overlap or leave a gap"),
    "gap": (header(a=entry(0, 8), b=entry(12, 20)), bytes(20), "overlap or leave a gap"),
    "gap before": (header(a=entry(4, 12)), bytes(12), "overlap or leave a gap"),
    "bytes left over": (header(a=entry(0, 8)), bytes(9), "its tensors end at"),
    "cut": (header(a=entry(0, 8)), bytes(7), "ends early"),
    "backwards": (header(a=entry(8, 0)), bytes(8), "ends early, or a lies outside"),
    "negative": (header(a=entry(-8, 0)), bytes(8), "a lies outside"),
    "too few bytes": (header(a=entry(0, 8, [3])), bytes(8), "storage of 8"),
    "too many bytes": (header(a=entry(0, 8, [1])), bytes(8), "a has 8 bytes; its shape needs 4"),
    "negative shape": (header(a=entry(0, 8, [-2])), bytes(8), "shape is not made of whole numbers"),
    "a true shape": (header(a=entry(0, 4, [True])), bytes(4), "shape is not made of whole numbers"),
    "huge shape": (header(a=entry(0, 8, [1 << 40, 1 << 40])), bytes(8), "reaches byte"),
    "many dimensions": (header(a=entry(0, 4, [1] * 100_000)), bytes(4), "at most 32"),
    "a type from elsewhere": (header(a=entry(0, 8, [16], "F4")), bytes(8), "a is a tensor of type F4"),
    "no offsets": (json.dumps({"a": {"dtype": "F32", "shape": [2]}}), bytes(8), "lacks its type, shape or place"),
    "three offsets": (json.dumps({"a": entry(0, 8) | {"data_offsets": [0, 4, 8]}}), bytes(8), "lacks its type"),
    "a name twice": ('{"a": 1, "a": 2}', b"", "a name stands twice"),
    "fractions": ('{"a": 1.5}', b"", "no number of a header"),
    "not a number": ('{"a": NaN}', b"", "no number of a header"),
    "a long number": ('{"a": ' + "1" * 5000 + "}", b"", "no number of a header"),
    "deep": ('{"a":' + "[" * 200_000, b"", "header is damaged"),
    "no JSON": ("{", b"", "header is damaged"),
    "bytes": ('{"\udcff'.encode("utf-8", "surrogatepass").decode("latin-1"), b"", "header is damaged"),
    "metadata": ('{"__metadata__": [1]}', b"", "not a table of texts"),
    "empty": ("{}", b"", "no state dict: it is empty"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, tmp_path: Path) -> None:
    text, data, words = REFUSED[what]
    path = tmp_path / "w.safetensors"
    path.write_bytes(raw_safetensors(text, data))
    with pytest.raises(CheckpointError, match=rf"w\.safetensors: .*{words}"):
        read_checkpoint(path)


@pytest.mark.parametrize("length", [1, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_header_longer_than_the_file(length: int, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", length))
    with pytest.raises(CheckpointError, match=f"header claims {length:,} bytes; the file has 8"):
        read_checkpoint(path)


def test_a_list_for_a_header(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(raw_safetensors("[1]", b""))
    with pytest.raises(CheckpointError, match="not a table of tensors"):
        read_checkpoint(path)


def test_numbers_of_any_size_and_order(tmp_path: Path) -> None:
    """Tensors may lie in another order than their names, scalars and empty ones among them."""
    path = tmp_path / "w.safetensors"
    text = header(b=entry(4, 12), a=entry(0, 4, []), none=entry(4, 4, [0, 3]))
    path.write_bytes(raw_safetensors(text, struct.pack("<3f", 1, 2, 3)))
    found = read_checkpoint(path).tensors
    assert {name: (array.shape, array.tolist()) for name, array in found.items()} == {
        "b": ((2,), [2.0, 3.0]),
        "a": ((), 1.0),
        "none": ((0, 3), []),
    }
    assert list(found) == ["b", "a", "none"]
