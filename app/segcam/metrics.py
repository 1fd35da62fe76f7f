"""Counters and clocks of a run. Bounded: a run of any length keeps the same amount."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

#: Percentiles are taken over this many of the latest values; count, mean and maximum over all.
WINDOW = 10_000


@dataclass(frozen=True)
class Summary:
    """All in the unit of the series."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    maximum: float


class Series:
    """Values of one stage."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=WINDOW)
        self._count, self._total, self._maximum = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self._latest.append(value)
        self._count += 1
        self._total += value
        self._maximum = max(self._maximum, value)

    def summary(self) -> Summary:
        ordered = sorted(self._latest)

        def percentile(share: float) -> float:
            if not ordered:
                return 0.0
            at = share * (len(ordered) - 1)
            low = int(at)
            high = min(low + 1, len(ordered) - 1)
            return ordered[low] + (ordered[high] - ordered[low]) * (at - low)

        mean = self._total / self._count if self._count else 0.0
        return Summary(
            self._count, mean, percentile(0.5), percentile(0.9), percentile(0.95), percentile(0.99), self._maximum
        )


class Metrics:
    """Series by stage name, frame times, drops by cause. Any thread may write.

    The first ``warmup`` frames are not counted: ``rate_hz`` is intervals over time from frame ``warmup`` on.
    """

    def __init__(self, warmup: int = 0, clock: Callable[[], float] = time.perf_counter) -> None:
        self._lock = threading.Lock()
        self.warmup, self._clock = warmup, clock
        self._series: dict[str, Series] = {}
        self._recent: deque[float] = deque(maxlen=30)
        self._first_s: float | None = None
        self._last_s = 0.0
        self.frames = 0
        self.dropped: dict[str, int] = {}

    def record(self, stage: str, index: int, value_ms: float) -> None:
        """One value of ``stage`` for the frame that came as number ``index`` (0-based, in order of arrival)."""
        if index < self.warmup:
            return
        with self._lock:
            self._series.setdefault(stage, Series()).add(value_ms)

    def finish_frame(self) -> None:
        """A frame has left the segmenter."""
        now = self._clock()
        with self._lock:
            self.frames += 1
            self._recent.append(now)
            if self.frames == max(1, self.warmup):
                self._first_s = now
            self._last_s = now

    def drop(self, cause: str, count: int = 1) -> None:
        with self._lock:
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    @property
    def counted_intervals(self) -> int:
        """Intervals between frames after warm-up: what ``rate_hz`` divides by."""
        return max(0, self.frames - max(1, self.warmup))

    @property
    def rate_hz(self) -> float:
        """Frames per second after warm-up, counted in intervals."""
        if self._first_s is None or not self.counted_intervals or self._last_s <= self._first_s:
            return 0.0
        return self.counted_intervals / (self._last_s - self._first_s)

    @property
    def recent_rate_hz(self) -> float:
        """Frames per second over the last 30 frames."""
        with self._lock:
            if len(self._recent) < 2 or self._recent[-1] <= self._recent[0]:
                return 0.0
            return (len(self._recent) - 1) / (self._recent[-1] - self._recent[0])

    def summaries(self) -> dict[str, Summary]:
        with self._lock:
            return {name: series.summary() for name, series in self._series.items()}
