"""The networks as Segcam runs them against the original's own export of the same weights, in turn in one run.

    python benchmarks/networks.py [--quick] [--only small_f128] [--sizes 1024x2048] [--json FILE]

``original`` is what the original project's exporter writes (``original_graph.py``), simplified with onnxsim and cut at
its coarse scores; ``plain`` our graph without rewrites; ``segcam`` our graph as ``segcam --engine`` runs it. All three
run through Segcam's engines (same threads, precision, requests in flight, output layout), random weights, random input.
Every round measures the three one after the other and ratios are taken within a round; the medians of the rounds count,
so that a machine that slows down slows all three. Beside the time, with every request in flight, stands the processor
time, which other work on the machine disturbs less. ``steps`` are the rewrites added one by one, in the order in which
they run. Takes about 8 minutes on two idle cores, 2 with ``--quick``.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from original_graph import original_graph

from segcam import report
from segcam.engines.base import Engine, EngineOptions
from segcam.engines.factory import make_engine
from segcam.networks.architecture import NetworkOptions, build, expected_tensors
from segcam.networks.state import random_state
from segcam.onnx_tools.rewrite import BY_RUNTIME, Runtime, rewrite

NETWORKS = {
    "small_f64": ("MobileV3Small", 64),
    "small_f128": ("MobileV3Small", 128),
    "small_f256": ("MobileV3Small", 256),
    "large_f128": ("MobileV3Large", 128),
    "large_f256": ("MobileV3Large", 256),
    "fast_scnn": ("FastSCNN", 0),
    "pspnet": ("PSPNet", 0),
}
SIZES = {
    "small_f128": ("1024x2048", "512x1024", "544x1056", "392x424"),
    "large_f128": ("1024x2048", "512x1024", "544x1056", "392x424"),
    "fastseg": ("1024x2048", "512x1024"),
    "fast_scnn": ("1024x2048", "512x1024"),
    "pspnet": ("512x512",),
}
QUICK = {("small_f128", "1024x2048"), ("small_f64", "512x1024"), ("fast_scnn", "512x1024")}
#: Where each rewrite is measured by itself.
STEPS = {("small_f128", "1024x2048"), ("small_f64", "512x1024"), ("pspnet", "512x512"), ("fast_scnn", "1024x2048")}
RUNTIMES: tuple[Runtime, ...] = ("openvino", "onnxruntime")
METADATA = (
    '{"segcam_spec": 1, "input": {"color": "RGB", "mean": [0, 0, 0], "std": [1, 1, 1]}, '
    '"output": {"kind": "logits"}, "classes": "%s"}'
)


def plain_graph(name: str, size: str) -> onnx.ModelProto:
    model, filters = NETWORKS[name]
    height, width = map(int, size.split("x"))
    classes = 21 if model == "PSPNet" else 19
    options = NetworkOptions(model, classes, filters or 128, (height, width))
    return build(options, random_state(expected_tensors(options), 0))


@contextmanager
def engine_of(model: onnx.ModelProto, runtime: Runtime, *, rewritten: bool) -> Iterator[Engine]:
    """An active engine; its input is random."""
    given = onnx.ModelProto()
    given.CopyFrom(model)
    if not any(entry.key == "segcam_spec" for entry in given.metadata_props):
        entry = given.metadata_props.add()
        entry.key, entry.value = "segcam_spec", METADATA % {19: "cityscapes", 21: "voc"}[_classes(given)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        onnx.save(given, path)
        del given
        engine = make_engine(str(path), EngineOptions(rewrite=rewritten), lambda line: None, runtime)
        engine.activate()
    try:
        for slot in range(engine.info.requests):
            fed = engine.input(slot)
            fed[...] = np.random.default_rng(slot).standard_normal(fed.shape, np.float32)
        yield engine
    finally:
        engine.close()
        gc.collect()


def _classes(model: onnx.ModelProto) -> int:
    return int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def burst(engine: Engine, seconds: float) -> tuple[float, float]:
    """Milliseconds of time and of processor time from one finished inference to the next, every request in flight."""
    slots = engine.info.requests
    begun, spent = time.perf_counter(), time.process_time()
    for slot in range(slots):
        engine.start(slot)
    runs = 0
    while time.perf_counter() - begun < seconds:
        engine.wait(runs % slots)
        engine.start(runs % slots)
        runs += 1
    # The requests are still busy: their end belongs to the figure, as their beginning does.
    for number in range(slots):
        engine.wait((runs + number) % slots)
    count = (runs + slots) / 1e3
    return (time.perf_counter() - begun) / count, (time.process_time() - spent) / count


def in_turn(models: dict[str, tuple[onnx.ModelProto, bool]], runtime: Runtime, given: argparse.Namespace) -> Any:
    """Median milliseconds of each, and ratios to the first taken within rounds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(engine_of(model, runtime, rewritten=rewritten))
            for name, (model, rewritten) in models.items()
        }
        done = {name: list(engine.info.rewrites) for name, engine in engines.items()}
        arithmetic = next(iter(engines.values())).info.arithmetic
        for engine in engines.values():
            burst(engine, 0)
        for _ in range(given.rounds):
            for name, engine in engines.items():
                times[name].append(burst(engine, given.seconds))
    first = times[next(iter(times))]
    return {
        "arithmetic": arithmetic,
        "ms": {name: round(median(wall for wall, _ in values), 2) for name, values in times.items()},
        "cpu_ms": {name: round(median(cpu for _, cpu in values), 2) for name, values in times.items()},
        "ratio": {name: _ratio(first, values, 0) for name, values in times.items()},
        "cpu_ratio": {name: _ratio(first, values, 1) for name, values in times.items()},
        "rewrites": done,
    }


