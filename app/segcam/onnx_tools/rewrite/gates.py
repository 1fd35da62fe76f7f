"""A gate acts on the weights of the 1x1 layer behind it instead of on the whole tensor: W (x * g) = (W diag(g)) x.

Squeeze-excite multiplies every channel of a wide tensor by a number and a 1x1 layer follows. ONNX Runtime leaves its
blocked layout for that product, and comes back; with the gate in the weights the product is a few thousand numbers, and
the layer a matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segcam.onnx_tools.rewrite.net import Net
from segcam.onnx_tools.rewrite.ops import Conv, conv_of

if TYPE_CHECKING:
    import onnx


#: Elements of a gated tensor from which on it pays: at 392x424, where none has so many, it lost 3 to 8 %.
LARGE = 1_900_000


def run(net: Net, large: int = LARGE) -> int:
    """Move gates of large tensors into the weights of the layer that reads the product; how many."""
    changed = 0
    for node in list(net.nodes):
        layer = conv_of(net, node)
        found = _gated(net, layer.node.input[0], large) if layer is not None and layer.pointwise else None
        if layer is not None and found is not None:
            _rewrite(net, layer, *found)
            changed += 1
    net.prune()
    return changed


def _gated(net: Net, name: str, large: int) -> tuple[str, str] | None:
    """(tensor, gate) of a product that nobody else reads, the gate one number a channel."""
    product = net.maker(name, "Mul")
    if product is None or not net.private(name):
        return None
    for tensor, gate in (product.input, product.input[::-1]):
        one, other = net.shape4(tensor), net.shape4(gate)
        if one is None or other is None or net.array(gate) is not None:
            continue
        # Either every picture of the batch has its gate, or all have the same.
        fits = other[1:] == (one[1], 1, 1) and 0 < other[0] in (1, one[0])
        if fits and one[2:] != (1, 1) and max(1, one[0]) * one[1] * one[2] * one[3] >= large:
            return str(tensor), str(gate)
    return None


def _rewrite(net: Net, layer: Conv, tensor: str, gate: str) -> None:
    node: onnx.NodeProto = layer.node
    name = node.name or node.output[0]
    outputs, inputs = layer.weight.shape[:2]
    shape, pictures = net.shape4(node.output[0]), net.shapes[gate][0]
    assert shape is not None
    batch, _, height, width = shape
    plain = net.constant(f"{name}/matrix", layer.weight.reshape(1, outputs, inputs))
    row = net.reshape(gate, (pictures, 1, inputs), f"{name}/gate")
    weights = net.add("Mul", [plain, row], (pictures, outputs, inputs), f"{name}/weights")
    flat = net.reshape(tensor, (batch, inputs, height * width), f"{name}/flat")
    product = net.add("MatMul", [weights, flat], (batch, outputs, height * width), f"{name}/product")
    made = net.reshape(product, shape, f"{name}/shaped")
    if layer.bias is not None:
        bias = net.constant(f"{name}/column", np.ascontiguousarray(layer.bias.reshape(1, outputs, 1, 1)))
        made = net.add("Add", [made, bias], shape, f"{name}/biased")
    net.replace(node.output[0], made)
