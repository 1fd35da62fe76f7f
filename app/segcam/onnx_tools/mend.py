"""What exporters leave in a graph that TensorRT refuses, put right without changing what the graph computes.

TensorRT takes bytes (uint8) only as an input that a Cast reads first, or as an output of a Cast from a float type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segcam.errors import EngineError, SegcamError
from segcam.onnx_tools.check import difference
from segcam.onnx_tools.graph import attributes_of

if TYPE_CHECKING:
    import onnx

_FLOAT, _UINT8, _HALVES = 1, 2, (10, 16)
#: From this version of the format on, weights need not be listed among the inputs.
_IR_WITH_PLAIN_WEIGHTS = 4


def drop_weight_inputs(model: onnx.ModelProto) -> int:
    """Takes the weights off ``model``'s list of inputs, in place, where old exporters put them. Returns how many."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]
    dropped = len(graph.input) - len(kept)
    if dropped:
        model.ir_version = max(model.ir_version, _IR_WITH_PLAIN_WEIGHTS)
        copies = [type(value).FromString(value.SerializeToString()) for value in kept]
        graph.ClearField("input")
        graph.input.extend(copies)
    return dropped


def cast_bytes_first(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """``model`` with its uint8 input (if it has one) read by nothing but a Cast, and what was done: "" for nothing.

    Where something else reads the bytes first, such as the Transpose of a picture, they become float32 before it. The
    result is compared with the original on random input. Raises EngineError where it isn't the same, or doesn't run.
    """
    import onnx
    from onnx import helper

    picture = next((value.name for value in model.graph.input if value.type.tensor_type.elem_type == _UINT8), None)
    readers = [node for node in model.graph.node if picture in node.input]
    others = [node for node in readers if node.op_type not in ("Cast", "Shape")]
    if picture is None or not others:
        return model, ""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    widened = f"{picture}.float32"
    for node in graph.node:
        if picture in node.input and node.op_type not in ("Cast", "Shape"):
            for place, name in enumerate(node.input):
                if name == picture:
                    node.input[place] = widened
    graph.node.insert(0, helper.make_node("Cast", [picture], [widened], widened, to=_FLOAT))
    # Noted types along the way were uint8.
    graph.ClearField("value_info")
    first = others[0]
    what = f"{first.op_type} {first.name!r} reads the bytes of the input {picture!r} before any Cast"
    try:
        onnx.checker.check_model(made, full_check=True)
        found = difference(model, made)
    except (SegcamError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = str(error).strip().splitlines()[0][:200]
        raise _refused(what, f"with a Cast before it the graph does not hold: {line}") from None
    if not found.small:
        raise _refused(what, f"with a Cast before it the scores differ by {found.largest:.2g} of their spread")
    return made, f"a Cast before the {first.op_type} that reads the input's bytes"


def _refused(what: str, why: str) -> EngineError:
    return EngineError(
        f"{what}, which TensorRT does not take, and {why}",
        "Export the network so that it first casts its picture to float32, or with a float32 input.",
    )


def bytes_from_floats(model: onnx.ModelProto) -> int:
    """Outputs that are uint8 come from a float type, in place: a Cast from whole numbers to uint8 gets one to float32
    before it, which is exact for what a byte holds. Returns how many."""
    from onnx import helper

    graph = model.graph
    outputs = {value.name for value in graph.output if value.type.tensor_type.elem_type == _UINT8}
    floats = {
        node.output[0]
        for node in graph.node
        if node.op_type == "Cast" and attributes_of(node)["to"] in (_FLOAT, *_HALVES)
    }
    done = 0
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "Cast" and node.output[0] in outputs and node.input[0] not in floats:
            widened = f"{node.output[0]}.float32"
            graph.node.insert(place, helper.make_node("Cast", [node.input[0]], [widened], widened, to=_FLOAT))
            graph.node[place + 1].input[0] = widened
            done += 1
    return done
