"""What can be said before and after TensorRT's builder about why it will not, or did not, build a network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from segcam.engines.plan import show
from segcam.engines.plan_options import PlanOptions, PlanPrecision, Profile, Shape
from segcam.engines.tensorrt_api import Logger, failure, version, version_words
from segcam.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt

    from segcam.kernels.cuda.driver import DeviceInfo

#: The least compute capability whose arithmetic has the type (CUDA C++ Programming Guide, table of throughputs).
_LEAST = {"fp16": (5, 3), "int8": (6, 1), "bf16": (8, 0), "fp8": (8, 9)}
#: The consumer cards of that generation have fp16 at a 64th of the speed of fp32, and TensorRT leaves it out.
_EMULATED_FP16 = (6, 1)
#: What the accelerator of a Jetson computes in.
_DLA_TYPES = ("fp16", "int8")
#: TensorRT's parser reads operators of these versions of ONNX: from here on, and up to 20 (10.0) or 25 (11.x).
_OLDEST_OPSET, _SAFE_OPSET = 9, 17


def check_device(options: PlanOptions, device: DeviceInfo, trt: ModuleType) -> None:
    """Raise EngineError for what this GPU or this TensorRT cannot do, before anything is parsed."""
    gpu = f"{device.name} (compute capability {_dotted(device.compute_capability)})"
    least = _LEAST.get(options.precision)
    emulated = options.precision == "fp16" and device.compute_capability == _EMULATED_FP16
    if least and (device.compute_capability < least or emulated):
        but = f" and isn't {_dotted(_EMULATED_FP16)}" if emulated else ""
        raise EngineError(
            f"{gpu} does not compute in {options.precision}: that needs one which has {_dotted(least)} or more{but}",
            "Build with --fp16 or --fp32." if options.precision in ("bf16", "fp8") else "Build with --fp32.",
        )
    if options.hardware_compat == "ampere+" and device.compute_capability < (8, 0):
        raise EngineError(
            f"{gpu} is older than what --hardware-compat ampere+ is about: 8.0 and newer", "Leave the flag out."
        )
    if options.hardware_compat == "same-compute-capability" and version(trt) < (10, 13):
        raise EngineError(
            f"TensorRT {version_words(trt)} has no --hardware-compat same-compute-capability: 10.13 and newer have it",
            "Leave the flag out, or use ampere+, which every version has.",
        )
    if options.dla is not None:
        if options.precision not in _DLA_TYPES:
            raise EngineError(
                f"the DLA computes in {' and '.join(_DLA_TYPES)} only, not in {options.precision}",
                "Build with --fp16, or leave --dla out.",
            )
        if options.hardware_compat:
            raise EngineError("a plan for the DLA runs on no other hardware", "Leave --hardware-compat or --dla out.")


def check_dla(options: PlanOptions, cores: int, trt: ModuleType, inputs: dict[str, Shape]) -> None:
    """Raise EngineError where the core that was asked for isn't there, or the network isn't of one size."""
    if options.dla is None:
        return
    if not 0 <= options.dla < cores:
        raise EngineError(
            f"--dla {options.dla}: TensorRT {version_words(trt)} sees {cores or 'no'} DLA cores here",
            "Jetson Xavier and Orin have them, with TensorRT up to 10.7 or from 11.4.1 on. Leave --dla out.",
        )
    for name, shape in inputs.items():
        if -1 in shape:
            raise EngineError(
                f"--dla {options.dla}: the DLA takes pictures of one size, and {name!r} is {show(shape)}",
                "Give the network one size with --size HEIGHT,WIDTH and --batch 1.",
            )


def check_profiles(profiles: tuple[Profile, ...], inputs: dict[str, Shape]) -> None:
    """Raise EngineError unless ``profiles`` say for each open axis of ``inputs`` (-1) how long it may be."""
    for profile in profiles:
        shape = inputs.get(profile.input)
        if shape is None:
            raise EngineError(
                f"the shapes {profile.line()} are for an input {profile.input!r}, the network has: {', '.join(inputs)}",
                "Leave --shapes out, or name the input that the network has.",
            )
        wrong = _wrong_axis(profile, shape)
        if wrong:
            raise EngineError(
                f"the shapes {profile.line()} don't fit the input {profile.input!r}, which is {show(shape)}: {wrong}",
                "Give --shapes as MIN:OPT:MAX, for example 1x3x512x1024:1x3x1024x2048:1x3x1024x2048.",
            )
    named = {profile.input for profile in profiles}
    for name, shape in inputs.items():
        if -1 in shape and name not in named:
            raise EngineError(
                f"the input {name!r} is {show(shape)}: TensorRT has to know which sizes will come",
                "Fix it with --size HEIGHT,WIDTH and --batch 1, or give a range with --shapes MIN:OPT:MAX.",
            )


def _wrong_axis(profile: Profile, shape: Shape) -> str:
    for word, given in (("min", profile.min), ("opt", profile.opt), ("max", profile.max)):
        if len(given) != len(shape):
            return f"{word} has {len(given)} dimensions, expected {len(shape)}"
    for axis, fixed in enumerate(shape):
        least, best, most = profile.min[axis], profile.opt[axis], profile.max[axis]
        if not 0 < least <= best <= most:
            return f"{least}, {best}, {most} on axis {axis} do not rise"
        if fixed != -1 and (least, best, most) != (fixed, fixed, fixed):
            return f"axis {axis} is fixed at {fixed}"
    return ""


@dataclass(frozen=True)
class ParseFault:
    """One thing that the parser did not take: its words, and where. ``node`` is -1 where it names none."""

    code: str
    words: str
    node: int
    name: str
    operator: str
    place: str

    def line(self) -> str:
        where = f"node {self.node}" if self.node >= 0 else "the network"
        where += f" {self.name!r}" if self.name else ""
        where += f" ({self.operator})" if self.operator else ""
        return f"{where}: {self.words}" + (f" [{self.place}]" if self.place else "")


def parse_faults(parser: trt.OnnxParser) -> list[ParseFault]:
    """Everything that ``parser`` has to say after it refused a network."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        file, line = error.file() or "", error.line()
        place = f"{file.replace(chr(92), '/').rpartition('/')[2]}:{line}" if file else ""
        words = " ".join((error.desc() or "no words").split())
        fault = ParseFault(
            error.code().name, words, error.node(), error.node_name() or "", error.node_operator() or "", place
        )
        if fault not in found:
            found.append(fault)
    return found


