"""An ONNX graph opened for editing: who makes a tensor, who reads it, its shape, its constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segcam.onnx_tools.graph import attributes_of, fold_shapes, opset_of, shapes_of

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]

#: Operators that mean the same in opsets 11 to 14 (Resize's empty inputs aside, which ``raise_opset`` sees to).
_STEADY = {
    "Add", "ArgMax", "AveragePool", "Cast", "Ceil", "Clip", "Concat", "Constant", "Conv", "ConvTranspose",
    "DepthToSpace", "Div", "Exp", "Flatten", "Floor", "Gather", "Gemm", "GlobalAveragePool", "GlobalMaxPool",
    "HardSigmoid", "Identity", "LeakyRelu", "Log", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad",
    "Pow", "ReduceMax", "ReduceMean", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "SpaceToDepth", "Sqrt",
    "Sub", "Tanh", "TopK", "Transpose",
}  # fmt: skip

#: Initializers up to this many elements are read at once: sizes, scales and axes are among them.
_SMALL = 16


class Net:
    """A copy of a graph's nodes with what the rewrites ask of it; ``model()`` gives the edited model.

    The given model is not changed. Sizes that follow from fixed shapes are constants here, and initializers that old
    exporters list as inputs are no inputs. Nodes may be added in any order: ``model()`` sorts them. Shapes are tuples;
    0 is an unknown dimension, and a tensor of unknown rank has no shape.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._given = model
        self._tensors = {i.name: i for i in model.graph.initializer}
        folded = fold_shapes(_hull(model))
        self.opset = opset_of(model)
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(dims) for name, dims in shapes_of(folded).items()}
        self._arrays: dict[str, Array] = {}
        for tensor in folded.graph.initializer:
            if tensor.name not in self._tensors:
                self._tensors[tensor.name] = tensor
        for tensor in self._tensors.values():
            self.shapes[tensor.name] = tuple(tensor.dims)
        #: Graph outputs and names that subgraphs read: these tensors must keep their names.
        self.pinned = {o.name for o in model.graph.output}
        self.nodes: list[onnx.NodeProto] = []
        for node in folded.graph.node:
            if node.op_type == "Constant" and (value := _constant(node)) is not None:
                self._arrays[node.output[0]] = value
                self.shapes[node.output[0]] = value.shape
            else:
                self.nodes.append(node)
                self.pinned.update(_names_in_subgraphs(node))
        self._names = {name for node in self.nodes for name in (*node.input, *node.output, node.name)}
        self._names.update(self._tensors, self._arrays, (i.name for i in model.graph.input))
        self._index()

    def _index(self) -> None:
        self._makers: dict[str, onnx.NodeProto] = {}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.output:
                self._makers[name] = node
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def maker(self, name: str, kind: str = "") -> onnx.NodeProto | None:
        """The node that makes a tensor, None for inputs and constants (and for nodes of another kind than asked)."""
        node = self._makers.get(name)
        return node if node is not None and kind in ("", node.op_type) else None

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return self._readers.get(name, [])

    def private(self, name: str) -> bool:
        """Whether exactly one node reads this tensor, once, and nobody outside may ask for it."""
        return name not in self.pinned and len(self.readers(name)) == 1

    def array(self, name: str) -> Array | None:
        """The value of a constant tensor, else None."""
        if name not in self._arrays and name in self._tensors:
            from onnx import numpy_helper

            self._arrays[name] = numpy_helper.to_array(self._tensors[name])
        return self._arrays[name] if name in self._arrays else self._cast(name)

    def _cast(self, name: str) -> Array | None:
        """A constant behind a Cast to float32: weights stored as half."""
        cast = self.maker(name, "Cast")
        if cast is None or attributes_of(cast)["to"] != 1:
            return None
        stored = self.array(cast.input[0])
        return None if stored is None else stored.astype(np.float32)

    def shape4(self, name: str) -> tuple[int, int, int, int] | None:
        """(N, C, H, W) of a picture-like tensor whose C, H and W are known (N may be 0), else None."""
        shape = self.shapes.get(name, ())
        return shape if len(shape) == 4 and 0 not in shape[1:] else None

    def fresh(self, wish: str) -> str:
        """A name like ``wish`` that nothing has yet."""
        name, number = wish, 1
        while name in self._names:
            number += 1
            name = f"{wish}.{number}"
        self._names.add(name)
        return name

    def constant(self, wish: str, value: Array) -> str:
        name = self.fresh(wish)
        self._arrays[name] = value
        self.shapes[name] = value.shape
        return name

    def add(self, kind: str, inputs: Sequence[str], shape: Sequence[int], name: str, **attributes: Any) -> str:
        """Append a node with one output of ``shape``; the output's name, made from ``name``, is returned."""
        from onnx import helper

        output = self.fresh(name)
        node = helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        self.nodes.append(node)
        self.shapes[output] = tuple(shape)
        self._makers[output] = node
        for read in node.input:
            self._readers.setdefault(read, []).append(node)
        return output

    def reshape(self, name: str, shape: Sequence[int], wish: str) -> str:
        """Append a Reshape to ``shape``, whose first dimension may be open."""
        to = self.constant(f"{wish}/shape", np.array([-1, *shape[1:]], np.int64))
        return self.add("Reshape", [name, to], shape, wish)

    def replace(self, old: str, new: str) -> None:
        """Let everybody who reads ``old`` read ``new``, which is not made from it. A graph's output keeps its name."""
        if old in self.pinned:
            maker, spare = self._makers[old], self.fresh(f"{old}/was")
            self._rename(maker.output, old, spare)
            self.shapes[spare] = self.shapes.get(old, ())
            self._rename(self._makers[new].output, new, old)
            for node in self.nodes:
                self._rename(node.input, new, old)
        else:
            for node in self.readers(old):
                self._rename(node.input, old, new)
        self._index()

    @staticmethod
    def _rename(names: Any, old: str, new: str) -> None:
        for i, name in enumerate(names):
            if name == old:
                names[i] = new

    def reroute(self, node: onnx.NodeProto, old: str, new: str) -> None:
        """Let one node read ``new`` where it read ``old``."""
        self._rename(node.input, old, new)
        self._index()

    def raise_opset(self, wanted: int) -> bool:
        """Make the graph one of opset ``wanted`` (at most 14) or later; False, and nothing done, where an operator may
        mean something else there."""
        if self.opset >= wanted:
            return True
        if self.opset < 11 or wanted > 14 or not {node.op_type for node in self.nodes} <= _STEADY:
            return False
        for node in self.nodes:
            # Opset 11 wrote "not given" as an empty tensor, since 13 it is an empty name.
            for i, name in enumerate(node.input if node.op_type == "Resize" else ()):
                value = self.array(name)
                if i in (1, 2) and value is not None and value.size == 0:
                    node.input[i] = ""
        self.opset = wanted
        self._index()
        return True

    def prune(self) -> None:
        """Drop nodes that nothing needs any more."""
        needed, kept = set(self.pinned), []
        for node in reversed(self._sorted()):
            if any(name in needed for name in node.output):
                kept.append(node)
                needed.update(node.input, _names_in_subgraphs(node))
        self.nodes = kept[::-1]
        self._index()

    def _sorted(self) -> list[onnx.NodeProto]:
        """The nodes in an order in which every tensor is made before it is read (as given where possible)."""
        order: list[onnx.NodeProto] = []
        state: dict[int, bool] = {}
        for first in self.nodes:
            stack = [first]
            while stack:
                node = stack[-1]
                if state.get(id(node)):
                    stack.pop()
                elif id(node) in state:
                    state[id(node)] = True
                    order.append(stack.pop())
                else:
                    state[id(node)] = False
                    names = (*node.input, *_names_in_subgraphs(node))
                    makers = (self._makers.get(name) for name in names)
                    stack.extend(m for m in makers if m is not None and id(m) not in state)
        return order

    def model(self) -> onnx.ModelProto:
        """The edited graph as a model of its own: nodes sorted, unused initializers gone, shapes left to inference."""
        import onnx
        from onnx import numpy_helper

        self.prune()
        made = onnx.ModelProto()
        for field in ("opset_import", "metadata_props", "functions"):
            getattr(made, field).extend(getattr(self._given, field))
        for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
            setattr(made, field, getattr(self._given, field))
        for entry in made.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = self.opset
        # Initializers that are no inputs exist since IR version 4; opset 14 came with 7.
        made.ir_version = max(7 if self.opset > opset_of(self._given) else 4, self._given.ir_version)
        graph, given = made.graph, self._given.graph
        graph.name, graph.doc_string = given.name, given.doc_string
        graph.input.extend(i for i in given.input if i.name not in self._tensors)
        graph.output.extend(given.output)
        graph.node.extend(self.nodes)
        needed = {name for node in self.nodes for name in (*node.input, *_names_in_subgraphs(node))} | self.pinned
        for name, tensor in self._tensors.items():
            if name in needed:
                graph.initializer.add().CopyFrom(tensor)
        for name, value in self._arrays.items():
            if name in needed and name not in self._tensors:
                # ascontiguousarray makes one number a vector of one.
                plain = np.ascontiguousarray(value).reshape(value.shape)
                graph.initializer.append(numpy_helper.from_array(plain, name))
        return made


def _hull(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights replaced by inputs of the same shape: what shape inference needs, no more."""
    import onnx
    from onnx import helper

    hull = onnx.ModelProto()
    hull.ir_version = max(4, model.ir_version)
    hull.opset_import.extend(model.opset_import)
    hull.functions.extend(model.functions)
    graph, given = hull.graph, model.graph
    graph.name = given.name or "g"
    weights = {i.name for i in given.initializer}
    graph.input.extend(i for i in given.input if i.name not in weights)
    graph.output.extend(given.output)
    graph.node.extend(given.node)
    graph.value_info.extend(given.value_info)
    for tensor in given.initializer:
        if int(np.prod(tensor.dims)) <= _SMALL:
            graph.initializer.add().CopyFrom(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return hull


def _constant(node: onnx.NodeProto) -> Array | None:
    from onnx import numpy_helper

    for name, value in attributes_of(node).items():
        if name == "value":
            return numpy_helper.to_array(value)
        if name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None


def _names_in_subgraphs(node: onnx.NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from inner.input
                yield from _names_in_subgraphs(inner)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """One attribute of a node as a Python value."""
    return attributes_of(node).get(name, default)


def count_nodes(nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
    """How many nodes there are of each kind."""
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
