"""What an enlargement makes is used up strip by strip, while it is still in the cache.

An enlargement to many channels followed only by what acts on each pixel alone, down to few channels (the last stage of
fastseg's head: 128 channels at half the picture's size, 19 scores), writes and reads a tensor that no cache holds, four
times. Computed in strips of rows, each with a row more on both sides that is cut off at the end, it never leaves the
cache. The samples are the same: with half-pixel sampling in a whole ratio a strip's rows lie where the picture's do.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.rewrite.net import Net
from segcam.onnx_tools.rewrite.ops import conv_of, is_enlargement

if TYPE_CHECKING:
    import onnx

#: Elements of an enlarged tensor from which on strips pay (bfloat16: 48 MiB), and of a strip (8 MiB).
LARGE, STRIP = 24 << 20, 4 << 20
#: At the end channels must be at most this share of the enlarged tensor's.
_NARROW = 0.5

_ALONE = {"Add", "Clip", "HardSwish", "LeakyRelu", "Mul", "Relu", "Sigmoid", "Sub"}


def run(net: Net, large: int = LARGE, strip: int = STRIP) -> int:
    """Cut every such stage into strips; how many stages."""
    changed = 0
    for node in list(net.nodes):
        if node in net.nodes and _fits(net, node, large):
            changed += _cut(net, node, strip)
    return changed


def _fits(net: Net, node: onnx.NodeProto, large: int) -> bool:
    if not is_enlargement(net, node) or node.op_type != "Resize":
        return False
    given = attributes_of(node)
    source, target = net.shape4(node.input[0]), net.shape4(node.output[0])
    assert source is not None and target is not None
    sampling = given.get("coordinate_transformation_mode", b"half_pixel")
    if "axes" in given or sampling not in (b"half_pixel", b"pytorch_half_pixel") or target[2] % source[2]:
        return False
    scaled = len(node.input) < 4 or not node.input[3]
    if scaled and tuple(_given(net, node.input[2])) != (1.0, 1.0, target[2] / source[2], target[3] / source[3]):
        return False
    return target[0] * target[1] * target[2] * target[3] >= large and target[2] > source[2] > 1


def _given(net: Net, name: str) -> list[float]:
    value = net.array(name)
    return [] if value is None else [float(v) for v in value]


def _cut(net: Net, resize: onnx.NodeProto, strip: int) -> int:
    """Cut the stage that begins with ``resize``; 0 where it does not end in few channels."""
    stage = _stage(net, resize)
    shape, end = net.shape4(resize.output[0]), net.shape4(stage[-1].output[0])
    assert shape is not None and end is not None
    if len(stage) < 2 or end[1] > _NARROW * shape[1]:
        return 0
    source = net.shape4(resize.input[0])
    assert source is not None
    rows, times = source[2], shape[2] // source[2]
    count = min(rows // 2, -(-shape[1] * shape[2] * shape[3] * max(1, shape[0]) // strip))
    if count < 2:
        return 0
    made = []
    for number in range(count):
        first, last = number * rows // count, (number + 1) * rows // count
        # Samples between two rows need both: one row more, above and below.
        begin, stop = max(0, first - 1), min(rows, last + 1)
        name = f"{stage[-1].name or stage[-1].output[0]}/strip{number}"
        whole = _strip(net, stage, (begin, stop), times, name)
        cut = (times * (first - begin), times * (last - begin))
        made.append(_rows(net, whole, *cut, f"{name}/cut") if (begin, stop) != (first, last) else whole)
    net.replace(stage[-1].output[0], net.add("Concat", made, end, f"{stage[-1].name}/strips", axis=2))
    net.prune()
    return 1


def _stage(net: Net, resize: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes from ``resize`` on that act on each pixel alone, each the only reader of the one before, up to where
    channels are fewest."""
    stage, narrowest = [resize], 1
    while net.private(stage[-1].output[0]):
        node = net.readers(stage[-1].output[0])[0]
        layer = conv_of(net, node)
        alone = layer is not None and layer.pointwise and layer.node.input[0] == stage[-1].output[0]
        if not alone and not (node.op_type in _ALONE and _same_size(net, node, stage[-1].output[0])):
            break
        stage.append(node)
        if _channels(net, node) < _channels(net, stage[narrowest - 1]):
            narrowest = len(stage)
    return stage[:narrowest]


def _same_size(net: Net, node: onnx.NodeProto, name: str) -> bool:
    """Whether all that ``node`` reads is a picture of this size or constant for a channel."""
    shape = net.shape4(name)
    for other in filter(None, node.input):
        if net.array(other) is not None:
            dims = net.shapes[other]
            if len(dims) >= 2 and dims[-2] != 1:
                return False
        elif net.shape4(other) != shape:
            return False
    return net.shape4(node.output[0]) == shape


def _channels(net: Net, node: onnx.NodeProto) -> int:
    shape = net.shape4(node.output[0])
    assert shape is not None
    return shape[1]


def _strip(net: Net, stage: list[onnx.NodeProto], rows: tuple[int, int], times: int, name: str) -> str:
    """The end of the stage for rows [first, last) of what is enlarged."""
    resize = stage[0]
    source, shape = net.shape4(resize.input[0]), net.shape4(resize.output[0])
    assert source is not None and shape is not None
    part = _rows(net, resize.input[0], *rows, f"{name}/source")
    target = (*shape[:2], times * (rows[1] - rows[0]), shape[3])
    sizes = net.constant(f"{name}/sizes", np.array(target, np.int64))
    empty = ["", ""] if net.opset >= 13 else [net.constant(f"{name}/none", np.zeros(0, np.float32))] * 2
    made = net.add("Resize", [part, *empty, sizes], target, f"{name}/up", **attributes_of(resize))
    large = (times * rows[0], times * rows[1])
    for before, node in itertools.pairwise(stage):
        inputs = [
            made if other == before.output[0] else _beside(net, other, large, f"{name}/beside{i}")
            for i, other in enumerate(node.input)
        ]
        made = _again(net, node, inputs, target[2], f"{name}/{node.op_type.lower()}")
    return made


def _beside(net: Net, name: str, rows: tuple[int, int], wish: str) -> str:
    """The rows of another input; of a 1x1 layer's, the layer over the rows of what it reads."""
    if not name or net.array(name) is not None:
        return name
    layer = conv_of(net, net.maker(name))
    if layer is None or not layer.pointwise or not net.private(name):
        return _rows(net, name, *rows, wish)
    part = _rows(net, layer.node.input[0], *rows, wish)
    return _again(net, layer.node, [part, *layer.node.input[1:]], rows[1] - rows[0], f"{wish}/layer")


def _again(net: Net, node: onnx.NodeProto, inputs: list[str], rows: int, wish: str) -> str:
    shape = net.shape4(node.output[0])
    assert shape is not None
    return net.add(node.op_type, inputs, (*shape[:2], rows, shape[3]), wish, **attributes_of(node))


def _rows(net: Net, name: str, first: int, last: int, wish: str) -> str:
    shape = net.shape4(name)
    assert shape is not None
    limits = [net.constant(f"{wish}/limit", np.array([value], np.int64)) for value in (first, last, 2)]
    return net.add("Slice", [name, *limits], (*shape[:2], last - first, shape[3]), wish)
