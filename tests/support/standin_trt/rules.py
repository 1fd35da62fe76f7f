"""What TensorRT's ONNX parser takes and what it refuses, as far as it is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from standin_trt import texts

# The operators of the importer, by name.
OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization
        BlackmanWindow Cast CastLike Ceil Celu Clip Compress Concat Constant ConstantOfShape Conv
        ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div Dropout
        DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
        GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
        GroupNormalization HardSigmoid HardSwish Hardmax Identity If ImageScaler InstanceNormalization IsInf
        IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization
        LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression
        NonZero Not OneHot Or PRelu Pad ParametricSoftplus Pow QuantizeLinear RNN RandomNormal
        RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
        Resize ReverseSequence RoiAlign Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape
        Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub
        Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
        """,
    )
)
TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.FLOAT8E4M3FN: "FP8",
    TensorProto.INT4: "INT4",
}
COORDINATES = {"half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"}


@dataclass(frozen=True)
class Refusal:
    """One error of the parser: its code by name, its text and the node it is about (-1: none)."""

    code: str
    desc: str
    node: int = -1
    name: str = ""
    operator: str = ""


def highest_opset(version: tuple[int, ...]) -> int:
    """The newest operator set that a version's parser takes."""
    if version >= (11,):
        return 25
    return 22 if version >= (10, 13) else 20


def resolve_external(model: onnx.ModelProto, folder: Path | None) -> Refusal | None:
    """Read the weights that lie in other files into the model."""
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = next(entry.value for entry in tensor.external_data if entry.key == "location")
        if folder is None or not (folder / place).is_file():
            return Refusal("MODEL_DESERIALIZE_FAILED", f"Failed to open file: {(folder or Path()) / place}")
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return None


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor of the main graph that can be told."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    out = {info.name: info.type.tensor_type.elem_type for info in [*graph.value_info, *graph.input, *graph.output]}
    return out | {tensor.name: tensor.data_type for tensor in graph.initializer}


def refusals(model: onnx.ModelProto, version: tuple[int, ...]) -> Iterator[Refusal]:
    """Every reason to refuse a model whose weights are all in it."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    highest = highest_opset(version)
    if not 9 <= opset <= highest:
        yield Refusal(
            "UNSUPPORTED_GRAPH", f"Assertion failed: opset {opset} is outside the supported range 9..{highest}"
        )
        return
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        unknown = [
            node for node in model.graph.node if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx")
        ]
        if not unknown:
            yield Refusal("INVALID_GRAPH", f"Assertion failed: {error}")
            return
    known = element_types(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }
    inputs = {info.name for info in model.graph.input} - set(constants)
    outputs = {info.name for info in model.graph.output}
    for name in sorted(inputs):
        if known.get(name) not in TYPES:
            kind = TensorProto.DataType.Name(known.get(name, 0))
            yield Refusal(
                "UNSUPPORTED_GRAPH", f"Failed to convert ONNX data type {kind} of input {name} to a TensorRT type"
            )
    for index, node in enumerate(model.graph.node):
        for code, desc in _node(node, known, constants, inputs, outputs):
            yield Refusal(code, desc, index, node.name, node.op_type)


def _node(
    node: onnx.NodeProto,
    known: dict[str, int],
    constants: dict[str, onnx.TensorProto],
    inputs: set[str],
    outputs: set[str],
) -> Iterator[tuple[str, str]]:
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        yield "UNSUPPORTED_NODE", texts.PLUGIN.format(name=node.op_type)
        return
    quantizes = node.op_type in ("QuantizeLinear", "DequantizeLinear")
    for name in node.input:
        fine = (node.op_type == "Cast" and name in inputs) or (quantizes and name in constants)
        if known.get(name) == TensorProto.UINT8 and not fine:
            yield "UNSUPPORTED_NODE", texts.UINT8.format(name=name)
            return
    for name in node.output:
        if known.get(name) == TensorProto.UINT8 and not (node.op_type == "Cast" and name in outputs):
            yield "UNSUPPORTED_NODE", texts.UINT8.format(name=name)
            return
        if known.get(name) == TensorProto.DOUBLE:
            yield "UNSUPPORTED_NODE", f"Found unsupported datatype DOUBLE ({name})"
            return
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    to_bytes = node.op_type == "Cast" and given.get("to") == TensorProto.UINT8
    if to_bytes and known.get(node.input[0]) not in floats:
        yield "UNSUPPORTED_NODE", "Casts to UINT8 are supported from float16 and float32 only"
    if node.op_type == "Resize":
        mode = given.get("coordinate_transformation_mode", b"half_pixel").decode()
        if mode not in COORDINATES:
            yield "UNSUPPORTED_NODE_RESIZE", f"Assertion failed: unsupported coordinate transformation mode {mode}"
        if given.get("antialias", 0):
            yield "UNSUPPORTED_NODE_RESIZE", 'Assertion failed: antialias == 0 && "TensorRT does not support antialias"'
        if given.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
            yield "UNSUPPORTED_NODE_RESIZE", "Assertion failed: keep_aspect_ratio_policy must be stretch"
        if known.get(node.input[0]) == TensorProto.BOOL:
            yield "UNSUPPORTED_NODE_RESIZE", "Assertion failed: Resize takes no BOOL data"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        yield from _quantized(node, given, known, constants)


def _quantized(
    node: onnx.NodeProto, given: dict[str, object], known: dict[str, int], constants: dict[str, onnx.TensorProto]
) -> Iterator[tuple[str, str]]:
    data, scale = node.input[0], node.input[1]
    if known.get(data) == TensorProto.INT32:
        yield (
            "UNSUPPORTED_NODE_ATTR",
            "Assertion failed: (inputs.at(0).getType() == INT8) DequantizeLinear of INT32 is not supported",
        )
    if scale not in constants:
        yield "UNSUPPORTED_NODE_INPUT", f"Assertion failed: scale {scale} must be an initializer"
        return
    scales = numpy_helper.to_array(constants[scale]).astype(np.float32)
    if not (scales > 0).all():
        yield "INVALID_NODE", "Assertion failed: scale values must be positive"
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in constants:
            yield "UNSUPPORTED_NODE_INPUT", f"Assertion failed: zero point {node.input[2]} must be an initializer"
            return
        zero = constants[node.input[2]]
        if zero.data_type == TensorProto.UINT8:
            yield "UNSUPPORTED_NODE_DATATYPE", "Assertion failed: UINT8 zero points are not supported"
        elif np.any(numpy_helper.to_array(zero).astype(np.float32) != 0):
            yield (
                "UNSUPPORTED_NODE_DATATYPE",
                texts.ZERO_POINT,
            )
        if int(np.prod(zero.dims)) != scales.size:
            yield "INVALID_NODE", "Assertion failed: zero point and scale must have the same volume"
    if scales.size > 1 and node.op_type == "DequantizeLinear" and given.get("axis", 1) not in (0, 1):
        yield "INVALID_NODE", "Assertion failed: per-channel quantization is supported along axis 0 or 1 only"
