"""Element types of every tensor in a graph, and which of an operator's slots follow its data, by ONNX's own schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from segcam.onnx_tools.graph import attributes_of

if TYPE_CHECKING:
    import onnx

#: onnx.TensorProto's numbers, which the file format fixes.
FLOAT, UINT8, INT32, INT64, FLOAT16, BFLOAT16 = 1, 2, 6, 7, 10, 16
_BY_NAME = {
    "float": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "string": 8, "bool": 9,
    "float16": 10, "double": 11, "uint32": 12, "uint64": 13, "complex64": 14, "complex128": 15, "bfloat16": 16,
}  # fmt: skip
#: Attributes that name the element type of the output, and what holds where they are missing (0: the input's type).
_NAMED_TYPES: dict[str, tuple[str, int]] = {
    "Cast": ("to", 0), "RandomNormal": ("dtype", FLOAT), "RandomUniform": ("dtype", FLOAT), "Multinomial": ("dtype", 6),
    "RandomNormalLike": ("dtype", 0), "RandomUniformLike": ("dtype", 0), "EyeLike": ("dtype", 0),
    "Bernoulli": ("dtype", 0), "DequantizeLinear": ("output_dtype", 0), "HannWindow": ("output_datatype", FLOAT),
    "HammingWindow": ("output_datatype", FLOAT), "BlackmanWindow": ("output_datatype", FLOAT),
    "MelWeightMatrix": ("output_datatype", FLOAT),
}  # fmt: skip

Types = Mapping[str, int]


class Slots(NamedTuple):
    """Type words of a node's inputs and outputs as its schema has them ("T", "tensor(float)"; "" where it says none),
    and the types ("tensor(float16)") that each variable admits.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    admitted: Mapping[str, frozenset[str]]


