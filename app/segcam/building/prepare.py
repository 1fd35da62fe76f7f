"""An export made ready for TensorRT: whole, simple, of the asked shape and ending where it should; in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from segcam.building.options import BuildOptions
from segcam.classes import MAX_CLASSES
from segcam.engines.base import EngineOptions
from segcam.engines.model import Shape, cut_or_keep, describe, read_model, rewritten, scores_layout, spec_of_scores
from segcam.engines.plan_options import Profile, Progress
from segcam.errors import EngineError, SegcamError
from segcam.onnx_tools.graph import opset_of, shapes_of
from segcam.onnx_tools.halve import widen_weights
from segcam.onnx_tools.head import HeadCut, cut_head, end_at
from segcam.onnx_tools.labels import end_in_labels
from segcam.onnx_tools.mend import bytes_from_floats, cast_bytes_first, drop_weight_inputs
from segcam.onnx_tools.naming import sort_nodes
from segcam.onnx_tools.rewrite import rewrites_of
from segcam.onnx_tools.spec import ModelSpec

if TYPE_CHECKING:
    import onnx

#: Of an input: a batch of sixteen pictures of 8192x8192.
_MOST_VALUES = 16 * 3 * 8192**2

Warn = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Loaded:
    """An export as read: its input has the asked shape (open where ``profile`` leaves it open; ``input_shape`` has the
    preferred one), its spec is known, its weights are where tools look for them. ``sha256`` is of the file and of its
    weights' files."""

    path: Path
    sha256: str
    model: onnx.ModelProto
    spec: ModelSpec
    input_shape: Shape
    profile: Profile | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """``model`` in its own precision. ``head`` names the operators that were cut off, joined by +; ``channel_axis`` is
    where its scores have the classes; ``notes`` say what was changed or could not be."""

    model: onnx.ModelProto
    spec: ModelSpec
    head: str
    rewrites: tuple[str, ...]
    channel_axis: int
    notes: tuple[str, ...]


def load(path: Path, options: BuildOptions, warn: Warn) -> Loaded:
    """Read ``path`` and settle what is fed and read. Raises EngineError, SpecError, UsageError."""
    import onnx

    model = read_model(path, "--onnx")
    newest = onnx.defs.onnx_opset_version()
    if opset_of(model) > newest:
        raise EngineError(
            f"{path.name} is of opset {opset_of(model)}, and onnx {onnx.__version__} here knows {newest} at most",
            "Export it with opset 17 or 18, or: pip install -U onnx",
        )
    notes = []
    # Converters leave nodes before what these read. TensorRT and ONNX Runtime put up with it, and nothing else does.
    sort_nodes(model.graph)
    dropped = drop_weight_inputs(model)
    if dropped:
        notes.append(f"{dropped} weights were listed among its inputs")
    if widen_weights(model):
        notes.append("its weights were stored in half precision")
    wanted = options.shapes[1] if options.shapes else None
    open_axes = _open_axes(model, options, path)
    batch = wanted[0] if wanted else options.batch or 1
    fed = EngineOptions(size=_hw(wanted) if wanted else options.size, spec=options.spec)
    spec, shape = describe(model, path, fed, warn, batch)
    if prod(shape) > _MOST_VALUES:
        raise EngineError(
            f"{path.name}: its input of {_show(shape)} is larger than any picture that Segcam knows",
            "Give a smaller --size or --batch, or export the network again.",
        )
    profile = None
    if wanted:
        assert options.shapes
        if wanted != shape:
            raise EngineError(
                f"{path.name}: its input is {_show(shape)}, --shapes prefers {_show(wanted)}",
                "Give the shapes in the order of its axes.",
            )
        profile = Profile(spec.input.name, *options.shapes) if open_axes else None
    if profile:
        _open(model, profile)
    return Loaded(path, file_sha256(path), model, spec, shape, profile, tuple(notes))


