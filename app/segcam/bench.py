"""Benchmark mode: the network by itself and the whole pipeline, in turn, in one run."""

from __future__ import annotations

import time

from segcam.engines.base import Engine
from segcam.metrics import Series
from segcam.report import NetworkRate


def network_rate(engine: Engine, seconds: float = 4.0) -> NetworkRate:
    """Inferences per second of an active engine with every request in flight, after one round of warm-up.

    The inputs stay as they are. Runs for at least ``seconds`` and 10 inferences; counts intervals between completions.
    """
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
    return NetworkRate(runs / seconds, runs, slower)
