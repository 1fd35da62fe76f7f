"""A float32 graph in half precision, on onnx and NumPy alone: types from ONNX's schemas, casts where the two meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from segcam.errors import EngineError
from segcam.onnx_tools.elements import (
    BFLOAT16,
    FLOAT,
    FLOAT16,
    element_types,
    opsets_of,
    retarget,
    subgraphs,
    tensor_as,
)
from segcam.onnx_tools.keeping import Scope, decide, role_of
from segcam.onnx_tools.mend import drop_weight_inputs
from segcam.onnx_tools.naming import all_nodes, initialize_constants, name_nodes, raise_opset, tidy

if TYPE_CHECKING:
    import onnx

Half = Literal["fp16", "bf16"]
TYPES: dict[Half, int] = {"fp16": FLOAT16, "bf16": BFLOAT16}
_SUFFIX = {FLOAT: ".fp32", FLOAT16: ".fp16", BFLOAT16: ".bf16"}


@dataclass(frozen=True, eq=False)
class Converted:
    """``kept`` names the nodes that still compute in float32, each with the reason; ``casts`` is the number of Casts
    that were added. Nodes are named as ``name_nodes`` names them.
    """

    model: onnx.ModelProto
    kept: dict[str, str]
    casts: int


def convert_precision(
    model: onnx.ModelProto, to: Half, *, keep: Mapping[str, str] | None = None, keep_io: bool = True
) -> Converted:
    """A copy of ``model`` whose float32 tensors are float16 or bfloat16, rounded to nearest, ties to even.

    What stays float32: nodes named in ``keep`` (name: reason); operators that ONNX's schemas give no such half at the
    model's opset; what computes sizes from shapes; Resize's roi and scales; what Loop and Scan carry from step to step;
    and nodes whose constants halves cannot hold. Float64 and integers are left alone. With ``keep_io`` the float32
    inputs and outputs of the graph stay float32, whoever makes them. bfloat16 needs opset 22 (Conv has it from there):
    an older graph is raised to it first. Local functions are inlined, constant nodes become initializers, and
    initializers are no inputs any more. The result has passed onnx.checker with full check, if ``model`` does.

    Raises EngineError for names in ``keep`` that no node has, where the opset cannot be raised, and for a graph that
    the checker then refuses.
    """
    import onnx

    made = name_nodes(model)
    names = {node.name for node in all_nodes(made.graph)}
    unknown = sorted(set(keep or {}) - names)
    if unknown:
        raise EngineError(f"no node is named {', '.join(unknown[:3])}", "Names are those that name_nodes gives.")
    if to == "bf16":
        made = raise_opset(made, 22)
    drop_weight_inputs(made)
    # From here on weights are no inputs.
    made.ir_version = max(made.ir_version, 4)
    initialize_constants(made)
    work = _Conversion(made, TYPES[to], dict(keep or {}))
    work.graph(made.graph, keep_io)
    tidy(made)
    try:
        made = onnx.shape_inference.infer_shapes(made)
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        if not _valid(model):
            return Converted(made, work.kept, work.casts)
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise EngineError(f"the network in {to} is not a valid ONNX graph: {line}", "Use --fp32.") from None
    return Converted(made, work.kept, work.casts)


def _valid(model: onnx.ModelProto) -> bool:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


@dataclass(eq=False)
class _Place:
    """A graph on its way: ``entries`` are its new nodes, each behind the node (or, first, the inputs) it depends on;
    ``home`` is a tensor's entry, ``named`` its name by element type, ``native`` the type that its maker gives.
    """

    scope: Scope
    outer: _Place | None
    pinned: dict[str, int]
    entries: list[list[onnx.NodeProto]] = field(default_factory=lambda: [[]])
    home: dict[str, int] = field(default_factory=dict)
    named: dict[tuple[str, int], str] = field(default_factory=dict)
    native: dict[str, int] = field(default_factory=dict)

    def is_weight(self, name: str) -> bool:
        holder = self.find(name)
        return holder is not None and name in holder.scope.weights

    def find(self, name: str) -> _Place | None:
        place: _Place | None = self
        while place is not None and name not in place.native:
            place = place.outer
        return place


class _Conversion:
    def __init__(self, model: onnx.ModelProto, half: int, keep: dict[str, str]) -> None:
        self.half, self.opsets = half, opsets_of(model)
        self.keep = keep
        self.kept: dict[str, str] = {}
        self.casts = 0
        self._used = {name for node in all_nodes(model.graph) for name in (*node.input, *node.output, node.name)}
        self._used.update(i.name for i in model.graph.initializer)

    def graph(self, graph: onnx.GraphProto, keep_io: bool) -> None:
        """Convert the model's own graph in place."""
        scope = Scope(graph, None, element_types(graph, self.opsets))
        self.kept = decide(scope, self.half, self.opsets, self.keep, keep_io)
        edge = FLOAT if keep_io else self.half
        pinned = {o.name: edge for o in graph.output if scope.types.get(o.name) == FLOAT}
        for value in (*graph.input, *graph.output):
            if scope.types.get(value.name) == FLOAT:
                value.type.tensor_type.elem_type = edge
        self._close(self._open(scope, None, pinned, edge))

    def _open(self, scope: Scope, outer: _Place | None, pinned: dict[str, int], edge: int) -> _Place:
        """Convert a graph's nodes; ``edge`` is the type of its float inputs."""
        graph = scope.graph
        place = _Place(scope, outer, pinned)
        for value in graph.input:
            if scope.types[value.name] == FLOAT:
                place.native[value.name] = edge
                self._made(place, value.name, edge)
        for tensor in graph.initializer:
            if tensor.data_type == FLOAT:
                place.native[tensor.name] = FLOAT
                tensor.name = self._made(place, tensor.name, FLOAT)
        for sparse in graph.sparse_initializer:
            if sparse.values.data_type == FLOAT:
                place.native[sparse.values.name] = FLOAT
                self._made(place, sparse.values.name, FLOAT)
        for node in graph.node:
            self._node(place, node)
        return place

    def _node(self, place: _Place, node: onnx.NodeProto) -> None:
        types, kept = place.scope.seen, node.name in self.kept
        role = role_of(node, types, self.half, self.opsets)
        outputs = (False,) * len(node.output) if kept else role.outputs
        copy = type(node).FromString(node.SerializeToString())
        natives = [self._native(place, name) for name in node.input]
        read = [i for i, name in enumerate(node.input) if types.get(name) == FLOAT]
        # What gives no floats takes its inputs as they come.
        as_it_comes = (
            FLOAT if any(natives[i] == FLOAT and not place.is_weight(node.input[i]) for i in read) else self.half
        )
        for i in read:
            if role.either and (node.op_type == "Cast" or not kept):
                wanted = natives[i] if node.op_type == "Cast" else as_it_comes
            else:
                wanted = self.half if role.inputs[i] and not kept else FLOAT
            copy.input[i] = self.read(place, node.input[i], wanted)
        for body in subgraphs(copy):
            self._body(place, body, outputs, 1 if node.op_type == "Loop" else 0)
        if any(outputs):
            retarget(copy, FLOAT, self.half)
        place.entries.append([copy])
        for i, name in enumerate(node.output):
            if name and types.get(name) == FLOAT:
                native = place.native[name] = self.half if outputs[i] else FLOAT
                copy.output[i] = self._made(place, name, native, len(place.entries) - 1)

    def _body(self, outer: _Place, body: onnx.GraphProto, halves: Sequence[bool], skipped: int) -> None:
        """``halves`` says which outputs of the node become halves; the body has ``skipped`` more before them."""
        scope = outer.scope.inner(body, self.opsets)
        place = self._open(scope, outer, {}, FLOAT)
        for i, output in enumerate(body.output):
            if scope.seen.get(output.name) != FLOAT:
                continue
            wanted = self.half if skipped <= i < skipped + len(halves) and halves[i - skipped] else FLOAT
            if output.name in place.native or self._native(place, output.name) == wanted:
                output.name = self.read(place, output.name, wanted)
            else:
                # A body may give out its own tensors only: the cast of an outer one has to be inside.
                name = self._fresh(output.name + _SUFFIX[wanted])
                source = self.read(place, output.name, self._native(place, output.name))
                place.entries.append([self._cast(source, name, wanted)])
                output.name = name
            output.type.tensor_type.elem_type = wanted
        self._close(place)

    @staticmethod
    def _close(place: _Place) -> None:
        graph = place.scope.graph
        nodes = [node for entry in place.entries for node in entry]
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]

    def _native(self, place: _Place, name: str) -> int:
        holder = place.find(name)
        return FLOAT if holder is None else holder.native[name]

    def _made(self, place: _Place, name: str, native: int, entry: int = 0) -> str:
        """Note a tensor of type ``native``; returns the name that it has from now on."""
        place.home[name] = entry
        pinned = place.pinned.get(name, native)
        if pinned == native:
            place.named[name, native] = name
            return name
        other = self._fresh(name + _SUFFIX[native])
        place.named[name, native], place.named[name, pinned] = other, name
        place.entries[entry].append(self._cast(other, name, pinned))
        return other

    def read(self, place: _Place, name: str, wanted: int) -> str:
        """The name under which ``name`` is had in the type ``wanted``; it is cast once, where it is made."""
        holder = place.find(name)
        if holder is None:
            return name
        if (name, wanted) not in holder.named:
            made = holder.named[name, wanted] = self._fresh(name + _SUFFIX[wanted])
            source = holder.named[name, holder.native[name]]
            if name in holder.scope.weights:
                holder.scope.graph.initializer.append(tensor_as(holder.scope.weight(name), made, wanted))
            else:
                holder.entries[holder.home[name]].append(self._cast(source, made, wanted))
        return holder.named[name, wanted]

    def _cast(self, source: str, made: str, to: int) -> onnx.NodeProto:
        from onnx import helper

        self.casts += 1
        return helper.make_node("Cast", [source], [made], self._fresh(f"{made}.cast"), to=to)

    def _fresh(self, name: str) -> str:
        number, made = 1, name
        while made in self._used:
            number += 1
            made = f"{name}{number}"
        self._used.add(made)
        return made
