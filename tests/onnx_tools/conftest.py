"""Small random networks with every kind of tail that exporters leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SPEC = {
    "segcam_spec": 1,
    "input": {"color": "RGB", "mean": [0, 0, 0], "std": [1, 1, 1]},
    "output": {"kind": "logits"},
}

RESIZED = "resized"


@dataclass
class Tail:
    """How ``make_tail`` is to build a network: a convolution of stride ``stride``, an enlargement to ``input_hw`` (or
    to ``sizes``), then ``operators``: names of ONNX operators with their attributes, ``axes`` and ``k`` among them.
    """

    input_hw: tuple[int, int] = (32, 48)
    stride: int = 4
    classes: int = 5
    opset: int = 13
    mode: str = "half_pixel"
    kind: str = "linear"
    via: str = "sizes"
    scales: tuple[float, float] | None = None
    sizes: tuple[int, int] | None = None
    operators: Sequence[tuple[str, dict[str, Any]]] = ()
    output_type: int = TensorProto.FLOAT
    resize_attributes: dict[str, Any] = field(default_factory=dict)
    open_dims: tuple[int, ...] = ()
    weights_as_inputs: bool = False
    double_use: bool = False
    extra_output: bool = False
    seed: int = 0
    half: bool = False


MakeTail = Callable[..., onnx.ModelProto]


class _Graph:
    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, dtype: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def _resize(graph: _Graph, spec: Tail, scores: str) -> None:
    height, width = spec.sizes or spec.input_hw
    grid = tuple(-(-n // spec.stride) for n in spec.input_hw)
    scales = [1.0, 1.0, *(spec.scales or (height / grid[0], width / grid[1]))]
    attributes: dict[str, Any] = {"mode": spec.kind, **spec.resize_attributes}
    if spec.opset < 9:
        graph.add("Upsample", [scores], RESIZED, scales=scales, **attributes)
        return
    if spec.opset < 11:
        if spec.via == "chain":
            # As PyTorch wrote interpolate(x, size=picture.shape[2:]) before opset 11.
            wanted = graph.add("Cast", [graph.add("Shape", ["picture"], "shape")], "shape_f", to=TensorProto.FLOAT)
            given = graph.add("Cast", [graph.add("Shape", [scores], "grid")], "grid_f", to=TensorProto.FLOAT)
            divided = graph.add("Div", [wanted, given], "ratio")
            index = graph.constant("hw", [2, 3], np.int64)
            ones = graph.constant("ones", [1, 1], np.float32)
            graph.add("Concat", [ones, graph.add("Gather", [divided, index], "ratio_hw", axis=0)], "scales", axis=0)
        else:
            graph.constant("scales", scales, np.float32)
        graph.add("Upsample" if spec.opset < 10 else "Resize", [scores, "scales"], RESIZED, **attributes)
        return
    attributes["coordinate_transformation_mode"] = spec.mode
    roi = "" if spec.opset >= 13 else graph.constant("roi", [], np.float32)
    if spec.via == "scales":
        inputs = [scores, roi, graph.constant("scales", scales, np.float32)]
    elif spec.via == "scales_node":
        graph.nodes.append(helper.make_node("Constant", [], ["scales"], value_floats=scales))
        inputs = [scores, roi, "scales"]
    elif spec.via == "axes":
        inputs = [scores, roi, graph.constant("scales", scales[:1:-1], np.float32)]
        attributes["axes"] = [3, 2]
    else:
        empty = "" if spec.opset >= 13 else graph.constant("no_scales", [], np.float32)
        if spec.via == "chain":
            # As PyTorch writes interpolate(x, size=picture.shape[2:]).
            shape = graph.add("Shape", ["picture"], "shape")
            parts = [graph.constant("batch_and_classes", [1, spec.classes], np.int64)]
            for axis in (2, 3):
                picked = graph.add("Gather", [shape, graph.constant(f"i{axis}", axis, np.int64)], f"dim{axis}", axis=0)
                if spec.opset >= 13:
                    zero = graph.constant(f"zero{axis}", [0], np.int64)
                    parts.append(graph.add("Unsqueeze", [picked, zero], f"part{axis}"))
                else:
                    parts.append(graph.add("Unsqueeze", [picked], f"part{axis}", axes=[0]))
            sizes = graph.add("Concat", parts, "sizes", axis=0)
        else:
            sizes = graph.constant("sizes", [1, spec.classes, height, width], np.int64)
        inputs = [scores, roi, empty, sizes]
    graph.add("Resize", inputs, RESIZED, **attributes)


@pytest.fixture(scope="session")
def make_tail() -> MakeTail:
    """A network as a ``Tail`` of these fields describes it; its first output is ``out``."""

    def make(**fields: Any) -> onnx.ModelProto:
        spec = Tail(**fields)
        random = np.random.default_rng(spec.seed)
        graph = _Graph(spec.opset)
        real = np.float16 if spec.half else np.float32
        graph.constant("w1", random.standard_normal((8, 3, 3, 3)) / 255, real)
        graph.constant("w2", random.standard_normal((spec.classes, 8, 3, 3)), real)
        picture = graph.add("Cast", ["picture"], "cast", to=TensorProto.FLOAT16) if spec.half else "picture"
        graph.add("Conv", [picture, "w1"], "c1", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
        graph.add("Relu", ["c1"], "r1")
        n = spec.stride
        graph.add("Conv", ["r1", "w2"], "coarse", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[n, n])
        _resize(graph, spec, "coarse")
        last = RESIZED
        if spec.half:
            last = graph.add("Cast", [last], "as_float", to=TensorProto.FLOAT)
        for i, (kind, given) in enumerate(spec.operators):
            attributes, name = dict(given), f"t{i}"
            if kind == "TopK":
                k = attributes.pop("k", 1)
                inputs = [last]
                if spec.opset < 10:
                    attributes["k"] = k
                else:
                    inputs.append(graph.constant(f"k{i}", [k], np.int64))
                values = attributes.pop("values", False)
                outputs = [name, f"other{i}"] if values else [f"other{i}", name]
                graph.nodes.append(helper.make_node("TopK", inputs, outputs, **attributes))
            elif kind in ("Squeeze", "Unsqueeze") and spec.opset >= 13 and "axes" in attributes:
                graph.add(kind, [last, graph.constant(f"a{i}", attributes["axes"], np.int64)], name)
            else:
                graph.add(kind, [last], name, **attributes)
            last = name
        graph.nodes[-1] = _renamed(graph.nodes[-1], last, "out")
        if not spec.operators and not spec.half:
            # The enlargement itself is the output: it keeps a second name through Identity nowhere.
            assert graph.nodes[-1].op_type in ("Resize", "Upsample")
        dims: list[Any] = [1, 3, *spec.input_hw]
        for axis in spec.open_dims:
            dims[axis] = f"d{axis}"
        outputs = [helper.make_tensor_value_info("out", spec.output_type, None)]
        if spec.double_use:
            graph.add("ReduceMax", [RESIZED], "peak", keepdims=0)
            outputs.append(helper.make_tensor_value_info("peak", TensorProto.FLOAT, None))
        if spec.extra_output:
            graph.add("Identity", ["c1"], "features")
            outputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, None))
        inputs = [helper.make_tensor_value_info("picture", TensorProto.FLOAT, dims)]
        if spec.weights_as_inputs:
            inputs += [helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in graph.weights]
        made = helper.make_graph(graph.nodes, "g", inputs, outputs, graph.weights)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", spec.opset)])
        model.ir_version = 3 if spec.weights_as_inputs else 8 if spec.opset < 19 else 10
        classes = [{"name": f"k{i}", "color": [i, i, i]} for i in range(spec.classes)]
        entry = model.metadata_props.add()
        entry.key, entry.value = "segcam_spec", json.dumps({**SPEC, "classes": classes})
        return model

    return make


def _renamed(node: onnx.NodeProto, old: str, new: str) -> onnx.NodeProto:
    for i, name in enumerate(node.output):
        if name == old:
            node.output[i] = new
    return node


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    """Write a network to ``net.onnx``."""

    def write(model: onnx.ModelProto) -> Path:
        path = tmp_path / "net.onnx"
        onnx.save(model, path)
        return path

    return write
