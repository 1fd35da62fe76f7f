"""TensorRT's Python API as the rest of Segcam meets it: imported late, its silence turned into errors, its log kept.

The API answers None or False where something fails, and says why only to its logger. It keeps the first logger that it
is given for as long as the process lives, so there is one here, which remembers the last lines.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from segcam.engines.base import Precision
from segcam.errors import CudaError, EngineError, MissingDependencyError

if TYPE_CHECKING:
    import tensorrt as trt

T = TypeVar("T")

#: What this package is written for.
OLDEST = (10, 0)
#: How many lines the log remembers. A build that goes wrong says it in its last hundred.
_REMEMBERED = 2000
#: From grave to chatty; the names of ``ILogger.Severity``.
SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")

#: NumPy's word (or "bfloat16", "float8_e4m3fn", ...) for each of TensorRT's types, by its name there.
DTYPES: dict[str, str] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
    "FP8": "float8_e4m3fn",
    "INT4": "int4",
    "FP4": "float4_e2m1fn",
    "E8M0": "float8_e8m0fnu",
}
_PLAIN = frozenset({"float32", "float16", "int8", "int32", "int64", "bool", "uint8"})
#: The floating types that networks compute in, by the words of ``--precision``.
PRECISIONS: dict[str, Precision] = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "int8": "int8",
    "float8_e4m3fn": "fp8",
}

#: What to do, by what TensorRT says (lower case). The first that fits counts.
_HINTS: tuple[tuple[str, str], ...] = (
    ("version tag does not match", "Another TensorRT built this plan. Build it here, with build-engine."),
    ("magic tag does not match", "This is no TensorRT plan, or a damaged one. Build it again with build-engine."),
    ("incompatible device", "Another kind of GPU built this plan. Build it on this one, with build-engine."),
    ("serialization assertion", "The plan is damaged or of another TensorRT. Build it again with build-engine."),
    ("out of memory", "The GPU's memory is full: see nvidia-smi, end what else runs there, or use a smaller --size."),
    ("out_of_memory", "The GPU's memory is full: see nvidia-smi, end what else runs there, or use a smaller --size."),
    ("initialization failure with error: 35", "The driver is older than TensorRT's CUDA: update it, see nvidia-smi."),
    ("no cuda-capable device", "TensorRT sees no NVIDIA GPU: see 'segcam doctor'. Containers need --gpus all."),
    ("insufficient driver", "The driver is older than TensorRT's CUDA: update it, see nvidia-smi."),
    ("insufficient workspace", "Give layers more memory: a larger --workspace, or none, which is all of the GPU's."),
    (
        "could not find any implementation",
        "No kernel fits: leave --workspace out, or try --optimization-level 5, --fp32 or another --size.",
    ),
    ("stream is capturing", "Run the network once before a CUDA graph is captured."),
    (
        "host code",
        "Plans that run on other versions carry code of their own: the manifest must say version_compatible.",
    ),
)

_JETSON = (Path("/etc/nv_tegra_release"), Path("/proc/device-tree/model"))


class Logger(Protocol):
    """TensorRT's one logger in this process. It may be called from any thread, and so may all of these."""

    def mark(self) -> int:
        """A place in the log, for ``since``."""
        ...

    def since(self, mark: int, least: str = "WARNING") -> list[str]:
        """The lines after ``mark`` as "SEVERITY: text", those as grave as ``least`` (of ``SEVERITIES``) and graver."""
        ...

    def tail(self, count: int = 6, least: str = "WARNING") -> list[str]:
        """The last ``count`` lines, likewise."""
        ...


class LogLines:
    """The lines of a log with their severities: a window on the last of them. See ``Logger``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)
        self._count = 0

    def add(self, severity: str, text: str) -> None:
        with self._lock:
            self._lines.append((severity, text.strip()))
            self._count += 1

    def mark(self) -> int:
        with self._lock:
            return self._count

    def since(self, mark: int, least: str = "WARNING") -> list[str]:
        shown = SEVERITIES[: SEVERITIES.index(least) + 1]
        with self._lock:
            skipped = max(0, mark - (self._count - len(self._lines)))
            lines = list(self._lines)[skipped:]
        return [f"{severity}: {text}" for severity, text in lines if severity in shown]

    def tail(self, count: int = 6, least: str = "WARNING") -> list[str]:
        return self.since(0, least)[-count:]


_logger: tuple[ModuleType, Logger] | None = None
_logger_lock = threading.Lock()


def load_tensorrt() -> ModuleType:
    """The module ``tensorrt``. Raises MissingDependencyError with this machine's way to get it."""
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        found = (
            "TensorRT is not installed"
            if isinstance(error, ModuleNotFoundError) and error.name == "tensorrt"
            else f"TensorRT is installed but cannot be loaded ({str(error).strip().splitlines()[0][:200]})"
        )
        raise MissingDependencyError(found, install_hint()) from None
    # A folder of that name on the path is a module too, and so is the placeholder left by a half installation.
    stated = vars(trt).get("__version__")
    if "Runtime" not in vars(trt) or not isinstance(stated, str):
        where = vars(trt).get("__file__") or next(iter(vars(trt).get("__path__", ())), "?")
        raise MissingDependencyError(f"what Python finds as 'tensorrt' is not TensorRT ({where})", install_hint())
    if version(trt) < OLDEST:
        raise MissingDependencyError(f"TensorRT {stated} is too old: Segcam needs 10.0 or newer", install_hint())
    return trt


