"""An ONNX file made ready for a runtime: read, its spec found, its input size fixed, its head cut, rewritten."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcam.engines.base import EngineOptions, Layout
from segcam.errors import EngineError, SpecError
from segcam.onnx_tools.halve import widen_weights
from segcam.onnx_tools.head import HeadCut, cut_head
from segcam.onnx_tools.rewrite import PRODUCER, Runtime, rewrite, rewrites_of
from segcam.onnx_tools.spec import ModelSpec, resolve_spec

if TYPE_CHECKING:
    import onnx

#: Of an input, as the graph has it: NCHW or NHWC.
Shape = tuple[int, int, int, int]

_UINT8 = 2
_DTYPES = {1: "float32", 10: "float16", _UINT8: "uint8"}


@dataclass(frozen=True, eq=False)
class PreparedModel:
    """``proto`` is what the runtime gets; ``spec`` describes it as it is now (kind, upsample, names, size, dtype)."""

    path: Path
    proto: onnx.ModelProto
    spec: ModelSpec
    input_shape: Shape
    cut: HeadCut | None
    rewrites: tuple[str, ...] = ()


def prepare(
    path: Path, options: EngineOptions, warn: Callable[[str], None], runtime: Runtime | None = None
) -> PreparedModel:
    """Read ``path`` and make it ready for ``runtime`` (None: any, which leaves out what only some gain by).

    Raises EngineError or SpecError with what is wrong and what to do.
    """
    model = read_model(path)
    spec, shape = describe(model, path, options, warn)
    model, spec, cut = cut_or_keep(model, spec, options.cut_head)
    if options.rewrite:
        model = rewritten(model, path, warn, runtime)
    return PreparedModel(path, model, spec, shape, cut, tuple(rewrites_of(model)))


def describe(
    model: onnx.ModelProto, path: Path, options: EngineOptions, warn: Callable[[str], None], batch: int = 1
) -> tuple[ModelSpec, Shape]:
    """The spec of ``model`` as far as its graph says more, and its input's shape, which is fixed in ``model`` by this.

    Raises EngineError or SpecError for an input that is not one picture (``batch`` of them) of a known size.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    takes_bytes = any(i.type.tensor_type.elem_type == _UINT8 for i in model.graph.input)
    spec = resolve_spec(path, metadata, options.spec, warn, takes_bytes=takes_bytes)
    tensor = _input(model, spec, path)
    shape = _input_shape(tensor, spec, options, path, batch)
    dtype = _DTYPES.get(tensor.type.tensor_type.elem_type)
    if dtype is None:
        raise EngineError(
            f"{path.name}: input {tensor.name!r} has element type {tensor.type.tensor_type.elem_type}",
            "Export the network with a float32, float16 or uint8 picture as its input.",
        )
    for axis, size in enumerate(shape):
        tensor.type.tensor_type.shape.dim[axis].dim_value = size
    layout = "NCHW" if shape[1] == 3 else "NHWC"
    hw = (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
    fed = replace(spec.input, name=tensor.name, layout=layout, dtype=dtype, size=hw)  # type: ignore[arg-type]  # checked above
    output = _output(model, spec, path)
    if len(model.graph.output) > 1 and not spec.output.name:
        names = ", ".join(o.name for o in model.graph.output)
        warn(f"{path.name} has the outputs {names}: reading {output.name}. Name another in a spec (output.name).")
    read = replace(spec.output, name=output.name, kind=_kind(output, spec))
    return replace(spec, input=fed, output=read), shape


def cut_or_keep(
    model: onnx.ModelProto, spec: ModelSpec, cut: bool
) -> tuple[onnx.ModelProto, ModelSpec, HeadCut | None]:
    """``model`` ending at its coarse scores if ``cut`` and a head is recognised, else at the spec's output alone (in
    place); with the spec of what is left."""
    assert spec.input.size
    found = cut_head(model, spec.output.name, spec.input.size) if cut else None
    if found is None:
        _only_output(model, spec.output.name)
        return model, spec, None
    model, head = found
    return model, spec_of_scores(spec, head), head


def spec_of_scores(spec: ModelSpec, head: HeadCut) -> ModelSpec:
    """``spec`` once its network ends where ``head`` was cut off."""
    return replace(spec, output=replace(spec.output, name=head.tensor, kind="logits", upsample=head.upsample))


def rewritten(
    model: onnx.ModelProto, path: Path, warn: Callable[[str], None], runtime: Runtime | None = None
) -> onnx.ModelProto:
    """``model`` after the exact rewrites, checked unless it is Segcam's own; ``warn`` hears of each one refused."""
    # Weights stored in half precision hide behind Casts.
    widen_weights(model)
    # What Segcam exports is known to come through unchanged; a stranger's network is compared on random input.
    made = rewrite(model, runtime=runtime, check=model.producer_name != PRODUCER)
    for name, reason in made.refused.items():
        warn(f"{path.name}: the rewrite {name!r} is left out: {reason}")
    return made.model


def read_model(path: Path, flag: str = "--engine") -> onnx.ModelProto:
    """The ONNX file ``path``, given with ``flag``, weights in files of their own included. Raises EngineError."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.exists():
        folder = path.parent if path.parent.is_dir() else Path()
        near = get_close_matches(path.name, [p.name for p in folder.glob("*.onnx")], 1)
        raise EngineError(
            f"there is no file {path}",
            f"Did you mean {folder / near[0]}?" if near else f"Check the name after {flag}.",
        )
    if path.is_dir() or path.stat().st_size == 0:
        raise EngineError(
            f"{path} is {'a folder' if path.is_dir() else 'empty (0 bytes)'}, not an ONNX file",
            f"Name an .onnx file with {flag}.",
        )
    try:
        model = onnx.load(os.fspath(path))
        if not model.graph.node or not model.graph.input:
            raise DecodeError("no graph inside")
        if not model.graph.output or not model.opset_import:
            raise DecodeError(f"it has no {'operator set' if model.graph.output else 'outputs'}: it may be cut off")
    except (DecodeError, UnicodeDecodeError) as error:
        raise EngineError(
            f"{path} is not an ONNX model ({str(error).strip() or 'it does not parse'})",
            f"Export the network to ONNX, or name the right file with {flag}.",
        ) from None
    except PermissionError:
        raise EngineError(f"{path} cannot be read: permission denied", "See who may read it: ls -l") from None
    except (OSError, onnx.checker.ValidationError) as error:
        raise EngineError(
            f"{path} cannot be read: {error}", "If its weights are in a file of their own, put that file beside it."
        ) from None
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            # Some exporters write an open axis as -1.
            if dim.dim_value < 0:
                dim.ClearField("dim_value")
    return model


def _input(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> onnx.ValueInfoProto:
    # Old exports list their weights among the inputs.
    weights = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    names = [i.name for i in inputs]
    if len(inputs) != 1:
        raise EngineError(
            f"{path.name} has {len(inputs)} inputs ({', '.join(names) or 'none'}), expected one picture",
            "Export the network with the picture as its only input.",
        )
    if spec.input.name not in ("", names[0]):
        raise SpecError(
            f"the spec ({spec.origin}) names input {spec.input.name!r}, {path.name} has: {names[0]}",
            "Correct input.name in the spec.",
        )
    return inputs[0]


def _input_shape(tensor: onnx.ValueInfoProto, spec: ModelSpec, options: EngineOptions, path: Path, batch: int) -> Shape:
    dims = [d.dim_value for d in tensor.type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise EngineError(
            f"{path.name}: input {tensor.name!r} has {len(dims)} dimensions, expected 4 (NCHW or NHWC)",
            "Segcam runs networks that take pictures.",
        )
    last = (dims[3] == 3 and dims[1] != 3) or (spec.input.layout == "NHWC" and dims[1] != 3)
    channels = dims[3] if last else dims[1]
    if channels not in (0, 3):
        raise EngineError(
            f"{path.name}: input {tensor.name!r} is {_show(dims)}: {channels} channels, expected 3",
            "Segcam feeds colour pictures.",
        )
    rows, cols = (1, 2) if last else (2, 3)
    asked = options.size or spec.input.size
    if asked is None and 0 in (dims[rows], dims[cols]):
        raise EngineError(
            f"{path.name}: input {tensor.name!r} is {_show(dims)}: its height and width are open",
            "Give them with --size HEIGHT,WIDTH (for example --size 512,1024) or in the spec (input.size).",
        )
    height, width = asked or (dims[rows], dims[cols])
    for have, want in ((dims[rows], height), (dims[cols], width)):
        if have not in (0, want):
            where = "--size" if options.size else f"the spec ({spec.origin})"
            raise SpecError(
                f"{where} says {width}x{height}, but the input of {path.name} is fixed: {_show(dims)}",
                "Export the network at that size, or leave the size out.",
            )
    if dims[0] not in (0, batch):
        raise EngineError(
            f"{path.name}: its batch is fixed at {dims[0]}, expected {batch}",
            f"Export the network with batch {batch} or dynamic.",
        )
    return (batch, height, width, 3) if last else (batch, 3, height, width)


def scores_layout(shape: tuple[int, ...], spec: ModelSpec) -> Layout:
    """How an output of ``shape`` is laid out: by the spec's number of classes, else by the picture's proportions."""
    if spec.output.kind == "labels" or len(shape) < 3 or spec.input.size is None:
        return "NCHW"
    if spec.classes:
        last = shape[-3] != len(spec.classes) and shape[-1] == len(spec.classes)
    else:
        height, width = spec.input.size
        last = shape[-3] * width == shape[-2] * height and shape[-2] * width != shape[-1] * height
    return "NHWC" if last else "NCHW"


def _show(dims: list[int]) -> str:
    return "x".join(str(d) if d else "?" for d in dims)


def _output(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> onnx.ValueInfoProto:
    outputs = list(model.graph.output)
    names = [o.name for o in outputs]
    if spec.output.name:
        if spec.output.name not in names:
            raise SpecError(
                f"the spec ({spec.origin}) names output {spec.output.name!r}, {path.name} has: {', '.join(names)}",
                "Correct output.name in the spec.",
            )
        return outputs[names.index(spec.output.name)]
    return outputs[0]


def _kind(output: onnx.ValueInfoProto, spec: ModelSpec) -> Any:
    """Whole numbers are labels whatever the spec forgot to say; otherwise the spec's word counts."""
    integer = output.type.tensor_type.elem_type in (2, 3, 4, 5, 6, 7, 12, 13)
    return "labels" if integer else spec.output.kind


def _only_output(model: onnx.ModelProto, name: str) -> None:
    keep = [o for o in model.graph.output if o.name == name]
    del model.graph.output[:]
    model.graph.output.extend(keep)
