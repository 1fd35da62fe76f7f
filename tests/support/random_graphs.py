"""Random small networks with what converters stumble over: casts, bodies, shared constants, sizes made of floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 4, 6, 8)
_PIECES = (
    "Relu", "Sigmoid", "HardSigmoid", "Clip", "Add", "Mul", "Scale", "Conv", "Conv", "Resize", "Pool", "Norm", "Concat",
    "Double", "Half", "Whole", "Constant", "Filled", "If", "If", "Loop", "Sizes", "Transpose", "Where", "Range",
    "CumSum",
)  # fmt: skip


class _Maker:
    def __init__(self, draw: st.DrawFn, opset: int) -> None:
        self.draw, self.opset = draw, opset
        self.random = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.weights: list[onnx.TensorProto] = []
        self.count = 0
        self.kernels: list[str] = []

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def weight(self, value: Any, weights: list[onnx.TensorProto] | None = None) -> str:
        made = numpy_helper.from_array(np.asarray(value), self.name("w"))
        (self.weights if weights is None else weights).append(made)
        return made.name

    def node(self, nodes: list[onnx.NodeProto], kind: str, *inputs: str, **given: Any) -> str:
        made = self.name("t")
        # Some nodes have no name, as in many exports.
        name = f"n.{made}" if self.count % 3 else ""
        nodes.append(helper.make_node(kind, list(inputs), [made], name, **given))
        return made

    def some(self) -> np.ndarray[Any, Any]:
        return self.random.uniform(0.2, 1.0, SHAPE).astype(np.float32)

    def piece(self, nodes: list[onnx.NodeProto], tensors: list[str], depth: int) -> str:
        kind = self.draw(st.sampled_from(_PIECES))
        x = self.draw(st.sampled_from(tensors))
        y = self.draw(st.sampled_from(tensors))
        node = self.node
        if kind in ("Relu", "Sigmoid", "HardSigmoid"):
            return node(nodes, kind, x)
        if kind == "Clip":
            return node(nodes, kind, x, self.weight(np.float32(-2)), self.weight(np.float32(3.4e38)))
        if kind == "Add":
            return node(nodes, "Mul", node(nodes, kind, x, y), self.weight(np.float32(0.5)))
        if kind in ("Mul", "Scale"):
            return node(nodes, "Mul", x, node(nodes, "Sigmoid", y) if kind == "Mul" else self.weight(self.some()))
        if kind == "Conv":
            if not self.kernels or self.draw(st.booleans()):
                self.kernels.append(self.weight((self.random.standard_normal((4, 4, 3, 3)) / 6).astype(np.float32)))
            return node(nodes, kind, x, self.draw(st.sampled_from(self.kernels)), pads=[1, 1, 1, 1])
        if kind == "Resize":
            roi = "" if self.opset >= 13 else self.weight(np.zeros(0, np.float32))
            scales = self.weight(np.array([1, 1, 2, 2], np.float32))
            big = node(nodes, kind, x, roi, scales, mode="linear", coordinate_transformation_mode="half_pixel")
            return node(nodes, "AveragePool", big, kernel_shape=[2, 2], strides=[2, 2])
        if kind == "Pool":
            return node(nodes, "MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        if kind == "Norm":
            ones = [self.weight(np.full(4, v, np.float32)) for v in (1, 0.1, 0.2, 0.9)]
            return node(nodes, "BatchNormalization", x, *ones)
        if kind == "Concat":
            both = node(nodes, kind, x, y, axis=1)
            return node(nodes, "Conv", both, self.weight((self.random.standard_normal((4, 8, 1, 1)) / 3).astype("f4")))
        if kind in ("Double", "Half"):
            to = TensorProto.DOUBLE if kind == "Double" else TensorProto.FLOAT16
            wide = node(nodes, "Neg", node(nodes, "Cast", x, to=to))
            return node(nodes, "Cast", wide, to=TensorProto.FLOAT)
        if kind == "Whole":
            # Rounding may take a value over the edge to another whole number: added with the factor 0.
            whole = node(nodes, "Cast", node(nodes, "Cast", x, to=TensorProto.INT32), to=TensorProto.FLOAT)
            return node(nodes, "Add", y, node(nodes, "Mul", whole, self.weight(np.float32(0))))
        if kind == "Constant":
            value = numpy_helper.from_array(self.some())
            return node(nodes, "Mul", x, node(nodes, kind, value=value))
        if kind == "Filled":
            value = numpy_helper.from_array(np.array([0.25], np.float32))
            filled = node(nodes, "ConstantOfShape", self.weight(np.array(SHAPE, np.int64)), value=value)
            return node(nodes, "Add", x, filled)
        if kind == "Transpose":
            turned = node(nodes, kind, x, perm=[0, 2, 3, 1])
            return node(nodes, kind, node(nodes, "Relu", turned), perm=[0, 3, 1, 2])
        if kind == "Where":
            # Steps of an eighth: halves have these exactly, so that rounding changes no decision.
            sides = [self.weight(np.round(self.some() * 8) / 8) for _ in range(2)]
            positive = node(nodes, "Greater", *sides)
            return node(nodes, kind, positive, x, y)
        if kind == "Range":
            ends = [self.weight(np.float32(v)) for v in (0, 8, 1)]
            return node(nodes, "Add", x, node(nodes, "Mul", node(nodes, kind, *ends), self.weight(np.float32(0.05))))
        if kind == "CumSum":
            total = node(nodes, kind, x, self.weight(np.int64(1)))
            return node(nodes, "Mul", total, self.weight(np.float32(0.2)))
        if kind == "Sizes":
            # Sizes computed in floats, as old exporters do: in halves a size of 2049 would be another.
            size = node(nodes, "Cast", node(nodes, "Shape", x), to=TensorProto.FLOAT)
            size = node(nodes, "Mul", size, self.weight(np.float32(2049)))
            size = node(nodes, "Div", size, self.weight(np.float32(2049)))
            return node(nodes, "Reshape", y, node(nodes, "Cast", size, to=TensorProto.INT64))
        if depth > 1:
            return node(nodes, "Identity", x)
        return self.body(nodes, tensors, kind, depth)

    def body(self, nodes: list[onnx.NodeProto], tensors: list[str], kind: str, depth: int) -> str:
        def graph(given: list[str], first: list[str]) -> onnx.GraphProto:
            inner: list[onnx.NodeProto] = []
            own: list[str] = []
            for _ in range(self.draw(st.integers(1, 3))):
                own.append(self.piece(inner, [*tensors, *given, *own], depth + 1))
            out = self.node(inner, "Identity", own[-1])
            return helper.make_graph(
                inner,
                self.name("body"),
                [],
                [*(helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in first),
                 helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
            )  # fmt: skip

        if kind == "If":
            branches = {"then_branch": graph([], []), "else_branch": graph([], [])}
            return self.node(nodes, "If", "cond", **branches)
        turn, going, state = self.name("i"), self.name("go"), self.name("s")
        body = graph([state], [self.name("go_on")])
        body.node.append(helper.make_node("Identity", [going], [body.output[0].name]))
        half = self.weight(np.float32(0.5))
        mean = helper.make_node("Add", [state, body.output[1].name], [self.name("sum")])
        body.node.extend([mean, helper.make_node("Mul", [mean.output[0], half], [self.name("next")])])
        body.output[1].name = body.node[-1].output[0]
        body.input.extend(
            [
                helper.make_tensor_value_info(turn, TensorProto.INT64, []),
                helper.make_tensor_value_info(going, TensorProto.BOOL, []),
                helper.make_tensor_value_info(state, TensorProto.FLOAT, SHAPE),
            ]
        )
        start = self.draw(st.sampled_from(tensors))
        return self.node(nodes, "Loop", self.weight(np.int64(2)), "cond_true", start, body=body)


@st.composite
def networks(draw: st.DrawFn, oldest: int = 11) -> onnx.ModelProto:
    """x, 1 x 4 x 6 x 8 float32, and a condition to one to four outputs of that size, float32 or int64."""
    opset = draw(st.integers(oldest, 21))
    maker = _Maker(draw, opset)
    nodes: list[onnx.NodeProto] = []
    tensors = ["x"]
    for _ in range(draw(st.integers(1, 7))):
        tensors.append(maker.piece(nodes, tensors, 0))
    outputs = [tensors[-1], *draw(st.lists(st.sampled_from(tensors[1:]), max_size=2, unique=True))]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in dict.fromkeys(outputs)]
    if draw(st.booleans()):
        labels = maker.node(nodes, "ArgMax", tensors[-1], axis=1)
        values.append(helper.make_tensor_value_info(labels, TensorProto.INT64, [1, 1, *SHAPE[2:]]))
    maker.weights.append(numpy_helper.from_array(np.array(True), "cond_true"))
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE),
        helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
    ]
    if opset == 11 and draw(st.booleans()):
        inputs += [helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in maker.weights]
    graph = helper.make_graph(nodes, "random", inputs, values, maker.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def feeds(seed: int = 0) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Both ways of the condition."""
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal(SHAPE).astype(np.float32), "cond": np.array(way)} for way in (True, False)]
