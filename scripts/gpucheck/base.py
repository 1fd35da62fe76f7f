"""What every part has: the context it runs in, what it finds, and how it says that it cannot run."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import Driver, Kind

State = Literal["ok", "timed", "failed", "absent"]


class Absent(Exception):
    """Something that a part needs isn't on this machine; says what."""


@dataclass(frozen=True)
class Finding:
    """One line of the result. "timed" only measures: there is nothing that it could miss. ``target`` is a key of
    ``gpucheck.targets.TARGETS`` where this line decides about one."""

    part: str
    name: str
    state: State
    words: str
    figures: dict[str, Any] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True)
class Context:
    """``size`` (height, width) of frames and networks where speed counts; ``quick``: small, for tests and sanitizers;
    ``runs`` of what is timed; ``work`` is a folder that goes away; ``seconds`` are what the part has got."""

    part: str
    device: int
    size: tuple[int, int]
    quick: bool
    runs: int
    work: Path
    seconds: float = 300.0

    def found(self, name: str, good: bool, words: str, *, target: str = "", **figures: Any) -> Finding:
        return Finding(self.part, name, "ok" if good else "failed", words, figures, target)

    def at_speed(self, name: str, good: bool, words: str, *, target: str, **figures: Any) -> Finding:
        """Counts only in a run that is not ``quick``: little work says nothing about speed."""
        made = self.found(name, good, words, target=target, **figures)
        return replace(made, state="timed") if self.quick else made

    def timed(self, name: str, words: str, **figures: Any) -> Finding:
        return Finding(self.part, name, "timed", words, figures)

    def absent(self, name: str, words: str) -> Finding:
        return Finding(self.part, name, "absent", words)


#: What fails to import of these is a fault, not something that this machine lacks.
OWN = ("segcam", "gpucheck", "gpu_check")

Part = Callable[[Context], Iterator[Finding]]


def collect(part: Part, context: Context, say: Callable[[Finding], None]) -> list[Finding]:
    """Everything that a part finds; what ends it early is a finding, too."""
    from segcam.errors import MissingDependencyError

    found: list[Finding] = []

    def add(finding: Finding) -> None:
        found.append(finding)
        say(finding)

    try:
        for finding in part(context):
            add(finding)
    except Absent as absent:
        add(context.absent("all" if not found else "the rest", str(absent)))
    except MissingDependencyError as error:
        add(context.absent("all" if not found else "the rest", error.message))
    except Exception as error:
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] not in OWN:
            # Not there, or one of its own libraries isn't.
            add(context.absent("all" if not found else "the rest", str(error)))
            return found
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        words = f"{type(error).__name__} at {where}: {getattr(error, 'message', None) or error}"
        add(Finding(context.part, "unexpected", "failed", words, {"trace": traceback.format_exc()}))
    return found


@contextmanager
def gpu(context: Context, kind: Kind = "auto") -> Iterator[Driver]:
    """The driver with its context current. Raises Absent where it cannot be opened."""
    from segcam.errors import CudaError, MissingDependencyError
    from segcam.kernels.cuda.driver import open_driver

    try:
        driver = open_driver(kind, context.device, lambda line: None)
    except (MissingDependencyError, CudaError) as error:
        raise Absent(error.message) from None
    try:
        with driver.current():
            yield driver
    finally:
        driver.close()


def best_kind(context: Context) -> Kind:
    """The library with graphs where it works, since it times short work best; else the other. Raises Absent."""
    try:
        with gpu(context, "cuda-python"):
            return "cuda-python"
    except Absent:
        # "auto" says what is missing of both.
        with gpu(context, "auto") as driver:
            return "pycuda" if driver.name == "pycuda" else "cuda-python"
