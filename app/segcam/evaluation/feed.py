"""Pictures read ahead of the network, in order, a bounded number of them at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

from segcam.errors import UsageError
from segcam.evaluation.datasets import Dataset, Sample
from segcam.frame import Frame
from segcam.sources.base import Source, SourceInfo

_T = TypeVar("_T")

#: More threads than this read no faster: what they read is decoded one at a time or waits for the network.
_MOST_THREADS = 8


def dataset_samples(dataset: Dataset, every: int = 1, frames: int = 0, threads: int = 0) -> Iterator[Sample]:
    """Every ``every``-th sample, ``frames`` of them (0: all), read by ``threads`` (0: by cores). Raises SourceError."""
    numbers = islice(range(0, len(dataset), every), frames or None)
    workers = threads or min(_MOST_THREADS, os.cpu_count() or 1)
    return _read_ahead((partial(dataset.read, index) for index in numbers), workers)


def source_samples(source: Source) -> Iterator[Sample]:
    """The frames of an open source. Raises SourceError after the last good one."""
    over = False

    def read() -> Frame | None:
        nonlocal over
        if over:
            return None
        # Until a frame is here: a source that raised or ended is not asked again by the reads already ordered.
        over = True
        frame = source.read()
        over = frame is None
        return frame

    for frame in _read_ahead(iter(lambda: read, None), 1):
        if frame is None:
            return
        yield Sample(frame.name or f"frame {frame.index} ({frame.time_s:.2f} s)", frame, None)


def check_finite(info: SourceInfo, frames: int, loops: int) -> None:
    """Raises UsageError for a source that never ends, unless ``frames`` ends it."""
    endless = info.frames is None and info.description.startswith(("test:", "street:"))
    if not frames and (info.live or loops == 0 or endless):
        raise UsageError(f"{info.description} doesn't end, and figures come at the end", "Say how much: --frames 500")


def _read_ahead(calls: Iterator[Callable[[], _T]], workers: int) -> Iterator[_T]:
    waiting: deque[Future[_T]] = deque()
    pool = ThreadPoolExecutor(workers, "segcam: read")
    try:
        for call in islice(calls, workers + 1):
            waiting.append(pool.submit(call))
        while waiting:
            done = waiting.popleft().result()
            for call in islice(calls, 1):
                waiting.append(pool.submit(call))
            yield done
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
