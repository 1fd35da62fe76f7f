"""ModelSpec: how to feed a network and how to read it. It travels with the model file.

Written as JSON (``modelspec.schema.json``): as ``NAME.onnx.json`` beside the model or in the ONNX ``metadata_props``
under the key ``segcam_spec``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from segcam.classes import TABLES, ClassTable, generic_table
from segcam.errors import SpecError
from segcam.geometry import ResizePolicy, Upsample

METADATA_KEY = "segcam_spec"

#: torchvision's ImageNet normalisation on the 0..255 scale, in RGB order; what most exports expect.
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@dataclass(frozen=True)
class InputSpec:
    """``size`` is (height, width), None where the graph says it; ``mean``, ``std`` act on 0..255, in the order fed."""

    name: str = ""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    size: tuple[int, int] | None = None
    color: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: ResizePolicy = "stretch"


@dataclass(frozen=True)
class OutputSpec:
    """``logits``: NxCxHxW scores, enlarged by the mode ``upsample``; ``labels``: integer class ids NxHxW or Nx1xHxW."""

    name: str = ""
    kind: Literal["logits", "labels"] = "logits"
    upsample: Upsample = "half_pixel"


@dataclass(frozen=True)
class ModelSpec:
    """``origin`` says where the spec was found, for the report."""

    input: InputSpec = field(default_factory=InputSpec)
    output: OutputSpec = field(default_factory=OutputSpec)
    classes: ClassTable | None = None
    origin: str = "defaults"

    def class_table(self, count: int) -> ClassTable:
        """The classes of a network with ``count`` score channels; built-in or numbered names where the spec has none.

        Raises SpecError when the spec names another number of classes.
        """
        if self.classes is None:
            known = {19: "cityscapes", 21: "voc"}.get(count)
            return TABLES[known] if known else generic_table(count)
        if len(self.classes) != count:
            raise SpecError(
                f"the spec ({self.origin}) names {len(self.classes)} classes, the network has {count} channels",
                "Correct the list 'classes' in the spec: one entry for each channel, in order.",
            )
        return self.classes


def parse_spec(text: str, origin: str) -> ModelSpec:
    """A spec from its JSON text. Raises SpecError naming ``origin``, the place in the document and what is expected."""
    import jsonschema

    schema = json.loads(resources.files("segcam.onnx_tools").joinpath("modelspec.schema.json").read_text("utf-8"))
    try:
        data: dict[str, Any] = json.loads(text)
        jsonschema.validate(data, schema)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{origin} is not JSON: {error}", "Correct the file, or name another with --spec.") from None
    except jsonschema.ValidationError as error:
        place = ".".join(str(part) for part in error.absolute_path) or "the document"
        raise SpecError(f"{origin}: at {place}: {error.message}", "See 'Model specs' in the README.") from None
    fed, read = data["input"], data["output"]
    size = fed.get("size")
    void = frozenset(int(i) for i in read.get("void", ()))
    if isinstance(data["classes"], str):
        table = TABLES[data["classes"]]
        classes = replace(table, void=table.void | void)
    else:
        rows = data["classes"]
        classes = ClassTable(
            tuple(str(row["name"]) for row in rows),
            tuple((int(row["color"][0]), int(row["color"][1]), int(row["color"][2])) for row in rows),
            void,
        )
    beyond = sorted(index for index in void if index >= len(classes))
    if beyond:
        raise SpecError(
            f"{origin}: void names channel {beyond[0]}, but there are {len(classes)} classes", "Count channels from 0."
        )
    return ModelSpec(
        InputSpec(
            name=fed.get("name", ""),
            layout=fed.get("layout", "NCHW"),
            dtype=fed.get("dtype", "float32"),
            size=(int(size[0]), int(size[1])) if size else None,
            color=fed["color"],
            mean=tuple(float(v) for v in fed["mean"]),
            std=tuple(float(v) for v in fed["std"]),
            resize=fed.get("resize", "stretch"),
        ),
        OutputSpec(read.get("name", ""), read["kind"], read.get("upsample", "half_pixel")),
        classes,
        origin,
    )


def dump_spec(spec: ModelSpec) -> str:
    """JSON text that ``parse_spec`` reads back."""
    given = spec.input
    fed: dict[str, Any] = {
        "layout": given.layout,
        "dtype": given.dtype,
        "color": given.color,
        "mean": list(given.mean),
        "std": list(given.std),
        "resize": given.resize,
    }
    if given.name:
        fed["name"] = given.name
    if given.size:
        fed["size"] = list(given.size)
    read: dict[str, Any] = {"kind": spec.output.kind, "upsample": spec.output.upsample}
    if spec.output.name:
        read["name"] = spec.output.name
    classes: Any = "cityscapes"
    if spec.classes is not None:
        read["void"] = sorted(spec.classes.void)
        classes = [{"name": n, "color": list(c)} for n, c in zip(spec.classes.names, spec.classes.colors, strict=True)]
    return json.dumps({"segcam_spec": 1, "input": fed, "output": read, "classes": classes}, indent=1)


def resolve_spec(
    model: Path, metadata: dict[str, str], named: str, warn: Callable[[str], None], *, takes_bytes: bool = False
) -> ModelSpec:
    """The spec of ``model``: the file ``named`` by the user, else ``MODEL.json`` beside it, else the ONNX metadata,
    else ImageNet's normalisation, said in one warning line. Raises SpecError.

    ``takes_bytes``: the network's input is uint8, which nobody feeds normalised: without a spec it gets 0..255.
    """
    if named:
        path = Path(named)
        if not path.is_file():
            raise SpecError(f"the spec file {named} does not exist", "Check --spec.")
        return _read(path)
    beside = model.with_name(model.name + ".json")
    if beside.is_file():
        return _read(beside)
    if METADATA_KEY in metadata:
        return parse_spec(metadata[METADATA_KEY], f"metadata of {model.name}")
    if takes_bytes:
        warn(
            f"{model.name} has no spec ({beside.name} beside it, or metadata): assuming RGB, 0..255. "
            "If the colours look wrong, write one: see 'Model specs' in the README."
        )
        return ModelSpec(InputSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), origin="defaults for bytes")
    warn(
        f"{model.name} has no spec ({beside.name} beside it, or metadata): assuming RGB with ImageNet's mean and std. "
        "If the colours look wrong, write one: see 'Model specs' in the README."
    )
    return ModelSpec(origin="ImageNet defaults")


def _read(path: Path) -> ModelSpec:
    try:
        return parse_spec(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"the spec {path} cannot be read: {error}", "Check the file, or name another with --spec."
        ) from None
