"""From a checkpoint to an ONNX file that says how it is to be fed and read. No training framework takes part.

import segcam
report = segcam.export("small.onnx", "MobileV3Small", checkpoint="weights.pt")
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segcam.classes import MAX_CLASSES, TABLES, ClassTable, generic_table
from segcam.errors import SinkError, UsageError
from segcam.networks.architecture import MODELS, NetworkOptions, build, expected_tensors
from segcam.networks.heads import Head, add_head
from segcam.networks.names import names_inside, read_names
from segcam.networks.weights import find_weights
from segcam.networks.zoo import ZooEntry, find, names
from segcam.onnx_tools.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    METADATA_KEY,
    InputSpec,
    ModelSpec,
    OutputSpec,
    dump_spec,
)
from segcam.sinks.files import check_writable, make_folder, write_error

if TYPE_CHECKING:
    import onnx

#: Metadata that says what a file was made of: JSON with the network, its options and the checkpoint.
EXPORT_KEY = "segcam_export"
#: The originals' own: classes, and (height, width) of an export where nobody asks for another.
_CLASSES = {"PSPNet": 21}
_SIZES = {"PSPNet": (512, 512)}
_TABLES = {19: "cityscapes", 21: "voc"}
#: A file of ours starts with its producer's name: protobuf's fields 1 (IR version, one byte) and 2.
_OURS = b"\x12\x06segcam"

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportReport:
    """What was written. Shapes have 0 for an open batch; ``parameters`` are the trained ones of the original.

    ``gflops`` counts the original's graph on one picture, before rewrites, as ``onnx_tools.flops`` says. ``weights``
    says where they came from; ``untrained`` that they are random. ``notes`` is what a user should know.
    """

    path: Path
    bytes: int
    nodes: int
    parameters: int
    gflops: float
    rewrites: tuple[str, ...]
    spec: ModelSpec
    options: NetworkOptions
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: str
    untrained: bool
    notes: tuple[str, ...] = ()


def export(
    output: str | os.PathLike[str],
    model: str,
    *,
    num_filters: int | None = None,
    num_classes: int | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    checkpoint: str | os.PathLike[str] | None = None,
    init: Literal["random"] | None = None,
    seed: int = 0,
    head: Head = "scores",
    adaptive_pool: Literal["torch", "omz"] | None = None,
    embed_preprocessing: bool = False,
    fp16: bool = False,
    rewrite: Literal["auto", "on", "off"] = "auto",
    class_names: str | os.PathLike[str] | ClassTable | None = None,
    force: bool = False,
    warn: Say | None = None,
    say: Say | None = None,
) -> ExportReport:
    """Write a network as ONNX to ``output`` (a name that ends in .onnx) with its ModelSpec inside.

    ``model`` is one of ``architecture.MODELS`` or a name of the zoo, whose checkpoint is then fetched unless
    ``checkpoint`` names a file. ``num_filters`` and ``num_classes`` None: as the checkpoint has them, else 128 and 19
    (PSPNet 21). ``size`` is (height, width), None: the zoo's, else 1024x2048 (PSPNet 512x512). ``batch`` 0: left open.
    ``init="random"`` with ``seed`` makes an untrained network, for benchmarks and tests.

    ``head``: ``scores`` ends where Segcam's own kernels take over; ``logits`` and ``labels``: see ``networks.heads``.
    ``adaptive_pool`` None: as the zoo says, else PyTorch's; ``omz`` is what Open Model Zoo's PSPNet computes.
    ``embed_preprocessing``: BGR 0..255 in, else normalised RGB. ``fp16``: weights stored as float16, the arithmetic as
    before. ``rewrite``: the exact rewrites of ``onnx_tools.rewrite``; ``auto`` those that pay everywhere, ``on`` all.
    ``class_names``: see ``networks.names``; None: the zoo's, else the checkpoint's, else Cityscapes' for 19 and VOC's
    for 21, else numbers.

    A file that is there is overwritten if Segcam exported it, or with ``force``. ``warn`` gets what a user must know
    (None: ``warnings.warn``), ``say`` what goes on (None: the log). Raises UsageError, CheckpointError, ZooError,
    SinkError.
    """
    notes: list[str] = []
    tell = warn or _python_warning

    def note(line: str) -> None:
        notes.append(line)
        tell(line)

    target = Path(output)
    name, entry = find_model(model)
    _check_choices(init=init, head=head, rewrite=rewrite, checkpoint=checkpoint)
    _check_target(target, force, Path(checkpoint) if checkpoint is not None else None)
    asked = {
        "num_filters": num_filters,
        "num_classes": num_classes,
        "size": None if size is None else tuple(size),
        "adaptive_pool": adaptive_pool,
    }
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    options = replace(_usual(name, entry), batch=batch, **given)
    expected_tensors(options)  # a size that cannot be is said before anything is fetched
    unasked = asked.keys() - given.keys()
    weights, options = find_weights(
        options, entry, checkpoint, init, seed, unasked, say or logging.getLogger("segcam").info
    )
    if options.num_classes > MAX_CLASSES:
        raise UsageError(
            f"{options.num_classes} classes: a class map holds at most {MAX_CLASSES}", "Use fewer classes."
        )
    classes = _class_table(options, entry, class_names, weights.noted)
    untrained = init is not None
    if untrained:
        note(f"{target.name} is UNTRAINED: its weights are random (seed {seed}). Good for speed, useless for pictures.")

    proto = build(options, weights.tensors)
    from segcam.onnx_tools.flops import count_work

    gflops = count_work(proto).gflops
    proto, done = _rewritten(proto, rewrite)
    color: Literal["RGB", "BGR"] = "RGB"
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if embed_preprocessing:
        from segcam.onnx_tools.preprocessing import embed_preprocessing as embed

        embed(proto, mean, std)
        color, mean, std = "BGR", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    add_head(proto, head, options.model, options.size)
    if fp16:
        from segcam.onnx_tools.halve import halve_weights

        for tensor, reason in halve_weights(proto).kept.items():
            note(f"{tensor} stays float32: {reason}")
    graph = proto.graph
    spec = ModelSpec(
        InputSpec(graph.input[0].name, size=options.size, color=color, mean=mean, std=std),
        OutputSpec(graph.output[0].name, "labels" if head == "labels" else "logits", "half_pixel"),
        classes,
        f"metadata of {target.name}",
    )
    document = {
        **asdict(options),
        "head": head,
        "embed_preprocessing": embed_preprocessing,
        "fp16": fp16,
        "untrained": untrained,
        "weights": weights.source,
    }
    _describe(proto, spec, document)
    nodes, shapes = len(graph.node), (_shape(graph.input[0]), _shape(graph.output[0]))
    written = _write(proto, target)
    beside = target.with_name(target.name + ".json")
    if beside.is_file():
        note(f"{beside} goes before the spec inside the network: remove it if it belongs to an earlier one.")
    return ExportReport(
        target,
        written,
        nodes,
        sum(prod(shape) for key, shape in expected_tensors(options).items() if ".running_" not in key),
        gflops,
        tuple(done),
        spec,
        options,
        *shapes,
        weights.words,
        untrained,
        tuple(notes),
    )


def find_model(name: str) -> tuple[str, ZooEntry | None]:
    """The network's name in ``architecture.MODELS`` and, where ``name`` is one of the zoo, its entry.

    Raises UsageError with the nearest name.
    """
    if name in MODELS:
        return name, None
    entry = find(name)
    if entry is not None:
        return entry.model, entry
    shown = {known.lower(): known for known in (*names(), *MODELS)}
    if name.lower() in shown:
        return shown[name.lower()], None
    near = get_close_matches(name.lower(), shown, 1, 0.5)
    every = f"Networks: {', '.join(MODELS)}. With weights of the zoo: {', '.join(names())}."
    raise UsageError(f"no network is called {name!r}", f"Did you mean {shown[near[0]]}?" if near else every)


def _usual(name: str, entry: ZooEntry | None) -> NetworkOptions:
    """The options of a network where nobody asks for others: the zoo's, or the original's."""
    if entry is None:
        return NetworkOptions(name, _CLASSES.get(name, 19), size=_SIZES.get(name, (1024, 2048)))
    return NetworkOptions(name, entry.num_classes, entry.num_filters, entry.size, adaptive_pool=entry.adaptive_pool)


def _check_choices(init: object, head: object, rewrite: object, checkpoint: object) -> None:
    for flag, value, choices in (
        ("init", init, (None, "random")),
        ("head", head, ("scores", "logits", "labels")),
        ("rewrite", rewrite, ("auto", "on", "off")),
    ):
        if value not in choices:
            words = ", ".join(str(choice) for choice in choices if choice)
            raise UsageError(f"--{flag} {value}: expected {words}", "See: segcam export --help")
    if init and checkpoint is not None:
        raise UsageError("--init random and --checkpoint exclude each other", "Leave one of them out.")


def _check_target(target: Path, force: bool, checkpoint: Path | None) -> None:
    """Everything that can be said of the output before the work."""
    if target.suffix.lower() != ".onnx":
        raise UsageError(f"the output {target} does not end in .onnx", f"Call it {target.with_suffix('.onnx')}.")
    if target.is_dir():
        raise UsageError(f"the output {target} is a folder", f"Name a file in it: {target / 'network.onnx'}")
    if checkpoint is not None and target.exists() and checkpoint.exists() and target.samefile(checkpoint):
        raise UsageError(f"{target} is the checkpoint itself", "Give the output another name.")
    if target.exists() and not force and not exported_by_segcam(target):
        raise UsageError(
            f"{target} is there already, and Segcam did not export it", "Give another name, or --force to overwrite it."
        )
    try:
        check_writable(target)
    except SinkError as error:
        raise SinkError(error.message, "Give another name for the output.") from None


def exported_by_segcam(path: Path) -> bool:
    """Whether the file names Segcam as its producer. Reads a few bytes; False where there is no such file."""
    try:
        with path.open("rb") as file:
            return _OURS in file.read(16)
    except OSError:
        return False


def _class_table(
    options: NetworkOptions,
    entry: ZooEntry | None,
    given: str | os.PathLike[str] | ClassTable | None,
    noted: Mapping[str, object],
) -> ClassTable:
    """The classes as given, else the zoo's, else the checkpoint's, else those that so many usually are."""
    count = options.num_classes
    if isinstance(given, ClassTable):
        if len(given) != count:
            raise UsageError(f"{len(given)} class names, the network has {count} classes", "Give one for each class.")
        return given
    if given is not None:
        return read_names(os.fspath(given), count)
    if entry and entry.classes and entry.num_classes == count:
        return read_names(entry.classes, count)
    found = names_inside(noted, count)
    if found:
        return found
    return TABLES[_TABLES[count]] if count in _TABLES else generic_table(count)


def _rewritten(model: onnx.ModelProto, rewrite: str) -> tuple[onnx.ModelProto, list[str]]:
    if rewrite == "off":
        return model, []
    from segcam.onnx_tools.rewrite import EVERYWHERE
    from segcam.onnx_tools.rewrite import rewrite as apply

    # The check on random input takes seconds at full size; on these graphs the tests have proven it.
    made = apply(model, [*EVERYWHERE, "phases"] if rewrite == "on" else None, check=False)
    return made.model, made.done


def _describe(model: onnx.ModelProto, spec: ModelSpec, document: Mapping[str, Any]) -> None:
    model.doc_string = "UNTRAINED: random weights" if document["untrained"] else ""
    for key, value in ((METADATA_KEY, dump_spec(spec)), (EXPORT_KEY, json.dumps(document))):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _write(model: onnx.ModelProto, target: Path) -> int:
    from segcam.onnx_tools.save import save_model

    make_folder(target.absolute().parent)
    try:
        return save_model(model, target)
    except OSError as error:
        failed = write_error(target, error)
        raise SinkError(failed.message, "Free some space, or give another name for the output.") from None


def _python_warning(line: str) -> None:
    warnings.warn(line, UserWarning, stacklevel=4)
