"""Small networks that are sure of what they see, the way exporters leave them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from drafts import Draft
from onnx import TensorProto, helper, numpy_helper

SPEC = {
    "segcam_spec": 1,
    "input": {"color": "RGB", "mean": [0, 0, 0], "std": [255, 255, 255]},
    "output": {"kind": "logits"},
    "classes": [{"name": name, "color": [index, 2, 3]} for index, name in enumerate(("red", "green", "blue"))],
}


def stripes(shape: tuple[int | str, ...] = (1, 3, 32, 48), opset: int = 17, **more: Any) -> onnx.ModelProto:
    """A network that is sure of itself: its three classes are the brightest of the colours, eight pixels wide, from a
    few convolutions; scores at an eighth, with a spec."""
    draft = Draft(shape, opset=opset)
    mean = draft.add("AveragePool", ["x"], kernel_shape=[8, 8], strides=[8, 8])
    up = np.eye(16, 3, dtype=np.float32)[:, :, None, None] * 4
    y = draft.add("Relu", [draft.add("Conv", [mean, draft.constant(up)])])
    y = draft.add("Conv", [y, draft.constant(np.eye(16, dtype=np.float32)[:, :, None, None])])
    y = draft.add("Conv", [y, draft.constant(np.eye(3, 16, dtype=np.float32)[:, :, None, None])], "scores")
    model = draft.model(y, **more)
    entry = model.metadata_props.add()
    entry.key, entry.value = "segcam_spec", json.dumps(SPEC)
    return model


def with_head(model: onnx.ModelProto, kind: int = TensorProto.INT64) -> onnx.ModelProto:
    """``model`` with the usual tail: enlarged by 8, softmax, argmax."""
    graph = model.graph
    opset = model.opset_import[0].version
    graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 8, 8], np.float32), "by"))
    roi = ""
    if opset < 13:
        roi = "roi"
        graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), roi))
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    graph.node.append(helper.make_node("Resize", ["scores", roi, "by"], ["large"], "enlarge", **how))
    graph.node.append(helper.make_node("Softmax", ["large"], ["soft"], "soften", axis=1))
    graph.node.append(helper.make_node("ArgMax", ["soft"], ["best"], "name", axis=1, keepdims=0))
    graph.node.append(helper.make_node("Cast", ["best"], ["map"], "narrow", to=kind))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("map", kind, [None, None, None]))
    onnx.checker.check_model(model, full_check=True)
    return model


def quantized(opset: int = 17, zero_point: int = 0) -> onnx.ModelProto:
    """``stripes`` whose middle layer is int8: activations and weights through QuantizeLinear and DequantizeLinear."""
    model = stripes(opset=opset)
    graph = model.graph
    middle = [node for node in graph.node if node.op_type == "Conv"][1]
    place = list(graph.node).index(middle)
    made = []
    for index, scale in ((0, 4 / 127), (1, 1 / 127)):
        name = middle.input[index]
        graph.initializer.append(numpy_helper.from_array(np.float32(scale), f"scale{index}"))
        graph.initializer.append(numpy_helper.from_array(np.int8(zero_point), f"zero{index}"))
        pair = [f"scale{index}", f"zero{index}"]
        made.append(helper.make_node("QuantizeLinear", [name, *pair], [f"q{index}"], f"quantize{index}"))
        made.append(helper.make_node("DequantizeLinear", [f"q{index}", *pair], [f"d{index}"], f"dequantize{index}"))
        middle.input[index] = f"d{index}"
    for node in reversed(made):
        graph.node.insert(place, node)
    onnx.checker.check_model(model, full_check=True)
    return model
