"""Layers dilated by d run undilated on d*d phase images: every d-th pixel of every d-th row, as pictures of a batch.

Exact: with dilation and padding multiples of d and sides that d divides, a dilated layer never mixes phases, and on
each phase it is the layer without dilation, its padding divided by d. What acts on each pixel alone acts on phases as
it does on pictures, and the mean of a picture is the mean over its phases' means. Dilation 4 is dilation 2 twice.

Which nodes move to the phases is a minimum cut: what a dilated layer gains against what the crossings move, so that
the way back lies where channels are few.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.rewrite.mincut import INFINITE, Division
from segcam.onnx_tools.rewrite.net import Net
from segcam.onnx_tools.rewrite.ops import Conv, conv_of, is_mean

if TYPE_CHECKING:
    import onnx

#: What acts on each element alone, given pictures of one size and constants (or one number a channel).
_ELEMENTWISE = {
    "Add", "Cast", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Max", "Min",
    "Mish", "Mul", "Neg", "PRelu", "Relu", "Sigmoid", "Softplus", "Sub", "Tanh",
}  # fmt: skip


@dataclass(frozen=True)
class Gains:
    """What a layer gains on phases and what a crossing costs, in nanoseconds an element of its output or tensor.

    ``depthwise`` and ``dense`` for layers dilated in pictures of at least ``pixels`` pixels; smaller ones gain nothing.
    ``interleaved``: cross by transposing NHWC, which OpenVINO does next to for nothing (2 ms of 96 channels at 128x256
    in and out, where SpaceToDepth and DepthToSpace take 9; in ONNX Runtime it is 15 and 8).
    """

    depthwise: float
    dense: float
    crossing: float
    pixels: int = 0
    interleaved: bool = False


#: By runtime, as measured (benchmarks/networks.json). In ONNX Runtime fastseg's stages gain 5 to 9 % at 1024x2048 (maps
#: of 128x256 cells) and nothing, or lose 2 %, at 544x1056 and below. Neither gains by dense layers.
GAINS = {
    "openvino": Gains(depthwise=1.0, dense=0.0, crossing=0.1, interleaved=True),
    "onnxruntime": Gains(depthwise=1.0, dense=0.0, crossing=0.5, pixels=20_000),
}


def run(net: Net, gains: Gains) -> int:
    """Move to phases whatever gains by it; how many layers lost a dilation (twice those of 4, moved twice)."""
    changed = 0
    for step in (2, 3, 5, 7):
        while moved := _Move(net, step, gains).run():
            changed += moved
            net.prune()
    if changed and gains.interleaved:
        _cancel_turns(net)
        _settle(net)
    return changed


def _cancel_turns(net: Net) -> None:
    """Two Transposes of which the second undoes the first (out of the inner phases, into the outer ones) are none."""
    for second in list(net.nodes):
        first = net.maker(second.input[0], "Transpose") if second.op_type == "Transpose" else None
        if first is None:
            continue
        one, other = (list(attributes_of(node).get("perm", ())) for node in (first, second))
        if one and [one[axis] for axis in other] == list(range(len(one))):
            net.replace(second.output[0], first.input[0])
    net.prune()


def _settle(net: Net) -> None:
    """Copy sums (as the largest of one pixel) before they are turned: OpenVINO adds into a term's memory, cannot then
    view the sum as NHWC and turns it around pixel by pixel, in 6 to 9 ms where this copy takes 0.3.
    """
    for turn in list(net.nodes):
        total = net.maker(turn.input[0], "Add") if turn.op_type == "Transpose" else None
        if total is not None:
            name = total.output[0]
            copy = net.add("MaxPool", [name], net.shapes[name], f"{total.name or name}/copy", kernel_shape=[1, 1])
            net.reroute(turn, name, copy)


@dataclass
class _Move:
    net: Net
    step: int
    gains: Gains
    _into: dict[str, str] = field(default_factory=dict)

    def run(self) -> int:
        roles = {id(node): self._role(node) for node in self.net.nodes}
        if "dilated" not in roles.values():
            return 0
        chosen = self._divide(roles)
        moved = [node for node in self.net.nodes if id(node) in chosen]
        if not any(roles[id(node)] == "dilated" for node in moved):
            return 0
        out = {name for node in moved if roles[id(node)] != "mean" for name in node.output}
        for node in moved:
            self._move(node, roles[id(node)])
        for name in sorted(out):
            if name in self.net.pinned or any(id(r) not in chosen for r in self._old_readers(name)):
                self.net.replace(name, self._back(name))
        return sum(roles[id(node)] == "dilated" for node in moved)

    def _role(self, node: onnx.NodeProto) -> str:
        """``dilated``, ``flexible`` (does not care), ``mean`` (takes phases, gives a picture's means) or ``fixed``."""
        layer = conv_of(self.net, node)
        if layer is not None:
            if not self._divides(node.input[0]) or layer.strides != (1, 1) or not self._divides(node.output[0]):
                return "fixed"
            if layer.kernel == (1, 1) and not any(layer.pads):
                return "flexible"
            return "dilated" if self._loses_dilation(layer) else "fixed"
        if is_mean(self.net, node):
            return "mean" if self._divides(node.input[0]) else "fixed"
        if node.op_type == "BatchNormalization" and len(node.output) == 1 and self._divides(node.input[0]):
            return "flexible"
        if node.op_type == "Concat" and attributes_of(node).get("axis") in (1, -3):
            return "flexible" if all(self._divides(name) for name in node.input) else "fixed"
        if node.op_type in _ELEMENTWISE and len(node.output) == 1 and self._elementwise(node):
            return "flexible"
        return "fixed"

    def _divides(self, name: str) -> bool:
        shape = self.net.shape4(name)
        return shape is not None and all(n % self.step == 0 and n > 1 for n in shape[2:])

    def _loses_dilation(self, layer: Conv) -> bool:
        steps = [d for d, k in zip(layer.dilations, layer.kernel, strict=True) if k > 1]
        return all(d % self.step == 0 for d in steps) and all(p % self.step == 0 for p in layer.pads)

    def _elementwise(self, node: onnx.NodeProto) -> bool:
        net = self.net
        shape = net.shape4(node.output[0])
        if shape is None or not self._divides(node.output[0]):
            return False
        for name in filter(None, node.input):
            given = net.shapes.get(name)
            if given is None or len(given) > 4:
                return False
            picture = len(given) == 4 and (given[0], *given[2:]) == (shape[0], *shape[2:])
            if not picture and not self._per_channel(name, shape[0]):
                return False
        return any(self._divides(name) for name in node.input)

    def _per_channel(self, name: str, batch: int) -> bool:
        """One number, or one a channel (and picture): the same for all pixels."""
        shape = self.net.shapes[name]
        return all(n == 1 for n in shape[-2:]) and (len(shape) < 4 or shape[0] in (1, batch))

    def _pictures(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in node.input if name and self.net.array(name) is None and self._divides(name)]

    def _size(self, name: str) -> float:
        shape = self.net.shape4(name)
        assert shape is not None
        return float(max(1, shape[0]) * shape[1] * shape[2] * shape[3])

    def _divide(self, roles: dict[int, str]) -> set[int]:
        """Identities of the nodes that move to phases: on the left of the cheapest division."""
        division = Division()
        for node in self.net.nodes:
            role = roles[id(node)]
            if role == "fixed":
                division.price(id(node), Division.RIGHT, INFINITE)
            elif role == "dilated":
                division.price(Division.LEFT, id(node), self._gain(node))
        names = {name for node in self.net.nodes if roles[id(node)] != "fixed" for name in self._pictures(node)}
        names |= {n for node in self.net.nodes if roles[id(node)] in ("dilated", "flexible") for n in node.output}
        for name in names:
            maker = self.net.maker(name)
            cost = self.gains.crossing * self._size(name)
            here = id(maker) if maker is not None else Division.RIGHT
            # A tensor crosses once, however many nodes on the other side read it.
            outward, inward = ("out", name), ("in", name)
            division.price(here, outward, cost)
            division.price(inward, here, cost)
            for reader in self.net.readers(name):
                division.price(outward, id(reader), INFINITE)
                division.price(id(reader), inward, INFINITE)
            if name in self.net.pinned:
                division.price(outward, Division.RIGHT, INFINITE)
        return {thing for thing in division.left_side() if isinstance(thing, int)}

    def _gain(self, node: onnx.NodeProto) -> float:
        shape = self.net.shape4(node.output[0])
        layer = conv_of(self.net, node)
        assert shape is not None and layer is not None
        if shape[2] * shape[3] < self.gains.pixels:
            return 0.0
        each = self.gains.depthwise if layer.groups == shape[1] else self.gains.dense
        return each * self._size(node.output[0])

    def _old_readers(self, name: str) -> list[onnx.NodeProto]:
        new = {id(self.net.maker(made)) for made in self._into.values()}
        return [node for node in self.net.readers(name) if id(node) not in new]

    def _phases(self, name: str) -> str:
        """The phases of a tensor: as moved, or moved here."""
        if name not in self._into:
            shape = self.net.shape4(name)
            assert shape is not None
            batch, channels, height, width = shape
            step, many = self.step, self.step**2
            small = (height // step, width // step)
            if self.gains.interleaved:
                last = self._turned(name, (0, 2, 3, 1), f"{name}/last")
                rows = self.net.reshape(last, (batch, small[0], step, small[1], step, channels), f"{name}/rows")
                sorted_ = self._turned(rows, (0, 2, 4, 1, 3, 5), f"{name}/sorted")
                flat = self.net.reshape(sorted_, (batch * many, *small, channels), f"{name}/flat")
                self._into[name] = self._turned(flat, (0, 3, 1, 2), f"{name}/phases")
            else:
                deep = self.net.add(
                    "SpaceToDepth", [name], (batch, many * channels, *small), f"{name}/deep", blocksize=step
                )
                self._into[name] = self.net.reshape(deep, (batch * many, channels, *small), f"{name}/phases")
        return self._into[name]

    def _back(self, name: str) -> str:
        """The picture whose phases were made."""
        shape = self.net.shape4(name)
        assert shape is not None
        batch, channels, height, width = shape
        step = self.step
        small = (height // step, width // step)
        if self.gains.interleaved:
            last = self._turned(self._into[name], (0, 2, 3, 1), f"{name}/last")
            sorted_ = self.net.reshape(last, (batch, step, step, *small, channels), f"{name}/sorted")
            rows = self._turned(sorted_, (0, 3, 1, 4, 2, 5), f"{name}/rows")
            flat = self.net.reshape(rows, (batch, height, width, channels), f"{name}/flat")
            return self._turned(flat, (0, 3, 1, 2), f"{name}/picture")
        deep = self.net.reshape(self._into[name], (batch, step**2 * channels, *small), f"{name}/deep")
        return self.net.add("DepthToSpace", [deep], shape, f"{name}/picture", blocksize=step, mode="DCR")

    def _turned(self, name: str, order: tuple[int, ...], wish: str) -> str:
        shape = [self.net.shapes[name][axis] for axis in order]
        return self.net.add("Transpose", [name], shape, wish, perm=list(order))

    def _move(self, node: onnx.NodeProto, role: str) -> None:
        net, many = self.net, self.step**2
        name = node.name or node.output[0]
        if role == "mean":
            net.replace(node.output[0], self._mean(node, name))
            return
        given = attributes_of(node)
        shape = net.shape4(node.output[0])
        assert shape is not None
        if role == "dilated":
            layer = conv_of(net, node)
            assert layer is not None
            sides = zip(layer.dilations, layer.kernel, strict=True)
            given["dilations"] = [d // self.step if k > 1 else 1 for d, k in sides]
            given["pads"] = [p // self.step for p in layer.pads]
            given.pop("auto_pad", None)
        inputs = [self._input(n, shape[0]) if n else "" for n in node.input]
        small = (shape[0] * many, shape[1], shape[2] // self.step, shape[3] // self.step)
        self._into[node.output[0]] = net.add(node.op_type, inputs, small, f"{name}/phases", **given)

    def _input(self, name: str, batch: int) -> str:
        net = self.net
        if net.array(name) is not None:
            return name
        if name in self._into or self._divides(name):
            return self._phases(name)
        shape = net.shapes[name]
        if batch == 1 or len(shape) < 4 or shape[0] == 1:
            return name
        # One number a channel and picture: each of a picture's phases needs its copy.
        many, channels = self.step**2, shape[1]
        flat = net.reshape(name, (batch, 1, channels, 1), f"{name}/flat")
        times = net.constant(f"{name}/times", np.array([1, many, 1, 1], np.int64))
        tiled = net.add("Tile", [flat, times], (batch, many, channels, 1), f"{name}/tiled")
        return net.reshape(tiled, (batch * many, channels, 1, 1), f"{name}/repeated")

    def _mean(self, node: onnx.NodeProto, name: str) -> str:
        net, many = self.net, self.step**2
        shape = net.shape4(node.input[0])
        assert shape is not None
        batch, channels = shape[:2]
        phases = self._phases(node.input[0])
        each = net.add("GlobalAveragePool", [phases], (batch * many, channels, 1, 1), f"{name}/each")
        rows = net.reshape(each, (batch, many, channels, 1), f"{name}/rows")
        if net.opset >= 18:
            axes = net.constant(f"{name}/axes", np.array([1], np.int64))
            mean = net.add("ReduceMean", [rows, axes], (batch, 1, channels, 1), f"{name}/mean", keepdims=1)
        else:
            mean = net.add("ReduceMean", [rows], (batch, 1, channels, 1), f"{name}/mean", axes=[1], keepdims=1)
        return net.reshape(mean, (batch, channels, 1, 1), f"{name}/means")
