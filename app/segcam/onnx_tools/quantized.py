"""Whether a graph that carries its own quantisation (QuantizeLinear, DequantizeLinear) is one that TensorRT takes.

The rules are those of TensorRT's ONNX parser: signed bytes or E4M3 floats, zero points of zero, constant positive
scales, one scale for an activation, one or one for each output channel for a convolution's weights, biases not
quantised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segcam.errors import EngineError
from segcam.onnx_tools.elements import element_types, opsets_of
from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.naming import all_graphs, all_nodes, name_nodes

if TYPE_CHECKING:
    import onnx

Quantised = Literal["int8", "fp8"]
_INT8, _INT32, _E4M3 = 3, 6, 17
_WORDS = {
    2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 17: "fp8", 18: "float8e4m3fnuz", 19: "float8e5m2",
    20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1",
}  # fmt: skip
_WANTED: dict[Quantised, int] = {"int8": _INT8, "fp8": _E4M3}
_PAIR = ("QuantizeLinear", "DequantizeLinear")
#: So many violations are listed by name.
_LISTED = 12
_HOW: dict[Quantised, str] = {
    "int8": "Quantise it first: modelopt.onnx.quantization.quantize(FILE, quantize_mode='int8', calibration_data=...), "
    "or onnxruntime.quantization.quantize_static(..., per_channel=True, op_types_to_quantize=['Conv'], "
    "extra_options={'ActivationSymmetric': True, 'WeightSymmetric': True, 'QuantizeBias': False}) with QInt8 for both.",
    "fp8": "Quantise it first: modelopt.onnx.quantization.quantize(FILE, quantize_mode='fp8', calibration_data=...).",
}


def has_qdq(model: onnx.ModelProto) -> str | None:
    """What ``model`` is quantised to: int8, fp8 (E4M3), or ONNX's name of another type; None where it is not.

    Of several types, the one that most of its QuantizeLinear and DequantizeLinear work with, biases in int32 aside.
    """
    counts: dict[int, int] = {}
    for _, element in _pairs(model):
        counts[element] = counts.get(element, 0) + (0 if element == _INT32 else 1)
    return _WORDS.get(max(counts, key=lambda e: counts[e]), "unknown") if counts else None


def check_quantized(model: onnx.ModelProto, kind: Quantised) -> None:
    """Raises EngineError with what TensorRT would refuse, by node, and where ``model`` is not quantised at all."""
    model = name_nodes(model)
    found = [
        f"{node.name}: {fault}" for node, element in _pairs(model) for fault in _faults(model, node, element, kind)
    ]
    if not any(node.op_type in _PAIR for node in all_nodes(model.graph)):
        raise EngineError(
            f"--{kind} needs a network with QuantizeLinear and DequantizeLinear inside, this one has none", _HOW[kind]
        )
    if found:
        lines = found[:_LISTED]
        if len(found) > _LISTED:
            lines.append(f"and {len(found) - _LISTED} more")
        raise EngineError(
            f"TensorRT would not take this network's quantisation ({len(found)} faults):\n    " + "\n    ".join(lines),
            _HOW[kind],
        )


def _pairs(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """QuantizeLinear and DequantizeLinear nodes, each with the element type of its quantised side."""
    opsets = opsets_of(model)

    def look(graph: onnx.GraphProto, outer: dict[str, int]) -> Iterator[tuple[onnx.NodeProto, int]]:
        types = {**outer, **element_types(graph, opsets, outer)}
        for node in graph.node:
            if node.op_type in _PAIR:
                yield node, types.get(node.output[0] if node.op_type == "QuantizeLinear" else node.input[0], 0)
            for body in (a.g for a in node.attribute if a.HasField("g")):
                yield from look(body, types)

    return look(model.graph, {})


def _faults(model: onnx.ModelProto, node: onnx.NodeProto, element: int, kind: Quantised) -> Iterator[str]:
    bias = node.op_type == "DequantizeLinear" and element == _INT32
    if bias:
        yield "gives a bias in int32, expected it not to be quantised"
    elif element != _WANTED[kind]:
        yield f"quantises to {_WORDS.get(element, 'a type unknown here')}, expected {kind}"
    given = attributes_of(node)
    if given.get("block_size"):
        yield "has a scale for each block, expected one for all or for each output channel"
    scale = _constant(model, node.input[1])
    if scale is None:
        yield f"scale {node.input[1]} is computed, expected a constant"
        return
    full = scale.astype(np.float64)
    if not np.all(np.isfinite(full) & (full > 0)):
        yield f"scale {node.input[1]} has values that are not above zero"
    if len(node.input) > 2 and node.input[2]:
        point = _constant(model, node.input[2])
        if point is None:
            yield f"zero point {node.input[2]} is computed, expected zeros"
        else:
            if np.any(point.astype(np.float64)):
                yield f"zero point {node.input[2]} is not zero"
            if point.size != scale.size:
                yield f"has {point.size} zero points for {scale.size} scales"
    if scale.size > 1 and not bias and not given.get("block_size"):
        yield from _channel_faults(model, node, scale.size, int(given.get("axis", 1)))


def _channel_faults(model: onnx.ModelProto, node: onnx.NodeProto, count: int, axis: int) -> Iterator[str]:
    """``node`` has one scale for each channel."""
    makers = {name: maker for maker in all_nodes(model.graph) for name in maker.output}
    source = node
    while source.input[0] in makers and makers[source.input[0]].op_type in _PAIR:
        source = makers[source.input[0]]
    weight = _constant(model, source.input[0])
    if weight is None:
        yield f"has {count} scales for an activation, expected one"
        return
    reached, front = {node.output[0]}, [node]
    while front:
        made = front.pop()
        following = [n for n in all_nodes(model.graph) if made.output[0] in n.input[:1] and n.op_type in _PAIR]
        front.extend(following)
        reached.update(n.output[0] for n in following)
    if any(n.op_type == "Conv" and n.input[1] in reached for n in all_nodes(model.graph)):
        if axis % weight.ndim:
            yield f"scales go along axis {axis} of a Conv's weights, expected axis 0"
        elif count != weight.shape[0]:
            yield f"has {count} scales for {weight.shape[0]} output channels"


def _constant(model: onnx.ModelProto, name: str) -> np.ndarray[Any, Any] | None:
    from onnx import numpy_helper

    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.name == name:
                return numpy_helper.to_array(tensor)
        for node in graph.node:
            if node.op_type == "Constant" and name in node.output:
                value = next(iter(attributes_of(node).values()))
                return numpy_helper.to_array(value) if hasattr(value, "data_type") else np.atleast_1d(value)
    return None
