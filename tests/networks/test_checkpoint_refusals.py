"""Files that are refused, and the words with which they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import Call, Name, code_of, pickled, storage, tensor, write_legacy, write_zip

from segcam.errors import CheckpointError
from segcam.networks.checkpoint import read_checkpoint

X = storage("Float", "0", 4)
REFUSED: dict[str, tuple[Any, str]] = {
    "a whole model": (Call(Name("fastseg.model", "MobileV3Small")), r"fastseg\.model\.MobileV3Small.*state_dict\(\)"),
    "an attack": (
        Call(Name("os", "system"), ("touch SEGCAM_WAS_HERE",)),
        r"os\.system.*nothing was run.*another source",
    ),
    "eval": (Call(Name("builtins", "eval"), ("1",)), r"builtins\.eval.*another source"),
    "terminal codes": (Name("o\x1b[2Js", "system"), r"o\\x1b\[2Js\.system"),
    "loading from bytes": (Call(Name("torch.storage", "_load_from_bytes"), (b"",)), r"_load_from_bytes"),
    "no tensors": ({"epoch": 3}, r"no state dict: its keys are epoch"),
    "one tensor": (tensor(X, (4,)), r"no state dict: it is one tensor"),
    "nothing": ({}, r"it is empty"),
    "a list": ([tensor(X, (4,))], r"type list"),
    "beyond the storage": ({"x": tensor(X, (5,))}, r"shape 5 reaches byte 20 of a storage of 16"),
    "beyond by its offset": ({"x": tensor(X, (4,), None, 1)}, r"reaches byte 20"),
    "beyond by its strides": ({"x": tensor(X, (2, 2), (3, 1))}, r"reaches byte 20"),
    "negative stride": ({"x": tensor(X, (2,), (-1,), 3)}, r"strides is not made of whole numbers"),
    "a shape of text": ({"x": tensor(X, ("4",), (1,))}, r"shape is not made of whole numbers"),  # type: ignore[arg-type]
    "too many dimensions": ({"x": tensor(X, (1,) * 33)}, r"at most 32"),
    "one stride missing": ({"x": tensor(X, (2, 2), (1,))}, r"2 dimensions with 1 strides"),
    "a huge repetition": ({"x": tensor(X, (1 << 40,), (0,))}, r"larger than the file"),
    "a huge empty shape": ({"x": tensor(X, (0, 1 << 60))}, r"impossible shape"),
    "a storage that is not there": ({"x": tensor(storage("Float", "9", 4), (4,))}, r"storage 9"),
    "a storage of another size": ({"x": tensor(storage("Float", "0", 5), (4,))}, r"storage 0 has"),
    "a quantised tensor": (
        {"x": Call(Name("torch._utils", "_rebuild_qtensor"), (X, 0, (4,), (1,)))},
        r"x is a quantised tensor",
    ),
    "a sparse tensor": ({"x": Call(Name("torch._utils", "_rebuild_sparse_tensor"))}, r"x is a sparse tensor"),
    "a negated tensor": ({"x": tensor(X, (4,), None, 0, ({"neg": True},))}, r"conjugated or negated"),
    "a number as name": ({3: tensor(X, (4,))}, r"names that are no text"),
    "too deep": ({"model": {"model": {"model": {"model": {"x": tensor(X, (4,))}}}}}, r"no state dict"),
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    value, words = REFUSED[what]
    pickle = pickled(value)
    # The old format lists the storages that its pickle names, and no others.
    storages = {"0": np.zeros(4, np.float32)} if code_of("0") in pickle else {}
    path = (write_zip if form == "zip" else write_legacy)(tmp_path / "w.pt", pickle, storages)
    with pytest.raises(CheckpointError, match=rf"(?s)w\.pt: .*{words}") as caught:
        read_checkpoint(path)
    assert caught.value.message.isprintable()
    assert list(tmp_path.iterdir()) == [path]


MISTAKES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", r"it is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"Git LFS pointer.*git lfs pull"),
    "page": (b"<!DOCTYPE html><html>404</html>", r"a web page.*Download"),
    "page after a line": (b"\n<html>", r"a web page"),
    "index": (json.dumps({"weight_map": {}}).encode(), r"index of weights in several files"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", r"HDF5"),
    "gzip": (b"\x1f\x8b\x08\0", r"gunzip"),
    "onnx": (b"\x08\x08\x12\x07pytorch", r"ONNX"),
    "tar": (bytes(257) + b"ustar\x0000", r"tar"),
    "noise": (bytes(range(50, 90)), r"neither a file of torch.save nor"),
    "another pickle": (pickled({"x": 1}), r"not one of PyTorch's"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_files_given_by_mistake(what: str, tmp_path: Path) -> None:
    data, words = MISTAKES[what]
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"(?s)w\.pt: .*{words}"):
        read_checkpoint(tmp_path / "w.pt")


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="a folder"):
        read_checkpoint(tmp_path)
