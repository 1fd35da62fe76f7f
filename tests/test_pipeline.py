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
from segcam.errors import EngineError, SegcamError, SinkError, SourceError, SourceTruncatedError
from segcam.frame import Frame, Segmentation
from segcam.metrics import Metrics
from segcam.pipeline import Pipeline
from segcam.queues import QueuePolicy
from segcam.sinks.base import RunStats, Sink, StreamInfo
from segcam.sinks.jsonl import JsonLinesSink
from segcam.sinks.video import VideoSink
from segcam.sources.base import SourceInfo

_PATIENCE_S = 30.0
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
            self.let_go.wait(_PATIENCE_S)
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
        thread.join(_PATIENCE_S)
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


@pytest.mark.parametrize("slow", ["none", "source", "submit", "collect", "sink"])
@pytest.mark.parametrize("depth", [1, 3])
def test_lossless_gives_every_frame_once_in_order(bench: Bench, slow: str, depth: int) -> None:
    late = Slow(0.004)
    sinks = [FakeSink(late if slow == "sink" else none), FakeSink()]
    segmenter = FakeSegmenter(depth, late if slow == "submit" else none, late if slow == "collect" else none)
    assert bench.run(FakeSource(gate=late if slow == "source" else none), segmenter, sinks, queue_size=2) is None
    everything = list(range(COUNT))
    assert [sink.seen for sink in sinks] == [everything, everything]
    assert bench.metrics.frames == bench.stats.frames == COUNT
    assert sorted(segmenter.recycled) == everything
    assert bench.metrics.dropped == {}
    assert [sink.closed for sink in sinks] == [1, 1]
    assert bench.source.closed == 1
    assert bench.metrics.summaries()["inference"].count == COUNT
    assert bench.warnings == []


def test_the_network_is_kept_full_where_frames_wait(bench: Bench) -> None:
    bench.run(segmenter=FakeSegmenter(3, none, Slow(0.005)))
    assert bench.segmenter.most == 3


def test_a_result_does_not_wait_for_the_next_frame(bench: Bench) -> None:
    """A source that stalls after some frames: those frames still come out."""
    gate = Fault(at=5, blocks=True)
    sink = FakeSink()

    def meanwhile(pipeline: Pipeline) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while len(sink.seen) < 5 and time.monotonic() < deadline:
            time.sleep(0.002)
        seen.extend(sink.seen)
        gate.let_go.set()

    seen: list[int] = []
    bench.run(FakeSource(gate=gate), sinks=[sink], meanwhile=meanwhile)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("slow", ["submit", "sink"])
def test_newest_drops_the_oldest_and_names_the_cause(bench: Bench, slow: str) -> None:
    late = Slow(0.02)
    sink = FakeSink(late if slow == "sink" else none)
    segmenter = FakeSegmenter(1, late if slow == "submit" else none)
    source = FakeSource(count=100, gate=Slow(0.001))
    assert bench.run(source, segmenter, [sink], policy="newest", queue_size=1) is None
    assert sink.seen == sorted(set(sink.seen))
    assert sink.seen[-1] == 99, "the last frame and the end always get through"
    assert sum(bench.metrics.dropped.values()) == 100 - len(sink.seen) > 0
    cause = "segmenter busy" if slow == "submit" else "output busy: write fake"
    assert bench.metrics.dropped[cause] >= 0.9 * sum(bench.metrics.dropped.values())
    assert bench.metrics.frames == len(sink.seen)


def test_newest_drops_nothing_where_everything_keeps_up(bench: Bench) -> None:
    sink = FakeSink()
    assert bench.run(FakeSource(gate=Slow(0.01)), sinks=[sink], policy="newest") is None
    assert sink.seen == list(range(COUNT))
    assert bench.metrics.dropped == {}


K = 7


@pytest.mark.parametrize("kind", [SourceError, RuntimeError], ids=["segcam error", "bug"])
@pytest.mark.parametrize("place", ["read", "submit", "collect", "write"])
def test_failing_at_frame_k_keeps_the_frames_before_it(
    bench: Bench, files: Any, place: str, kind: type[Exception]
) -> None:
    video, lines, read = files
    error = kind("injected")
    fault = Fault(K, error)
    extra = FakeSink(fault if place == "write" else none)
    raised = bench.run(
        FakeSource(gate=fault if place == "read" else none),
        FakeSegmenter(3, fault if place == "submit" else none, fault if place == "collect" else none),
        [video, extra, lines],
    )
    assert raised is error
    frames, indices = read()
    assert indices == list(range(frames)), "both files hold the same frames, from the first on"
    if place == "write":
        assert len(indices) >= K, "outputs that work may be ahead of the one that failed"
        assert extra.seen == list(range(K))
    else:
        assert indices == list(range(K))
        assert extra.seen == list(range(K))
        assert bench.metrics.frames == K
    assert extra.closed == 1
    assert bench.source.closed == 1


