"""What a built TensorRT plan is made of, read from the plan itself: its layers and the types that they compute in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segcam.engines.plan import PlanEngine
from segcam.engines.plan_options import PlanPrecision
from segcam.engines.tensorrt_api import PRECISIONS, check
from segcam.errors import EngineError
from segcam.onnx_tools.elements import BFLOAT16, FLOAT, FLOAT16, INT32, INT64, UINT8, element_types, opsets_of

if TYPE_CHECKING:
    import onnx

#: How the inspector spells types, in the order in which they are looked for: "Half", "Row major linear FP16 format",
#: "Half(64,1:8,...)", "BFloat16" ...
_SPELLINGS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (word, re.compile(pattern, re.IGNORECASE))
    for word, pattern in (
        ("bfloat16", r"bf16|bfloat16"),
        ("float16", r"fp16|half|(?<!b)float16"),
        ("float8_e4m3fn", r"fp8|float8|e4m3"),
        ("float4_e2m1fn", r"fp4|float4|e2m1"),
        ("uint8", r"uint8"),
        ("int8", r"int8"),
        ("int4", r"int4(?!\d)"),
        ("int64", r"int64"),
        ("int32", r"int32"),
        ("bool", r"bool"),
        ("float32", r"fp32|float32|float"),
    )
)
#: From narrow to wide. Types that count and point (int32, int64, bool), and uint8, which is only ever cast, come last.
_NARROW_FIRST = (
    "float4_e2m1fn", "int4", "float8_e4m3fn", "int8", "float16", "bfloat16", "float32", "uint8",
    "bool", "int32", "int64",
)  # fmt: skip
_COMPUTE = frozenset(_NARROW_FIRST[: _NARROW_FIRST.index("float32") + 1])
#: By onnx.TensorProto's numbers.
_ONNX_TYPES = {
    FLOAT: "float32", FLOAT16: "float16", BFLOAT16: "bfloat16", UINT8: "uint8", INT32: "int32", INT64: "int64",
    3: "int8", 9: "bool", 17: "float8_e4m3fn", 22: "int4", 23: "float4_e2m1fn",
}  # fmt: skip
#: By the word of ``--precision``, the type that layers then compute in.
_WANTED = {precision: word for word, precision in PRECISIONS.items()}
#: A plan has fewer layers than its network, fused as TensorRT likes; its share of layers in the type asked for is not
#: that of the network, but neither is it less than this part of it.
_LEAST_PART = 0.25


def layers_of(trt: ModuleType, plan: PlanEngine) -> list[dict[str, Any]]:
    """The layers of a loaded plan as its inspector has them, each a dict with at least "Name". Raises EngineError.

    With open axes the inspector knows types and formats only for a context with its shapes set, so it gets one.
    """
    execution = plan.execution(plan.input.profiles[0][1]) if plan.input.profiles else None
    try:
        inspector = check(plan.engine.create_engine_inspector(), f"inspect {plan.name}", plan.log)
        if execution is not None:
            inspector.execution_context = execution.context
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        del inspector  # before what it looks at
    finally:
        if execution is not None:
            execution.close()
    return parse_layers(text)


def parse_layers(text: str) -> list[dict[str, Any]]:
    """The layers in the inspector's JSON, of 10.x and 11.x alike: names alone where it was told to say no more.

    Raises EngineError for what isn't such a document.
    """
    try:
        document = json.loads(text)
        layers = document["Layers"]
    except (ValueError, KeyError, TypeError):
        raise EngineError(
            f"TensorRT's engine inspector answered something unknown: {text[:120]!r}",
            "This version of TensorRT is newer than this Segcam: update Segcam (pip install --upgrade segcam).",
        ) from None
    return [layer if isinstance(layer, dict) else {"Name": str(layer)} for layer in layers]


def type_of(layer: Mapping[str, Any]) -> str | None:
    """NumPy's word for the type that a layer computes in, "bfloat16" and the like; None where the inspector is silent.

    That is the narrowest that it reads, holds as weights or writes: fused layers take in the casts around them, and
    a product of halves that writes float32 was still made of halves.
    """
    stated = {word for text in _type_texts(layer) if (word := _word(text))}
    return next((word for word in _NARROW_FIRST if word in stated), None)


def count_types(layers: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many layers compute in each type; those of which nothing is known are left out."""
    counted = Counter(word for layer in layers if (word := type_of(layer)))
    return dict(counted.most_common())


def network_types(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of a network write each type: with strong typing, what its plan has to be made of."""
    types = element_types(model.graph, opsets_of(model))
    written = [types.get(node.output[0], 0) for node in model.graph.node if node.op_type != "Constant"]
    return dict(Counter(_ONNX_TYPES[number] for number in written if number in _ONNX_TYPES).most_common())


def check_asked(precision: PlanPrecision, types: Mapping[str, int]) -> None:
    """Raise EngineError where a network whose layers write ``types`` has nothing of the precision asked for."""
    if not types.get(_WANTED[precision]):
        raise EngineError(
            f"{precision} was asked for, and the network has no {_WANTED[precision]} in it: {_listed(types)}",
            "Plans have the types of their network. Let build-engine convert it"
            + (", or quantize it first (see build-engine --help)." if precision in ("int8", "fp8") else "."),
        )


def check_found(precision: PlanPrecision, asked: Mapping[str, int], found: Mapping[str, int]) -> None:
    """Raise EngineError where the plan's layers (``found``) aren't what the network (``asked``) says they must be."""
    wanted = _WANTED[precision]
    have, want = _share(found, wanted), _share(asked, wanted)
    if have < want * _LEAST_PART or not found.get(wanted):
        raise EngineError(
            f"{precision} was asked for and not given: {100 * have:.0f} % of the plan's layers compute in {wanted} "
            f"({_listed(found)}), the network has {100 * want:.0f} % ({_listed(asked)})",
            "Report this with the network and TensorRT's version; --fp32 builds a plan without lower precision.",
        )


def _share(types: Mapping[str, int], wanted: str) -> float:
    total = sum(count for word, count in types.items() if word in _COMPUTE)
    return types.get(wanted, 0) / total if total else 0.0


def _listed(types: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in types.items()) or "no types"


def _word(text: str) -> str | None:
    return next((word for word, pattern in _SPELLINGS if pattern.search(text)), None)


def _type_texts(layer: Mapping[str, Any]) -> list[str]:
    """What a layer says about types. 10.x writes "Format/Datatype" in one, 11.x writes two fields."""
    texts: list[str] = []
    for key in ("Inputs", "Outputs"):
        for tensor in layer.get(key) or ():
            if isinstance(tensor, dict):
                texts += _of_tensor(tensor)
    for key in ("Weights", "Bias"):
        weights = layer.get(key)
        if isinstance(weights, dict) and isinstance(weights.get("Type"), str):
            texts.append(weights["Type"])
    return texts


def _of_tensor(tensor: Mapping[str, Any]) -> list[str]:
    fields = {key.replace(" ", "").lower(): str(value) for key, value in tensor.items()}
    typed = [value for key, value in fields.items() if key.endswith("datatype")]
    return typed or [value for key, value in fields.items() if key == "format"]
