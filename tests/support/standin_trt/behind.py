"""What lies behind the faces' small classes, and the world that they share."""

from __future__ import annotations

import sys
import traceback
import weakref
from typing import Any

import numpy as np
from standin_cuda import Refused
from standin_cuda.words import DESCRIPTIONS

ITEM_SIZES = {"FLOAT": 4, "HALF": 2, "BF16": 2, "INT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1, "UINT8": 1, "FP8": 1}
ITEM_SIZES |= {"INT4": 0.5, "FP4": 0.5, "E8M0": 1}  # type: ignore[dict-item]
NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "INT64": np.int64}
NUMPY |= {"BOOL": np.bool_, "UINT8": np.uint8}


class Behind:
    """What a wrapped object refers to. ``seen`` is the object that Python holds, while it does."""

    seen: weakref.ref[Any] | None = None

    def __init__(self, world: World) -> None:
        self.world = world
        kind = type(self).__name__
        world.control.live[kind] += 1
        weakref.finalize(self, world.control.gone, kind)

    def __getattr__(self, name: str) -> Any:
        # common_enter/common_exit of the bindings: deprecated, and without effect
        if name == "m__enter__":
            return lambda: self
        if name == "m__exit__":
            return lambda exc_type, exc_value, traceback: None
        raise AttributeError(name)


class World:
    """One process's TensorRT: its module, GPU, version and logger."""

    def __init__(self, maker: Any, machine: Any, control: Any, version: tuple[int, ...]) -> None:
        self.maker, self.machine, self.control, self.version = maker, machine, control, version
        self.logger: Any = None

    @property
    def module(self) -> Any:
        """The module that wraps these things."""
        return self.maker.module

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Of the GPU."""
        major, minor = self.control.compute_capability or self.machine.compute_capability
        return major, minor

    @property
    def device_name(self) -> str:
        """Of the GPU."""
        return str(self.control.device_name or self.machine.name)

    def current(self, what: str) -> bool:
        """Whether the calling thread has a CUDA context that works. To call ``what`` without one is misuse: it is
        noted among the problems, and logged. (The real library would make the primary context of GPU 0 current.)
        """
        try:
            self.machine.require_context()
        except Refused as refused:
            if refused.name in ("CUDA_ERROR_INVALID_CONTEXT", "CUDA_ERROR_NOT_INITIALIZED"):
                self.control.problems.append(f"{what} without a current CUDA context")
            self.log("ERROR", f"Error Code 1: Cuda Runtime ({DESCRIPTIONS.get(refused.name, refused.name)})")
            return False
        return True

    def adopt(self, logger: Any) -> None:
        """The library keeps the first logger of the process."""
        if self.logger is None:
            self.logger = logger
        elif self.logger is not logger:
            self.log("WARNING", "The logger passed into createInferRuntime differs from one already registered")

    def log(self, severity: str, text: str) -> None:
        """Tell the logger; what it raises is printed and swallowed, as the bindings do."""
        self.control.log.append((severity, text))
        if self.logger is not None:
            self.guarded(self.logger.log, getattr(self.module.ILogger.Severity, severity), text)

    def guarded(self, callback: Any, *args: Any) -> tuple[bool, Any]:
        """A callback into Python: (whether it came back, its value)."""
        try:
            return True, callback(*args)
        except BaseException as error:
            self.control.callback_errors.append(error)
            traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
            return False, None

    def member(self, kind: str, name: str) -> Any:
        """An enum's member by names."""
        return getattr(getattr(self.module, kind), name)

    def dims(self, values: Any) -> Any:
        """A Dims of the face."""
        return self.module.Dims([int(value) for value in values])


class Dims(Behind):
    """Sizes: at most eight."""

    def __init__(self, world: World, values: list[int]) -> None:
        super().__init__(world)
        if len(values) > 8:
            raise ValueError("Input length 8 exceeds the maximum")
        self.values = list(values)

    def m__len__(self) -> int:
        return len(self.values)

    def m__getitem__(self, arg0: Any) -> Any:
        got = self.values[arg0]
        return tuple(got) if isinstance(got, list) else got

    def m__eq__(self, arg0: Any) -> bool:
        return list(arg0) == self.values

    def m__str__(self) -> str:
        return str(tuple(self.values))


class Callback(Behind):
    """Behind a class that is there to be derived from: nothing."""


class ILogger(Callback):
    """A logger."""


class Logger(ILogger):
    """The one that prints."""

    def __init__(self, world: World, min_severity: Any) -> None:
        super().__init__(world)
        self.min_severity = min_severity

    def log(self, severity: Any, msg: str) -> None:
        """Print what is severe enough."""
        if int(severity) <= int(self.min_severity):
            print(f"[TRT] [{severity.name[0]}] {msg}")


class IHostMemory(Behind):
    """Bytes that TensorRT owns, readable through the buffer protocol."""

    def __init__(self, world: World, data: bytes) -> None:
        super().__init__(world)
        self.data = data

    @property
    def nbytes(self) -> int:
        """How many."""
        return len(self.data)

    @property
    def dtype(self) -> Any:
        """What the real one says of a plan."""
        return self.world.member("DataType", "INT8")


class Functions:
    """The module's functions."""

    def __init__(self, world: World) -> None:
        self.world = world

    def nptype(self, trt_type: Any) -> Any:
        """The NumPy type; TypeError where NumPy has none."""
        if trt_type.name not in NUMPY:
            raise TypeError(f"Could not resolve TensorRT datatype to an equivalent numpy datatype. {trt_type}")
        return NUMPY[trt_type.name]

    def volume(self, iterable: Any) -> int:
        """The product."""
        out = 1
        for item in iterable:
            out *= int(item)
        return out

    def get_nv_onnx_parser_version(self) -> int:
        """As the version's number."""
        major, minor, patch = self.world.version[:3]
        return major * 10000 + minor * 100 + patch

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        """There are none to register."""
        return True


def construct(world: World, name: str, bound: dict[str, Any], seen: Any) -> Behind | None:
    """What lies behind a new object of class ``name``; None where the library's factory answers null."""
    from standin_trt import engine, network, texts

    if name in ("Builder", "Runtime"):
        world.adopt(bound["logger"])
        if world.control.cuda_fails:
            world.log("ERROR", texts.NO_CUDA)
            return None
        if not world.current(name):
            return None
        return network.Builder(world) if name == "Builder" else engine.Runtime(world)
    if name == "OnnxParser":
        return network.OnnxParser(world, bound["network"]._t)
    if name == "Logger":
        return Logger(world, bound["min_severity"])
    if name.startswith("Dims"):
        return Dims(world, list(bound.get("shape", [bound[key] for key in bound if key != "shape"])))
    if name in ("ILogger", "IProgressMonitor", "IProfiler", "IOutputAllocator", "Profiler"):
        return Callback(world)
    raise NotImplementedError(f"the stand-in makes no {name}")
