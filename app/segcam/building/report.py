"""What came of a build: for people, for the file beside a prepared network, and as a line for trtexec."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segcam import __version__
from segcam.building.options import NONE, BuildOptions
from segcam.engines.plan_options import Profile
from segcam.onnx_tools.spec import ModelSpec, dump_spec

REPORT_SCHEMA = 1


def report_path(network: Path) -> Path:
    """Of a prepared network. Not ``NAME.onnx.json``, which would be taken for its spec."""
    return network.with_name(network.name + ".report.json")


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """What was built, or (``written`` False) would have been, or (``already``) was there.

    ``precision`` is what was asked for, ``found`` how many layers of the plan compute in which type. ``kept`` names the
    nodes that stay fp32, each with the reason. ``agreement`` is with the graph in fp32, "" where nothing was converted
    or compared; ``proof`` is of the plan with its graph. ``batch`` is how many pictures it takes at a time, at least.
    """

    path: Path
    source: str
    precision: str
    spec: ModelSpec
    size: int
    written: bool = True
    already: bool = False
    head: str = ""
    rewrites: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kept: dict[str, str] = field(default_factory=dict)
    agreement: str = ""
    proof: str = ""
    found: dict[str, int] = field(default_factory=dict)
    machine: str = ""
    seconds: float = 0.0
    trtexec: str = ""
    batch: int = 1

    def text(self) -> str:
        """What was made, and the next command."""
        if self.already:
            return (
                f"{self.path} is there already, of the same source and flags: nothing to do (--force builds it again)"
            )
        fed, read = self.spec.input, self.spec.output
        height, width = fed.size or (0, 0)
        lines = [
            f"{'wrote' if self.written else 'would write'} {self.path}: {self.size / 1e6:.1f} MB, {self.seconds:.0f} s",
            f"  from       {self.source}",
            f"  input      {fed.name} {width}x{height} {fed.layout} {fed.dtype}, {fed.color}",
            f"  output     {read.name}, {read.kind}",
            f"  head       {self.head + ' cut off' if self.head else 'as in the graph'}",
            f"  rewrites   {', '.join(self.rewrites) or 'none'}",
            f"  precision  {self.precision}{self._found()}",
        ]
        lines += [f"             {kept_words(len(self.kept))}: {self._first_kept()}"] if self.kept else []
        lines += [f"  agreement  {self.agreement}"] if self.agreement else []
        lines += [f"  plan       {self.proof}"] if self.proof else []
        lines += [f"  for        {self.machine}"] if self.machine else []
        lines += [f"  note       {note}" for note in self.notes]
        if self.batch != 1:
            lines.append(f"Segcam runs one picture at a time: this, for {self.batch}, is for other programs.")
        elif self.written:
            lines += ["next:", f"  segcam --engine {shlex.quote(str(self.path))} --source dashcam.mp4"]
        if self.trtexec:
            when = "" if self.written else ", of the network that --target onnx writes"
            lines += [f"with TensorRT's own tool{when}:", f"  {self.trtexec}"]
        return "\n".join(lines)

    def _found(self) -> str:
        return f" ({', '.join(_layers(n, word) for word, n in self.found.items())})" if self.found else ""

    def _first_kept(self) -> str:
        name, reason = next(iter(self.kept.items()))
        return f"{name} ({reason}){' ...' if len(self.kept) > 1 else ''}"


def _layers(count: int, word: str) -> str:
    return f"{count} layer{'' if count == 1 else 's'} {word}"


def kept_words(count: int) -> str:
    """How many nodes were not converted."""
    return "1 node stays fp32" if count == 1 else f"{count} nodes stay fp32"


def agreement_words(found: Any) -> str:
    """An ``onnx_tools.precision.Agreement`` in words."""
    return (
        f"{found.labels_equal:.3%} of the labels are those of fp32 on {found.source} "
        f"(largest difference {found.largest_difference:.2g}, the scores' deviation being {found.spread:.2g})"
    )


def report_text(network: bytes, content: dict[str, Any], spec: ModelSpec) -> str:
    """The JSON beside a prepared network; ``content`` is what the build adds."""
    from hashlib import sha256

    document = {
        "segcam_report": REPORT_SCHEMA,
        "segcam": __version__,
        "sha256": sha256(network).hexdigest(),
        "bytes": len(network),
        **content,
        "spec": json.loads(dump_spec(spec)),
    }
    return json.dumps(document, indent=1) + "\n"


def read_report(network: Path) -> dict[str, Any] | None:
    """The report beside ``network`` if it is of these bytes, else None."""
    from segcam.engines.manifest import sha256_of

    try:
        document = json.loads(report_path(network).read_text("utf-8"))
        if document["segcam_report"] != REPORT_SCHEMA or document["sha256"] != sha256_of(network):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(document)


def trtexec_line(network: Path, plan: Path, options: BuildOptions, profile: Profile | None) -> str:
    """The command by which TensorRT's own tool builds ``plan`` of ``network`` with the flags of ``options``."""
    words = ["trtexec", f"--onnx={network}", f"--saveEngine={plan}", "--stronglyTyped", "--noTF32", "--skipInference"]
    if options.workspace:
        words.append(f"--memPoolSize=workspace:{max(1, options.workspace >> 20)}")
    if options.optimization_level is not None:
        words.append(f"--builderOptimizationLevel={options.optimization_level}")
    if profile:
        for word, shape in (("min", profile.min), ("opt", profile.opt), ("max", profile.max)):
            words.append(f"--{word}Shapes={profile.input}:{'x'.join(map(str, shape))}")
    if options.timing_cache not in ("", NONE):
        words.append(f"--timingCacheFile={options.timing_cache}")
    if options.hardware_compat:
        level = {"ampere+": "ampere+", "same-compute-capability": "sameComputeCapability"}[options.hardware_compat]
        words.append(f"--hardwareCompatibilityLevel={level}")
    if options.version_compat:
        words.append("--versionCompatible")
    if options.dla is not None:
        words += [f"--useDLACore={options.dla}", "--allowGPUFallback"]
    return shlex.join(words)
