"""What the tools ask of an ONNX graph: attributes, small constants, shapes, and shapes computed from shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

_Values = dict[str, "np.ndarray[Any, Any]"]

#: What exporters compute sizes and scales with.
_FOLDED = {
    "Add", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Floor", "Gather", "Identity", "Max", "Mul", "Neg",
    "Reshape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip


def opset_of(model: onnx.ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    """Small constants by name: initializers and Constant nodes of at most 16 elements."""
    from onnx import numpy_helper

    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer if int(np.prod(i.dims)) <= 16}
    for node in model.graph.node:
        if node.op_type != "Constant":
            continue
        for name, value in attributes_of(node).items():
            if name == "value" and int(np.prod(value.dims)) <= 16:
                found[node.output[0]] = numpy_helper.to_array(value)
            elif name in ("value_float", "value_floats", "value_int", "value_ints"):
                found[node.output[0]] = np.atleast_1d(value)
    return found


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Declared or inferred shapes by tensor name; unknown dimensions are 0, tensors of unknown rank are missing."""
    graph = model.graph
    found: dict[str, list[int]] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    return found


def fold_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with shapes inferred in which whatever is computed from fixed shapes is a constant.

    Older exporters compute the size of an enlargement from the picture's (Shape, Gather, Unsqueeze, Concat), or its
    scales from both sizes (Cast, Div); ONNX's own inference follows only some of that.
    """
    from onnx import numpy_helper, shape_inference

    while True:
        model = shape_inference.infer_shapes(model, data_prop=True)
        values = _computable(model)
        if not values:
            return model
        kept = [type(node).FromString(node.SerializeToString()) for node in model.graph.node]
        model.graph.ClearField("node")
        model.graph.node.extend(node for node in kept if not any(name in values for name in node.output))
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())


def _computable(model: onnx.ModelProto) -> _Values:
    """Values of small tensors that follow from constants and fixed shapes and aren't constants yet."""
    known, shapes = constants_of(model), shapes_of(model)
    found: _Values = {}
    for node in model.graph.node:
        value: np.ndarray[Any, Any] | None = None
        if node.op_type == "Shape" and 0 not in shapes.get(node.input[0], [0]):
            given = attributes_of(node)
            value = np.array(shapes[node.input[0]][given.get("start", 0) : given.get("end")], np.int64)
        elif node.op_type in _FOLDED and all(name in known for name in node.input if name):
            value = _evaluate(node, known, model)
        if value is not None:
            found[node.output[0]] = known[node.output[0]] = value
    return found


def _evaluate(node: onnx.NodeProto, known: _Values, model: onnx.ModelProto) -> np.ndarray[Any, Any] | None:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    fed = {name: known[name] for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in fed.items()
    ]
    output = helper.make_value_info(node.output[0], helper.make_tensor_type_proto(0, None))
    graph = helper.make_graph([node], "one", inputs, [output])
    try:
        made = ReferenceEvaluator(helper.make_model(graph, opset_imports=model.opset_import)).run(None, fed)
    except Exception:  # an operator or type it doesn't know: the graph is then left as it is
        return None
    value = np.asarray(next(iter(made)))
    return value if value.size <= 16 else None
