"""fastseg's MobileNetV3 networks with an LR-ASPP head: Small and Large trunk, any number of filters in the head.

Sources: Howard et al., Searching for MobileNetV3 (2019), section 6.3 for the head; ekzhang/fastseg, whose checkpoints
these are, for what differs from the paper. The trunk is the TensorFlow flavour (SAME padding, epsilon 1e-3). The two
last strided stages keep their resolution and are dilated instead, first block included: 2, then 4.
"""

from __future__ import annotations

from typing import NamedTuple

from segcam.errors import UsageError
from segcam.networks.builder import OUTPUT, Graph, Map, Norm

_TRUNK_EPS = 1e-3
_HEAD_EPS = 1e-5

#: The gate averages windows of this size on the stride-8 map, this far apart (rows, columns), without padding.
_GATE_WINDOW = (49, 49)
_GATE_STRIDE = (16, 20)
#: A side of 385 pixels is the first with 49 cells at stride 8.
MIN_SIDE = (_GATE_WINDOW[0] - 1) * 8 + 1


class Block(NamedTuple):
    """One block: ``expanded`` 0 means depthwise-separable (no expansion), ``hard`` hard-swish instead of ReLU."""

    name: str
    expanded: int
    out: int
    kernel: int
    stride: int
    dilation: int
    excite: bool
    hard: bool


class Trunk(NamedTuple):
    """``half`` and ``quarter`` name the blocks whose results the head takes at stride 2 and 4; "" is the stem's."""

    blocks: tuple[Block, ...]
    half: str
    quarter: str
    last: tuple[str, int]


SMALL = Trunk(
    (
        Block("block0.0", 0, 16, 3, 2, 1, True, False),
        Block("block1.0", 72, 24, 3, 2, 1, False, False),
        Block("block1.1", 88, 24, 3, 1, 1, False, False),
        Block("block2.0", 96, 40, 5, 1, 2, True, True),
        Block("block2.1", 240, 40, 5, 1, 2, True, True),
        Block("block2.2", 240, 40, 5, 1, 2, True, True),
        Block("block3.0", 120, 48, 5, 1, 2, True, True),
        Block("block3.1", 144, 48, 5, 1, 2, True, True),
        Block("block4.0", 288, 96, 5, 1, 4, True, True),
        Block("block4.1", 576, 96, 5, 1, 4, True, True),
        Block("block4.2", 576, 96, 5, 1, 4, True, True),
    ),
    half="",
    quarter="block0.0",
    last=("block5.0", 576),
)
LARGE = Trunk(
    (
        Block("block0.0", 0, 16, 3, 1, 1, False, False),
        Block("block1.0", 64, 24, 3, 2, 1, False, False),
        Block("block1.1", 72, 24, 3, 1, 1, False, False),
        Block("block2.0", 72, 40, 5, 2, 1, True, False),
        Block("block2.1", 120, 40, 5, 1, 1, True, False),
        Block("block2.2", 120, 40, 5, 1, 1, True, False),
        Block("block3.0", 240, 80, 3, 1, 2, False, True),
        Block("block3.1", 200, 80, 3, 1, 2, False, True),
        Block("block3.2", 184, 80, 3, 1, 2, False, True),
        Block("block3.3", 184, 80, 3, 1, 2, False, True),
        Block("block4.0", 480, 112, 3, 1, 2, True, True),
        Block("block4.1", 672, 112, 3, 1, 2, True, True),
        Block("block5.0", 672, 160, 5, 1, 4, True, True),
        Block("block5.1", 960, 160, 5, 1, 4, True, True),
        Block("block5.2", 960, 160, 5, 1, 4, True, True),
    ),
    half="block0.0",
    quarter="block1.1",
    last=("block6.0", 960),
)


def describe(graph: Graph, trunk: Trunk, num_classes: int, num_filters: int) -> Map:
    """The network on ``graph.input``; returns the scores (num_classes) at half the input's size, rounded up.

    Raises UsageError for a picture whose stride-8 map is smaller than the gate's window.
    """
    if min(graph.input.height, graph.input.width) < MIN_SIDE:
        raise UsageError(
            f"fastseg networks take at least {MIN_SIDE}x{MIN_SIDE} pixels, not "
            f"{graph.input.height}x{graph.input.width} (height x width): the head averages windows of "
            f"{_GATE_WINDOW[0]}x{_GATE_WINDOW[1]} cells on a map of one eighth of the size",
            f"Give a larger size, for instance --size {max(MIN_SIDE, 512)},{max(MIN_SIDE, 1024)}.",
        )
    half, quarter, eighth = _trunk(graph, trunk)
    return _head(graph, half, quarter, eighth, num_classes, num_filters)


