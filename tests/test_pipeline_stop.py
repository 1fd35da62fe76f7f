from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from pipeline_fakes import COUNT, PATIENCE_S, Bench, FakeSegmenter, FakeSink, FakeSource, Fault, K, Slow, none

from segcam.errors import EngineError, SegcamError
from segcam.pipeline import Pipeline
from segcam.queues import QueuePolicy


def stop_after(sink: FakeSink, frames: int, act: Callable[[Pipeline], None]) -> Callable[[Pipeline], None]:
    def meanwhile(pipeline: Pipeline) -> None:
        deadline = time.monotonic() + PATIENCE_S
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
        if not bench.controls.quit.wait(PATIENCE_S):
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
    # The other one only waited, and has closed its file.
    assert raised.message == "gave up waiting for write fake 2"
    assert bench.pipeline.abandoned == ["write fake 2"]
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
