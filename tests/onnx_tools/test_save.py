"""Files of networks: checked first, whole or not there."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from segcam.errors import EngineError
from segcam.onnx_tools import save
from segcam.onnx_tools.save import save_model


def network(kind: str = "Relu") -> onnx.ModelProto:
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"])], "net", info[:1], info[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    written = save_model(network(), path)
    assert written == path.stat().st_size
    assert onnx.load(path) == network()
    assert list(tmp_path.iterdir()) == [path]


def test_a_graph_whose_shapes_contradict_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the one before")
    wrong = network("GlobalAveragePool")
    with pytest.raises(onnx.shape_inference.InferenceError):
        save_model(wrong, path)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"the one before")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(network(), path)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_more_than_one_file_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save, "_LARGEST", 10)
    with pytest.raises(EngineError, match="one ONNX file holds at most"):
        save_model(network(), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
