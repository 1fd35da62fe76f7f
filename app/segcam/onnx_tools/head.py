"""Cut the tail that only enlarges and names: full-size scores need never exist.

Recognised: one linear Resize (or Upsample) of height and width to the size of the network's input, followed by any of
Cast, Identity, Transpose, Softmax or LogSoftmax over channels, ArgMax or TopK(1) over channels, Squeeze, Unsqueeze.
What remains gives scores on a coarse grid; ``HeadCut`` says how they are to be enlarged. Anything else is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segcam.geometry import Upsample

if TYPE_CHECKING:
    import onnx

_TAIL = {"Cast", "Identity", "Transpose", "Softmax", "LogSoftmax", "ArgMax", "TopK", "Squeeze", "Unsqueeze"}
_MODES: dict[str, Upsample] = {
    "half_pixel": "half_pixel",
    # The two differ only where the output is one pixel long; _linear_mode leaves that case alone.
    "pytorch_half_pixel": "half_pixel",
    "align_corners": "align_corners",
    "asymmetric": "asymmetric",
}


@dataclass(frozen=True)
class HeadCut:
    """``tensor`` is the scores' name after the cut, ``removed`` the operators taken off, from the scores on."""

    tensor: str
    upsample: Upsample
    removed: tuple[str, ...]


