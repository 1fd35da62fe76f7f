"""A prepared network as what it becomes: in its final types, described, checked, as a file's bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from segcam.errors import EngineError
from segcam.onnx_tools.spec import METADATA_KEY, ModelSpec, dump_spec, parse_spec

if TYPE_CHECKING:
    import onnx

    from segcam.onnx_tools.precision import Agreement


@dataclass(frozen=True, eq=False)
class Typed:
    """A prepared network in the types it is to compute in, with its spec inside; ``reference`` is it in fp32, None
    where it is that."""

    model: onnx.ModelProto
    reference: onnx.ModelProto | None
    kept: dict[str, str] = field(default_factory=dict)
    agreement: Agreement | None = None


def described(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """``model`` with ``spec`` inside, in place of any other."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != METADATA_KEY]
    made = type(model)()
    made.CopyFrom(model)
    del made.metadata_props[:]
    for key, value in [*kept, (METADATA_KEY, dump_spec(spec))]:
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    return made


def network_bytes(model: onnx.ModelProto) -> bytes:
    """The checked file. Raises EngineError for what isn't valid ONNX."""
    import onnx

    from segcam.onnx_tools.save import checked_bytes

    try:
        return checked_bytes(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = str(error).strip().splitlines()[0][:300]
        raise EngineError(
            f"the prepared network is not valid ONNX: {line}",
            "Try --no-simplify, --no-rewrite or --head keep, and export with opset 17.",
        ) from None


def same_spec(recorded: dict[str, Any], spec: ModelSpec, cut: bool) -> ModelSpec | None:
    """The recorded spec of a product, if a build with ``spec`` would record the same now; else None. A ``cut`` head
    settles how scores are read, whatever the spec said."""
    found = parse_spec(json.dumps(recorded), "an earlier build")
    wanted = replace(spec, output=found.output, classes=spec.classes or found.classes)
    if not cut:
        wanted = replace(wanted, output=replace(found.output, upsample=spec.output.upsample))
    return found if dump_spec(wanted) == dump_spec(found) else None
