"""The network of a plan, run with ONNX Runtime such that half precision really rounds.

ONNX Runtime on a CPU computes most half operators in fp32 and drops the casts between neighbours, so that an overflow
never shows. Here a half tensor is an fp32 tensor that goes through an explicit function after each operator: rounded to
the nearest half number, past 65504 infinite. bfloat16 likewise. The arithmetic inside an operator stays fp32, as it is
on tensor cores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from standin_trt import rules

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
ROUNDS = {TensorProto.FLOAT16: "RoundHalf", TensorProto.BFLOAT16: "RoundBfloat"}


def widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A half tensor as the fp32 tensor of the same numbers."""
    if tensor.data_type not in HALVES:
        return tensor
    values = numpy_helper.to_array(tensor)
    if tensor.data_type == TensorProto.BFLOAT16 and values.dtype != np.float32:
        values = values.astype(np.float32)
    return numpy_helper.from_array(np.asarray(values, np.float32), tensor.name)


def rounding(model: onnx.ModelProto, strong: bool = True, fp16: bool = False) -> onnx.ModelProto:
    """An fp32 model with the same inputs and outputs, every half tensor inside rounded as it is made.

    Without ``strong`` the graph's half types are ignored, as a weakly typed network ignores them, unless ``fp16``.
    """
    known = rules.element_types(model)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    del graph.value_info[:]
    keep = strong or fp16
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for info in graph.input:
        if known.get(info.name) in HALVES and info.name not in {tensor.name for tensor in graph.initializer}:
            renamed[info.name] = f"{info.name}__wide"
            nodes.append(helper.make_node("Cast", [info.name], [renamed[info.name]], to=TensorProto.FLOAT))
    for index, tensor in enumerate(graph.initializer):
        graph.initializer[index].CopyFrom(widened(tensor))
    outputs = {info.name for info in graph.output}
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        for attribute in copy.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _widen_subgraph(attribute.g)
            if attribute.HasField("t"):
                attribute.t.CopyFrom(widened(attribute.t))
            if copy.op_type in ("Cast", "CastLike") and attribute.name == "to" and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
        after: list[onnx.NodeProto] = []
        for index, name in enumerate(node.output):
            kind = known.get(name, 0)
            if kind not in HALVES:
                continue
            copy.output[index] = f"{name}__raw"
            wide = f"{name}__wide" if name in outputs else name
            if name in outputs:
                renamed[name] = wide
            after.append(helper.make_node("Identity", [f"{name}__raw"], [wide]))
            if keep and copy.op_type != "Constant":
                # a pair of casts in one direction each: with optimisation off ONNX Runtime runs them as they stand
                after[-1:] = [
                    helper.make_node("Cast", [f"{name}__raw"], [f"{name}__half"], to=kind),
                    helper.make_node("Cast", [f"{name}__half"], [wide], to=TensorProto.FLOAT),
                ]
            if name in outputs:
                after.append(helper.make_node("Cast", [wide], [name], to=kind))
        nodes += [copy, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return out


def _widen_subgraph(graph: onnx.GraphProto) -> None:
    """The branches of an If, the body of a Loop: fp32 inside, rounded where they end."""
    del graph.value_info[:]
    for index, tensor in enumerate(graph.initializer):
        graph.initializer[index].CopyFrom(widened(tensor))
    for info in [*graph.input, *graph.output]:
        if info.type.tensor_type.elem_type in HALVES:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _widen_subgraph(attribute.g)
            if attribute.HasField("t"):
                attribute.t.CopyFrom(widened(attribute.t))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT


class Runner:
    """Runs a plan's model on host arrays. bfloat16 tensors are uint16 arrays of their bits."""

    def __init__(self, model: bytes, strong: bool, fp16: bool) -> None:
        self.model = onnx.ModelProto.FromString(model)
        self.kinds = {
            info.name: info.type.tensor_type.elem_type for info in [*self.model.graph.input, *self.model.graph.output]
        }
        self._how = (strong, fp16)
        self._session: Any = None

    def session(self) -> Any:
        """Made when first needed."""
        if self._session is None:
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            data = rounding(self.model, *self._how).SerializeToString()
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return self._session

    def array(self, name: str, data: memoryview, shape: tuple[int, ...]) -> Any:
        """Device bytes as an array; read now."""
        if self.kinds[name] == TensorProto.BFLOAT16:
            return np.frombuffer(bytes(data), np.uint16).reshape(shape)
        kind = helper.tensor_dtype_to_np_dtype(self.kinds[name])
        return np.frombuffer(bytes(data), kind).reshape(shape)

    def __call__(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Every output by name."""
        session = self.session()
        names = [info.name for info in session.get_outputs()]
        if TensorProto.BFLOAT16 not in self.kinds.values():
            return dict(zip(names, session.run(names, feeds), strict=True))
        binding = session.io_binding()
        for name, array in feeds.items():
            kind = self.kinds[name] if self.kinds[name] == TensorProto.BFLOAT16 else array.dtype
            binding.bind_input(name, "cpu", 0, kind, array.shape, array.ctypes.data)
        held = {}
        for name in names:
            if self.kinds[name] == TensorProto.BFLOAT16:
                held[name] = np.empty(self.shape(name, {key: value.shape for key, value in feeds.items()}), np.uint16)
                binding.bind_output(name, "cpu", 0, TensorProto.BFLOAT16, held[name].shape, held[name].ctypes.data)
            else:
                binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        values = dict(zip(names, binding.get_outputs(), strict=True))
        return {name: held[name] if name in held else values[name].numpy() for name in names}

    def shape(self, name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """An output's shape for these inputs, -1 where only the data tell."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for info in model.graph.input:
            if info.name in shapes:
                dims = info.type.tensor_type.shape.dim
                for dim, size in zip(dims, shapes[info.name], strict=True):
                    dim.dim_value = size
        for info in model.graph.output:  # what a file declares there may belong to other input shapes
            info.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        found = next(info for info in inferred.graph.output if info.name == name)
        if not found.type.tensor_type.HasField("shape"):  # ONNX's inference doesn't follow loops
            kinds = {key: helper.tensor_dtype_to_np_dtype(self.kinds[key]) for key in shapes}
            return tuple(self({key: np.zeros(of, kinds[key]) for key, of in shapes.items()})[name].shape)
        return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in found.type.tensor_type.shape.dim)
