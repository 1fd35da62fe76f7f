"""A layer over [x; enlarged means ...] looks at the means as the few cells they are, not at their enlargements.

In a pyramid of pools (PSPNet, Fast-SCNN) half the channels that the next layer reads are maps of 1, 4, 9 and 36 cells,
enlarged. The layer is linear in them, and both the enlargement and the layer's zero-padded window act on rows and
columns apart, so its share of the output is a product of small matrices:

    sum over (i, j) of  (S_i R) (W_ij p) (S_j C)'

with R and C the enlargement of p along rows and columns, W_ij the layer's weights at place (i, j) of its window, and
S_i the shift to that place with zeros coming in from outside. For PSPNet at 512x512 that is 0.1 in the place of 38.7
thousand million multiplications (of 178 in all).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.rewrite.net import Net
from segcam.onnx_tools.rewrite.ops import Conv, conv_of, enlargement_matrix, is_enlargement

if TYPE_CHECKING:
    import onnx

#: A part counts as few cells where the output has at least this many times as many.
_FEWER = 16

#: Multiplications to be spared from which on it pays: Fast-SCNN at 1024x2048 (302 million) gains 2 to 4 %, at 512x1024
#: (75 million) nothing.
LARGE = 150_000_000


def run(net: Net, large: int = LARGE) -> int:
    """Rewrite every layer that reads enlarged means of few cells; how many such means there were."""
    changed = 0
    for node in list(net.nodes):
        layer = conv_of(net, node)
        if layer is not None and layer.groups == 1:
            changed += _rewrite(net, layer, large)
    net.prune()
    return changed


def _rewrite(net: Net, layer: Conv, large: int) -> int:
    concat = net.maker(layer.node.input[0], "Concat")
    if concat is None or not net.private(concat.output[0]) or attributes_of(concat).get("axis") not in (1, -3):
        return 0
    shapes = [net.shape4(name) for name in concat.input]
    if any(shape is None for shape in shapes):
        return 0
    ends = np.cumsum([shape[1] for shape in shapes if shape])
    parts = list(zip(concat.input, ends - [shape[1] for shape in shapes if shape], ends, strict=True))
    few = [part for part in parts if _is_few(net, layer, part[0])]
    rest = [part for part in parts if part not in few]
    if not few or not rest:
        return 0
    name = layer.node.name or layer.node.output[0]
    shape = net.shape4(layer.node.output[0])
    assert shape is not None
    spared = sum(layer.weight[:, begin:end].size for _, begin, end in few) * shape[2] * shape[3]
    if spared < large:
        return 0
    across, down = [], []
    for number, (part, begin, end) in enumerate(few):
        node = net.maker(part)
        assert node is not None
        wide = f"{name}/few{number}"
        seen = _seen(net, layer, node.input[0], layer.weight[:, begin:end], wide)
        right = net.constant(f"{wide}/columns", _columns(net, layer, node).T.astype(np.float32).copy())
        rows = net.shapes[seen][2]
        across.append(net.add("MatMul", [seen, right], (*shape[:2], rows, shape[3]), f"{wide}/across"))
        down.append(_rows(net, layer, node))
    stacked = across[0]
    if len(across) > 1:
        height = sum(net.shapes[one][2] for one in across)
        stacked = net.add("Concat", across, (*shape[:2], height, shape[3]), f"{name}/few/stacked", axis=2)
    left = net.constant(f"{name}/few/rows", np.concatenate(down, 1).astype(np.float32))
    share = net.add("MatMul", [left, stacked], shape, f"{name}/few")
    # ONNX Runtime adds in its blocked layout only what a convolution gives: one that adds the bias is next to nothing.
    ones = net.constant(f"{name}/few/ones", np.ones((shape[1], 1, 1, 1), np.float32))
    given = [share, ones, *layer.node.input[2:]]
    share = net.add("Conv", given, shape, f"{name}/few/bias", group=shape[1], kernel_shape=[1, 1])
    own = _over(net, layer, [part[0] for part in rest], [slice(*part[1:]) for part in rest], f"{name}/rest")
    net.replace(layer.node.output[0], net.add("Add", [own, share], shape, f"{name}/sum"))
    return len(few)


def _is_few(net: Net, layer: Conv, name: str) -> bool:
    node = net.maker(name)
    if node is None or not is_enlargement(net, node) or enlargement_matrix(net, node, 2) is None:
        return False
    cells, pixels = net.shape4(node.input[0]), net.shape4(layer.node.output[0])
    assert cells is not None and pixels is not None
    return cells[2] * cells[3] * _FEWER <= pixels[2] * pixels[3]


def _seen(net: Net, layer: Conv, source: str, weight: NDArray[np.float32], name: str) -> str:
    """What each place of the window makes of the cells: (N, M, kh * h, kw * w)."""
    outputs, inputs, high, wide = weight.shape
    shape = net.shape4(source)
    assert shape is not None
    batch, _, rows, columns = shape
    places = net.constant(f"{name}.weight", weight.transpose(0, 2, 3, 1).reshape(-1, inputs, 1, 1).copy())
    made = net.add(
        "Conv", [source, places], (batch, outputs * high * wide, rows, columns), f"{name}/places", kernel_shape=[1, 1]
    )
    apart = net.reshape(made, (batch, outputs, high, wide, rows, columns), f"{name}/apart")
    order = (0, 1, 2, 4, 3, 5)
    turned = net.add(
        "Transpose", [apart], (batch, outputs, high, rows, wide, columns), f"{name}/turned", perm=list(order)
    )
    return net.reshape(turned, (batch, outputs, high * rows, wide * columns), f"{name}/seen")


def _rows(net: Net, layer: Conv, node: onnx.NodeProto) -> NDArray[np.float64]:
    return _windowed(net, layer, node, 0)


def _columns(net: Net, layer: Conv, node: onnx.NodeProto) -> NDArray[np.float64]:
    return _windowed(net, layer, node, 1)


def _windowed(net: Net, layer: Conv, node: onnx.NodeProto, axis: int) -> NDArray[np.float64]:
    """(pixels, k * cells) along rows (0) or columns (1): what each cell counts at each place of each pixel's window."""
    enlarged = enlargement_matrix(net, node, axis + 2)
    shape = net.shape4(layer.node.output[0])
    assert enlarged is not None and shape is not None
    pixels, size, cells = shape[axis + 2], layer.kernel[axis], enlarged.shape[1]
    seen = np.zeros((pixels, size, cells))
    for place in range(size):
        at = np.arange(pixels) * layer.strides[axis] + place * layer.dilations[axis] - layer.pads[axis]
        inside = (at >= 0) & (at < len(enlarged))
        seen[inside, place] = enlarged[at[inside]]
    return seen.reshape(pixels, size * cells)


def _over(net: Net, layer: Conv, names: list[str], slices: list[slice], name: str) -> str:
    """The layer without its bias over some of what was concatenated."""
    shape = net.shape4(names[0])
    assert shape is not None
    source = names[0]
    if len(names) > 1:
        channels = sum(s.stop - s.start for s in slices)
        source = net.add("Concat", names, (shape[0], channels, *shape[2:]), f"{name}/source", axis=1)
    weight = np.concatenate([layer.weight[:, s] for s in slices], 1)
    inputs = [source, net.constant(f"{name}.weight", weight)]
    return net.add("Conv", inputs, net.shapes[layer.node.output[0]], name, **attributes_of(layer.node))
