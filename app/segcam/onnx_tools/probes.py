"""One number for each tensor of a graph, bodies of If and Loop included, without holding all tensors at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from segcam.onnx_tools.check import runner
from segcam.onnx_tools.elements import FLOAT, element_types, opsets_of, subgraphs
from segcam.onnx_tools.graph import attributes_of

if TYPE_CHECKING:
    import onnx

Feed = dict[str, NDArray[Any]]
#: largest: of all absolute values. unfinite: not-a-number where a value is infinite or not a number, else 0.
Kind = Literal["largest", "unfinite"]
_REDUCED: dict[Kind, str] = {"largest": "ReduceMax", "unfinite": "ReduceSum"}
#: With these a tensor may have no elements, and no largest one.
_EMPTYING = {"Compress", "Loop", "NonMaxSuppression", "NonZero", "Scan", "StringSplit", "Unique"}


class Probed:
    """``model`` with probes on its float32 tensors, or on those in ``names``; ``run`` gives the model's own outputs and
    the numbers by tensor name (a name used in two bodies: the larger one).
    """

    def __init__(
        self, model: onnx.ModelProto, kind: Kind, names: Collection[str] | None = None, *, exact: bool = False
    ) -> None:
        made = type(model).FromString(model.SerializeToString())
        self._own = len(made.graph.output)
        probes = _Probes(made, kind, names)
        self._of = probes.attach(made.graph, {})
        for output in self._of:
            made.graph.output.append(_scalar(output))
        self._run: Callable[[Feed], list[NDArray[Any]]] = runner(made, exact=exact)

    def run(self, feed: Feed) -> tuple[list[NDArray[Any]], dict[str, float]]:
        made = self._run(feed)
        found: dict[str, float] = {}
        for name, value in zip(self._of.values(), made[self._own :], strict=True):
            found[name] = float(np.maximum(found.get(name, 0.0), float(value)))
        return made[: self._own], found


def magnitudes(model: onnx.ModelProto, feeds: Iterable[Feed]) -> dict[str, float]:
    """The largest absolute value of every float32 tensor over ``feeds``, by name: inputs, what nodes make, and what is
    inside the bodies of If, Loop and Scan (0 where none of the feeds came by). No constants, no whole numbers.

    Computed in float32 with ONNX Runtime. Raises EngineError where it cannot run the network, and for no feeds.
    """
    from segcam.errors import EngineError

    probed = Probed(model, "largest")
    found: dict[str, float] = {}
    frames = 0
    for feed in feeds:
        frames += 1
        for name, value in probed.run(feed)[1].items():
            found[name] = float(np.maximum(found.get(name, 0.0), value))
        for name, array in feed.items():
            if array.dtype == np.float32 and array.size:
                found[name] = float(np.maximum(found.get(name, 0.0), np.abs(array).max()))
    if not frames:
        raise EngineError("no frames to measure the network's values on", "Give at least one.")
    return found


def _scalar(name: str) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, FLOAT, [])


class _Probes:
    def __init__(self, model: onnx.ModelProto, kind: Kind, names: Collection[str] | None) -> None:
        self.kind, self.names, self.opsets = kind, names, opsets_of(model)
        self.count = 0
        self.emptying = _any_of(model.graph, _EMPTYING)

    def attach(self, graph: onnx.GraphProto, outer: dict[str, int]) -> dict[str, str]:
        """Add nodes to ``graph``; returns the tensors by the name of the number that stands for each."""
        types = element_types(graph, self.opsets, outer)
        found: dict[str, str] = {}
        for node in list(graph.node):
            for name in node.output:
                if types.get(name) == FLOAT and (self.names is None or name in self.names):
                    found[self._measure(graph, name)] = name
            bodies = subgraphs(node)
            inner = [self.attach(body, {**outer, **types}) for body in bodies]
            if node.op_type == "If":
                found.update(self._out_of_if(node, bodies, inner))
            elif bodies:
                found.update(self._out_of_loop(graph, node, bodies[0], inner[0]))
        return found

    def _node(self, graph: onnx.GraphProto, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        self.count += 1
        made = f"//probe{self.count}"
        graph.node.append(helper.make_node(kind, list(inputs), [made], made, **attributes))
        return made

    def _constant(self, graph: onnx.GraphProto, value: Any) -> str:
        from onnx import numpy_helper

        return self._node(graph, "Constant", value=numpy_helper.from_array(np.asarray(value)))

    def _measure(self, graph: onnx.GraphProto, name: str) -> str:
        measured = self._node(graph, *(("Abs", name) if self.kind == "largest" else ("Sub", name, name)))
        return self._reduce(graph, measured, self.emptying)

    def _reduce(self, graph: onnx.GraphProto, name: str, may_be_empty: bool) -> str:
        if may_be_empty:
            flat = self._node(graph, "Reshape", name, self._constant(graph, np.array([-1], np.int64)))
            name = self._node(graph, "Concat", flat, self._constant(graph, np.zeros(1, np.float32)), axis=0)
        return self._node(graph, _REDUCED[self.kind], name, keepdims=0)

    def _out_of_if(
        self, node: onnx.NodeProto, bodies: list[onnx.GraphProto], inner: list[dict[str, str]]
    ) -> dict[str, str]:
        """Each branch gives its own numbers, and zeros for the other's."""
        found: dict[str, str] = {}
        for own, numbers in enumerate(inner):
            for number, name in numbers.items():
                for i, body in enumerate(bodies):
                    body.output.append(_scalar(number if i == own else self._constant(body, np.float32(0))))
                self.count += 1
                node.output.append(f"//probe{self.count}")
                found[node.output[-1]] = name
        return found

    def _out_of_loop(
        self, graph: onnx.GraphProto, node: onnx.NodeProto, body: onnx.GraphProto, numbers: dict[str, str]
    ) -> dict[str, str]:
        """The numbers of all steps come out stacked, and are reduced once more."""
        if node.op_type not in ("Loop", "Scan") or (node.op_type == "Scan" and self.opsets.get("", 1) < 9):
            return {}
        # Outputs that nobody asked for have to be named before more can follow.
        while len(node.output) < len(body.output) - (1 if node.op_type == "Loop" else 0):
            self.count += 1
            node.output.append(f"//probe{self.count}")
        found: dict[str, str] = {}
        for number, name in numbers.items():
            body.output.append(_scalar(number))
            self.count += 1
            node.output.append(f"//probe{self.count}")
            for attribute in node.attribute:
                if attribute.name in ("scan_output_axes", "scan_output_directions"):
                    attribute.ints.append(0)
            found[self._reduce(graph, node.output[-1], True)] = name
        return found


def _any_of(graph: onnx.GraphProto, kinds: set[str]) -> bool:
    return any(node.op_type in kinds or any(_any_of(body, kinds) for body in subgraphs(node)) for node in graph.node)


def whole_numbers(node: onnx.NodeProto) -> bool:
    """Whether ``node`` makes whole numbers of floats: halves hold these exactly only up to 2048, or 256."""
    return node.op_type == "Cast" and attributes_of(node)["to"] in (3, 4, 5, 6, 7, 12, 13)
