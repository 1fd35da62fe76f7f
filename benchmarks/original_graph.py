"""What the original project's own exporter writes: one of our plain graphs put back into that form.

fastseg's exporter traces PyTorch at opset 11 with the initializers listed among the inputs. Against our graph, as read
off such a file (fastseg 0.1.2, geffnet 1.0.2 in its exportable mode): hard-swish is Add, Clip, Div and Mul, and
hard-sigmoid the first three; a global mean is ReduceMean; TensorFlow's padding is a Pad node before a convolution
without padding; the last enlargement is in the graph. Batch norms are folded by PyTorch, too. After onnxsim and the cut
of the head, the two have the same number of each operator (208 for MobileV3Small, 230 for MobileV3Large).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.head import cut_head
from segcam.onnx_tools.simplify import simplify as simplified

OPSET, IR_VERSION = 11, 4


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def gate(self, source: str, output: str) -> str:
        plus = self.add("Add", [source, self.constant(f"{output}.three", 3.0)], f"{output}.plus")
        limits = [self.constant(f"{output}.zero", 0.0), self.constant(f"{output}.six", 6.0)]
        clip = self.add("Clip", [plus, *limits], f"{output}.clip")
        return self.add("Div", [clip, self.constant(f"{output}.by", 6.0)], output)

    def resize(self, source: str, sizes: str, output: str, **attributes: Any) -> str:
        roi, scales = self.constant(f"{output}.roi", []), self.constant(f"{output}.scales", [])
        return self.add("Resize", [source, roi, scales, sizes], output, **attributes)


def original_graph(plain: onnx.ModelProto, *, simplify: bool = True) -> onnx.ModelProto:
    """``plain`` (of ``networks.architecture.build``, batch 1) as the original exports it: input ``input0``, full-size
    scores ``output0``. ``simplify``: run through onnxsim and cut at the coarse scores, as a careful user would.
    """
    graph, writer = plain.graph, _Writer()
    height, width = (d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[2:])
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    for node in graph.node:
        _write(writer, node)
    sizes = writer.constant("full", [1, classes, height, width], np.int64)
    full = writer.resize(
        graph.output[0].name, sizes, "output0", mode="linear", coordinate_transformation_mode="half_pixel"
    )
    weights = [*graph.initializer, *writer.constants]
    listed = [helper.make_tensor_value_info(w.name, w.data_type, list(w.dims)) for w in weights]
    shape = [1, classes, height, width]
    whole = helper.make_graph(
        writer.nodes, "original", [graph.input[0], *listed],
        [helper.make_tensor_value_info(full, TensorProto.FLOAT, shape)], weights,
    )  # fmt: skip
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    if not simplify:
        return model
    made = simplified(model)
    assert not made.reason, made.reason
    cut = cut_head(made.model, full, (height, width))
    assert cut is not None
    return cut[0]


def _write(writer: _Writer, node: onnx.NodeProto) -> None:
    inputs, output, given = list(node.input), node.output[0], attributes_of(node)
    if node.op_type == "HardSwish":
        writer.add("Mul", [inputs[0], writer.gate(inputs[0], f"{output}.gate")], output)
    elif node.op_type == "HardSigmoid":
        writer.gate(inputs[0], output)
    elif node.op_type == "GlobalAveragePool":
        writer.add("ReduceMean", inputs, output, axes=[2, 3], keepdims=1)
    elif node.op_type == "Resize":
        writer.resize(inputs[0], inputs[3], output, **given)
    elif node.op_type == "Conv" and given.get("pads", [0] * 4)[:2] != given.get("pads", [0] * 4)[2:]:
        top, left, bottom, right = given.pop("pads")
        pads = writer.constant(f"{output}.pads", [0, 0, top, left, 0, 0, bottom, right], np.int64)
        padded = writer.add("Pad", [inputs[0], pads, writer.constant(f"{output}.fill", 0.0)], f"{output}.padded")
        writer.add("Conv", [padded, *inputs[1:]], output, **given)
    else:
        writer.add(node.op_type, inputs, output, **given)
