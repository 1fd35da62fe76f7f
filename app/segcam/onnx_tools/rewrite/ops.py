"""What the rewrites must know of single operators: is this a plain 1x1 convolution, a bilinear enlargement, a mean?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.rewrite.net import Array, Net

if TYPE_CHECKING:
    import onnx

#: Coordinates whose bilinear samples are weighted means of the picture's own cells, whatever the size.
_SAMPLINGS = {b"half_pixel", b"pytorch_half_pixel", b"align_corners", b"asymmetric"}


@dataclass(frozen=True)
class Conv:
    """A 2-D convolution with constant weights (M, K/groups, kh, kw); ``pads`` are (top, left, bottom, right)."""

    node: onnx.NodeProto
    weight: Array
    bias: Array | None
    groups: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def pointwise(self) -> bool:
        """Whether it mixes channels at each place and does nothing else."""
        return self.kernel == (1, 1) and self.groups == 1 and self.strides == (1, 1) and not any(self.pads)


def conv_of(net: Net, node: onnx.NodeProto | None) -> Conv | None:
    """``node`` as a Conv of known float32 weights over a picture of known size, else None."""
    if node is None or node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
        return None
    if net.shape4(node.input[0]) is None or net.shape4(node.output[0]) is None:
        return None
    weight = net.array(node.input[1])
    bias = net.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if weight is None or weight.ndim != 4 or weight.dtype != np.float32:
        return None
    if bias is None and len(node.input) > 2 and node.input[2]:
        return None
    given = attributes_of(node)
    strides, dilations = tuple(given.get("strides", (1, 1))), tuple(given.get("dilations", (1, 1)))
    pads = _pads(net, node, weight, given.get("auto_pad", b"NOTSET"), tuple(given.get("pads", (0, 0, 0, 0))))
    if pads is None:
        return None
    return Conv(node, weight, bias, given.get("group", 1), strides, dilations, pads)


def _pads(
    net: Net, node: onnx.NodeProto, weight: Array, automatic: bytes, pads: tuple[int, ...]
) -> tuple[int, int, int, int] | None:
    if automatic == b"NOTSET":
        return pads  # type: ignore[return-value]
    # What SAME_UPPER and its like come to is left to the runtime: only a 1x1 layer needs no padding in any case.
    return (0, 0, 0, 0) if automatic == b"VALID" or (weight.shape[2:] == (1, 1) and _unstrided(node)) else None


def _unstrided(node: onnx.NodeProto) -> bool:
    return set(attributes_of(node).get("strides", (1, 1))) == {1}


def is_enlargement(net: Net, node: onnx.NodeProto | None) -> bool:
    """Whether ``node`` is a Resize of rows and columns whose every sample is a weighted mean (of weights that sum to
    one) of its input's cells, the same for all channels: bilinear, in any of the usual ways to place samples.
    """
    if node is None or node.op_type not in ("Resize", "Upsample"):
        return False
    given = attributes_of(node)
    if given.get("mode", b"nearest") not in (b"linear", b"bilinear") or given.get("antialias"):
        return False
    if given.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        return False
    default = b"half_pixel" if node.op_type == "Resize" and net.opset >= 11 else b"asymmetric"
    if given.get("coordinate_transformation_mode", default) not in _SAMPLINGS:
        return False
    source, target = net.shape4(node.input[0]), net.shape4(node.output[0])
    return source is not None and target is not None and source[1] == target[1] and source[0] == target[0]


def enlargement_matrix(net: Net, node: onnx.NodeProto, axis: int) -> Array | None:
    """(pixels, cells) of an enlargement (``is_enlargement``) along an axis, float64: what each cell counts in each
    pixel, as the operator's specification has it. None where a scale that it depends on is no constant.
    """
    source, target = net.shape4(node.input[0]), net.shape4(node.output[0])
    assert source is not None and target is not None
    cells, pixels = source[axis], target[axis]
    scale = _scale(net, node, axis, pixels / cells)
    if scale is None:
        return None
    given = attributes_of(node)
    default = b"half_pixel" if node.op_type == "Resize" and net.opset >= 11 else b"asymmetric"
    mode = given.get("coordinate_transformation_mode", default)
    at = np.arange(pixels, dtype=np.float64)
    if mode == b"align_corners":
        at *= (cells - 1) / (pixels - 1) if pixels > 1 else 0.0
    elif mode == b"asymmetric":
        at /= scale
    elif mode == b"pytorch_half_pixel" and pixels == 1:
        at[:] = 0.0
    else:
        at = (at + 0.5) / scale - 0.5
    at = at.clip(0, cells - 1)
    below = np.floor(at).astype(int)
    matrix = np.zeros((pixels, cells))
    np.add.at(matrix, (np.arange(pixels), below), 1 - (at - below))
    np.add.at(matrix, (np.arange(pixels), np.minimum(below + 1, cells - 1)), at - below)
    return matrix


def _scale(net: Net, node: onnx.NodeProto, axis: int, ratio: float) -> float | None:
    """The scale along an axis: as given, else the ratio of the sizes; None where it is given and no constant."""
    given = attributes_of(node)
    if len(node.input) > 3 and node.input[3]:
        return ratio
    scales = given.get("scales")
    if scales is None:
        name = node.input[-1] if len(node.input) > 1 else ""
        scales = net.array(name) if name else None
    axes = [a % 4 for a in given.get("axes", range(4))]
    if scales is None or len(scales) != len(axes):
        return None
    return float(scales[axes.index(axis)]) if axis in axes else 1.0


def resized_like(net: Net, node: onnx.NodeProto, source: str, channels: int) -> str | None:
    """Append the same enlargement of ``source``, which has ``channels`` channels; None where sizes are no constants."""
    inputs, shape = list(node.input), net.shape4(node.output[0])
    assert shape is not None
    given = attributes_of(node)
    if len(inputs) > 3 and inputs[3] and "axes" not in given:
        sizes = net.array(inputs[3])
        if sizes is None or len(sizes) != 4:
            return None
        wanted = sizes.copy()
        wanted[1] = channels
        inputs[3] = net.constant(f"{node.name or node.output[0]}/sizes", wanted)
    elif not all(net.array(name) is not None for name in inputs[1:] if name):
        return None
    inputs[0] = source
    return net.add(node.op_type, inputs, (shape[0], channels, *shape[2:]), node.name or node.output[0], **given)


def is_mean(net: Net, node: onnx.NodeProto | None) -> bool:
    """Whether ``node`` gives the mean of each channel over the whole picture, as (N, C, 1, 1)."""
    if node is None or net.shape4(node.input[0]) is None:
        return False
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean" or not attributes_of(node).get("keepdims", 1):
        return False
    axes = attributes_of(node).get("axes")
    if axes is None and len(node.input) > 1:
        axes = net.array(node.input[1])
    return axes is not None and sorted(int(a) % 4 for a in axes) == [2, 3]
