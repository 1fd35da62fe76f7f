"""A network that ends with its class map: bytes at the picture's size, for programs that want no scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segcam.errors import EngineError
from segcam.geometry import Upsample
from segcam.onnx_tools.graph import opset_of, shapes_of

if TYPE_CHECKING:
    import onnx

_FLOAT, _UINT8 = 1, 2
_WHOLE = (3, 4, 5, 6, 7, 12, 13)
#: The name of the class map, if the graph doesn't have it yet.
LABELS = "labels"
_MOST_CLASSES = 255


def end_in_labels(
    model: onnx.ModelProto, output: str, upsample: Upsample, input_hw: tuple[int, int], *, channels_last: bool = False
) -> str:
    """Let ``model`` end, in place, with its class map in bytes, N x 1 x H x W; returns the new output's name.

    ``output`` names the only output: labels of any whole type, which only become bytes, or scores, N x C x h x w or,
    with ``channels_last``, N x h x w x C, which are enlarged to ``input_hw`` by ``upsample`` if they are smaller.
    ArgMax gives int64, and TensorRT makes bytes of floats only, hence two Casts; both are exact for ids below 256.
    Raises EngineError for scores that are not such a picture, or more classes than a byte can name.
    """
    from onnx import helper, shape_inference

    graph = model.graph
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    kind = next(value for value in inferred.graph.output if value.name == output).type.tensor_type.elem_type
    shape = shapes_of(inferred).get(output, [])
    last = output
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {i.name for i in graph.initializer}
    name = LABELS if LABELS not in taken else f"{LABELS}.bytes"
    if kind == _UINT8:
        return output
    if kind not in _WHOLE:
        if len(shape) != 4 or 0 in shape[1:]:
            raise EngineError(
                f"output {output!r} has the shape {'x'.join(str(n or '?') for n in shape) or 'unknown'}: expected "
                "scores NxCxHxW of a known size to make labels of",
                "Use --head cut, which leaves that to Segcam.",
            )
        if channels_last:
            graph.node.append(
                helper.make_node("Transpose", [last], [f"{name}.nchw"], f"{name}.nchw", perm=[0, 3, 1, 2])
            )
            last, shape = f"{name}.nchw", [shape[0], shape[3], shape[1], shape[2]]
        if shape[1] > _MOST_CLASSES:
            raise EngineError(f"{shape[1]} classes, and a byte names {_MOST_CLASSES}", "Use --head cut or keep.")
        if tuple(shape[2:]) != tuple(input_hw):
            last = _enlarged(model, last, shape, upsample, input_hw, name)
        graph.node.append(helper.make_node("ArgMax", [last], [f"{name}.int64"], f"{name}.argmax", axis=1, keepdims=1))
        last, shape = f"{name}.int64", [shape[0], 1, *input_hw]
    graph.node.append(helper.make_node("Cast", [last], [f"{name}.float32"], f"{name}.float32", to=_FLOAT))
    graph.node.append(helper.make_node("Cast", [f"{name}.float32"], [name], name, to=_UINT8))
    graph.ClearField("output")
    graph.output.append(helper.make_tensor_value_info(name, _UINT8, [n or None for n in shape] if shape else None))
    return name


def _enlarged(
    model: onnx.ModelProto, scores: str, shape: list[int], upsample: Upsample, input_hw: tuple[int, int], name: str
) -> str:
    """The name of the scores at ``input_hw``, which a Resize at the end of the graph makes."""
    from onnx import helper, numpy_helper

    opset = opset_of(model)
    if opset < 11:
        raise EngineError(
            f"the graph is of opset {opset}, whose Resize cannot say where samples lie: 11 is needed",
            "Export the network again with opset 17, or use --head cut.",
        )
    # Sizes say exactly what is meant, but need a fixed batch; scales only where they are whole.
    ratios = [to / of for to, of in zip(input_hw, shape[2:], strict=True)]
    by_scales = not shape[0]
    if by_scales and (upsample == "align_corners" or not all(ratio.is_integer() for ratio in ratios)):
        raise EngineError(
            f"scores of {shape[3]}x{shape[2]} cannot be enlarged to {input_hw[1]}x{input_hw[0]} in an open batch",
            "Give a fixed batch (--batch 1), or use --head cut.",
        )
    graph, enlarged = model.graph, f"{name}.enlarged"
    given = np.array([1, 1, *ratios], np.float32) if by_scales else np.array([*shape[:2], *input_hw], np.int64)
    graph.initializer.append(numpy_helper.from_array(given, f"{name}.size"))
    absent = ""
    if opset < 13:
        # What isn't given is an empty tensor there.
        absent = f"{name}.none"
        graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), absent))
    inputs = [scores, absent, f"{name}.size"] if by_scales else [scores, absent, absent, f"{name}.size"]
    how = {"mode": "linear", "coordinate_transformation_mode": upsample}
    graph.node.append(helper.make_node("Resize", inputs, [enlarged], enlarged, **how))
    return enlarged
