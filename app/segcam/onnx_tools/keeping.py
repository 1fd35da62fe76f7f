"""What a graph computes in float32 when the rest is in halves, and why."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from segcam.onnx_tools.elements import BFLOAT16, FLOAT, FLOAT16, Types, element_types, slots_of, subgraphs
from segcam.onnx_tools.halve import unheld

if TYPE_CHECKING:
    import onnx

#: Slots of floats that place samples rather than carry values: TensorRT and ONNX Runtime read them as float32.
_PLACING = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}
#: Operators that move values and compute nothing.
MOVERS = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_BIASED = {"Conv", "ConvTranspose", "Gemm"}
_NAMES = {FLOAT16: "float16", BFLOAT16: "bfloat16"}


class Role(NamedTuple):
    """Which inputs and outputs of a node become halves; ``reason`` says why none can. ``either``: the node reads
    floats and gives none, so that any type of float will do.
    """

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]
    reason: str = ""
    either: bool = False


class Scope:
    """A graph with the graphs around it: element types and constants, as they were before any conversion."""

    def __init__(self, graph: onnx.GraphProto, outer: Scope | None, types: Mapping[str, int]) -> None:
        self.graph, self.outer, self.types = graph, outer, dict(types)
        self.weights = {i.name: i for i in graph.initializer}
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}

    @cached_property
    def seen(self) -> dict[str, int]:
        """Types of everything that nodes here may read."""
        return {**(self.outer.seen if self.outer else {}), **self.types}

    def inner(self, body: onnx.GraphProto, opsets: Mapping[str, int]) -> Scope:
        return Scope(body, self, element_types(body, opsets, self.seen))

    def weight(self, name: str) -> np.ndarray[Any, Any] | None:
        """A constant's values, None for what isn't one."""
        from onnx import numpy_helper

        if name in self.types:
            if name in self.weights and name not in self._arrays:
                self._arrays[name] = numpy_helper.to_array(self.weights[name])
            return self._arrays.get(name)
        return self.outer.weight(name) if self.outer else None


def role_of(node: onnx.NodeProto, types: Types, half: int, opsets: Mapping[str, int]) -> Role:
    """What ONNX's schemas make of a node when float32 becomes ``half`` (FLOAT16 or BFLOAT16)."""
    ins = tuple(bool(name) and types.get(name) == FLOAT for name in node.input)
    outs = tuple(bool(name) and types.get(name) == FLOAT for name in node.output)
    none = Role((False,) * len(ins), (False,) * len(outs))
    if node.op_type == "If":
        return Role(none.inputs, outs)
    if node.op_type in ("Constant", "Loop", "Scan") or not any(ins + outs):
        return none
    slots = slots_of(node, opsets)
    if slots is None:
        return none._replace(reason=f"onnx has no schema of {node.domain or 'ai.onnx'} {node.op_type}")
    word = f"tensor({_NAMES[half]})"
    turned = {v for v, choices in slots.admitted.items() if word in choices}
    if node.op_type == "LayerNormalization":
        turned.discard("U")
    halved = Role(
        tuple(is_float and slot in turned and (node.op_type, i) not in _PLACING
              for i, (is_float, slot) in enumerate(zip(ins, slots.inputs, strict=True))),
        tuple(is_float and slot in turned for is_float, slot in zip(outs, slots.outputs, strict=True)),
        either=not any(outs),
    )  # fmt: skip
    if any(halved.inputs + halved.outputs):
        return halved
    version = opsets.get("" if node.domain == "ai.onnx" else node.domain, 1)
    return none._replace(reason=f"{node.op_type} of opset {version} takes no {_NAMES[half]}")


def decide(
    scope: Scope, half: int, opsets: Mapping[str, int], keep: Mapping[str, str], keep_io: bool
) -> dict[str, str]:
    """Reasons by name of the nodes that stay float32, the bodies' nodes included."""
    kept: dict[str, str] = {}
    _decide(scope, half, opsets, keep, keep_io, kept, set())
    return kept


