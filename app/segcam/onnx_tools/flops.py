"""How much work a network is: multiply-accumulates, operations and parameters, counted from any ONNX graph.

What "GFLOPs" means differs from table to table. ``operations`` counts as OpenVINO's Model Analyzer does, which made the
figures of Open Model Zoo (the rules are those of openvinotoolkit/model_analyzer):

* a convolution or matrix product: 2 for each multiply-accumulate (taps on the padding too), 1 a value for the bias;
* element by element: Add, Sub, Mul, Div 1; Relu and Clip 2; Sigmoid 3; HardSigmoid 4; HardSwish 5, as its parts
  Add, Clip, Mul, Div; Softmax 5;
* a pool: the window's size for each value it gives, but a mean over the whole picture, an enlargement, ArgMax, and
  whatever only moves data: nothing.

Two things that the published figures hold are in no graph of ours: the normalisation, 2 operations for each of the
3 H W values of the picture, and pspnet-pytorch's softmax at full size, 5 for each of its 21 H W scores. With these
added all three come out to the last digit given: fastseg-small 69.2204, fastseg-large 140.9611 (1024x2048),
pspnet-pytorch 357.1719 (512x512, ``adaptive_pool="omz"``). By multiply-accumulates alone, times two, they would be
67.62, 138.00 and 356.65.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from segcam.errors import EngineError
from segcam.onnx_tools.graph import attributes_of, fold_shapes, shapes_of

if TYPE_CHECKING:
    import onnx

_Shapes = dict[str, list[int]]

_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
#: Operations for each value that comes out.
_BY_VALUE = {
    "Add": 1, "Sub": 1, "Mul": 1, "Div": 1, "Sum": 1, "Exp": 1, "Log": 1, "Sqrt": 1,
    "Relu": 2, "LeakyRelu": 2, "PRelu": 2, "Clip": 2, "BatchNormalization": 2,
    "Sigmoid": 3, "Elu": 3, "HardSigmoid": 4, "HardSwish": 5, "Softmax": 5, "LogSoftmax": 6, "Tanh": 6,
}  # fmt: skip
_POOLS = {"AveragePool", "MaxPool"}
#: Weights larger than this aren't looked into for shapes; sizes and scales of enlargements are smaller.
_SMALL = 64


@dataclass(frozen=True)
class Work:
    """For one picture. ``operations`` as the module's text says; ``parameters`` are the values of all weights."""

    macs: int
    operations: int
    parameters: int

    @property
    def gflops(self) -> float:
        return self.operations / 1e9


def count_work(model: onnx.ModelProto) -> Work:
    """Counts of ``model``, whose picture must have a fixed size; an open batch counts as 1, a fixed one by pictures.

    Raises EngineError where a shape cannot be found.
    """
    light = _without_weights(model)
    shapes = _all_shapes(light)
    if any(0 in shapes.get(name, [0]) for node in light.graph.node for name in node.output):
        light = fold_shapes(light)
        shapes = _all_shapes(light)
    batch = max(1, shapes[light.graph.input[0].name][0])
    macs = operations = 0
    for node in light.graph.node:
        if node.op_type in _PRODUCTS:
            taps = _macs(node, shapes)
            macs += taps
            operations += 2 * taps
            if len(node.input) > 2 and node.input[2]:
                operations += _size(shapes, node.output[0])
        elif node.op_type in _BY_VALUE:
            operations += _BY_VALUE[node.op_type] * _size(shapes, node.output[0])
        elif node.op_type in _POOLS:
            operations += prod(attributes_of(node)["kernel_shape"]) * _size(shapes, node.output[0])
    read = {name for node in model.graph.node if node.op_type in _PRODUCTS | {"PRelu"} for name in node.input[1:]}
    casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    weights = read | {casts[name] for name in read if name in casts}
    parameters = sum(prod(i.dims) for i in model.graph.initializer if i.name in weights)
    return Work(macs // batch, operations // batch, parameters)


def count_macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of ``model`` on one picture; see ``count_work``."""
    return count_work(model).macs


def _macs(node: onnx.NodeProto, shapes: _Shapes) -> int:
    first, second = (_shape(shapes, name) for name in node.input[:2])
    if node.op_type == "Conv":
        return _size(shapes, node.output[0]) * prod(second[1:])
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])
    inner = first[-2] if node.op_type == "Gemm" and attributes_of(node).get("transA") else first[-1]
    return _size(shapes, node.output[0]) * inner


def _shape(shapes: _Shapes, name: str) -> list[int]:
    if 0 in shapes.get(name, [0]):
        raise EngineError(
            f"the size of {name!r} in the graph is open, expected a fixed one",
            "Export the network with a fixed height and width.",
        )
    return shapes[name]


def _size(shapes: _Shapes, name: str) -> int:
    return prod(_shape(shapes, name))


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large weights are inputs, which have a shape and no values, and an open batch is 1."""
    import onnx
    from onnx import helper

    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    weights = {i.name for i in model.graph.initializer}
    light.graph.name = model.graph.name or "work"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(i for i in model.graph.input if i.name not in weights)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if prod(tensor.dims) > _SMALL:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    for value in (*light.graph.input, *light.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_value = 1
    return light


def _all_shapes(light: onnx.ModelProto) -> _Shapes:
    from onnx import shape_inference

    found = shapes_of(shape_inference.infer_shapes(light, data_prop=True))
    return found | {i.name: list(i.dims) for i in light.graph.initializer}