def parse_error(
    faults: list[ParseFault], opset: int, precision: PlanPrecision, trt: ModuleType, log: Logger, mark: int
) -> EngineError:
    """The error for a network that the parser refused. ``opset`` is the network's."""
    if not faults:
        return failure(f"TensorRT {version_words(trt)} could not parse the network", log, mark)
    shown = "".join(f"\n    {fault.line()}" for fault in faults[:10])
    more = f"\n    ... and {len(faults) - 10} more" if len(faults) > 10 else ""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return EngineError(
        f"TensorRT {version_words(trt)} does not take this network ({count}):{shown}{more}",
        _parse_hint(faults[0], opset, precision),
    )


#: What to do, by what the parser's code and words have in them (lower case). The first that fits counts.
_PARSE_HINTS: tuple[tuple[str, str], ...] = (
    (r"zero.?point|quantize",
     "TensorRT takes zero points of 0 and scales above 0, per channel for weights only, and no quantized biases: "
     "quantize symmetrically (see build-engine --help)."),
    (r"uint8",
     "uint8 may only be an input that goes straight into a Cast: export [1,H,W,3] bytes as Cast, then Transpose, "
     "then the rest; or export with a float input."),
    (r"resize|upsample|antialias",
     "TensorRT resizes by half_pixel, align_corners or asymmetric sampling, without antialias: export it so."),
    (r"external|weights? file|open file|no such file|model_deserialize",
     "If the weights are in a file of their own, put it beside the ONNX file under the name it was exported with."),
    (r"opset|ir_version|ir version", "Export the network with opset {safe}, which every TensorRT from 10.0 on reads."),
    (r"data.?dependent|nonzero|unsupported_node_dynamic|dynamic shape|dynamic input",
     "Sizes that depend on what is in the picture are not for plans: export with a fixed size (build-engine --size), "
     "without operators such as NonZero."),
    (r"\bdla\b", "Leave --dla out, or choose operators that the DLA has."),
    (r"importer|plugin|unsupported_node\b|unsupported operator|not supported",
     "This TensorRT has no {operator}: export with opset {safe}, let build-engine simplify (leave --no-simplify out), "
     "or run the ONNX file as it is (segcam --engine FILE.onnx)."),
    (r"unsupported_node_datatype|data ?type|type mismatch|same type",
     "Its types don't fit: build with --fp32 to see whether the conversion is the cause, and report it."),
)  # fmt: skip


def _parse_hint(fault: ParseFault, opset: int, precision: PlanPrecision) -> str:
    text = f"{fault.code} {fault.operator} {fault.words}".lower()
    otherwise = "Export the network with opset {safe} and a fixed size, or run the ONNX file as it is."
    if opset < _OLDEST_OPSET:
        otherwise = f"It is of opset {opset}, too old for TensorRT: export it with opset {{safe}}."
    if precision == "bf16" and "opset" in text:
        return (
            f"bf16 takes opset {opset}, and this TensorRT reads older ones only: build with --fp16, or update TensorRT."
        )
    hint = next((hint for pattern, hint in _PARSE_HINTS if re.search(pattern, text)), otherwise)
    return hint.format(safe=_SAFE_OPSET, operator=fault.operator or "such operator")


def build_error(
    options: PlanOptions, device: DeviceInfo, free_bytes: int, trt: ModuleType, log: Logger, mark: int
) -> EngineError:
    """The error for a network that the builder gave no plan for, with what it logged after ``mark``."""
    error = failure(f"TensorRT {version_words(trt)} built no plan on {device.name}", log, mark)
    said = error.message.lower()
    hint = error.hint
    if options.dla is not None and "dla" in said:
        hint = "Leave --dla out: this network, or a layer of it, is not for the DLA."
    elif "out of memory" in said or "outofmemory" in said or ("memory" in said and "alloc" in said):
        hint = (
            f"{free_bytes >> 20} MiB of the GPU's {device.memory_bytes >> 20} were free: end what else runs there "
            "(nvidia-smi), or build for a smaller --size."
        )
    elif "workspace" in said or "implementation" in said or "tactic" in said:
        given = options.workspace_bytes
        if given is not None:
            hint = f"Give layers more memory than --workspace {given >> 20}M, or leave it out: then they may take all."
    return EngineError(error.message, hint)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
