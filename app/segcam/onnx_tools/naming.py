"""The form in which the precision tools take a graph: every node named and in order, no local functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from segcam.errors import EngineError
from segcam.onnx_tools.elements import FLOAT, element_types, opsets_of, subgraphs
from segcam.onnx_tools.graph import attributes_of, opset_of

if TYPE_CHECKING:
    import onnx


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of every body inside it."""
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from all_nodes(body)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and every body inside it, the outer ones first."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from all_graphs(body)


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` in which each node has a name that no other has, bodies of If and Loop included.

    Names that are there stay; others are made of the operator and a number, the same each time. Local functions are
    inlined, and nodes stand behind what they read. Done twice it changes nothing.
    """
    if model.functions:
        from onnx import inliner

        made = inliner.inline_local_functions(model)
    else:
        made = type(model).FromString(model.SerializeToString())
    for graph in all_graphs(made.graph):
        sort_nodes(graph)
    taken: set[str] = set()
    unnamed: list[onnx.NodeProto] = []
    for node in all_nodes(made.graph):
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            unnamed.append(node)
    for node in unnamed:
        base, number = node.name or node.op_type, 0
        while not node.name or node.name in taken:
            number += 1
            node.name = f"{base}_{number}"
            if node.name not in taken:
                break
        taken.add(node.name)
    return made


def initialize_constants(model: onnx.ModelProto) -> None:
    """Make initializers of Constant nodes of float32, in place: constants that can be had in two types. A constant that
    is an output stays a node.
    """
    from onnx import numpy_helper

    for graph in all_graphs(model.graph):
        outputs = {o.name for o in graph.output}
        for node in list(graph.node):
            if node.op_type != "Constant" or node.output[0] in outputs:
                continue
            (kind, value), *_ = attributes_of(node).items()
            if kind == "value" and value.data_type == FLOAT:
                full = numpy_helper.to_array(value)
            elif kind in ("value_float", "value_floats"):
                full = np.asarray(value, np.float32)
            else:
                continue
            graph.initializer.append(numpy_helper.from_array(full, node.output[0]))
            graph.node.remove(node)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, its bodies included (and the names that these make themselves)."""
    yield from node.input
    for body in subgraphs(node):
        yield from (output.name for output in body.output)
        for inner in body.node:
            yield from _read(inner)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind what they read, otherwise in the order in which they stand."""
    made = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needs = [{made[n] for n in _read(node) if n in made and made[n] != i} for i, node in enumerate(graph.node)]
    if all(max(need, default=-1) < i for i, need in enumerate(needs)):
        return
    order: list[int] = []
    done: set[int] = set()
    for first in range(len(needs)):
        stack = [first]
        while stack:
            i = stack[-1]
            open_ones = sorted((n for n in needs[i] - done if n not in stack), reverse=True)
            if i not in done and open_ones:
                stack.extend(open_ones)
                continue
            stack.pop()
            if i not in done:
                done.add(i)
                order.append(i)
    nodes = [type(node).FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes[i] for i in order)


def raise_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """``model`` at least at ``opset``, through ONNX's own converter. Raises EngineError where that cannot."""
    if opset_of(model) >= opset:
        return model
    from onnx import defs, version_converter

    if defs.onnx_opset_version() < opset:
        raise EngineError(
            f"the installed onnx knows opsets up to {defs.onnx_opset_version()}, expected {opset}",
            "pip install --upgrade onnx, or use --fp16.",
        )
    try:
        made = version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError, or what its C++ part does
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise EngineError(
            f"the network cannot be raised from opset {opset_of(model)} to {opset}: {line}",
            f"Export it with opset {opset}, or use --fp16.",
        ) from None
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return name_nodes(made)


def tidy(model: onnx.ModelProto) -> None:
    """Take out Casts to the type that is there already, and constants that nobody reads any more, in place.

    A constant that is left in one type has its own name again.
    """
    _without_idle_casts(model)
    read = {name for node in all_nodes(model.graph) for name in node.input}
    read.update(o.name for graph in all_graphs(model.graph) for o in graph.output)
    back: dict[str, str] = {}
    for graph in all_graphs(model.graph):
        names = {i.name for i in graph.initializer}
        for tensor in graph.initializer:
            stem, _, ending = tensor.name.rpartition(".")
            if ending in ("fp16", "bf16") and stem in names and stem not in read:
                back[tensor.name] = stem
        left = [type(t).FromString(t.SerializeToString()) for t in graph.initializer if t.name in read]
        for tensor in left:
            tensor.name = back.get(tensor.name, tensor.name)
        del graph.initializer[:]
        graph.initializer.extend(left)
    _rename(model.graph, back)


def _without_idle_casts(model: onnx.ModelProto) -> None:
    opsets, gone = opsets_of(model), dict[str, str]()

    def look(graph: onnx.GraphProto, outer: dict[str, int]) -> None:
        types = {**outer, **element_types(graph, opsets, outer)}
        outputs = {o.name for o in graph.output}
        for node in list(graph.node):
            for body in subgraphs(node):
                look(body, types)
            idle = node.op_type == "Cast" and types.get(node.input[0]) == attributes_of(node)["to"]
            if idle and node.output[0] not in outputs:
                gone[node.output[0]] = gone.get(node.input[0], node.input[0])
                graph.node.remove(node)

    look(model.graph, {})
    _rename(model.graph, gone)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    if not names:
        return
    for node in all_nodes(graph):
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
    for inner in all_graphs(graph):
        for output in inner.output:
            output.name = names.get(output.name, output.name)
