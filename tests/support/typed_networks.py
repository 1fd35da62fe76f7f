"""Small networks with the types that plans are built from, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NUMPY: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
Dims = Sequence[int | str]


def model(
    nodes: Sequence[onnx.NodeProto],
    given: tuple[int, Dims],
    made: tuple[int, Dims],
    constants: dict[str, np.ndarray[Any, Any]],
    opset: int = 17,
) -> onnx.ModelProto:
    """A network from ``input`` to ``output``, each (element type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("input", *given)],
        [helper.make_tensor_value_info("output", *made)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def scores(
    kind: int = TensorProto.FLOAT16, batch: int | str = 1, hw: tuple[int | str, int | str] = (8, 16)
) -> onnx.ModelProto:
    """float32 pictures to float32 scores of five classes; ``kind`` is what lies between."""
    weights = np.random.default_rng(1).standard_normal((5, 3, 3, 3)).astype(NUMPY[kind])
    nodes = [
        helper.make_node("Cast", ["input"], ["x"], "enter", to=kind),
        helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["z"], "relu"),
        helper.make_node("Cast", ["z"], ["output"], "leave", to=TensorProto.FLOAT),
    ]
    float32 = TensorProto.FLOAT
    return model(nodes, (float32, [batch, 3, *hw]), (float32, [batch, 5, *hw]), {"w": weights})


def bytes_to_labels() -> onnx.ModelProto:
    """uint8 pictures, rows last channel, to int64 labels, in halves."""
    weights = np.random.default_rng(2).standard_normal((5, 3, 1, 1)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["input"], ["x"], "enter", to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["x"], ["t"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["t", "scale"], ["m"], "scaled"),
        helper.make_node("Conv", ["m", "w"], ["y"], "conv"),
        helper.make_node("ArgMax", ["y"], ["output"], "labels", axis=1, keepdims=0),
    ]
    constants = {"w": weights, "scale": np.array(1 / 255, np.float16)}
    return model(nodes, (TensorProto.UINT8, [1, 8, 16, 3]), (TensorProto.INT64, [1, 8, 16]), constants)


def quantized() -> onnx.ModelProto:
    """int8 by QuantizeLinear and DequantizeLinear, as TensorRT takes it."""
    weights = np.random.default_rng(3).integers(-127, 128, (5, 3, 1, 1)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "s", "zero"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "zero"], ["x"], "dequantize"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wzero"], ["wx"], "weights", axis=0),
        helper.make_node("Conv", ["x", "wx"], ["output"], "conv"),
    ]
    constants = {
        "s": np.array(0.02, np.float32),
        "zero": np.array(0, np.int8),
        "w": weights,
        "ws": np.full(5, 0.01, np.float32),
        "wzero": np.zeros(5, np.int8),
    }
    float32 = TensorProto.FLOAT
    return model(nodes, (float32, [1, 3, 8, 16]), (float32, [1, 5, 8, 16]), constants)