def _ratio(first: list[tuple[float, float]], values: list[tuple[float, float]], which: int) -> float:
    return round(median(b[which] / a[which] for a, b in zip(first, values, strict=True)), 3)


def steps(plain: onnx.ModelProto, runtime: Runtime, given: argparse.Namespace) -> Any:
    """Each rewrite that finds something, added to those before it."""
    models, model = {"plain": (plain, False)}, plain
    for name in BY_RUNTIME[runtime]:
        made = rewrite(model, [name], runtime=runtime, check=False)
        if made.done:
            model = made.model
            models[f"+ {name}"] = (model, False)
    return in_turn(models, runtime, given) if len(models) > 1 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three networks, one size each")
    parser.add_argument("--only", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", default=[])
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--no-steps", action="store_true", help="leave out the rewrites one by one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="at least so long for each measurement")
    parser.add_argument("--json", default="")
    given = parser.parse_args()

    results: list[Any] = []
    result = {
        "command": "python benchmarks/networks.py",
        "environment": report.environment(),
        "ratio": "time of each side over the original's (steps: over plain's), medians of ratios taken within rounds",
        "results": results,
    }
    for name in given.only:
        for size in SIZES.get(name, SIZES["fastseg"]):
            if (given.sizes and size not in given.sizes) or (given.quick and (name, size) not in QUICK):
                continue
            plain = plain_graph(name, size)
            sides = {"original": (original_graph(plain), False), "plain": (plain, False), "segcam": (plain, True)}
            for runtime in given.runtimes:
                found = {"network": name, "size": size, "runtime": runtime, **in_turn(sides, runtime, given)}
                if (name, size) in STEPS and not given.no_steps:
                    found["steps"] = steps(plain, runtime, given)
                results.append(found)
                ms = "  ".join(f"{side} {value:7.1f} ms" for side, value in found["ms"].items())
                ratios = f"ratio {found['ratio']['segcam']:.3f}, of processor time {found['cpu_ratio']['segcam']:.3f}"
                print(f"{name:11} {size:9} {runtime:11} {ms}  {ratios}", flush=True)
                if given.json:
                    # After each, so that a run that is cut short leaves what it has.
                    report.write_json(result, given.json)


if __name__ == "__main__":
    main()
