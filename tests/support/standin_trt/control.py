"""What a test holds in its hand: faults to inject, what was logged and called, and how a build behaves."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# (phase, its parent, its steps): a build as TensorRT reports it, nested two deep.
PHASES = (
    ("Building Engine", None, 4),
    ("Computing profile costs", "Building Engine", 6),
    ("Timing graph nodes", "Computing profile costs", 3),
    ("Serializing Engine", "Building Engine", 2),
)


@dataclass
class Fault:
    """One injected failure."""

    answer: Any
    lines: tuple[str, ...]
    skip: int
    times: int


@dataclass
class Control:
    """Knobs and logs of one stand-in TensorRT.

    ``log`` holds every (severity name, text) that went to an ILogger; ``calls`` every "Class.method" in order;
    ``problems`` what the real library would crash or corrupt memory on: a fixture fails the test over them.
    """

    log: list[tuple[str, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cuda_fails: bool = False  # CUDA can't be initialised: factories answer null
    compute_capability: tuple[int, int] | None = None  # None: the machine's
    device_name: str | None = None  # likewise
    dla_cores: int = 0
    workspace_needed: int = 0  # a smaller WORKSPACE limit has no tactic for a layer
    uncapturable: bool = False  # the engine has work that no CUDA graph can hold
    phases: tuple[tuple[str, str | None, int], ...] = PHASES
    on_step: Callable[[str, int], None] | None = None  # called in the builder's thread before each step is reported
    callback_errors: list[BaseException] = field(default_factory=list)  # raised in callbacks: printed and swallowed
    live: Counter[str] = field(default_factory=Counter)  # things of TensorRT's not yet freed, by class
    _faults: dict[str, list[Fault]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(
        self, call: str, answer: Any = None, *, log: str | tuple[str, ...] = (), after: int = 0, times: int = 1
    ) -> None:
        """``call`` ("Builder.build_serialized_network") answers ``answer`` (raises it, where it is an exception) after
        ``after`` good calls, ``times`` times (-1: for good), with ``log`` as ERROR lines. Properties too.
        """
        lines = (log,) if isinstance(log, str) else tuple(log)
        self._faults.setdefault(call, []).append(Fault(answer, lines, after, times))

    def take(self, call: str) -> Fault | None:
        """Counts a call, and hands out the fault that is due."""
        with self._lock:
            self.calls.append(call)
            for fault in self._faults.get(call, []):
                if fault.skip > 0:
                    fault.skip -= 1
                    return None
                if fault.times:
                    fault.times -= 1
                    return fault
        return None

    def gone(self, kind: str) -> None:
        """A thing of TensorRT's was freed."""
        self.live[kind] -= 1

    def alive(self, *kinds: str) -> dict[str, int]:
        """How many of each kind are not freed yet, of those of which any are; builders, engines and their like."""
        wanted = kinds or ("Builder", "Runtime", "ICudaEngine", "IExecutionContext", "INetworkDefinition")
        return {kind: self.live[kind] for kind in wanted if self.live[kind]}

    def texts(self, severity: str = "ERROR") -> list[str]:
        """The logged texts of one severity."""
        return [text for kind, text in self.log if kind == severity]
