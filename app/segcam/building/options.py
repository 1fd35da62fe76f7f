"""What may be asked of a build, and what may not be asked together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from segcam.engines.manifest import PLAN_SUFFIXES
from segcam.engines.plan_options import HardwareCompat, PlanPrecision
from segcam.errors import UsageError

Half = Literal["fp16", "bf16"]
Head = Literal["cut", "keep", "labels"]
Target = Literal["tensorrt", "onnx"]
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

#: Pictures that the range check and the agreement report look at.
CALIBRATION_FRAMES = 4
#: Where they come from if nothing else is named.
STREET = "street:"
#: Instead of a source: noise.
RANDOM = "random"
#: For --timing-cache.
NONE = "none"
#: Where products go if nothing else is named.
FOLDER = Path("engines")

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_HARDWARE: tuple[HardwareCompat, ...] = ("ampere+", "same-compute-capability")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """One build, as the flags of these names say it. ``check`` raises for what cannot be meant.

    ``onnx`` is a file or a name of the zoo. ``precisions`` are those of --fp16, --fp32, --bf16, --int8 and --fp8 that
    were given, in any order; () is fp16, or as the graph is where it is quantized already. ``size`` is (height, width);
    ``shapes`` the smallest, preferred and largest shape of the input, which is then open between them; ``workspace``
    is in bytes. ``timing_cache`` is a file or a folder, "none", or "" for the folder of the output. ``calibrate`` is a
    source, "random", or "" for the made-up street. ``device`` is the number of the GPU, which only runs that build
    their own plans give.
    """

    onnx: str
    output: Path | None = None
    precisions: tuple[PlanPrecision, ...] = ()
    size: tuple[int, int] | None = None
    batch: int | None = None
    shapes: Shapes | None = None
    workspace: int | None = None
    optimization_level: int | None = None
    timing_cache: str = ""
    hardware_compat: HardwareCompat | None = None
    version_compat: bool = False
    dla: int | None = None
    head: Head = "cut"
    simplify: bool = True
    rewrite: bool = True
    calibrate: str = ""
    spec: str = ""
    target: Target = "tensorrt"
    force: bool = False
    dry_run: bool = False
    offline: bool = False
    device: int = 0

    @property
    def quantized(self) -> Literal["int8", "fp8"] | None:
        """What the graph is said to be quantized to already."""
        return "int8" if "int8" in self.precisions else "fp8" if "fp8" in self.precisions else None

    @property
    def half(self) -> Half | None:
        """What the float part of the graph is to become; None: nothing else than it is."""
        if "bf16" in self.precisions:
            return "bf16"
        return "fp16" if "fp16" in self.precisions or not self.precisions else None

    @property
    def precision(self) -> PlanPrecision:
        """The one word for it."""
        return self.quantized or self.half or "fp32"

    @property
    def precision_name(self) -> str:
        """The word for file names: of a quantized graph also what the rest becomes."""
        return "_".join(word for word in (self.quantized, self.half) if word) or "fp32"

    def timings(self, folder: Path) -> Path | None:
        """Where the timing cache is, ``folder`` being that of the output; None: nowhere."""
        return None if self.timing_cache == NONE else Path(self.timing_cache) if self.timing_cache else folder

    def flags(self) -> dict[str, Any]:
        """What decides over the result, as flags by name; what is as it is by default is left out, but for the
        precision, which is always said."""
        given: dict[str, Any] = {
            **dict.fromkeys(self.precision_name.split("_"), True),
            "size": ",".join(map(str, self.size)) if self.size else None,
            "batch": self.batch if self.batch != 1 else None,
            "shapes": ":".join("x".join(map(str, shape)) for shape in self.shapes) if self.shapes else None,
            "workspace": show_bytes(self.workspace) if self.workspace else None,
            "optimization-level": self.optimization_level,
            "hardware-compat": self.hardware_compat,
            "version-compat": self.version_compat,
            "dla": self.dla,
            "head": self.head if self.head != "cut" else None,
            "no-simplify": not self.simplify,
            "no-rewrite": not self.rewrite,
            "calibrate": self.calibrate if self.calibrate not in ("", STREET) else None,
            "spec": self.spec,
        }
        # Not by equality: 0 is a core and a level, and equals False.
        return {name: value for name, value in given.items() if not (value is None or value is False or value == "")}

    def check(self) -> None:
        """Raises UsageError for flags that exclude each other, naming both."""
        for one, other in combinations(("fp16", "fp32", "bf16", "int8", "fp8"), 2):
            # A quantized graph may become half precision elsewhere.
            if {one, other} & {"int8", "fp8"} and {one, other} & {"fp16", "bf16"}:
                continue
            if one in self.precisions and other in self.precisions:
                raise _exclude(f"--{one}", f"--{other}")
        for flag, given in (("--size", self.size), ("--batch", self.batch)):
            if given is not None and self.shapes is not None:
                raise _exclude(flag, "--shapes", "The shapes say both: --shapes 1x3x512x1024:1x3x512x1024:4x3x512x1024")
        if self.dla is not None:
            for word in ("fp32", "bf16", "fp8"):
                if word in self.precisions:
                    raise _exclude("--dla", f"--{word}", "The accelerator computes in fp16 and int8.")
            if self.shapes is not None and len(set(self.shapes)) > 1:
                raise _exclude("--dla", "--shapes", "The accelerator takes one fixed shape: --size and --batch.")
            if self.hardware_compat:
                raise _exclude("--dla", "--hardware-compat")
        if self.dry_run and self.force:
            raise _exclude("--dry-run", "--force", "A dry run writes nothing.")
        if self.output is not None:
            wanted = (".onnx",) if self.target == "onnx" else PLAN_SUFFIXES
            if self.output.suffix.lower() not in wanted:
                better = self.output.with_suffix(wanted[0])
                raise UsageError(f"the output {self.output} does not end in {wanted[0]}", f"Call it {better}.")


def parse_shapes(text: str) -> Shapes:
    """``1x3x512x1024:1x3x1024x2048:4x3x1024x2048`` as (smallest, preferred, largest). Raises UsageError."""
    hint = "Give three shapes, for example --shapes 1x3x512x1024:1x3x1024x2048:4x3x1024x2048"
    parts = text.split(":")
    if len(parts) != 3 or not all(re.fullmatch(r"\d+(x\d+){3}", part, re.ASCII) for part in parts):
        raise UsageError(f"--shapes {text!r}: expected MIN:OPT:MAX, each NxCxHxW (or NxHxWxC)", hint)
    low, best, high = (tuple(int(n) for n in part.split("x")) for part in parts)
    for axis, (a, b, c) in enumerate(zip(low, best, high, strict=True)):
        if not 0 < a <= b <= c:
            raise UsageError(f"--shapes {text!r}: on axis {axis} {a}, {b}, {c} do not go up from at least 1", hint)
    if not any(low[axis] == high[axis] == 3 for axis in (1, 3)):
        raise UsageError(f"--shapes {text!r}: no axis is the picture's 3 colours", hint)
    return low, best, high


def parse_bytes(text: str, flag: str) -> int:
    """``4G``, ``512M``, ``65536K`` or bytes. Raises UsageError naming ``flag``."""
    match = re.fullmatch(r"(\d{1,19})\s*([KMG]?)(?:i?B)?", text.strip(), re.ASCII | re.IGNORECASE)
    found = int(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not 0 < found < 2**63:
        raise UsageError(f"{flag} {text!r} is not an amount of memory", f"For example: {flag} 4G, or {flag} 512M")
    return found


def show_bytes(number: int) -> str:
    """What ``parse_bytes`` reads back, as short as it gets."""
    unit = next(unit for unit in ("G", "M", "K", "") if number % _UNITS[unit] == 0)
    return f"{number // _UNITS[unit]}{unit}"


def parse_hardware(text: str) -> HardwareCompat:
    """Raises UsageError."""
    for known in _HARDWARE:
        if text.lower() == known:
            return known
    raise UsageError(f"--hardware-compat {text}: expected {' or '.join(_HARDWARE)}", "See: build-engine --help")


def _exclude(one: str, other: str, hint: str = "Leave one of them out.") -> UsageError:
    return UsageError(f"{one} and {other} exclude each other", hint)
