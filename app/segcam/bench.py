"""Benchmark mode: the network by itself and the whole pipeline, in turn, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from segcam.engines.base import Engine
from segcam.engines.device import DeviceEngine, DeviceRun
from segcam.errors import EngineError
from segcam.kernels.cuda.driver import Driver
from segcam.metrics import Series
from segcam.report import NetworkRate

#: Runs that a rate on the GPU counts at least.
ITERATIONS = 100
_WARM_UP = 20


def network_rate(engine: Engine, seconds: float = 4.0, iterations: int = ITERATIONS) -> NetworkRate:
    """Inferences per second of an active engine: on a GPU as ``device_rate`` says, with a graph beside it or why there
    is none; elsewhere with every request in flight, after one round of warm-up.

    Inputs in host memory stay as they are. Runs there for at least ``seconds`` and 10 inferences; counts intervals
    between completions.
    """
    if isinstance(engine, DeviceEngine):
        return _device_network_rate(engine, iterations)
    slots = range(engine.info.requests)
    for slot in slots:
        engine.start(slot)
    for slot in slots:
        engine.wait(slot)
    inference_ms = Series()
    for slot in slots:
        engine.start(slot)
    engine.wait(0)
    begun = last = time.perf_counter()
    engine.start(0)
    runs, slot = 0, 0
    while last - begun < seconds or runs < 10:
        slot = (slot + 1) % engine.info.requests
        engine.wait(slot)
        last = time.perf_counter()
        runs += 1
        inference_ms.add(engine.elapsed_ms(slot))
        engine.start(slot)
    for slot in slots:
        engine.wait(slot)
    return NetworkRate(runs / (last - begun), runs, inference_ms.summary())


def combined(first: NetworkRate, second: NetworkRate) -> NetworkRate:
    """Two measurements, taken before and after something else, as one: a machine that drifts counts half and half."""
    runs = first.runs + second.runs
    seconds = first.runs / first.rate_hz + second.runs / second.rate_hz
    slower = max(first.inference_ms, second.inference_ms, key=lambda summary: summary.mean)
    graph_hz = min(first.graph_hz, second.graph_hz)
    no_graph = first.no_graph or second.no_graph
    return NetworkRate(runs / seconds, runs, slower, max(first.enqueue_ms, second.enqueue_ms), graph_hz, no_graph)


def _device_network_rate(engine: DeviceEngine[Any], iterations: int) -> NetworkRate:
    driver = engine.driver
    with driver.current():
        run = engine.plan.execution(engine.info.input_shape)
        try:
            plain = device_rate(run, driver, engine.input_dtype, iterations)
            if not engine.capturable:
                return replace(plain, no_graph=f"{engine.info.runtime}'s work cannot be captured into one")
            try:
                graph = device_rate(run, driver, engine.input_dtype, iterations, graph=True)
            except EngineError as error:
                # Not every library has them, and not every network can be captured: the plain rate stands by itself.
                return replace(plain, no_graph=": ".join(filter(None, (error.message, error.hint))))
        finally:
            run.close()
    return replace(plain, graph_hz=graph.rate_hz)


def device_rate(
    run: DeviceRun, driver: Driver, dtype: str, iterations: int = ITERATIONS, *, graph: bool = False
) -> NetworkRate:
    """A network between two device addresses, one run right behind the other on one stream, timed by CUDA events there.

    The input is noise of ``dtype`` and stays; nothing is copied. ``graph``: captured once and launched so. Inside
    ``driver.current()``. Raises EngineError, for what cannot be captured as well.
    """
    random = np.random.default_rng(0)
    with ExitStack() as held:
        stream = driver.stream()
        held.callback(stream.close)
        given, made = (driver.allocate(nbytes) for nbytes in (run.input_bytes, run.output_bytes))
        held.callback(made.close)
        held.callback(given.close)
        kind = np.dtype(dtype)
        noise = (
            random.standard_normal(run.input_shape, np.float32)
            if kind.kind == "f"
            else random.integers(0, 256, run.input_shape)
        )
        driver.upload(given.address, np.ascontiguousarray(noise, kind), stream)
        run.warm_up(stream, given.address, made.address)
        launch: Callable[[], None] = lambda: run.enqueue(stream, given.address, made.address)  # noqa: E731
        if graph:
            with driver.capture(stream) as capture:
                launch()
            captured = capture.graph
            held.callback(captured.close)
            launch = lambda: captured.launch(stream)  # noqa: E731
        for _ in range(_WARM_UP):
            launch()
        stream.synchronize()
        events = [driver.event() for _ in range(iterations + 1)]
        for event in events:
            held.callback(event.close)
        begun = time.perf_counter()
        events[0].record(stream)
        for event in events[1:]:
            launch()
            event.record(stream)
        enqueue_ms = (time.perf_counter() - begun) * 1e3 / iterations
        stream.synchronize()
        took_ms = Series()
        for earlier, later in pairwise(events):
            took_ms.add(later.ms_since(earlier))
        return NetworkRate(1e3 * iterations / events[-1].ms_since(events[0]), iterations, took_ms.summary(), enqueue_ms)