def cut_head(model: onnx.ModelProto, output: str, input_hw: tuple[int, int]) -> tuple[onnx.ModelProto, HeadCut] | None:
    """``model`` ending at its coarse scores, or None where no tail is recognised; ``model`` itself is not changed.

    ``output`` names the graph output to follow, ``input_hw`` the network's input size in pixels. Shapes in the graph
    must be static (or be found by ONNX shape inference) for the enlargement to be recognised.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    tail: list[onnx.NodeProto] = []
    tensor = output
    while tensor in producers and producers[tensor].op_type in _TAIL:
        node = producers[tensor]
        if node.op_type == "TopK" and tensor != node.output[1]:
            return None
        tail.append(node)
        tensor = node.input[0]
    resize = producers.get(tensor)
    if resize is None or resize.op_type not in ("Resize", "Upsample"):
        return None
    constants = _constants(model)
    mode = _linear_mode(resize, constants, model, input_hw)
    if mode is None or not _keeps_argmax(tail[::-1], constants, _opset(model)):
        return None
    removed = (resize.op_type, *(node.op_type for node in reversed(tail)))
    return _end_at(model, resize.input[0]), HeadCut(resize.input[0], mode, removed)


def _opset(model: onnx.ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    """Small constants by name: initializers and Constant nodes of at most 16 elements."""
    from onnx import numpy_helper

    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer if int(np.prod(i.dims)) <= 16}
    for node in model.graph.node:
        value = _attributes(node).get("value") if node.op_type == "Constant" else None
        if value is not None and int(np.prod(value.dims)) <= 16:
            found[node.output[0]] = numpy_helper.to_array(value)
    return found


def _shape(model: onnx.ModelProto, name: str) -> list[int] | None:
    """Static shape of a tensor; unknown dimensions are 0. None when even the rank is unknown."""
    graph = model.graph
    for value in (*graph.value_info, *graph.output, *graph.input):
        if value.name == name and value.type.tensor_type.HasField("shape"):
            return [d.dim_value for d in value.type.tensor_type.shape.dim]
    return None


def _linear_mode(
    node: onnx.NodeProto,
    constants: dict[str, np.ndarray[Any, Any]],
    model: onnx.ModelProto,
    input_hw: tuple[int, int],
) -> Upsample | None:
    """The sampling of a Resize that enlarges NCHW linearly to ``input_hw`` in one ratio; else None."""
    from onnx import shape_inference

    attributes = _attributes(node)
    kind = attributes.get("mode", b"nearest")
    if kind not in (b"linear", b"bilinear") or attributes.get("antialias") or len(input_hw) != 2:
        return None
    if attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch" or 1 in input_hw:
        return None
    # Before opset 11 there was one way, output index times ratio.
    default = b"half_pixel" if node.op_type == "Resize" and _opset(model) >= 11 else b"asymmetric"
    mode = _MODES.get(attributes.get("coordinate_transformation_mode", default).decode())
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    source, target = _shape(inferred, node.input[0]), _shape(inferred, node.output[0])
    if mode is None or target is None or len(target) != 4 or tuple(target[2:]) != tuple(input_hw):
        return None
    scales = constants.get(node.input[2 if len(node.input) > 2 else 1]) if len(node.input) > 1 else None
    if len(node.input) > 3 and node.input[3]:
        scales = None  # sizes are given: the ratio is theirs
    if scales is not None and scales.size == 4 and source is not None and mode != "align_corners":
        # A scale that isn't the ratio of the sizes (7 * 2.2 -> 15) samples elsewhere than the ratio says.
        if tuple(scales[:2]) != (1, 1) or 0 in source[2:]:
            return None
        ratios = [t / s for t, s in zip(target[2:], source[2:], strict=True)]
        if not np.allclose(scales[2:], ratios, rtol=1e-6):
            return None
    return mode


def _keeps_argmax(tail: list[onnx.NodeProto], constants: dict[str, np.ndarray[Any, Any]], opset: int) -> bool:
    """Whether the operators after the Resize, in order, only rescale scores monotonically, name the best, or reshape."""
    layout = ["N", "C", "H", "W"]
    for node in tail:
        attributes = _attributes(node)
        kind = node.op_type
        if kind == "Transpose":
            perm = attributes.get("perm", list(range(len(layout)))[::-1])
            layout = [layout[i] for i in perm]
        elif kind in ("Softmax", "LogSoftmax"):
            if layout[attributes.get("axis", -1 if opset >= 13 else 1)] != "C":
                return False
        elif kind == "Cast":
            # FLOAT 1, FLOAT16 10, DOUBLE 11, BFLOAT16 16: rounding scores to whole numbers would make ties.
            if "C" in layout and attributes["to"] not in (1, 10, 11, 16):
                return False
        elif kind in ("ArgMax", "TopK"):
            axis = attributes.get("axis", 0 if kind == "ArgMax" else -1)
            if layout[axis] != "C" or attributes.get("select_last_index") or not attributes.get("largest", 1):
                return False
            if kind == "TopK":
                k = constants.get(node.input[1])
                if k is None or int(k.ravel()[0]) != 1:
                    return False
            if kind == "TopK" or attributes.get("keepdims", 1):
                layout[axis] = "1"
            else:
                del layout[axis]
        elif kind in ("Squeeze", "Unsqueeze") and not _reshape(kind, layout, node, attributes, constants):
            return False
    return True


def _reshape(
    kind: str,
    layout: list[str],
    node: onnx.NodeProto,
    attributes: dict[str, Any],
    constants: dict[str, np.ndarray[Any, Any]],
) -> bool:
    """Apply Squeeze or Unsqueeze to ``layout`` in place; False when a dimension other than N or a 1 would go."""
    axes = attributes.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = [int(a) for a in constants[node.input[1]].ravel()]
    if axes is None:
        return False
    rank = len(layout) + (len(axes) if kind == "Unsqueeze" else 0)
    axes = sorted(a % rank for a in axes)
    if kind == "Unsqueeze":
        for axis in axes:
            layout.insert(axis, "1")
        return True
    if any(layout[axis] not in ("1", "N") for axis in axes):
        return False
    for axis in reversed(axes):
        del layout[axis]
    return True


def _inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Names a node reads, those read inside its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for inner in graph.node:
                yield from _inputs(inner)
            yield from (value.name for value in graph.output)


def _end_at(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """A copy whose only output is ``tensor``, without the nodes and initializers that no longer matter."""
    import onnx
    from onnx import helper, shape_inference

    inferred = shape_inference.infer_shapes(model, data_prop=True)
    known = {v.name: v for v in (*inferred.graph.value_info, *inferred.graph.input)}
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    graph = cut.graph
    needed = {tensor}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(_inputs(node))
    nodes = kept[::-1]
    initializers = [i for i in graph.initializer if i.name in needed]
    inputs = [i for i in graph.input if i.name in needed]
    values = [v for v in graph.value_info if v.name in needed and v.name != tensor]
    for field, items in (
        ("node", nodes), ("initializer", initializers), ("input", inputs), ("value_info", values),
    ):  # fmt: skip
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    graph.ClearField("output")
    output = known.get(tensor) or helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, [None] * 4)
    graph.output.append(output)
    return cut