def test_a_source_that_breaks_off_is_finished_first(bench: Bench) -> None:
    error = SourceTruncatedError("ends early")
    sink = FakeSink(Slow(0.01))
    assert bench.run(FakeSource(gate=Fault(15, error)), sinks=[sink]) is error
    assert sink.seen == list(range(15))


@pytest.mark.parametrize("kind", [SinkError, RuntimeError])
@pytest.mark.parametrize("in_main_thread", [False, True])
def test_a_sink_that_cannot_be_closed(bench: Bench, kind: type[Exception], in_main_thread: bool) -> None:
    error = kind("injected")
    bad = FakeSink(closing=Fault(0, error), runs_in_main_thread=in_main_thread)
    good = FakeSink()
    assert bench.run(sinks=[bad, good]) is error
    assert bad.seen == good.seen == list(range(COUNT))
    assert good.closed == 1


def test_a_source_that_cannot_be_closed(bench: Bench) -> None:
    error = RuntimeError("injected")
    sink = FakeSink()
    assert bench.run(FakeSource(closing=Fault(0, error)), sinks=[sink]) is error
    assert sink.seen == list(range(COUNT))


@pytest.mark.parametrize("where", ["source", "sink"])
def test_failing_again_on_close_does_not_hide_the_first_error(bench: Bench, where: str) -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    breaks, closing = Fault(K, first), Fault(0, second)
    if where == "source":
        assert bench.run(FakeSource(gate=breaks, closing=closing)) is first
    else:
        assert bench.run(sinks=[FakeSink(breaks, closing), FakeSink()]) is first


def test_of_two_failing_stages_the_first_wins(bench: Bench) -> None:
    first, second = SinkError("first"), EngineError("second")
    seen_first = threading.Event()

    def write() -> None:
        seen_first.set()
        raise first

    def collect() -> None:
        if collected.calls >= 3:
            assert seen_first.wait(_PATIENCE_S)
            time.sleep(0.05)
            raise second
        collected()

    collected = Fault()
    assert bench.run(segmenter=FakeSegmenter(3, none, collect), sinks=[FakeSink(write), FakeSink()]) is first


@pytest.mark.parametrize("place", ["submit", "collect", "write", "close"])
def test_a_slow_source_is_told_at_once(bench: Bench, place: str) -> None:
    """Whatever fails behind it, the source is not read to its end."""
    error = RuntimeError("injected")
    fault = Fault(0 if place == "close" else 2, error)
    sinks = [FakeSink(fault if place == "write" else none, fault if place == "close" else none)]
    if place == "close":
        sinks.append(FakeSink(Fault(2, error)))
    segmenter = FakeSegmenter(1, fault if place == "submit" else none, fault if place == "collect" else none)
    assert bench.run(FakeSource(100_000, Slow(0.001)), segmenter, sinks) is error
    assert bench.source.given < 100_000
    assert bench.source.closed == 1


def test_the_error_waits_until_every_file_is_closed(bench: Bench) -> None:
    error = EngineError("injected")
    slow_to_close = FakeSink(closing=Slow(0.3))
    assert bench.run(segmenter=FakeSegmenter(1, Fault(3, error)), sinks=[slow_to_close]) is error
    assert slow_to_close.closed == 1
    assert not bench.pipeline.abandoned


def test_sinks_are_written_and_closed_in_one_thread_each(bench: Bench) -> None:
    window, file = FakeSink(runs_in_main_thread=True), FakeSink()
    assert bench.run(sinks=[file, window]) is None
    assert window.writer == window.closer == "caller"
    assert file.writer == file.closer == "segcam: write fake"
    assert window.seen == file.seen == list(range(COUNT))


@pytest.mark.parametrize("place", ["read", "submit", "collect", "write"])
def test_a_failure_ends_a_run_whose_window_waits(bench: Bench, place: str) -> None:
    error = RuntimeError("injected")
    fault = Fault(K, error)
    window = FakeSink(runs_in_main_thread=True)
    raised = bench.run(
        FakeSource(gate=fault if place == "read" else none),
        FakeSegmenter(3, fault if place == "submit" else none, fault if place == "collect" else none),
        [window, FakeSink(fault if place == "write" else none)],
    )
    assert raised is error
    assert window.closed == 1


def stop_after(sink: FakeSink, frames: int, act: Callable[[Pipeline], None]) -> Callable[[Pipeline], None]:
    def meanwhile(pipeline: Pipeline) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while len(sink.seen) < frames and time.monotonic() < deadline:
            time.sleep(0.001)
        act(pipeline)

    return meanwhile


def press_quit(pipeline: Pipeline) -> None:
    pipeline.controls.quit.set()


