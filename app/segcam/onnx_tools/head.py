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
from segcam.onnx_tools.graph import attributes_of, constants_of, fold_shapes, opset_of, shapes_of

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
    if resize is None or resize.op_type not in ("Resize", "Upsample") or resize.input[0] not in producers:
        return None
    constants = constants_of(model)
    mode = _linear_mode(resize, constants, model, input_hw)
    if mode is None or not _keeps_argmax(tail[::-1], constants, opset_of(model)):
        return None
    removed = (resize.op_type, *(node.op_type for node in reversed(tail)))
    return end_at(model, resize.input[0]), HeadCut(resize.input[0], mode, removed)


def _linear_mode(
    node: onnx.NodeProto,
    constants: dict[str, np.ndarray[Any, Any]],
    model: onnx.ModelProto,
    input_hw: tuple[int, int],
) -> Upsample | None:
    """The sampling of a Resize that enlarges NCHW linearly to ``input_hw`` in one ratio; else None."""
    from onnx import shape_inference

    attributes = attributes_of(node)
    kind = attributes.get("mode", b"nearest")
    if kind not in (b"linear", b"bilinear") or attributes.get("antialias") or len(input_hw) != 2:
        return None
    if attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch" or 1 in input_hw:
        return None
    # Before opset 11 there was one way, output index times ratio.
    default = b"half_pixel" if node.op_type == "Resize" and opset_of(model) >= 11 else b"asymmetric"
    mode = _MODES.get(attributes.get("coordinate_transformation_mode", default).decode())
    shapes = shapes_of(shape_inference.infer_shapes(model, data_prop=True))
    if not all(name in constants for name in node.input[1:] if name):
        # Sizes or scales are computed from the shapes of other tensors: here these are fixed.
        folded = fold_shapes(model)
        shapes, constants = shapes_of(folded), constants_of(folded)
    source, target = shapes.get(node.input[0]), shapes.get(node.output[0])
    if mode is None or target is None or len(target) != 4 or tuple(target[2:]) != tuple(input_hw):
        return None
    if source is not None and (len(source) != 4 or source[1] != target[1]):
        return None
    by_sizes = len(node.input) > 3 and node.input[3]
    if not by_sizes and not _scales_are_ratio(_scales(node, attributes, constants), source, target, mode):
        return None
    return mode


def _scales(
    node: onnx.NodeProto, attributes: dict[str, Any], constants: dict[str, np.ndarray[Any, Any]]
) -> list[float] | None:
    """Scales of all four axes as the node gives them, or None where they are not constants."""
    given = attributes.get("scales")  # Upsample before opset 9
    if given is None and len(node.input) > 1:
        given = constants.get(node.input[2 if len(node.input) > 2 else 1])
    axes = attributes.get("axes", range(4))
    if given is None or len(given) != len(axes):
        return None
    scales = [1.0] * 4
    for axis, scale in zip(axes, given, strict=True):
        scales[axis] = float(scale)
    return scales


def _scales_are_ratio(scales: list[float] | None, source: list[int] | None, target: list[int], mode: Upsample) -> bool:
    """Whether the ratio of the sizes says where samples lie: a scale that is another (7 * 2.2 -> 15) moves them."""
    if scales is None or source is None or 0 in source[2:] or scales[:2] != [1.0, 1.0]:
        return False
    ratios = [t / s for t, s in zip(target[2:], source[2:], strict=True)]
    return mode == "align_corners" or bool(np.allclose(scales[2:], ratios, rtol=1e-6))


def _keeps_argmax(tail: list[onnx.NodeProto], constants: dict[str, np.ndarray[Any, Any]], opset: int) -> bool:
    """Whether the operators after the Resize, in order, only rescale scores monotonically, name the best, or reshape.

    Height must come before width at the end: a transposed picture is not what the scores would give.
    """
    layout = ["N", "C", "H", "W"]
    for node in tail:
        attributes = attributes_of(node)
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
            if kind == "TopK" and _k(node, attributes, constants) != 1:
                return False
            if kind == "TopK" or attributes.get("keepdims", 1):
                layout[axis] = "1"
            else:
                del layout[axis]
        elif kind in ("Squeeze", "Unsqueeze") and not _reshape(kind, layout, node, attributes, constants):
            return False
    return layout.index("H") < layout.index("W")


def _k(node: onnx.NodeProto, attributes: dict[str, Any], constants: dict[str, np.ndarray[Any, Any]]) -> int:
    """How many TopK takes: an attribute before opset 10, an input since; 0 where it is not a constant."""
    if len(node.input) < 2:
        return int(attributes.get("k", 0))
    k = constants.get(node.input[1])
    return 0 if k is None else int(k.ravel()[0])


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
    if axes is None and kind == "Squeeze" and len(node.input) < 2 and "C" not in layout:
        # All dimensions of 1 go: the batch is 1, and a picture 1 pixel high or wide doesn't come here.
        axes = [i for i, name in enumerate(layout) if name in ("1", "N")]
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


def end_at(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
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
