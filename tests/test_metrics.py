from __future__ import annotations

import statistics
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcam.metrics import WINDOW, Metrics, Series


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def finished(times_s: list[float], warmup: int = 0) -> Metrics:
    clock = Clock()
    metrics = Metrics(warmup, clock)
    for time_s in times_s:
        clock.now_s = time_s
        metrics.finish_frame()
    return metrics


def test_rate_counts_intervals_and_not_ticks() -> None:
    metrics = finished([10.0, 10.5, 11.0])
    assert (metrics.frames, metrics.counted_intervals) == (3, 2)
    assert metrics.rate_hz == 2.0


def test_warm_up_is_left_out_of_the_rate() -> None:
    # Two slow frames, then four at 10 Hz: the clock starts when the last frame of the warm-up is done.
    metrics = finished([0.0, 5.0, 5.1, 5.2, 5.3, 5.4], warmup=2)
    assert metrics.counted_intervals == 4
    assert metrics.rate_hz == pytest.approx(10.0)
    assert finished([0.0, 5.0, 5.1, 5.2, 5.3, 5.4]).rate_hz == pytest.approx(5 / 5.4)


@pytest.mark.parametrize(
    ("times_s", "warmup"), [([], 0), ([1.0], 0), ([1.0, 2.0], 5), ([1.0, 2.0], 2), ([3.0, 3.0], 0)]
)
def test_too_little_for_a_rate_is_zero_and_no_division(times_s: list[float], warmup: int) -> None:
    assert finished(times_s, warmup).rate_hz == 0.0


def test_recent_rate_forgets_the_past() -> None:
    slow = [float(n) for n in range(40)]
    fast = [40.0 + n / 100 for n in range(30)]
    metrics = finished(slow + fast)
    assert metrics.recent_rate_hz == pytest.approx(100.0)
    assert metrics.rate_hz < 2.0


def test_warm_up_is_left_out_of_stages() -> None:
    metrics = Metrics(warmup=2)
    for index, value_ms in enumerate([900.0, 800.0, 1.0, 3.0]):
        metrics.record("inference", index, value_ms)
    summary = metrics.summaries()["inference"]
    assert (summary.count, summary.mean, summary.maximum) == (2, 2.0, 3.0)


def test_drops_are_kept_by_cause() -> None:
    metrics = Metrics()
    metrics.drop("segmenter busy")
    metrics.drop("output busy", 3)
    metrics.drop("segmenter busy")
    assert metrics.dropped == {"segmenter busy": 2, "output busy": 3}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_percentiles_are_numpys(values: list[float]) -> None:
    series = Series()
    for value in values:
        series.add(value)
    found = series.summary()
    wanted = np.percentile(values, [50, 90, 95, 99])
    np.testing.assert_allclose([found.p50, found.p90, found.p95, found.p99], wanted, rtol=1e-9, atol=1e-9)
    assert found.maximum == max(values)
    assert found.count == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-9)


def test_an_empty_series_is_all_zero() -> None:
    summary = Series().summary()
    assert (summary.count, summary.mean, summary.p50, summary.p99, summary.maximum) == (0, 0.0, 0.0, 0.0, 0.0)


def test_percentiles_look_at_the_latest_and_the_rest_at_all() -> None:
    series = Series()
    series.add(1e9)
    for _ in range(WINDOW):
        series.add(1.0)
    summary = series.summary()
    assert summary.p99 == 1.0
    assert (summary.maximum, summary.count) == (1e9, WINDOW + 1)


def test_threads_lose_no_count() -> None:
    metrics = Metrics()

    def work() -> None:
        for index in range(2000):
            metrics.record("write", index, 1.0)
            metrics.finish_frame()
            metrics.drop("busy")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.frames == 8000
    assert metrics.dropped == {"busy": 8000}
    assert metrics.summaries()["write"].count == 8000
