"""Half the file: weights kept as float16 and widened where they are used, so that every runtime computes as before.

This is about storage. Networks that compute in half precision are another matter: on a CPU float16 arithmetic is slow
or absent, and on a GPU it needs a check that activations stay in range, which belongs where the engine is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from segcam.onnx_tools.graph import attributes_of

if TYPE_CHECKING:
    import onnx

#: Rounding to the nearest half is 2.1e-4 of the values' root mean square on average, 4.9e-4 at worst. Beyond this, many
#: of a tensor's values lie below 6.1e-5, where halves thin out, or some above 65504, where they end.
_WORST = 1e-3
#: Tensors up to this many values stay float32: first layers, depthwise layers. In fastseg's networks and Fast-SCNN that
#: is 2 to 4 percent of the values, and 15 to 70 percent of what the scores lose to rounding.
_FEW = 4096
_Array = np.ndarray[Any, Any]
_WEIGHED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True)
class Halved:
    """``tensors`` are float16 now. ``kept`` stayed float32, each with the reason."""

    tensors: tuple[str, ...]
    kept: dict[str, str]


def halve_weights(model: onnx.ModelProto) -> Halved:
    """Store the weights of ``model``'s convolutions and matrix products as float16, in place.

    Each gets a Cast to float32, which OpenVINO, ONNX Runtime and TensorRT carry out once, at load. Small tensors stay
    float32, and so does one that halves would hold badly (see ``Halved.kept``).
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    read: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    elsewhere = {output.name for output in graph.output}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if node.op_type in _WEIGHED and place < 2:
                read.setdefault(name, []).append((node, place))
            else:
                elsewhere.add(name)
    casts: list[onnx.NodeProto] = []
    done: list[str] = []
    kept: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name not in read or tensor.name in elsewhere:
            continue
        if tensor.data_type != TensorProto.FLOAT or prod(tensor.dims) <= _FEW:
            continue
        full = numpy_helper.to_array(tensor)
        reason = unheld(full)
        if reason:
            kept[tensor.name] = reason
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(full.astype(np.float16), name))
        widened = f"{name}.float32"
        casts.append(helper.make_node("Cast", [name], [widened], widened, to=TensorProto.FLOAT))
        for node, place in read[name]:
            node.input[place] = widened
        done.append(name)
    _replace(graph, [*casts, *graph.node])
    return Halved(tuple(done), kept)


def widen_weights(model: onnx.ModelProto) -> int:
    """The other way, in place: initializers that only a Cast to float32 reads become what the Cast gives, bit for bit.
    Returns how many. For tools that look for weights where they are used and would not look behind a Cast.
    """
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    outputs = {output.name for output in graph.output}
    tensors = {i.name: i for i in graph.initializer if i.data_type == TensorProto.FLOAT16 and i.name not in outputs}
    widened: dict[str, str] = {}
    for node in graph.node:
        name = node.input[0] if node.op_type == "Cast" else ""
        if name not in tensors or readers[name] > 1 or node.output[0] in outputs:
            continue
        if attributes_of(node)["to"] == TensorProto.FLOAT:
            full = numpy_helper.to_array(tensors[name]).astype(np.float32)
            tensors[name].CopyFrom(numpy_helper.from_array(full, name))
            widened[node.output[0]] = name
    kept = [node for node in graph.node if node.output[0] not in widened]
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = widened.get(name, name)
    _replace(graph, kept)
    return len(widened)


def unheld(full: _Array) -> str:
    """Why halves would hold ``full`` badly, or "" where they hold it well."""
    largest = float(np.abs(full).max(initial=0.0))
    if largest > float(np.finfo(np.float16).max):
        return f"largest value {largest:.3g}, beyond float16's 65504"
    lost, scale = _rms(full.astype(np.float16).astype(np.float32) - full), _rms(full)
    small = lost > _WORST * scale
    return f"values too small for float16 (rounding would change them by {lost / scale:.1%})" if small else ""


def _rms(values: _Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(copies)