def _open_axes(model: onnx.ModelProto, options: BuildOptions, path: Path) -> list[int]:
    """The axes of the input that --shapes leaves open. Raises EngineError for one that the graph fixes."""
    if options.shapes is None or len(model.graph.input) != 1:
        return []
    low, _, high = options.shapes
    axes = [axis for axis in range(4) if low[axis] != high[axis]]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for axis in axes:
        if axis < len(dims) and dims[axis].dim_value:
            raise EngineError(
                f"{path.name}: axis {axis} of its input is fixed at {dims[axis].dim_value}, "
                f"--shapes leaves it open between {low[axis]} and {high[axis]}",
                "Export the network with that axis open (segcam export --batch dynamic), or fix it in --shapes.",
            )
    return axes


def prepare(loaded: Loaded, options: BuildOptions, warn: Warn, progress: Progress) -> Prepared:
    """``loaded`` through every step before precision. Raises EngineError."""
    notes = list(loaded.notes)
    path, spec = loaded.path, loaded.spec
    model, note = cast_bytes_first(loaded.model)
    if note:
        notes.append(f"put in: {note}")
    # Folding and merging constants would do away with what a network's quantization consists of.
    whole = "quantized networks stay as they are" if options.quantized else ""
    progress.begin("simplify")
    left_out = whole or ("" if options.simplify else "--no-simplify")
    model, words = (model, f"left out ({left_out})") if left_out else _simplified(model, warn, path)
    progress.end("simplify", words)
    check(progress)

    progress.begin("head")
    assert spec.input.size
    # Labels are made of the scores below the head, too, and so in one way.
    wanted = options.head == "cut" or (options.head == "labels" and spec.output.kind == "logits")
    model, spec, found = _cut(model, spec, loaded.profile, warn) if wanted else cut_or_keep(model, spec, False)
    head = "+".join(found.removed) if found else ""
    words = f"cut off: {head}" if head else "left as it is" if options.head == "keep" else "nothing to cut off"
    progress.end("head", words)
    check(progress)

    progress.begin("rewrite")
    before = rewrites_of(model)
    left_out = whole or ("" if options.rewrite else "--no-rewrite")
    if not left_out:
        model = rewritten(model, path, warn)
    done = [name for name in rewrites_of(model) if name not in before]
    progress.end("rewrite", f"left out ({left_out})" if left_out else ", ".join(done) or "nothing to gain")
    check(progress)

    last, spec = _classes(model, spec)
    if options.head == "labels":
        model, spec = _labelled(model, spec, last)
        notes.append("ends with labels in bytes")
    if bytes_from_floats(model):
        notes.append("put in: a Cast to float32 before the bytes of its output")
    return Prepared(model, spec, head, tuple(rewrites_of(model)), -1 if last else 1, tuple(notes))


def _simplified(model: onnx.ModelProto, warn: Warn, path: Path) -> tuple[onnx.ModelProto, str]:
    from segcam.onnx_tools.simplify import simplify

    before = len(model.graph.node)
    made = simplify(model)
    if made.reason:
        warn(f"{path.name} is not simplified: {made.reason}")
        return model, "left out"
    return made.model, f"{before} nodes, now {len(made.model.graph.node)}"


def _cut(
    model: onnx.ModelProto, spec: ModelSpec, profile: Profile | None, warn: Warn
) -> tuple[onnx.ModelProto, ModelSpec, HeadCut | None]:
    """As ``cut_or_keep``; with open axes only a head that is the same at all three shapes of the profile."""
    if profile is None:
        return cut_or_keep(model, spec, True)
    found = set()
    for shape in (profile.min, profile.opt, profile.max):
        tried = type(model)()
        tried.CopyFrom(model)
        for axis, size in enumerate(shape):
            tried.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
        cut = cut_head(tried, spec.output.name, _hw(shape))
        found.add(cut[1] if cut else None)
    head = found.pop()
    if head is None or found:
        if found:
            warn("the head stays: what it does changes over the shapes of --shapes")
        return cut_or_keep(model, spec, False)
    return end_at(model, head.tensor), spec_of_scores(spec, head), head