@pytest.mark.parametrize("in_main_thread", [False, True])
@pytest.mark.parametrize("act", [Pipeline.stop, press_quit], ids=["stop", "quit"])
def test_a_stop_finishes_what_was_read(bench: Bench, act: Callable[[Pipeline], None], in_main_thread: bool) -> None:
    sink = FakeSink(runs_in_main_thread=in_main_thread)
    source = FakeSource(1_000_000, Slow(0.001))
    assert bench.run(source, sinks=[sink], meanwhile=stop_after(sink, 5, act)) is None
    assert sink.seen == list(range(source.given)), "each frame that was read comes out"
    assert 5 <= len(sink.seen) < 1_000_000
    assert sink.closed == 1
    assert bench.warnings == []


def test_stop_lets_a_paused_window_go(bench: Bench) -> None:
    """A window that is paused stays inside ``write`` until ``controls.quit`` is set."""

    def paused() -> None:
        if not bench.controls.quit.wait(_PATIENCE_S):
            raise AssertionError("nobody told the window")

    window = FakeSink(paused, runs_in_main_thread=True)
    assert bench.run(sinks=[window], meanwhile=lambda pipeline: (time.sleep(0.05), pipeline.stop())[-1]) is None
    assert window.closed == 1


@pytest.mark.parametrize("in_main_thread", [False, True])
def test_a_source_that_never_comes_back_is_left_alone(bench: Bench, in_main_thread: bool) -> None:
    gate = Fault(at=6, blocks=True)
    sink = FakeSink(runs_in_main_thread=in_main_thread)
    raised = bench.run(
        FakeSource(gate=gate), sinks=[sink], meanwhile=stop_after(sink, 6, Pipeline.stop), source_patience_s=0.2
    )
    gate.let_go.set()
    assert raised is None
    assert sink.seen == list(range(6))
    assert sink.closed == 1
    assert bench.pipeline.abandoned == ["the source"]
    assert [line for line in bench.warnings if "the source does not answer" in line]


@pytest.mark.parametrize("place", ["write", "close"])
def test_a_sink_that_never_comes_back_is_given_up(bench: Bench, place: str) -> None:
    fault = Fault(at=0 if place == "close" else 3, blocks=True)
    stuck = FakeSink(fault if place == "write" else none, fault if place == "close" else none)
    good = FakeSink()
    raised = bench.run(
        FakeSource(1_000_000, Slow(0.001)),
        sinks=[good, stuck],
        meanwhile=stop_after(good, 4, Pipeline.stop),
        stall_s=0.4,
        source_patience_s=0.2,
    )
    fault.let_go.set()
    assert isinstance(raised, SegcamError)
    assert "write fake 2" in raised.message
    assert good.closed == 1
    assert good.seen == list(range(len(good.seen)))
    assert [line for line in bench.warnings if "gave up waiting for" in line and "write fake 2" in line]


def test_an_error_is_not_lost_when_another_stage_hangs(bench: Bench) -> None:
    error = EngineError("injected")
    fault = Fault(at=2, blocks=True)
    raised = bench.run(segmenter=FakeSegmenter(1, Fault(3, error)), sinks=[FakeSink(fault)], stall_s=0.3)
    fault.let_go.set()
    assert raised is error
    assert bench.pipeline.abandoned == ["write fake"]


def test_slow_is_not_stalled(bench: Bench) -> None:
    """What takes longer than the limit in all, but keeps moving, is waited for."""
    sink = FakeSink(Slow(0.12))
    source = FakeSource(1_000_000)
    raised = bench.run(source, sinks=[sink], meanwhile=stop_after(sink, 1, Pipeline.stop), stall_s=0.4)
    assert raised is None
    assert sink.seen == list(range(source.given))
    assert len(sink.seen) > 4
    assert not bench.pipeline.abandoned


def test_a_failing_tick_ends_the_run_in_good_order(bench: Bench) -> None:
    error = KeyboardInterrupt()
    sink = FakeSink(Slow(0.01))
    assert bench.run(FakeSource(1_000_000), sinks=[sink], tick=Fault(1, error)) is error
    assert sink.closed == 1
    assert bench.source.closed == 1


def test_two_outputs_of_a_kind_are_measured_apart(bench: Bench) -> None:
    bench.run(sinks=[FakeSink(), FakeSink(), FakeSink()])
    counts = {name: series.count for name, series in bench.metrics.summaries().items() if name.startswith("write")}
    assert counts == {"write fake": COUNT, "write fake 2": COUNT, "write fake 3": COUNT}


def test_no_thread_is_left(bench: Bench) -> None:
    before = set(threading.enumerate())
    bench.run()
    bench.run(FakeSource(gate=Fault(K, RuntimeError("injected"))))
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("segcam")]
    assert left == []


@pytest.mark.parametrize("policy", ["lossless", "newest"])
def test_an_empty_source_is_an_end_like_any_other(bench: Bench, policy: QueuePolicy) -> None:
    sink = FakeSink()
    assert bench.run(FakeSource(0), sinks=[sink], policy=policy) is None
    assert (sink.seen, sink.closed, bench.metrics.frames) == ([], 1, 0)