def opsets_of(model: onnx.ModelProto) -> dict[str, int]:
    """Opset version by domain; ONNX's own domain is ""."""
    return {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The bodies of If, Loop, Scan: of ONNX's operators, the ones that contain nodes."""
    found = [a.g for a in node.attribute if a.HasField("g")]
    return found + [g for a in node.attribute for g in a.graphs]


def slots_of(node: onnx.NodeProto, opsets: Mapping[str, int]) -> Slots | None:
    """None for an operator without a schema in this onnx."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    found = _schema(node.op_type, opsets.get(domain, 1), domain)
    if found is None:
        return None
    ins, outs, admitted = found
    return Slots(_spread(ins, len(node.input)), _spread(outs, len(node.output)), admitted)


@lru_cache(maxsize=512)
def _schema(
    kind: str, opset: int, domain: str
) -> tuple[tuple[tuple[str, bool], ...], tuple[tuple[str, bool], ...], dict[str, frozenset[str]]] | None:
    from onnx import defs

    try:
        schema = defs.get_schema(kind, opset, domain)
    except defs.SchemaError:
        return None

    def words(formals: Sequence[Any]) -> tuple[tuple[str, bool], ...]:
        many = defs.OpSchema.FormalParameterOption.Variadic
        return tuple(
            ("" if f.option == many and not f.is_homogeneous else f.type_str, f.option == many) for f in formals
        )

    admitted = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    return words(schema.inputs), words(schema.outputs), admitted


def _spread(formals: tuple[tuple[str, bool], ...], count: int) -> tuple[str, ...]:
    return tuple(
        formals[i][0] if i < len(formals) else formals[-1][0] if formals and formals[-1][1] else ""
        for i in range(count)
    )


def element_types(graph: onnx.GraphProto, opsets: Mapping[str, int], outer: Types | None = None) -> dict[str, int]:
    """Element type by name of every tensor that ``graph`` itself holds; 0 where it isn't a tensor or nothing says.

    ``outer`` has the types of the names that a body may read from around it. Nodes must be in topological order.
    """
    types: dict[str, int] = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    types.update({i.name: i.data_type for i in graph.initializer})
    types.update({i.values.name: i.values.data_type for i in graph.sparse_initializer})
    said = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    seen = dict(outer or {})
    seen.update(types)
    for node in graph.node:
        for name, found in zip(node.output, output_types(node, seen, opsets), strict=True):
            types[name] = seen[name] = found or said.get(name, 0)
    return types


def output_types(node: onnx.NodeProto, types: Types, opsets: Mapping[str, int]) -> list[int]:
    """Element types of a node's outputs, 0 where they are not tensors or neither schema nor attributes say."""
    kind, given = node.op_type, attributes_of(node)
    none = [0] * len(node.output)
    if kind in ("If", "Loop", "Scan"):
        body = given["then_branch" if kind == "If" else "body"]
        inner = {**types, **element_types(body, opsets, types)}
        made = [inner.get(o.name, 0) or o.type.tensor_type.elem_type for o in body.output]
        return (made[1:] if kind == "Loop" else made)[: len(none)] or none
    if kind == "Constant":
        return [_constant_type(given)]
    if kind == "ConstantOfShape":
        return [given["value"].data_type if "value" in given else FLOAT]
    slots = slots_of(node, opsets)
    if slots is None:
        return none
    bound: dict[str, int] = {}
    for word, name in zip(slots.inputs, node.input, strict=True):
        if name and types.get(name):
            bound.setdefault(word, types[name])
    if kind in _NAMED_TYPES:
        attribute, missing = _NAMED_TYPES[kind]
        named = given.get(attribute) or missing
        if named or kind != "DequantizeLinear":
            return [named or types.get(node.input[0], 0)]
    if kind == "LayerNormalization":
        bound["U"] = given.get("stash_type", FLOAT)
    if kind == "QuantizeLinear":
        point = types.get(node.input[2], 0) if len(node.input) > 2 else 0
        return [point or given.get("output_dtype") or UINT8]
    if kind == "DequantizeLinear":
        bound.setdefault("T3", types.get(node.input[1], 0))
    return [_type(word, bound, slots) for word in slots.outputs]


def _type(word: str, bound: Mapping[str, int], slots: Slots) -> int:
    if word in bound:
        return bound[word]
    choices = slots.admitted.get(word, frozenset({word}))
    only = next(iter(choices)) if len(choices) == 1 else ""
    return _BY_NAME.get(only[len("tensor(") : -1], 0) if only.startswith("tensor(") else 0


def _constant_type(given: Mapping[str, Any]) -> int:
    for name, value in given.items():
        if name == "value":
            return int(value.data_type)
        if name == "sparse_value":
            return int(value.values.data_type)
        if name.startswith("value_"):
            return {"f": FLOAT, "i": INT64, "s": 8}[name[len("value_")]]
    return 0


def retarget(node: onnx.NodeProto, old: int, new: int) -> None:
    """Let what ``node`` itself says of its output's element type say ``new`` instead of ``old``, in place."""
    from onnx import TensorProto, helper, numpy_helper

    kind = node.op_type
    if kind in ("Constant", "ConstantOfShape"):
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == old:
                attribute.t.CopyFrom(tensor_as(numpy_helper.to_array(attribute.t), attribute.t.name, new))
        if kind == "ConstantOfShape" and not node.attribute and old == FLOAT:
            zero = TensorProto(dims=[1], data_type=new, raw_data=bytes(4 if new == FLOAT else 2))
            node.attribute.append(helper.make_attribute("value", zero))
        return
    name, missing = _NAMED_TYPES.get(kind, ("", 0))
    for attribute in node.attribute:
        if attribute.name == name and attribute.i == old:
            attribute.i = new
            return
    if missing == old and not any(a.name == name for a in node.attribute):
        node.attribute.append(helper.make_attribute(name, new))


def tensor_as(values: Any, name: str, element: int) -> onnx.TensorProto:
    """A TensorProto of FLOAT, FLOAT16 or BFLOAT16, rounded to nearest, ties to even; what lies beyond is infinite."""
    import numpy as np
    from onnx import TensorProto

    full = np.ascontiguousarray(np.asarray(values).astype(np.float32)).reshape(np.shape(values))
    if element == BFLOAT16:
        bits = full.view(np.uint32)
        # Half of the last kept place, less one where that place is even; not-a-number only keeps its upper bits.
        rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
        data = np.where(np.isnan(full), (bits >> np.uint32(16)) | np.uint32(0x40), rounded).astype("<u2")
    else:
        with np.errstate(over="ignore"):
            data = full.astype("<f2" if element == FLOAT16 else "<f4")
    return TensorProto(name=name, data_type=element, dims=full.shape, raw_data=data.tobytes())
