"""Threads and queues: the only place where sources, segmenters and sinks meet.

    reader ─▶ [queue] ─▶ segmenter thread ─▶ [queue] ─▶ one thread for each sink

Stop rule. The first exception of any thread ends the run: what stands before it stops at once, what stands behind it
finishes what it has, every sink is closed in its own thread, and the caller's thread raises the exception. A stop that
is asked for (Ctrl-C, quit key) ends the source; frames already read are still segmented and written. A call that never
returns is given up after a while, with a warning, and then only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segcam.controls import Controls
from segcam.errors import SegcamError
from segcam.frame import Frame, Segmentation
from segcam.metrics import Metrics
from segcam.queues import BoundedQueue, Mark, QueuePolicy
from segcam.segmenters.base import Segmenter
from segcam.sinks.base import RunStats, Sink
from segcam.sources.base import Source

#: While the segmenter could take another frame and none is there, it looks this often whether a result is ready.
_POLL_S = 0.001
#: How often the caller's thread looks after the run.
_LOOK_S = 0.1
#: Files are closed within this time where another part of the run has been given up.
_GRACE_S = 3.0
#: Nothing moving for this long is worth a line: a slow disk, a camera without pictures.
_QUIET_S = 30.0


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

    ``policy`` and ``queue_size`` are those of the queue between source and segmenter. ``tick`` is called about ten
    times a second in the caller's thread. Once the run is to end, a source that is still inside ``read`` after
    ``source_patience_s`` is left alone, and so is everything when nothing has moved for ``stall_s``; ``abandoned``
    then names the threads, which may still use the source, the segmenter or their sink.
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
    source_patience_s: float = 3.0
    stall_s: float = 15.0
    abandoned: list[str] = field(default_factory=list, init=False)
    _errors: list[BaseException] = field(default_factory=list, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _threads: dict[str, threading.Thread] = field(default_factory=dict, init=False)
    #: Whom the run was ended without, in words.
    _given_up: str = field(default="", init=False)
    #: Steps of all threads so far. Not exact, and need not be: it only has to change when something moves.
    _steps: int = field(default=0, init=False)
    #: What the segmenter thread is held up by just now: the cause of a frame that is dropped.
    _busy: str = field(default="segmenter busy", init=False)

    def __post_init__(self) -> None:
        # Newest-first wants the newest: one waiting frame, replaced until it is taken.
        self._frames: BoundedQueue[Frame] = BoundedQueue(1 if self.policy == "newest" else self.queue_size, self.policy)
        self._results: list[BoundedQueue[_Shared]] = [BoundedQueue(self.queue_size) for _ in self.sinks]
        self._stages = _stage_names(self.sinks)
        self._seen_steps, self._still_since_s = -1, 0.0
        self._ending_since_s: float | None = None
        self._said_quiet = False

    def stop(self) -> None:
        """End the run in good order: no more frames are read, those already read are finished. Any thread may call."""
        self._stopping.set()
        self.controls.quit.set()  # a paused window waits for this
        self.source.interrupt()

    def run(self) -> None:
        """Until the source ends, a stop, or the first error, which is raised here once everything is closed.

        Raises SegcamError when a call that does not return had to be given up and nothing else went wrong.
        """
        # Window systems want the main thread: such a sink runs in the caller's.
        main = next((i for i, sink in enumerate(self.sinks) if getattr(sink, "runs_in_main_thread", False)), None)
        self._start("the source", self._read)
        self._start("the network", self._segment)
        for i, stage in enumerate(self._stages):
            if i != main:
                self._start(stage, self._write, i)
        if main is not None:
            self._guard(self._write, main)
        while alive := self._alive():
            alive[0].join(_LOOK_S)
            if not self._look_after():
                break
        if self._errors:
            raise self._errors[0]
        if self._given_up:
            raise SegcamError(
                f"gave up waiting for {self._given_up}",
                "The outputs are complete up to there as far as they could be; see whether the disk or device answers.",
            )

    def _start(self, name: str, work: Callable[..., None], *args: int) -> None:
        # A daemon, because a call into a driver may never return and must not keep the process.
        thread = threading.Thread(target=self._guard, args=(work, *args), name=f"segcam: {name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    def _alive(self) -> list[threading.Thread]:
        return [thread for name, thread in self._threads.items() if thread.is_alive() and name not in self.abandoned]

    def _look_after(self) -> bool:
        """What the caller's thread does now and then; False: give up waiting."""
        try:
            self.tick()
        except BaseException as error:  # Ctrl-C where nobody handles it: as from any other thread
            self._fail(error)
        if self.controls.quit.is_set() and not self._stopping.is_set():
            self.stop()
        now = time.monotonic()
        if self._steps != self._seen_steps:
            self._seen_steps, self._still_since_s = self._steps, now
        still_s = now - self._still_since_s
        if not self._errors and not self._stopping.is_set():
            if still_s > _QUIET_S and not self._said_quiet:
                self._said_quiet = True
                self.warn(f"nothing has moved for {still_s:.0f} s; Ctrl-C ends the run")
            return True
        if self._ending_since_s is None:
            self._ending_since_s = now
        reader = self._threads["the source"]
        if reader in self._alive() and now - self._ending_since_s > self.source_patience_s:
            self.abandoned.append("the source")
            self.warn("the source does not answer and is left alone")
            self._frames.close()
        if still_s > self.stall_s and now - self._ending_since_s > self.stall_s:
            self._give_up()
            return False
        return True

    def _give_up(self) -> None:
        """Leave alone what does not come back. Those that were only held up by it close their files first."""
        waited_for = [name for name, thread in self._threads.items() if thread in self._alive()]
        self._frames.abort()
        for queue in self._results:
            queue.abort()
        until = time.monotonic() + min(self.stall_s, _GRACE_S)
        for thread in self._alive():
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        names = [name for name, thread in self._threads.items() if thread in self._alive()]
        self.abandoned += names
        # What comes back at the last moment has lost frames all the same.
        self._given_up = ", ".join(names or waited_for)
        self.warn(f"gave up waiting for {self._given_up}: a call into a driver, codec or disk does not return")

    def _guard(self, work: Callable[..., None], *args: int) -> None:
        try:
            work(*args)
        except BaseException as error:  # whatever it is, the caller's thread raises it
            self._fail(error)
        self._steps += 1

    def _fail(self, error: BaseException, reading: bool = False) -> None:
        with self._lock:
            self._errors.append(error)
        # A failed source is an end like any other for those behind it. With any other stage nothing more need be read.
        if not reading:
            self._frames.abort()
            self.stop()

    def _read(self) -> None:
        try:
            while not self._stopping.is_set():
                frame = self.source.read()
                self._steps += 1
                if frame is None:
                    break
                dropped = self._frames.dropped
                if not self._frames.put(frame):
                    break
                if self._frames.dropped > dropped:
                    self.metrics.drop(self._busy, self._frames.dropped - dropped)
        except BaseException as error:
            self._fail(error, reading=True)
        finally:
            self._frames.close()
        try:
            self.source.close()
        except BaseException as error:
            self._fail(error, reading=True)

    def _segment(self) -> None:
        order, failed = 0, False
        try:
            while True:
                if not failed:
                    try:
                        self._feed()
                    except BaseException as error:
                        # What is in flight came before the frame that failed, and is still good.
                        failed = True
                        self._fail(error)
                if self.segmenter.pending == 0:
                    break
                self._deliver(order)
                order += 1
        finally:
            for queue in self._results:
                queue.close()
            self._frames.abort()

    def _feed(self) -> None:
        """Submit frames until the segmenter is full, or a result is ready and no frame there, or none will come."""
        while self.segmenter.pending < self.segmenter.depth:
            item = self._frames.get(None if self.segmenter.pending == 0 else _POLL_S)
            if item is Mark.END or (item is Mark.EMPTY and self.segmenter.ready()):
                return
            if isinstance(item, Frame):
                self.segmenter.submit(item)
                self._steps += 1

    def _deliver(self, order: int) -> None:
        result = self.segmenter.collect()
        for stage, value_ms in result.timings_ms.items():
            self.metrics.record(stage, order, value_ms)
        shared = _Shared(result, order, len(self.sinks), self._finish)
        for stage, queue in zip(self._stages, self._results, strict=True):
            self._busy = f"output busy: {stage}"
            if not queue.put(shared):
                shared.release()
        self._busy = "segmenter busy"
        self._steps += 1

    def _finish(self, result: Segmentation, order: int) -> None:
        """The last sink is done with a frame: count it and give its arrays back."""
        latency_ms = (time.perf_counter() - result.frame.captured_at_s) * 1e3
        self.metrics.record("latency", order, latency_ms)
        self.metrics.finish_frame()
        self.stats.frames = self.metrics.frames
        self.stats.fps = self.metrics.recent_rate_hz
        self.stats.latency_ms = latency_ms
        self.stats.dropped = dict(self.metrics.dropped)
        self.segmenter.recycle(result)

    def _write(self, index: int) -> None:
        sink, queue, stage = self.sinks[index], self._results[index], self._stages[index]
        pumped = getattr(sink, "runs_in_main_thread", False)
        try:
            while not pumped or self._look_after():
                item = queue.get(_LOOK_S if pumped else None)
                if item is Mark.END:
                    break
                if isinstance(item, _Shared):
                    begun = time.perf_counter()
                    sink.write(item.segmentation)
                    self.metrics.record(stage, item.order, (time.perf_counter() - begun) * 1e3)
                    item.release()
                    self._steps += 1
        except BaseException as error:
            # Told before closing: that may take its time, and may fail as well, which then comes second.
            self._fail(error)
        finally:
            queue.abort()
        sink.close()


def _stage_names(sinks: Sequence[Sink]) -> list[str]:
    """``write video`` for a VideoSink, ``write video 2`` for the second one."""
    names: list[str] = []
    for sink in sinks:
        name = f"write {type(sink).__name__.removesuffix('Sink').lower()}"
        before = sum(type(other) is type(sink) for other in sinks[: len(names)])
        names.append(f"{name} {before + 1}" if before else name)
    return names