def _trunk(graph: Graph, trunk: Trunk) -> tuple[Map, Map, Map]:
    """Features at stride 2, 4 and 8."""
    early = graph.conv("trunk.early.0", 3, 16, 3, stride=2, norm=Norm("trunk.early.1", _TRUNK_EPS), same=True)
    x = graph.hard_swish(early(graph.input), "trunk.early.2")
    kept = {"": x}
    for block in trunk.blocks:
        x = kept[block.name] = _block(graph, x, block)
    name, width = trunk.last
    last = graph.conv(f"trunk.{name}.conv", x.channels, width, norm=Norm(f"trunk.{name}.bn1", _TRUNK_EPS))
    eighth = graph.hard_swish(last(x), f"trunk.{name}")
    return kept[trunk.half], kept[trunk.quarter], eighth


def _block(graph: Graph, x: Map, block: Block) -> Map:
    """[1x1 to ``expanded``, activation], depthwise, activation, [squeeze-excite], 1x1; plus ``x`` where that fits."""
    name = f"trunk.{block.name}"
    act = graph.hard_swish if block.hard else graph.relu
    wide = block.expanded or x.channels
    norms = iter(Norm(f"{name}.bn{i}", _TRUNK_EPS) for i in (1, 2, 3))
    y, acts = x, iter((f"{name}.act1", f"{name}.act2"))
    if block.expanded:
        y = act(graph.conv(f"{name}.conv_pw", x.channels, wide, norm=next(norms))(y), next(acts))
    depthwise = graph.conv(
        f"{name}.conv_dw",
        wide,
        wide,
        block.kernel,
        stride=block.stride,
        dilation=block.dilation,
        groups=wide,
        norm=next(norms),
        same=True,
    )
    y = act(depthwise(y), next(acts))
    if block.excite:
        y = _squeeze_excite(graph, y, f"{name}.se")
    project = "conv_pwl" if block.expanded else "conv_pw"
    y = graph.conv(f"{name}.{project}", wide, block.out, norm=next(norms))(y)
    return graph.plus(y, x, name) if block.stride == 1 and x.channels == block.out else y


def _squeeze_excite(graph: Graph, x: Map, name: str) -> Map:
    hidden = _hidden_width(x.channels)
    y = graph.global_average(x, f"{name}.pool")
    y = graph.relu(graph.conv(f"{name}.conv_reduce", x.channels, hidden, bias=True)(y), f"{name}.act1")
    y = graph.hard_sigmoid(graph.conv(f"{name}.conv_expand", hidden, x.channels, bias=True)(y), f"{name}.gate")
    return graph.times(x, y, name)


def _hidden_width(channels: int) -> int:
    """A quarter of ``channels`` rounded to a multiple of 8: at least 8, and not down by more than a tenth."""
    wanted = channels / 4
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def _head(graph: Graph, half: Map, quarter: Map, eighth: Map, num_classes: int, filters: int) -> Map:
    aspp_conv1 = graph.conv("aspp_conv1.0", eighth.channels, filters, norm=Norm("aspp_conv1.1", _HEAD_EPS))
    aspp_conv2 = graph.conv("aspp_conv2.1", eighth.channels, filters)
    convs2 = graph.conv("convs2", half.channels, 32)
    convs4 = graph.conv("convs4", quarter.channels, 64)
    conv_up1 = graph.conv("conv_up1", filters, filters, bias=True)
    conv_up2 = graph.conv("conv_up2.conv", filters + 64, filters, norm=Norm("conv_up2.bn", _HEAD_EPS))
    conv_up3 = graph.conv("conv_up3.conv", filters + 32, filters, norm=Norm("conv_up3.bn", _HEAD_EPS))
    last = graph.conv("last", filters, num_classes, bias=True)

    a = graph.relu(aspp_conv1(eighth), "aspp_conv1")
    pooled = graph.average_pool(eighth, "aspp_conv2.0", _GATE_WINDOW, _GATE_STRIDE)
    gate = graph.sigmoid(aspp_conv2(pooled), "aspp_conv2.2")
    if (gate.height, gate.width) != (1, 1):
        gate = graph.resize(gate, a.height, a.width, "aspp_conv2", align_corners=True)
    y = conv_up1(graph.times(a, gate, "gated"))
    y = graph.resize(y, quarter.height, quarter.width, "up4")
    y = graph.relu(conv_up2(graph.concat([y, convs4(quarter)], "cat4")), "conv_up2")
    y = graph.resize(y, half.height, half.width, "up2")
    y = graph.relu(conv_up3(graph.concat([y, convs2(half)], "cat2")), "conv_up3")
    return last(y, OUTPUT)
