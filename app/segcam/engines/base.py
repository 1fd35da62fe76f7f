"""The engine contract: one network, loaded cheaply, activated, fed by name, several inferences in flight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from segcam.onnx_tools.spec import ModelSpec

Precision = Literal["fp32", "bf16", "fp16", "int8", "fp8"]
Layout = Literal["NCHW", "NHWC"]


@dataclass(frozen=True)
class EngineOptions:
    """``precision`` is what was asked for (``auto``: what the processor does well); ``threads`` and ``requests`` 0 mean
    "as the runtime thinks best"; ``device`` "" is the runtime's usual one: the CPU, or the first GPU for TensorRT.
    ``size`` (height, width) fixes an input that the graph leaves open, None: as the spec says. ``spec`` names a
    ModelSpec file."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: str = ""
    threads: int = 0
    requests: int = 0
    cut_head: bool = True
    rewrite: bool = True
    spec: str = ""
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class EngineInfo:
    """What runs: for the line at the start and for every report. ``head`` says what was cut, "" for nothing;
    ``rewrites`` which exact rewrites the network has been through (``onnx_tools.rewrite``), here or before.

    ``output_layout`` is how ``output_shape`` is to be read: scores NCHW or NHWC; labels are always NCHW or less.
    ``first_layers_fp32`` is how many convolutions and matrix products at the beginning don't use the lower precision.
    """

    model: str
    runtime: str
    version: str
    device: str
    precision: Precision
    threads: int
    requests: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output_layout: Layout
    head: str
    spec: str
    first_layers_fp32: int = 0
    rewrites: tuple[str, ...] = ()

    def line(self) -> str:
        height, width = self.input_hw
        cut = f", head cut ({self.head})" if self.head else ""
        done = f", rewritten ({', '.join(self.rewrites)})" if self.rewrites else ""
        return (
            f"{self.model}: {width}x{height} on {self.runtime} {self.version} ({self.device}, {self.arithmetic}, "
            f"{self.requests} in flight){cut}{done}"
        )

    @property
    def arithmetic(self) -> str:
        """The precision in words."""
        first = f", the first {self.first_layers_fp32} layers fp32" if self.first_layers_fp32 else ""
        return self.precision + first

    @property
    def input_hw(self) -> tuple[int, int]:
        if self.input_shape[1] == 3:
            return self.input_shape[2], self.input_shape[3]
        return self.input_shape[1], self.input_shape[2]


class Engine(Protocol):
    """One network. Making it reads the file and nothing more; ``activate`` compiles and takes memory; ``close`` gives
    it back (twice is fine). ``spec`` and ``info`` are there after ``activate``; before it and after ``close`` they and
    ``input`` raise EngineError.

    There are ``info.requests`` slots, each with an input array (``input(slot)``, host memory, shaped and typed as the
    network wants) that belongs to the engine. ``start`` runs a slot's input without waiting; ``ready`` says whether it
    is done; ``wait`` returns its output (host memory, valid until the slot is started again; bfloat16 scores in NHWC
    come as uint16 of the same bits, NumPy having no such type, in NCHW widened to float32) and raises EngineError;
    ``elapsed_ms`` is what the network itself took for the slot's last run. A slot is used by one thread at a time.
    """

    def activate(self) -> None: ...

    def close(self) -> None: ...

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def info(self) -> EngineInfo: ...

    def input(self, slot: int) -> NDArray[Any]: ...

    def start(self, slot: int) -> None: ...

    def ready(self, slot: int) -> bool: ...

    def wait(self, slot: int) -> NDArray[Any]: ...

    def elapsed_ms(self, slot: int) -> float: ...
