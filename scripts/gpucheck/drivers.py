"""Both CUDA libraries: memory there and back, order between streams, events, threads, graphs, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gpucheck.base import Absent, Context, Finding, gpu
from gpucheck.timing import per_run_ms

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import Driver, Kind


def check(context: Context) -> Iterator[Finding]:
    kinds: tuple[Kind, ...] = ("pycuda", "cuda-python")
    for kind in kinds:
        try:
            with gpu(context, kind) as driver:
                yield from _one(context, driver)
        except Absent as absent:
            yield context.absent(kind, str(absent))


def _one(context: Context, driver: Driver) -> Iterator[Finding]:
    nbytes = 1 << (16 if context.quick else 26)
    free_before = driver.memory()[0]
    stream, other, event = driver.stream(), driver.stream(), driver.event()
    one, two = driver.allocate(nbytes), driver.allocate(nbytes)
    up, down = driver.pinned(nbytes), driver.pinned(nbytes)
    data = np.random.default_rng(0).integers(0, 256, nbytes, np.uint8)
    up.array[:] = data
    driver.upload(one.address, up.array, stream)
    event.record(stream)
    other.wait(event)
    driver.copy(two.address, one.address, nbytes, other)
    driver.fill(two.address, 7, 256, other)
    driver.download(down.array, two.address, other)
    other.synchronize()
    good = bool((down.array[256:] == data[256:]).all() and (down.array[:256] == 7).all())
    yield context.found(f"{driver.name}: copies", good, "up, across, filled, down, over two streams and an event")

    seen: list[bool] = []
    result = np.empty(nbytes, np.uint8)

    def elsewhere() -> None:
        with driver.current():
            driver.download(result, one.address, stream)
            stream.synchronize()
        seen.append(bool((result == data).all()))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    yield context.found(f"{driver.name}: threads", seen == [True], "the same context in another thread")

    rates = {}
    for name, queue in (
        ("up", lambda: driver.upload(one.address, up.array, stream)),
        ("down", lambda: driver.download(down.array, one.address, stream)),
    ):
        took_ms = per_run_ms(driver, [queue], 20, stream, graph=False)
        rates[f"{name}_GBps"] = round(nbytes / took_ms / 1e6, 2)
    words = f"{rates['up_GBps']:.1f} GB/s up, {rates['down_GBps']:.1f} GB/s down, pinned, {nbytes >> 10} KiB at a time"
    yield context.timed(f"{driver.name}: transfer", words, **rates)

    if driver.has_graphs:
        driver.fill(two.address, 0, nbytes, stream)
        with driver.capture(stream) as capture:
            driver.copy(two.address, one.address, nbytes, stream)
            driver.download(down.array, two.address, stream)
        down.array[:] = 0
        for _ in range(3):
            capture.graph.launch(stream)
        stream.synchronize()
        good = bool((down.array == data).all())
        capture.graph.close()
        yield context.found(f"{driver.name}: graphs", good, "captured, launched three times")
    else:
        yield context.absent(f"{driver.name}: graphs", "PyCUDA has none by itself: they come with cuda-bindings")
    for held in (stream, other, event, one, two, up, down):
        held.close()
    lost = free_before - driver.memory()[0]
    # Other processes may allocate meanwhile: only what is of our own size counts.
    yield context.found(f"{driver.name}: memory", lost < 2 * nbytes, f"{max(0, lost) >> 10} KiB less free than before")