def _open(model: onnx.ModelProto, profile: Profile) -> None:
    """Open the axes of the input, in place, that ``profile`` leaves open."""
    graph = model.graph
    tensor = next(value for value in graph.input if value.name == profile.input)
    for axis, (low, high) in enumerate(zip(profile.min, profile.max, strict=True)):
        if low != high:
            tensor.type.tensor_type.shape.dim[axis].dim_param = ("batch", "channels", "height", "width")[axis]


def _classes(model: onnx.ModelProto, spec: ModelSpec) -> tuple[bool, ModelSpec]:
    """Whether the scores' channels come last; and the spec with its classes named, which files always say.

    Raises SpecError where it names another number of them than the network has.
    """
    from onnx import shape_inference

    shapes = shapes_of(shape_inference.infer_shapes(model, data_prop=True))
    shape = tuple(shapes.get(spec.output.name, ()))
    if spec.output.kind == "logits" and spec.output.name in shapes and len(shape) not in (3, 4):
        raise EngineError(
            f"the network's output {spec.output.name!r} has {len(shape)} dimensions, expected scores NxCxHxW",
            "Segcam runs networks that name each pixel. If another output has the scores, name it in a spec "
            "(output.name).",
        )
    last = scores_layout(shape, spec) == "NHWC"
    count = shape[-1 if last else 1] if spec.output.kind == "logits" and len(shape) == 4 else 0
    if spec.classes is None or count:
        spec = replace(spec, classes=spec.class_table(count or MAX_CLASSES))
    return last, spec


def _labelled(model: onnx.ModelProto, spec: ModelSpec, channels_last: bool) -> tuple[onnx.ModelProto, ModelSpec]:
    assert spec.input.size
    made = type(model)()
    made.CopyFrom(model)
    hw, upsample = spec.input.size, spec.output.upsample
    name = end_in_labels(made, spec.output.name, upsample, hw, channels_last=channels_last)
    return made, replace(spec, output=replace(spec.output, name=name, kind="labels"))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What goes wrong in here is an EngineError if the network in ``path`` is broken in a way that nobody foresaw, or
    too large; else it stays what it is."""
    try:
        yield
    except (SegcamError, OSError):
        raise
    except MemoryError as error:
        raise EngineError(f"{path.name} needs more memory than there is ({error})", "Give a smaller --size.") from None
    except Exception:
        fault = _fault(path)
        if not fault:
            raise
        raise EngineError(
            f"{path.name} is not valid ONNX: {fault}", "Export it again, with opset 17 if its operators allow it."
        ) from None


def _fault(path: Path) -> str:
    """What onnx says against the file, in a line; "" for nothing."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
        # Older checkers don't count a weight's bytes.
        for tensor in onnx.load(path).graph.initializer:
            onnx.numpy_helper.to_array(tensor)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return ""


def check(progress: Progress) -> None:
    """Ends the work where it was cancelled."""
    if progress.cancelled():
        raise KeyboardInterrupt


def file_sha256(path: Path) -> str:
    """Of an ONNX file and of the files that its weights lie in, by name. Raises EngineError."""
    total = hashlib.sha256()
    try:
        total.update(path.read_bytes())
        for name in _weight_files(path):
            total.update(name.encode() + b"\0")
            total.update((path.parent / name).read_bytes())
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}", "Check the file.") from None
    return total.hexdigest()


def _weight_files(path: Path) -> list[str]:
    import onnx

    plain = onnx.load(str(path), load_external_data=False)
    tensors = plain.graph.initializer
    return sorted({e.value for t in tensors for e in t.external_data if e.key == "location"})


def _hw(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[2], shape[3]) if shape[1] == 3 else (shape[1], shape[2])


def _show(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
