"""Small random ONNX graphs, written down node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from segcam.onnx_tools.check import Difference, compare, random_inputs
from segcam.onnx_tools.rewrite.net import count_nodes


class Draft:
    """A graph with one picture as its input, ``x``; methods append nodes and return their output's name."""

    def __init__(self, shape: Sequence[int | str] = (1, 3, 16, 24), *, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))]
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def normal(self, *shape: int) -> NDArray[np.float32]:
        return self.random.standard_normal(shape).astype(np.float32)

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"n{len(self.nodes)}", **attributes))
        return output

    def conv(
        self, x: str, outputs: int, inputs: int, kernel: int = 1, *, bias: bool = True, groups: int = 1, **more: Any
    ) -> str:
        weight = self.normal(outputs, inputs // groups, kernel, kernel) / (inputs // groups * kernel**2) ** 0.5
        given = [x, self.constant(weight), *([self.constant(self.normal(outputs))] if bias else [])]
        return self.add("Conv", given, kernel_shape=[kernel, kernel], group=groups, **more)

    def resize(
        self, x: str, shape: Sequence[int], *, by: str = "sizes", source: Sequence[int] = (), **more: Any
    ) -> str:
        more = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", **more}
        empty = "" if self.opset >= 13 else self.constant([])
        if by == "sizes":
            return self.add("Resize", [x, empty, empty, self.constant(shape, np.int64)], **more)
        scales = [b / a for a, b in zip(source, shape, strict=True)]
        return self.add("Resize", [x, empty, self.constant(scales)], **more)

    def mean(self, x: str) -> str:
        return self.add("GlobalAveragePool", [x])

    def model(self, *outputs: str, weights_as_inputs: bool = False) -> onnx.ModelProto:
        """The graph with these outputs, checked."""
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs]
        listed = [helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in self.weights]
        inputs = self.inputs + (listed if weights_as_inputs else [])
        graph = helper.make_graph(self.nodes, "g", inputs, made, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def run_exactly(model: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """What a graph gives in ONNX Runtime with none of its own optimisations."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, inputs)]


def apart(model: onnx.ModelProto, other: onnx.ModelProto, batch: int = 1) -> Difference:
    """How two valid graphs differ on random pictures (of ``batch`` where the graph leaves it open)."""
    onnx.checker.check_model(other, full_check=True)
    inputs = random_inputs(model)
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        inputs["x"] = np.random.default_rng(1).standard_normal((batch, *inputs["x"].shape[1:])).astype(np.float32)
    return compare(run_exactly(model, inputs), run_exactly(other, inputs))


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return count_nodes(model.graph.node)
