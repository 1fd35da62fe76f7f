from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from pipeline_fakes import COUNT, PATIENCE_S, Bench, FakeSegmenter, FakeSink, FakeSource, Fault, K, Slow, none

from segcam.errors import EngineError, SinkError, SourceError, SourceTruncatedError
from segcam.pipeline import Pipeline


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
        deadline = time.monotonic() + PATIENCE_S
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
            assert seen_first.wait(PATIENCE_S)
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