def _decide(
    scope: Scope,
    half: int,
    opsets: Mapping[str, int],
    keep: Mapping[str, str],
    keep_io: bool,
    kept: dict[str, str],
    sizes: set[str],
) -> None:
    types = scope.seen
    wide: set[str] = set()
    for node in scope.graph.node:
        role = role_of(node, types, half, opsets)
        floats = any(types.get(name) == FLOAT for name in (*node.input, *node.output) if name)
        if _computes_sizes(node, scope, sizes):
            sizes.update(node.output)
        if floats:
            reason = keep.get(node.name) or role.reason
            if not reason and any(name in sizes for name in node.output):
                reason = "computes sizes from shapes"
            reason = reason or _unheld(node, scope, role, half)
            behind = next((name for name in node.input if name in wide), "")
            if not reason and behind and any(role.outputs):
                reason = f"reads {behind}, which its DequantizeLinear gives as float32"
            if reason:
                kept[node.name] = reason
                if node.op_type == "DequantizeLinear":
                    wide.update(node.output)
        for body in subgraphs(node):
            _decide(scope.inner(body, opsets), half, opsets, keep, keep_io, kept, set(sizes))
    _between(scope, kept, keep_io)


def _computes_sizes(node: onnx.NodeProto, scope: Scope, sizes: set[str]) -> bool:
    if node.op_type in ("Shape", "Size"):
        return True
    read = [name for name in node.input if name]
    return any(name in sizes for name in read) and all(name in sizes or scope.weight(name) is not None for name in read)


def _unheld(node: onnx.NodeProto, scope: Scope, role: Role, half: int) -> str:
    """Why halves would hold a constant of ``node`` badly, or ""."""
    from onnx import numpy_helper

    if half == BFLOAT16:
        return ""
    for i, name in enumerate(node.input):
        full = scope.weight(name) if role.inputs[i] else None
        if full is None or (node.op_type == "Clip" and i):
            # A bound beyond what halves can be bounds nothing.
            continue
        reason = unheld(full[np.isfinite(full)])
        # Biases are small beside the sums that they are added to.
        if reason and not (node.op_type in _BIASED and i == 2 and "beyond" not in reason):
            return f"constant {name}: {reason}"
    for attribute in node.attribute:
        if node.op_type == "ConstantOfShape" and attribute.name == "value" and any(role.outputs):
            return unheld(numpy_helper.to_array(attribute.t))
    return ""


def _between(scope: Scope, kept: dict[str, str], keep_io: bool) -> None:
    """Keep what only moves values from float32 to float32: there and back would round for nothing."""
    types, nodes = scope.seen, list(scope.graph.node)
    movers = {n.name for n in nodes if n.op_type in MOVERS or n.op_type == "DequantizeLinear"} - set(kept)
    makers = {name: node for node in nodes for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    pinned = set(scope.graph.output[i].name for i in range(len(scope.graph.output))) if not scope.outer else set()
    held: set[str] = set()
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
        for body in subgraphs(node):
            held.update(_inside(body))
    if scope.outer:
        held.update(o.name for o in scope.graph.output)

    def wide_in(node: onnx.NodeProto, name: str) -> bool:
        maker = makers.get(name)
        if types.get(name) != FLOAT or node.op_type == "DequantizeLinear" or scope.weight(name) is not None:
            return True
        return (maker.name in kept or maker.name in movers) if maker is not None else (keep_io and not scope.outer)

    def wide_out(name: str) -> bool:
        if types.get(name) != FLOAT:
            return True
        if name in held or (name in pinned and not keep_io):
            return False
        return (name in pinned or name in readers) and all(
            r.name in kept or r.name in movers for r in readers.get(name, ())
        )

    while True:
        left = {
            n.name
            for n in nodes
            if n.name in movers and all(wide_in(n, i) for i in n.input) and all(wide_out(o) for o in n.output)
        }
        if left == movers:
            break
        movers.clear()
        movers.update(left)
    for node in nodes:
        if node.name in movers and any(types.get(name) == FLOAT for name in (*node.input, *node.output)):
            kept[node.name] = "lies between float32 and float32"


def _inside(graph: onnx.GraphProto) -> set[str]:
    found = {o.name for o in graph.output}
    for node in graph.node:
        found.update(node.input)
        for body in subgraphs(node):
            found |= _inside(body)
    return found
