"""Networks in halves run so that every value is really rounded, on a CPU that would compute them in float32.

ONNX Runtime has few kernels for halves on a CPU: it computes in float32 and takes the casts between two nodes out
again, with all optimisations off as well, so that nothing overflows there that would on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
from segcam.onnx_tools.keeping import MOVERS

if TYPE_CHECKING:
    import onnx

    from segcam.onnx_tools.probes import Feed

HALVES = (FLOAT16, BFLOAT16)
#: What gives one of the values that it takes: rounded before is rounded after.
_CHOOSING = MOVERS | {"Relu", "MaxPool", "GlobalMaxPool", "Max", "Min", "If", "Loop", "Scan"}


def exposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """``rounded(model)`` of whose own graph every tensor in halves is an output too (float32, under its name).

    To make outputs of halves is not enough for rounding: ONNX Runtime rounds what it gives out, and later nodes read
    what it was before. Bodies of If and Loop have no way out for theirs.
    """
    from onnx import helper

    names = half_tensors(model)
    made = rounded(model)
    there = {o.name for o in made.graph.output}
    for node in list(made.graph.node):
        for name in node.output:
            if name in names and name not in there:
                made.graph.output.append(helper.make_value_info(name, helper.make_tensor_type_proto(FLOAT, None)))
    return made


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same arithmetic in float32 with a Cast to half and back behind each node that computes halves: casts that
    are in a graph are carried out. Inputs and outputs in halves are float32 here; names stay, bodies are treated alike.

    One node's own sums are in float32, as on tensor cores; its result is rounded once.
    """
    made = type(model).FromString(model.SerializeToString())
    _widen(made.graph, opsets_of(made), {}, top=True)
    return made


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same in float32 from end to end, without any rounding: what a network that is in halves was made of, as far
    as its weights still tell. ``model`` itself where it has no halves."""
    if not half_tensors(model) and not any(v.type.tensor_type.elem_type in HALVES for v in model.graph.input):
        return model
    made = type(model).FromString(model.SerializeToString())
    _widen(made.graph, opsets_of(made), {}, rounds=False)
    return made


def wide_feed(feed: Feed) -> Feed:
    """``feed`` as ``rounded`` and ``widened`` networks take it: pictures in halves as float32."""
    return {name: array.astype("float32") if array.dtype == "float16" else array for name, array in feed.items()}


def half_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of the halves that nodes make, bodies included."""
    opsets = opsets_of(model)

    def look(graph: onnx.GraphProto, outer: Mapping[str, int]) -> set[str]:
        types = element_types(graph, opsets, outer)
        found = {name for node in graph.node for name in node.output if types.get(name) in HALVES}
        for node in graph.node:
            for body in subgraphs(node):
                found |= look(body, {**outer, **types})
        return found

    return look(model.graph, {})


def _widen(
    graph: onnx.GraphProto,
    opsets: Mapping[str, int],
    outer: Mapping[str, int],
    *,
    top: bool = False,
    rounds: bool = True,
) -> None:
    from onnx import helper, numpy_helper

    types = element_types(graph, opsets, outer)
    seen = {**outer, **types}
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}

    def rounding(source: str, name: str, half: int) -> None:
        nodes.append(helper.make_node("Cast", [source], [f"{name}//half"], f"{name}//round", to=half))
        nodes.append(helper.make_node("Cast", [f"{name}//half"], [name], f"{name}//widen", to=FLOAT))

    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in HALVES:
            value.type.tensor_type.elem_type = FLOAT
    for value in graph.input:
        if top and types[value.name] in HALVES:
            renamed[value.name] = f"{value.name}//rounded"
            rounding(value.name, renamed[value.name], types[value.name])
    for tensor in graph.initializer:
        if tensor.data_type in HALVES:
            tensor.CopyFrom(tensor_as(numpy_helper.to_array(tensor), tensor.name, FLOAT))
    for node in graph.node:
        for body in subgraphs(node):
            _widen(body, opsets, seen, rounds=rounds)
        for half in HALVES:
            retarget(node, half, FLOAT)
        made = type(node).FromString(node.SerializeToString())
        nodes.append(made)
        for i, name in enumerate(node.output):
            if rounds and types.get(name) in HALVES and node.op_type not in _CHOOSING:
                made.output[i] = f"{name}//raw"
                rounding(made.output[i], name, types[name])
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    if renamed:
        _reread(graph, renamed)


def _reread(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    for node in graph.node:
        if not node.name.endswith("//rounded//round"):
            for i, name in enumerate(node.input):
                node.input[i] = renamed.get(name, name)
        for body in subgraphs(node):
            _reread(body, renamed)
    for output in graph.output:
        output.name = renamed.get(output.name, output.name)
