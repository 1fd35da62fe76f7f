"""1x1 layers in a row become one, move below enlargements, and split over what is concatenated.

All exact in real arithmetic: a product of matrices is a matrix; a bilinear sample is a mean whose weights sum to one,
so a matrix (and a bias) may act before it as well as after; and W [a; b] = Wa a + Wb b. So

    relu(W [up(y); V s] + c)   is   relu(up(Wa y) + (Wb V) s + c)

whose large product runs on the small picture, and the concatenated tensor is never made. Which of the ways is taken
is decided by their cost: multiplications plus what is moved through memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.rewrite.net import Array, Net
from segcam.onnx_tools.rewrite.ops import Conv, conv_of, is_enlargement, resized_like

if TYPE_CHECKING:
    import onnx

#: What moving one element through memory costs, in multiplications.
_MOVE = 16


@dataclass(frozen=True)
class _Way:
    """One way to compute a 1x1 layer of ``outputs`` channels over ``source``: its cost and the ways it rests on.

    ``kind``: ``plain`` (a layer over ``source`` itself), ``merge`` (with the layer that makes ``source``), ``below``
    (before the enlargement that makes it), ``split`` (over what is concatenated to it).
    """

    kind: str
    cost: float
    source: str
    parts: tuple[_Way, ...] = ()


def run(net: Net) -> int:
    """Rewrite every 1x1 layer for which another way is cheaper; how many were."""
    changed = 0
    for node in list(net.nodes):
        layer = conv_of(net, node)
        if layer is None or not layer.pointwise:
            continue
        way = _best(net, layer.weight.shape[0], node.input[0])
        if way.kind == "plain":
            continue
        if _rewrite(net, layer, way):
            changed += 1
            net.prune()
    return changed


def _area(net: Net, name: str) -> int:
    shape = net.shape4(name)
    assert shape is not None
    return max(1, shape[0]) * shape[2] * shape[3]


def _channels(net: Net, name: str) -> int:
    shape = net.shape4(name)
    assert shape is not None
    return shape[1]


def _layer_cost(net: Net, outputs: int, source: str) -> float:
    inputs = _channels(net, source)
    return float(_area(net, source)) * (outputs * inputs + _MOVE * (outputs + inputs))


def _linear_maker(net: Net, name: str) -> tuple[str, onnx.NodeProto, Conv | None] | None:
    """What makes ``name`` and may be rearranged: a 1x1 layer, an enlargement or a concatenation nobody else reads."""
    node = net.maker(name)
    if node is None or not net.private(name):
        return None
    if (layer := conv_of(net, node)) is not None and layer.pointwise:
        return "merge", node, layer
    if is_enlargement(net, node) and _area(net, node.input[0]) <= _area(net, name):
        return "below", node, None
    if node.op_type == "Concat" and attributes_of(node).get("axis") in (1, -3) and _same_places(net, node):
        return "split", node, None
    return None


def _same_places(net: Net, node: onnx.NodeProto) -> bool:
    shapes = [net.shape4(name) for name in node.input]
    return all(s is not None for s in shapes) and len({(s[0], *s[2:]) for s in shapes if s}) == 1


def _made(net: Net, name: str) -> float:
    """What making ``name`` costs, as far as it could be spared."""
    found = _linear_maker(net, name)
    if found is None:
        return 0.0
    kind, node, layer = found
    if layer is not None:
        return _layer_cost(net, layer.weight.shape[0], node.input[0]) + _made(net, node.input[0])
    moved = float(_MOVE * _channels(net, name) * _area(net, name))
    if kind == "below":
        return 2 * moved + _made(net, node.input[0])
    return 2 * moved + sum(_made(net, part) for part in node.input)


def _best(net: Net, outputs: int, source: str) -> _Way:
    plain = _Way("plain", _layer_cost(net, outputs, source) + _made(net, source), source)
    found = _linear_maker(net, source)
    if found is None:
        return plain
    kind, node, _ = found
    moved = float(_MOVE * outputs * _area(net, source))
    if kind == "split":
        parts = tuple(_best(net, outputs, part) for part in node.input)
        # A sum is added in place by the layer that makes one of its terms.
        way = _Way(kind, sum(part.cost for part in parts) + (len(parts) - 1) * moved, source, parts)
    else:
        below = _best(net, outputs, node.input[0])
        way = _Way(kind, below.cost + (2 * moved if kind == "below" else 0), source, (below,))
    return way if way.cost < plain.cost else plain


def _rewrite(net: Net, layer: Conv, way: _Way) -> bool:
    """Put the nodes of ``way`` in the layer's place; False (and nothing done) where a size is no constant."""
    node = layer.node
    mark = len(net.nodes)
    bias = np.zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias.astype(np.float64)
    made = _emit(net, way, layer.weight[:, :, 0, 0].astype(np.float64), bias, node.name or node.output[0])
    if made is None:
        del net.nodes[mark:]
        net.prune()
        return False
    net.replace(node.output[0], made)
    return True


def _emit(net: Net, way: _Way, weight: Array, bias: Array | None, name: str) -> str | None:
    """The tensor ``weight`` · source + ``bias``, made in the given way; None where a size is no constant."""
    if way.kind == "plain":
        return _layer(net, way.source, weight, bias, name)
    found = _linear_maker(net, way.source)
    assert found is not None
    _, node, inner = found
    if inner is not None:
        merged = weight @ inner.weight[:, :, 0, 0].astype(np.float64)
        if inner.bias is not None:
            bias = weight @ inner.bias.astype(np.float64) + (0.0 if bias is None else bias)
        return _emit(net, way.parts[0], merged, bias, name)
    if way.kind == "below":
        small = _emit(net, way.parts[0], weight, bias, name)
        return None if small is None else resized_like(net, node, small, len(weight))
    total, begin = None, 0
    for number, part in enumerate(way.parts):
        end = begin + _channels(net, part.source)
        # One of the terms brings the bias.
        term = _emit(net, part, weight[:, begin:end], bias if number == 0 else None, f"{name}/part{number}")
        begin = end
        if term is None:
            return None
        shape = net.shapes[term]
        total = term if total is None else net.add("Add", [total, term], shape, f"{name}/sum")
    return total


def _layer(net: Net, source: str, weight: Array, bias: Array | None, name: str) -> str:
    outputs, inputs = weight.shape
    shape = net.shape4(source)
    assert shape is not None
    given = [source, net.constant(f"{name}.weight", weight.astype(np.float32).reshape(outputs, inputs, 1, 1))]
    if bias is not None and np.any(bias):
        given.append(net.constant(f"{name}.bias", bias.astype(np.float32)))
    return net.add("Conv", given, (shape[0], outputs, *shape[2:]), name, kernel_shape=[1, 1])
