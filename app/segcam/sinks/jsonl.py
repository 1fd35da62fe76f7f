"""One JSON object a line for each frame: what the picture consists of, for scripts."""

from __future__ import annotations

import json
import math
from pathlib import Path

from segcam.errors import SinkError
from segcam.frame import Segmentation
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.files import OutputFile, check_writable, write_error


class JsonLinesSink:
    """Writes ``index``, ``pts_s``, ``source``, ``name``, ``width``, ``height``, ``shares`` (class name to share of the
    picture, 0..1, only classes that are there), ``timings_ms`` and, once known, ``latency_ms``. UTF-8; each line is in
    the file when ``write`` returns.
    """

    runs_in_main_thread = False
    needs_overlay = False
    needs_labels = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stats = RunStats()
        self._file: OutputFile | None = None
        self._lines = 0

    def open(self, info: StreamInfo, stats: RunStats) -> None:
        """Raises SinkError if the file could not be written."""
        if self.path.is_dir():
            raise SinkError(f"{self.path} is a folder", "Give a file name, for example out.jsonl")
        check_writable(self.path)
        self._stats = stats

    def write(self, segmentation: Segmentation) -> None:
        line = json.dumps(_record(segmentation, self._stats.latency_ms), ensure_ascii=False, allow_nan=False)
        if self._file is None:
            self._file = OutputFile(self.path)
        self._file.write(line.encode() + b"\n")
        if self._file.error is not None:
            raise write_error(self.path, self._file.error, f"{self._lines} lines are complete.") from self._file.error
        self._file.mark_good()
        self._lines += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def description(self) -> str:
        return f"{self.path}: {self._lines} lines" if self._lines else f"{self.path}: no frames, nothing written"


def _record(segmentation: Segmentation, latency_ms: float) -> dict[str, object]:
    frame = segmentation.frame
    shares: dict[str, float] = {}
    for name, share in zip(segmentation.classes.names, segmentation.shares.tolist(), strict=True):
        if share > 0:
            shares[name] = shares.get(name, 0.0) + share
    record: dict[str, object] = {
        "index": frame.index,
        "pts_s": round(frame.time_s, 6),
        "source": frame.source_id,
        "name": frame.name,
        "width": frame.width,
        "height": frame.height,
        "shares": {name: round(share, 6) for name, share in shares.items()},
        "timings_ms": {
            stage: round(float(value_ms), 3)
            for stage, value_ms in segmentation.timings_ms.items()
            if math.isfinite(value_ms)
        },
    }
    if math.isfinite(latency_ms) and latency_ms > 0:
        record["latency_ms"] = round(float(latency_ms), 3)
    return record
