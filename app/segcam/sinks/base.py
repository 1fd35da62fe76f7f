"""What every sink is: something that takes segmentations in order and finishes its file whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol, runtime_checkable

from segcam.classes import ClassTable
from segcam.frame import Segmentation


@dataclass(frozen=True)
class StreamInfo:
    """What a sink is told before the first frame. ``frames`` and ``rate_hz`` are None when unknown."""

    source: str
    width: int
    height: int
    rate_hz: Fraction | None
    frames: int | None
    live: bool
    classes: ClassTable
    engine: str = ""


@dataclass
class RunStats:
    """Live counters for displays; written by the pipeline, read by sinks. Times in milliseconds."""

    fps: float = 0.0
    latency_ms: float = 0.0
    frames: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


@runtime_checkable
class Sink(Protocol):
    """One output. Made cheaply (nothing is touched on disk); ``open`` checks that it can be written.

    Files get their first byte with the first frame, so that a bad source never overwrites a good result.
    ``write`` is called in order from one thread; when it returns, the segmentation's arrays may be reused, so a
    sink that keeps anything copies it. ``close`` finishes the file (also after an error; twice is fine).
    ``needs_overlay`` / ``needs_labels`` say what ``write`` will look at (counts are always there). A sink that, once
    open, has ``takes_device_overlays`` True had better get overlays in the GPU's memory (``Frame.device``).
    ``description`` is one line for the end of the run: what lies where.
    """

    needs_overlay: bool
    needs_labels: bool

    def open(self, info: StreamInfo, stats: RunStats) -> None: ...

    def write(self, segmentation: Segmentation) -> None: ...

    def close(self) -> None: ...

    @property
    def description(self) -> str: ...
