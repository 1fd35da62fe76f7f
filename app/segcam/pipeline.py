"""Threads and queues: the only place where sources, segmenters and sinks meet.

    reader ─▶ [queue] ─▶ segmenter thread ─▶ [queue] ─▶ one thread for each sink

Stop rule. The first exception of any thread ends the run: what stands before it stops at once, what stands behind it
finishes what it has, every sink is closed in its own thread, and the caller's thread raises the exception. A stop that
is asked for (Ctrl-C, quit key) ends the source; frames already read are still segmented and written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segcam.controls import Controls
from segcam.errors import SourceError
from segcam.frame import Frame, Segmentation
from segcam.metrics import Metrics
from segcam.queues import BoundedQueue, Mark, QueuePolicy
from segcam.segmenters.base import Segmenter
from segcam.sinks.base import RunStats, Sink
from segcam.sources.base import Source

#: While the segmenter could take another frame and none is there, it looks this often whether a result is ready.
_POLL_S = 0.001
#: How long a thread may take to end once everything has been told to stop; a blocked driver call may never return.
_JOIN_S = 15.0


class _Shared:
    """Segmentation number ``order`` on its way to several sinks; the last one to finish calls ``done``."""

    def __init__(
        self, segmentation: Segmentation, order: int, readers: int, done: Callable[[Segmentation, int], None]
    ) -> None:
        self.segmentation, self.order = segmentation, order
        self._left, self._done, self._lock = readers, done, threading.Lock()

    def release(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._done(self.segmentation, self.order)


@dataclass
class Pipeline:
    """One run. ``source`` and ``sinks`` are open already; ``run`` closes them. ``metrics`` holds what was measured.

    ``policy`` and ``queue_size`` are those of the queue between source and segmenter. ``tick`` is called about ten times
    a second in the caller's thread.
    """

    source: Source
    segmenter: Segmenter
    sinks: Sequence[Sink]
    controls: Controls
    stats: RunStats
    metrics: Metrics
    policy: QueuePolicy = "lossless"
    queue_size: int = 3
    tick: Callable[[], None] = lambda: None
    warn: Callable[[str], None] = lambda line: None
    _errors: list[BaseException] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # Newest-first wants the newest: one waiting frame, replaced until it is taken.
        self._frames: BoundedQueue[Frame] = BoundedQueue(
            1 if self.policy == "newest" else self.queue_size, self.policy
        )
        self._results: list[BoundedQueue[_Shared]] = [BoundedQueue(self.queue_size) for _ in self.sinks]

    def stop(self) -> None:
        """End the run in good order: no more frames are read, those already read are finished. Any thread may call."""
        self._stopping.set()
        self.source.interrupt()

    def abort(self) -> None:
        """End the run at once; frames on their way are lost, files are still closed."""
        self.stop()
        self._frames.abort()
        for queue in self._results:
            queue.abort()

    def run(self) -> None:
        """Until the source ends, a stop, or the first error, which is raised here once everything is closed."""
        main = [i for i, sink in enumerate(self.sinks) if getattr(sink, "runs_in_main_thread", False)]
        threads = [
            threading.Thread(target=self._guard, args=(self._read,), name="segcam-reader", daemon=True),
            threading.Thread(target=self._guard, args=(self._segment,), name="segcam-segmenter", daemon=True),
        ]
        for i in range(len(self.sinks)):
            if i not in main[:1]:
                threads.append(
                    threading.Thread(
                        target=self._guard, args=(self._write, i), name=f"segcam-sink-{i}", daemon=True
                    )
                )
        for thread in threads:
            thread.start()
        if main:
            self._guard(self._write, main[0])
        self._join(threads)
        self._count_drops()
        if self._errors:
            raise self._errors[0]

    def _join(self, threads: list[threading.Thread]) -> None:
        deadline: float | None = None
        while alive := [t for t in threads if t.is_alive()]:
            alive[0].join(0.1)
            self.tick()
            if self.controls.quit.is_set() and not self._stopping.is_set():
                self.stop()
            if self._errors and deadline is None:
                deadline = time.monotonic() + _JOIN_S
            if deadline is not None and time.monotonic() > deadline:
                names = ", ".join(t.name for t in alive)
                self.warn(f"gave up waiting for {names}: a call into a driver or codec does not return")
                return

    def _guard(self, work: Callable[..., None], *args: int) -> None:
        try:
            work(*args)
        except BaseException as error:  # whatever it is, the caller's thread raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._errors.append(error)
        if not isinstance(error, SourceError):
            # A source's failure is an end like any other for those behind it; every other stage's means that nothing
            # more needs to be read.
            self.stop()
            self._frames.abort()

    def _read(self) -> None:
        try:
            while not self._stopping.is_set():
                frame = self.source.read()
                if frame is None or not self._frames.put(frame):
                    break
        finally:
            self._frames.close()
            self.source.close()

    def _segment(self) -> None:
        order = 0
        ended = False
        try:
            while True:
                while not ended and self.segmenter.pending < self.segmenter.depth:
                    item = self._frames.get(None if self.segmenter.pending == 0 else _POLL_S)
                    if item is Mark.END:
                        ended = True
                    elif item is Mark.EMPTY:
                        if self.segmenter.ready():
                            break
                    else:
                        assert isinstance(item, Frame)
                        self.segmenter.submit(item)
                        del item
                if self.segmenter.pending == 0:
                    break
                result = self.segmenter.collect()
                for stage, value_ms in result.timings_ms.items():
                    self.metrics.record(stage, order, value_ms)
                shared = _Shared(result, order, len(self.sinks), self._finish)
                for queue in self._results:
                    if not queue.put(shared):
                        shared.release()
                order += 1
                del result, shared
        finally:
            for queue in self._results:
                queue.close()
            self._frames.abort()

    def _finish(self, result: Segmentation, order: int) -> None:
        """The last sink is done with a frame: count it and give its arrays back."""
        latency_ms = (time.perf_counter() - result.frame.captured_at_s) * 1e3
        self.metrics.record("latency", order, latency_ms)
        self._count_drops()
        self.metrics.finish_frame()
        self.stats.frames = self.metrics.frames
        self.stats.fps = self.metrics.recent_rate_hz
        self.stats.latency_ms = latency_ms
        self.stats.dropped = dict(self.metrics.dropped)
        self.segmenter.recycle(result)

    def _count_drops(self) -> None:
        if self._frames.dropped:
            self.metrics.dropped["segmenter busy"] = self._frames.dropped

    def _write(self, index: int) -> None:
        sink, queue = self.sinks[index], self._results[index]
        pumped = getattr(sink, "runs_in_main_thread", False)
        stage = _stage_name(sink)
        try:
            while True:
                item = queue.get(0.05 if pumped else None)
                if item is Mark.END:
                    break
                if item is Mark.EMPTY:
                    self.tick()
                    if self.controls.quit.is_set() and not self._stopping.is_set():
                        self.stop()
                    continue
                assert isinstance(item, _Shared)
                begun = time.perf_counter()
                sink.write(item.segmentation)
                self.metrics.record(stage, item.order, (time.perf_counter() - begun) * 1e3)
                item.release()
                if self.controls.quit.is_set() and not self._stopping.is_set():
                    self.stop()
        finally:
            queue.abort()
            sink.close()


def _stage_name(sink: Sink) -> str:
    """``write video`` for a VideoSink."""
    return f"write {type(sink).__name__.removesuffix('Sink').lower()}"
