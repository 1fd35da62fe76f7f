"""No output at all: for measuring."""

from __future__ import annotations

from segcam.frame import Segmentation
from segcam.sinks.base import RunStats, StreamInfo


class NullSink:
    """Counts frames and drops them. Nothing is painted for it: a measurement with it ends at the class map."""

    runs_in_main_thread = False
    needs_overlay = False
    needs_labels = False

    def __init__(self) -> None:
        self._frames = 0

    def open(self, info: StreamInfo, stats: RunStats) -> None:
        self._frames = 0

    def write(self, segmentation: Segmentation) -> None:
        self._frames += 1

    def close(self) -> None:
        pass

    @property
    def description(self) -> str:
        return f"null: {self._frames} frames, nothing written"
