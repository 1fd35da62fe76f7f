"""Sources, segmenters and sinks that fail or wait where a test says, and what runs a pipeline of them."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcam.classes import CITYSCAPES
from segcam.controls import Controls
from segcam.frame import Frame, Segmentation
from segcam.metrics import Metrics
from segcam.pipeline import Pipeline
from segcam.sinks.base import RunStats, Sink, StreamInfo
from segcam.sinks.jsonl import JsonLinesSink
from segcam.sinks.video import VideoSink
from segcam.sources.base import SourceInfo

PATIENCE_S = 30.0
K = 7
PATIENCE_S = 30.0
K = 7
WIDTH, HEIGHT, COUNT = 64, 48, 20


def picture(index: int) -> Frame:
    luma = np.full((HEIGHT, WIDTH), 16 + 8 * (index % 25), np.uint8)
    chroma = np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    return Frame(
        index, index, Fraction(1, 25), time.perf_counter(), "fake", WIDTH, HEIGHT, "i420", (luma, chroma, chroma.copy())
    )


@dataclass
class Fault:
    """Raises ``error`` at call number ``at``, or waits there until ``let_go`` is set."""

    at: int = -1
    error: BaseException | None = None
    blocks: bool = False
    let_go: threading.Event = field(default_factory=threading.Event)
    calls: int = 0

    def __call__(self) -> None:
        number, self.calls = self.calls, self.calls + 1
        if number != self.at:
            return
        if self.blocks:
            self.let_go.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error


def none() -> None:
    pass


@dataclass
class FakeSource:
    """``gate`` is called before each frame; ``interrupt`` has no effect on a gate that blocks, as with a driver."""

    count: int = COUNT
    gate: Callable[[], None] = none
    closing: Callable[[], None] = none
    given: int = 0
    closed: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def open(self) -> SourceInfo:
        return SourceInfo("fake", WIDTH, HEIGHT, Fraction(25), self.count, False)

    def read(self) -> Frame | None:
        if self.given == self.count or self.stopped.is_set():
            return None
        self.gate()
        self.given += 1
        return picture(self.given - 1)

    def interrupt(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.closed += 1
        self.closing()


@dataclass
class FakeSegmenter:
    """Label = frame index modulo 19 everywhere."""

    depth: int = 3
    submitting: Callable[[], None] = none
    collecting: Callable[[], None] = none
    flying: deque[Frame] = field(default_factory=deque)
    recycled: list[int] = field(default_factory=list)
    most: int = 0

    @property
    def pending(self) -> int:
        return len(self.flying)

    def submit(self, frame: Frame) -> None:
        assert self.pending < self.depth, "never more than depth in flight"
        self.submitting()
        self.flying.append(frame)
        self.most = max(self.most, self.pending)

    def ready(self) -> bool:
        return bool(self.flying)

    def collect(self) -> Segmentation:
        self.collecting()
        frame = self.flying.popleft()
        labels = np.full((HEIGHT, WIDTH), frame.index % 19, np.uint8)
        counts = np.bincount(labels.ravel(), minlength=19).astype(np.int64)
        return Segmentation(frame, labels, frame, counts, CITYSCAPES, {"inference": 1.0})

    def recycle(self, segmentation: Segmentation) -> None:
        self.recycled.append(segmentation.frame.index)


@dataclass
class FakeSink:
    writing: Callable[[], None] = none
    closing: Callable[[], None] = none
    seen: list[int] = field(default_factory=list)
    closed: int = 0
    writer: str = ""
    closer: str = ""
    needs_overlay: bool = False
    needs_labels: bool = False
    runs_in_main_thread: bool = False
    description: str = "fake"

    def open(self, info: StreamInfo, stats: RunStats) -> None: ...

    def write(self, segmentation: Segmentation) -> None:
        self.writing()
        self.writer = threading.current_thread().name
        self.seen.append(segmentation.frame.index)

    def close(self) -> None:
        self.closed += 1
        self.closer = threading.current_thread().name
        self.closing()


class Bench:
    """A pipeline of fakes; ``run`` returns what it raised and fails the test when it does not return."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.metrics = Metrics()
        self.controls = Controls(0.5, np.ones(19, np.bool_))
        self.stats = RunStats()

    def build(self, source: FakeSource, segmenter: FakeSegmenter, sinks: Sequence[Sink], **more: Any) -> Pipeline:
        info = StreamInfo("fake", WIDTH, HEIGHT, Fraction(25), source.count, False, CITYSCAPES)
        for sink in sinks:
            sink.open(info, self.stats)
        return Pipeline(
            source, segmenter, sinks, self.controls, self.stats, self.metrics, warn=self.warnings.append, **more
        )

    def run(
        self,
        source: FakeSource | None = None,
        segmenter: FakeSegmenter | None = None,
        sinks: Sequence[Sink] = (),
        meanwhile: Callable[[Pipeline], None] | None = None,
        **more: Any,
    ) -> BaseException | None:
        self.source = source or FakeSource()
        self.segmenter = segmenter or FakeSegmenter()
        pipeline = self.pipeline = self.build(self.source, self.segmenter, sinks or [FakeSink()], **more)
        raised: list[BaseException] = []

        def work() -> None:
            try:
                pipeline.run()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=work, name="caller", daemon=True)
        thread.start()
        if meanwhile is not None:
            meanwhile(pipeline)
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the run hangs"
        return raised[0] if raised else None


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def files(tmp_path: Path) -> tuple[VideoSink, JsonLinesSink, Callable[[], tuple[int, list[int]]]]:
    """Two real outputs, and what is in them: frames of the video, indices of the lines."""
    video = VideoSink(tmp_path / "out.mp4", lambda line: None, preset="ultrafast", threads=1)
    lines = JsonLinesSink(tmp_path / "out.jsonl")

    def read() -> tuple[int, list[int]]:
        import av

        frames = 0
        if video.path.exists():
            with av.open(str(video.path)) as container:
                frames = sum(1 for _ in container.decode(video=0))
        text = lines.path.read_text() if lines.path.exists() else ""
        return frames, [json.loads(line)["index"] for line in text.splitlines()]

    return video, lines, read


class Slow:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self) -> None:
        time.sleep(self._seconds)
