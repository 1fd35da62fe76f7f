"""One bar out of TensorRT's nested phases, and Ctrl-C while a library works."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcam.engines.build_progress import STEPS, Interrupt, Monitoring, PhaseMeter, run_apart
from segcam.engines.plan_options import Quiet


def test_nested_phases_are_one_figure() -> None:
    meter = PhaseMeter()
    meter.start("build", None, 2)
    assert meter.read() == (0.0, "build")
    meter.start("time", "build", 4)
    meter.step("time", 0)
    assert meter.read() == (pytest.approx(0.9 / 2 / 4), "time")
    meter.step("time", 3)
    whole_inside = meter.read()[0]
    meter.finish("time")
    meter.step("build", 0)
    assert meter.read()[0] == pytest.approx(whole_inside) == pytest.approx(0.45)
    meter.step("build", 1)
    meter.finish("build")
    assert meter.read()[0] == pytest.approx(0.9)
    meter.start("write", None, 1)
    meter.step("write", 0)
    assert 0.9 < meter.read()[0] < 1.0


def test_a_phase_that_ends_early_takes_what_is_inside_with_it() -> None:
    meter = PhaseMeter()
    meter.start("build", None, 10)
    meter.start("time", "build", 10)
    meter.finish("build")
    reached = meter.read()[0]
    meter.start("time", None, 10)
    assert meter.read()[0] == reached == pytest.approx(0.9)


_NAMES = st.sampled_from("abcd")
_EVENTS = st.one_of(
    st.tuples(st.just("start"), _NAMES, st.one_of(st.none(), _NAMES), st.integers(-1, 5)),
    st.tuples(st.just("step"), _NAMES, st.integers(0, 9)),
    st.tuples(st.just("finish"), _NAMES),
)


@given(st.lists(_EVENTS, max_size=30))
def test_whatever_comes_the_figure_only_grows(events: list[tuple[object, ...]]) -> None:
    meter, last = PhaseMeter(), 0.0
    for kind, *rest in events:
        getattr(meter, str(kind))(*rest)
        now = meter.read()[0]
        assert last <= now <= 1.0
        last = now


class Raising(Quiet):
    def step(self, done: int, total: int, words: str) -> None:
        raise OSError("the terminal is gone")


def test_what_progress_raises_ends_the_build_and_is_kept() -> None:
    monitoring = Monitoring(Raising(), lambda: False)
    monitoring.started("build", None, 2)
    assert monitoring.stepped("build", 0) is False
    assert isinstance(monitoring.failure, OSError)


def test_the_monitor_says_go_on_until_it_is_stopped() -> None:
    seen: list[tuple[int, int, str]] = []

    class Seeing(Quiet):
        def step(self, done: int, total: int, words: str) -> None:
            seen.append((done, total, words))

    stop = threading.Event()
    monitoring = Monitoring(Seeing(), stop.is_set)
    monitoring.started("build", None, 2)
    assert monitoring.stepped("build", 0) is True
    stop.set()
    assert monitoring.stepped("build", 1) is False
    monitoring.tell("stopping")
    assert seen[-1] == (900, STEPS, "stopping")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def work_until(
    interrupt: Interrupt, started: Callable[[], None], enough: Callable[[], bool] = lambda: True
) -> Callable[[], str]:
    def work() -> str:
        started()
        while not (interrupt.asked() and enough()):
            threading.Event().wait(0.01)
        return "ended"

    return work


def test_ctrl_c_is_heard_while_the_work_goes_on_in_its_thread() -> None:
    before = signal.getsignal(signal.SIGINT)
    told: list[str] = []
    with Interrupt() as interrupt:
        work = work_until(interrupt, lambda: os.kill(os.getpid(), signal.SIGINT), lambda: bool(told))
        assert run_apart(work, interrupt, lambda: told.append("stopping")) == "ended"
        os.kill(os.getpid(), signal.SIGINT)  # again, while it is still stopping
    assert told == ["stopping"]
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_the_flag_alone_counts() -> None:
    before = signal.getsignal(signal.SIGINT)
    asked, results = threading.Event(), []

    def body() -> None:
        with Interrupt(asked.is_set) as interrupt:
            results.append(run_apart(work_until(interrupt, asked.set), interrupt, lambda: None))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert results == ["ended"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert not interrupt.asked()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_the_work_raises_is_raised_here() -> None:
    def work() -> None:
        raise ValueError("no")

    with Interrupt() as interrupt, pytest.raises(ValueError, match="no"):
        run_apart(work, interrupt, lambda: None)


def test_whatever_wakes_the_waiting_thread_it_leaves_after_the_work() -> None:
    class Terminated(BaseException):
        pass

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with Interrupt() as interrupt, pytest.raises(Terminated):
            work = work_until(interrupt, lambda: os.kill(os.getpid(), signal.SIGTERM))
            run_apart(lambda: (work(), ended.set()), interrupt, lambda: None)
        assert ended.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
