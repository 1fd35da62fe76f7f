"""Hard-swish spelled out in four operators becomes the one operator that runtimes know.

Older exporters write x * clip(x + 3, 0, 6) / 6 as Add, Clip, Div and Mul (or with HardSigmoid). ONNX Runtime then
leaves its blocked layout and passes over the tensor four times; as HardSwish it becomes part of the convolution before
it. HardSwish came with opset 14: older graphs are raised to it where their operators mean the same there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.rewrite.net import Net

if TYPE_CHECKING:
    import onnx

_OPSET = 14


def run(net: Net) -> int:
    """Replace every spelled-out hard-swish; how many there were. None are where the opset cannot be raised to 14."""
    found = [(node, source) for node in net.nodes if (source := _swished(net, node)) is not None]
    # On its own HardSigmoid is slow in OpenVINO (a reference kernel): x * HardSigmoid(x) is no way out before 14.
    if not found or not net.raise_opset(_OPSET):
        return 0
    for node, source in found:
        name = f"{node.name or node.output[0]}/swish"
        net.replace(node.output[0], net.add("HardSwish", [source], net.shapes.get(source, ()), name))
    net.prune()
    return len(found)


def _number(net: Net, name: str) -> float | None:
    value = net.array(name)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 and value.ndim <= 1 else None


def _with_number(net: Net, node: onnx.NodeProto | None, kind: str, number: float) -> str | None:
    """The other input of a node that adds ``number``, multiplies or divides by it; None if it is not that."""
    if node is None or node.op_type != kind:
        return None
    for tensor, other in ((0, 1),) if kind == "Div" else ((0, 1), (1, 0)):
        found = _number(net, node.input[other])
        if found is not None and abs(found - number) <= 1e-6 * number:
            return str(node.input[tensor])
    return None


def _times_six(net: Net, node: onnx.NodeProto | None) -> str | None:
    """The tensor of which a node gives a sixth."""
    found = _with_number(net, node, "Div", 6.0)
    return found if found is not None else _with_number(net, node, "Mul", 1 / 6)


def _clipped(net: Net, name: str) -> str | None:
    """The x of a tensor that is clip(x + 3, 0, 6)."""
    clip = net.maker(name, "Clip")
    if clip is None:
        return None
    given = attributes_of(clip)
    limits: list[float | None] = [given.get("min"), given.get("max")]
    for i, limit in enumerate(clip.input[1:3]):
        limits[i] = _number(net, limit) if limit else None
    return _with_number(net, net.maker(clip.input[0]), "Add", 3.0) if limits == [0.0, 6.0] else None


def _gated(net: Net, name: str) -> str | None:
    """The x of a tensor that is clip(x + 3, 0, 6) / 6."""
    node = net.maker(name)
    if node is not None and node.op_type == "HardSigmoid":
        given = attributes_of(node)
        fits = np.allclose([given.get("alpha", 0.2), given.get("beta", 0.5)], [1 / 6, 0.5], rtol=1e-6, atol=0)
        return str(node.input[0]) if fits else None
    inner = _times_six(net, node)
    return _clipped(net, inner) if inner is not None else None


def _swished(net: Net, node: onnx.NodeProto) -> str | None:
    """The x of a node that gives x * clip(x + 3, 0, 6) / 6, whatever is done first."""
    if node.op_type == "Mul" and len(node.input) == 2:
        for source, other in (node.input, node.input[::-1]):
            if _gated(net, other) == source:
                return str(source)
    inner = _times_six(net, node)
    product = net.maker(inner, "Mul") if inner is not None else None
    if product is not None and len(product.input) == 2:
        for source, other in (product.input, product.input[::-1]):
            if _clipped(net, other) == source:
                return str(source)
    return None