def install_hint() -> str:
    """How to get TensorRT on this machine, as commands."""
    if is_jetson():
        return (
            "JetPack brings it: sudo apt-get install -y nvidia-jetpack\n"
            "  then use a Python environment that sees it: python3 -m venv --system-site-packages .venv"
        )
    return (
        "pip install 'segcam[gpu]' (driver 580 or newer, CUDA 13) or pip install 'segcam[gpu-cu12]' (older drivers)\n"
        "  If pip cannot find the libraries, they are in NVIDIA's own package index: see TensorRT's installation guide"
    )


def is_jetson() -> bool:
    """Whether this is one of NVIDIA's boards with a GPU of its own kind."""
    if platform.machine() != "aarch64":
        return False
    release, model = _JETSON
    try:
        return release.exists() or b"jetson" in model.read_bytes().lower()
    except OSError:
        return False


def version(trt: ModuleType) -> tuple[int, ...]:
    """The version's whole numbers: (10, 13, 3, 9) of "10.13.3.9.post1"."""
    match = re.match(r"\d+(?:\.\d+)*", str(vars(trt)["__version__"]))
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


def version_words(trt: ModuleType) -> str:
    """The version as a person would say it: "10.13.3.9"."""
    return ".".join(map(str, version(trt)))


def logger(trt: ModuleType) -> Logger:
    """The process's one logger, to be given to ``trt.Runtime``, ``trt.Builder`` and ``trt.OnnxParser``."""
    global _logger  # noqa: PLW0603  # the library keeps the first logger it gets, whoever made it
    with _logger_lock:
        if _logger is None or _logger[0] is not trt:
            _logger = (trt, _make_logger(trt))
        return _logger[1]


def _make_logger(trt: ModuleType) -> Logger:
    class SegcamLogger(trt.ILogger, LogLines):  # type: ignore[misc, name-defined]  # TensorRT ships no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            LogLines.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:  # type: ignore[name-defined]
            # What is raised here would be printed and dropped.
            self.add(severity.name, msg)

    made: Logger = SegcamLogger()
    return made


def check(value: T | None, what: str, log: Logger, mark: int = 0) -> T:
    """``value``, unless it is None or False, by which TensorRT says that it failed.

    ``what`` completes "TensorRT could not ...". Raises EngineError with what the log says after ``mark`` (0: its end).
    """
    if value is None or value is False:
        raise failure(f"TensorRT could not {what}", log, mark)
    return value


def failure(message: str, log: Logger, mark: int = 0) -> EngineError:
    """An EngineError of ``message`` and the last lines that the log has after ``mark``, errors before warnings."""
    lines = log.since(mark, "ERROR")[-4:] or log.since(mark, "WARNING")[-4:]
    said = "".join(f"\n    {line}" for line in lines) or " (and did not say why)"
    return EngineError(f"{message}:{said}" if lines else message + said, hint_for(lines))


def hint_for(lines: list[str]) -> str:
    """What to do about these lines of the log; what can always be done where none of them is known."""
    text = "\n".join(lines).lower()
    for words, hint in _HINTS:
        if words in text:
            return hint
    return "See 'segcam doctor' for the driver, the GPU and the versions here."


def created(make: Callable[[], T], what: str, log: Logger) -> T:
    """What ``make`` makes: a ``trt.Runtime`` or ``trt.Builder``, which raise TypeError where CUDA cannot be started.

    ``what`` names it in words. Raises CudaError.
    """
    mark = log.mark()
    try:
        return make()
    except TypeError as error:
        if "nullptr" not in str(error):
            raise
        lines = log.since(mark, "WARNING")[-4:]
        said = "".join(f"\n    {line}" for line in lines)
        hint = hint_for(lines) if lines else "See nvidia-smi and 'segcam doctor'. A container needs --gpus all."
        raise CudaError(f"TensorRT could not start its {what}: CUDA does not work here{said}", hint) from None


def dtype_word(dtype: trt.DataType) -> str:
    """NumPy's word for one of TensorRT's types, or the usual one where NumPy has none ("bfloat16")."""
    name = str(dtype.name)
    return DTYPES.get(name, name.lower())


def numpy_dtype(word: str) -> np.dtype[Any]:
    """The NumPy type that holds a tensor of type ``word`` (of ``DTYPES``) in host memory: bfloat16 as the bits of
    uint16, which is how Segcam hands it on. Raises EngineError for types narrower than a byte, and for fp8."""
    if word == "bfloat16":
        return np.dtype(np.uint16)
    # NumPy knows more words than these where ml_dtypes is loaded.
    if word in _PLAIN:
        return np.dtype(word)
    raise EngineError(
        f"the network's input or output is {word}, which is not a type for pictures, scores or labels",
        "Build it with fp32, fp16 or uint8 inputs and outputs: see build-engine --help.",
    )


def nvidia_driver() -> str:
    """The version of NVIDIA's kernel driver, such as "580.65.06"; "" where the machine does not say it that way."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text("utf-8", "replace")
    except OSError:
        return ""
    match = re.search(r"\b(\d{3,}(?:\.\d+)+)\b", text)
    return match[1] if match else ""


def has_driver_library() -> bool:
    """Whether this machine has NVIDIA's driver at all, without loading anything of it."""
    if os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/nvhost-gpu") or os.path.exists("/dev/dxg"):
        return True
    from ctypes.util import find_library

    return find_library("cuda") is not None
