"""The manifest of a TensorRT plan, ``NAME.plan.json`` beside ``NAME.plan``: what it is, what built it, from what.

A plan is code, and it runs only with the TensorRT and on the kind of GPU that built it; nothing but TensorRT itself can
see either in the file. So a plan is loaded only if its manifest is there and whole, names its bytes by hash, and fits
this machine. The digest in a manifest finds accidents and edits; it is no signature.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segcam import __version__
from segcam.engines.base import Precision
from segcam.engines.tensorrt_api import PRECISIONS, nvidia_driver, version_words
from segcam.errors import EngineError
from segcam.onnx_tools.spec import ModelSpec, parse_spec
from segcam.writing import whole_file

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import DeviceInfo

SCHEMA = 1
#: What a plan's name may end in.
PLAN_SUFFIXES = (".plan", ".engine", ".trt")


@dataclass(frozen=True)
class Running:
    """What a plan would run with here, in the words of the manifest. ``cuda`` is the newest CUDA that the driver runs,
    ``driver`` the version of NVIDIA's kernel driver, "" where unknown."""

    gpu: str
    compute_capability: tuple[int, int]
    tensorrt: str
    cuda: str = ""
    driver: str = ""

    @classmethod
    def here(cls, trt: ModuleType, device: DeviceInfo) -> Running:
        cuda = ".".join(map(str, device.driver_version))
        return cls(device.name, device.compute_capability, version_words(trt), cuda, nvidia_driver())


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``manifest.schema.json`` describes.

    ``source`` is the ONNX file's path or the zoo's name, ``source_sha256`` the hash of the file as it was read.
    ``precision_found`` counts layers by NumPy's word for the type they compute in. ``tensors`` are the plan's inputs
    and outputs: {name, mode ("input", "output"), dtype (NumPy's word or "bfloat16"), shape (open axes -1), format
    ("linear"), profile ([min, opt, max] or None)}. ``spec`` is ``dump_spec``'s document. ``flags`` are build-engine's,
    by name ("fp16": True, "workspace": "2G"; None and False are flags not given). ``agreement`` is the converted
    graph's with its fp32 original. ``built_at`` is ISO 8601 with its zone. ``hardware_compatible`` is "", "ampere+" or
    "same-compute-capability".
    """

    plan_sha256: str
    plan_bytes: int
    source: str
    source_sha256: str
    gpu: str
    compute_capability: tuple[int, int]
    tensorrt: str
    cuda: str
    precision_asked: Precision
    precision_found: dict[str, int]
    tensors: list[dict[str, Any]]
    spec: dict[str, Any]
    build_s: float
    built_at: str
    driver: str = ""
    flags: dict[str, Any] = field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    head: str = ""
    kept_fp32: dict[str, str] = field(default_factory=dict)
    agreement: dict[str, Any] | None = None
    version_compatible: bool = False
    hardware_compatible: str = ""
    segcam: str = __version__

    @property
    def model_spec(self) -> ModelSpec:
        """Raises SpecError."""
        return parse_spec(json.dumps(self.spec), f"manifest of a plan of {self.source}")

    @property
    def built_with(self) -> Running:
        return Running(self.gpu, self.compute_capability, self.tensorrt, self.cuda, self.driver)

    @property
    def precision(self) -> Precision:
        """The precision that was asked for, where layers compute in it, else the one that most layers compute in."""
        counts = {word: self.precision_found.get(dtype, 0) for dtype, word in PRECISIONS.items()}
        if counts.get(self.precision_asked) or not any(counts.values()):
            return self.precision_asked
        return max(counts, key=lambda word: counts[word])

    def document(self) -> str:
        """JSON text that ``read_manifest`` reads back; the same manifest gives the same text."""
        content = {"segcam_plan": SCHEMA, **asdict(self)}
        # Through JSON and back, so that the digest is of what a reader sees: lists for tuples, names for keys.
        content = json.loads(json.dumps(content, allow_nan=False))
        return json.dumps({**content, "digest": _digest(content)}, indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Write it to ``path`` (``manifest_path`` of the plan), whole or not at all. Raises OSError."""
        with whole_file(path) as temporary:
            temporary.write_text(self.document(), "utf-8")


def is_plan(path: Path) -> bool:
    """Whether a file of this name is a TensorRT plan."""
    return path.suffix.lower() in PLAN_SUFFIXES


def manifest_path(plan: Path) -> Path:
    return plan.with_name(plan.name + ".json")


def sha256_of(path: Path) -> str:
    """Of a file's bytes. Raises OSError."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def read_manifest(plan: Path) -> Manifest:
    """The manifest beside ``plan``. Raises EngineError where there is none, or it is not as build-engine wrote it."""
    import jsonschema

    path = manifest_path(plan)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise _without_manifest(plan, path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"the manifest {path} cannot be read: {error}", _again(plan)) from None
    try:
        content: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the manifest {path} is not JSON ({error})", _again(plan)) from None
    stated = content.get("segcam_plan") if isinstance(content, dict) else None
    if stated != SCHEMA:
        raise EngineError(
            f"the manifest {path} is of version {stated!r}, this Segcam ({__version__}) reads version {SCHEMA}",
            _again(plan) if stated is None or not isinstance(stated, int) or stated < SCHEMA else "Update Segcam.",
        )
    schema = json.loads(resources.files("segcam.engines").joinpath("manifest.schema.json").read_text("utf-8"))
    try:
        jsonschema.validate(content, schema)
    except jsonschema.ValidationError as error:
        place = ".".join(str(part) for part in error.absolute_path) or "the document"
        raise EngineError(f"the manifest {path}: at {place}: {error.message[:200]}", _again(plan)) from None
    if content.pop("digest") != _digest(content):
        raise EngineError(
            f"the manifest {path} has been changed since build-engine wrote it: its content and its digest differ",
            _again(plan),
        )
    del content["segcam_plan"]
    content["compute_capability"] = tuple(content["compute_capability"])
    content["rewrites"] = tuple(content["rewrites"])
    return Manifest(**{item.name: content[item.name] for item in fields(Manifest)})


def verify(manifest: Manifest, plan: Path, running: Running) -> bytes:
    """The bytes of ``plan``, which may be loaded: they are the ones that ``manifest`` names, built for ``running``.

    Raises EngineError with built with and running with side by side, and the command that builds it again.
    """
    reason = unusable(manifest, running)
    if reason:
        raise EngineError(
            f"{plan} cannot run here: {reason}\n{_columns(manifest.built_with, running)}",
            f"Build it on this machine: {rebuild_command(manifest, plan)}",
        )
    return read_plan(manifest, plan)


def read_plan(manifest: Manifest, plan: Path) -> bytes:
    """The bytes of ``plan``. Raises EngineError where they are not the ones that ``manifest`` names."""
    again = f"Build it again: {rebuild_command(manifest, plan)}"
    try:
        data = plan.read_bytes()
    except OSError as error:
        raise EngineError(f"{plan} cannot be read: {error.strerror or error}", again) from None
    if len(data) != manifest.plan_bytes:
        what = what_else(data)
        cut = "is cut off" if len(data) < manifest.plan_bytes else "has been replaced"
        raise EngineError(
            f"{plan} {f'is {what}, not a TensorRT plan' if what else cut}: "
            f"it has {len(data)} bytes, its manifest says {manifest.plan_bytes}",
            again,
        )
    if hashlib.sha256(data).hexdigest() != manifest.plan_sha256:
        raise EngineError(
            f"{plan} is not the plan that its manifest describes: the hash of its bytes differs. A plan is code, so it "
            "is not loaded",
            again,
        )
    return data


def unusable(manifest: Manifest, running: Running) -> str:
    """Why a plan cannot run with ``running``, in words; "" where it can."""
    built, here = _numbers(manifest.tensorrt), _numbers(running.tensorrt)
    # A version-compatible plan runs with the version that built it and with newer ones, the next major one included.
    if here < built if manifest.version_compatible else here != built:
        older = " and runs with it and newer ones" if manifest.version_compatible else ""
        return f"TensorRT {manifest.tensorrt} built it{older}, and this is {running.tensorrt}"
    if manifest.hardware_compatible == "ampere+":
        if running.compute_capability < (8, 0):
            return f"it is for Ampere and newer GPUs (compute capability 8.0), and this is {_capability(running)}"
    elif manifest.compute_capability != running.compute_capability:
        built_for = _capability(manifest.built_with)
        return f"it was built for compute capability {built_for}, and this is {_capability(running)}"
    return ""


def remarks(manifest: Manifest, running: Running) -> list[str]:
    """What is worth a warning about a plan that can run."""
    if manifest.gpu != running.gpu and not manifest.hardware_compatible:
        return [
            f"the plan was tuned on {manifest.gpu}, this is {running.gpu}: it may be slower than one that is built here"
        ]
    return []


def rebuild_command(manifest: Manifest, plan: Path) -> str:
    """The command that builds ``plan`` again as it was."""
    words = ["build-engine", "--onnx", manifest.source]
    for name, value in _given(manifest.flags).items():
        words += [name] if value is True else [name, _plain(value)]
    return shlex.join([*words, "--output", str(plan), "--force"])


def what_else(data: bytes) -> str:
    """What ``data`` is, in words, where it is something that is often taken for a plan; "" for everything else."""
    if not data:
        return "empty"
    if data.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS (fetch the file itself with git lfs pull)"
    if data.startswith(b"PK\x03\x04"):
        return "a ZIP archive, such as a PyTorch checkpoint"
    # An ONNX file begins with its IR version: field 1, a number.
    if data[0] == 0x08:
        import onnx
        from google.protobuf.message import DecodeError

        try:
            if onnx.ModelProto.FromString(data).graph.node:
                return "an ONNX network"
        except DecodeError:
            pass
    return ""


def missing_plan(plan: Path) -> EngineError:
    """What to say where there is no file ``plan``."""
    folder = plan.parent if plan.parent.is_dir() else Path()
    plans = [path.name for path in folder.iterdir() if is_plan(path)]
    near = get_close_matches(plan.name, plans, 1)
    return EngineError(f"there is no file {plan}", f"Did you mean {folder / near[0]}?" if near else _again(plan))


def _without_manifest(plan: Path, path: Path) -> EngineError:
    if not plan.exists():
        return missing_plan(plan)
    try:
        what = what_else(plan.read_bytes())
    except OSError as error:
        return EngineError(f"{plan} cannot be read: {error.strerror or error}", _again(plan))
    if what:
        run = f"segcam --engine {shlex.quote(plan.stem + '.onnx')}"
        return EngineError(
            f"{plan} is {what}, not a TensorRT plan",
            f"Give it its right name and run it as it is ({run}), or build a plan of it with build-engine."
            if "ONNX" in what
            else _again(plan),
        )
    return EngineError(
        f"{plan} has no manifest ({path.name} beside it). A plan is code, and nothing says where this one comes from, "
        "what it was built for, or how to feed it: it is not loaded",
        f"If it came with one, put that beside it. Otherwise: {_again(plan)}",
    )


def _again(plan: Path) -> str:
    onnx = plan.with_suffix(".onnx")
    source = str(onnx) if onnx.is_file() else "MODEL.onnx"
    command = ["build-engine", "--onnx", source, "--output", str(plan), "--force"]
    return f"Build the plan on this machine: {shlex.join(command)}"


def _columns(built: Running, here: Running) -> str:
    rows = [("", "built with", "running with")]
    rows += [
        ("TensorRT", built.tensorrt, here.tensorrt),
        ("GPU", built.gpu, here.gpu),
        ("compute capability", _capability(built), _capability(here)),
        ("CUDA of the driver", built.cuda or "?", here.cuda or "?"),
        ("driver", built.driver or "?", here.driver or "?"),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "    " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _capability(running: Running) -> str:
    return "{}.{}".format(*running.compute_capability)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, as on a command line. What the command says anyway is left out."""
    said = {"--" + name.lstrip("-").replace("_", "-"): value for name, value in flags.items()}
    return {
        name: value
        for name, value in said.items()
        if not (value is None or value is False or value == "") and name not in ("--onnx", "--output", "--force")
    }


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
