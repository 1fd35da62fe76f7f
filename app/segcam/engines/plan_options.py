"""The words between whoever wants a TensorRT plan and whoever builds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

PlanPrecision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
HardwareCompat = Literal["ampere+", "same-compute-capability"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """One optimization profile of TensorRT: the shapes that the input ``input`` may have, and the one to tune for.

    ``min``, ``opt`` and ``max`` have the input's rank; min <= opt <= max on every axis, equal on fixed ones.
    """

    input: str
    min: Shape
    opt: Shape
    max: Shape

    def line(self) -> str:
        return ":".join("x".join(map(str, shape)) for shape in (self.min, self.opt, self.max))


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How a plan is built.

    ``precision`` is what the graph has been prepared for and what the plan is then checked for: the types themselves
    are the graph's (the network is strongly typed). ``profiles`` are needed where an input has open axes, one by one.
    ``workspace_bytes`` caps what a layer may borrow while it runs (None: all of the GPU's memory);
    ``optimization_level`` is TensorRT's 0..5 (None: its own, 3). ``timing_cache`` is a file, or a folder in which each
    TensorRT and GPU gets a file of its own; None: none. ``dla`` is the core of a Jetson's accelerator, None: the GPU.
    ``tf32`` allows 10-bit mantissas in fp32 layers: off, so that fp32 means fp32.
    """

    precision: PlanPrecision
    profiles: tuple[Profile, ...] = ()
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    hardware_compat: HardwareCompat | None = None
    version_compat: bool = False
    dla: int | None = None
    tf32: bool = False


@dataclass(frozen=True)
class BuiltPlan:
    """A plan that TensorRT has built, and loaded again as a proof; all of it is plain data.

    ``tensors`` has for every input and output {name, mode ("input"|"output"), dtype (NumPy's word, or "bfloat16"),
    shape (open axes -1), format ("linear"), profile ([min, opt, max] of the first profile, or None)}, as the manifest
    keeps it. ``precision_found`` counts the layers by the type they compute in ("float16": 61, "float32": 2 ...),
    as the engine inspector names it. ``layers`` are the inspector's layers, each a dict with at least "Name".
    ``log`` has TensorRT's warnings and errors in order.
    """

    data: bytes = field(repr=False)
    tensors: list[dict[str, Any]]
    precision_found: dict[str, int]
    build_s: float
    layers: list[dict[str, Any]] = field(default_factory=list, repr=False)
    log: list[str] = field(default_factory=list)


class Progress(Protocol):
    """Who shows how far a build is. ``step`` may come from other threads than ``begin`` and ``end``.

    ``total`` is the number of steps that ``done`` runs up to, 0 where nobody knows; neither goes back within a stage.
    Where ``cancelled`` says yes the work ends as soon as it can, with KeyboardInterrupt.
    """

    def begin(self, stage: str) -> None: ...

    def step(self, done: int, total: int, words: str) -> None: ...

    def end(self, stage: str, words: str) -> None: ...

    def cancelled(self) -> bool: ...


class Quiet:
    """Progress that nobody looks at."""

    def begin(self, stage: str) -> None:
        pass

    def step(self, done: int, total: int, words: str) -> None:
        pass

    def end(self, stage: str, words: str) -> None:
        pass

    def cancelled(self) -> bool:
        return False
