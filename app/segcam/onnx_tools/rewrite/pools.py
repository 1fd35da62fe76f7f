"""Means over windows: first along columns, then along rows.

A mean over a window is the mean of its columns' means. ``run`` does so where large windows overlap, so that each row
is added up once instead of once for every window beside it (fastseg's head: 49x49 every 16 rows and 20 columns, 5.7 ms
of OpenVINO's time at 1024x2048). ``run_means`` does it for means over whole pictures, for OpenVINO, whose pooling adds
up twice as fast as its reduction (1.5 and 3.0 ms for 576 channels of 128x256).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.rewrite.net import Net
from segcam.onnx_tools.rewrite.ops import is_mean

if TYPE_CHECKING:
    import onnx

#: Two steps must spare this much of the additions of one.
_SPARED = 0.3
#: Means over fewer elements are too quick to gain.
_FEW = 100_000


def run(net: Net) -> int:
    """Split overlapping average pools in two; how many."""
    found = [node for node in net.nodes if _overlaps(net, node)]
    for node in found:
        given, name = attributes_of(node), node.name or node.output[0]
        (high, wide), (down, across) = given["kernel_shape"], given.get("strides", (1, 1))
        source, target = net.shape4(node.input[0]), net.shape4(node.output[0])
        assert source is not None and target is not None
        shape = (*target[:3], source[3])
        columns = net.add(
            "AveragePool", [node.input[0]], shape, f"{name}/columns", kernel_shape=[high, 1], strides=[down, 1]
        )
        rows = net.add("AveragePool", [columns], target, f"{name}/rows", kernel_shape=[1, wide], strides=[1, across])
        net.replace(node.output[0], rows)
    net.prune()
    return len(found)


def _overlaps(net: Net, node: onnx.NodeProto) -> bool:
    if node.op_type != "AveragePool":
        return False
    given = attributes_of(node)
    source, target = net.shape4(node.input[0]), net.shape4(node.output[0])
    if source is None or target is None or given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return False
    if any(given.get("pads", ())) or any(d != 1 for d in given.get("dilations", ())):
        return False
    high, wide = given["kernel_shape"]
    strides = given.get("strides", (1, 1))
    fits = [(n - k) // s + 1 for n, k, s in zip(source[2:], (high, wide), strides, strict=True)]
    # With ceil_mode the last window may stick out.
    if fits != list(target[2:]) or 1 in (high, wide):
        return False
    once = high * wide * target[2] * target[3]
    twice = high * target[2] * source[3] + wide * target[2] * target[3]
    return bool(twice <= (1 - _SPARED) * once)


def run_means(net: Net) -> int:
    """Take means over whole pictures in two steps, the first of them a pool; how many."""
    changed = 0
    for node in list(net.nodes):
        shape = net.shape4(node.input[0]) if is_mean(net, node) else None
        if shape is None or shape[1] * shape[2] * shape[3] < _FEW or 1 in shape[2:]:
            continue
        name = node.name or node.output[0]
        batch, channels, height, width = shape
        columns = net.add(
            "AveragePool", [node.input[0]], (batch, channels, 1, width), f"{name}/columns",
            kernel_shape=[height, 1], strides=[height, 1],
        )  # fmt: skip
        mean = net.add("GlobalAveragePool", [columns], (batch, channels, 1, 1), f"{name}/mean")
        net.replace(node.output[0], mean)
        changed += 1
    net.prune()
    return changed
