"""One network of the suite: exported with random weights, by itself and end to end, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segcam import report
from segcam.bench import ITERATIONS, combined, network_rate
from segcam.engines.device import DeviceEngine
from segcam.errors import MissingDependencyError, SegcamError
from segcam.exporter import export
from segcam.frame import Segmentation
from segcam.metrics import Metrics
from segcam.networks.zoo import ZooEntry
from segcam.pipeline import Pipeline
from segcam.session import Network
from segcam.settings import Settings
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sources.base import SourceOptions
from segcam.sources.made import Planes
from segcam.sources.synthetic import SyntheticSource
from segcam.suite.table import rate_words

Say = Callable[[str], None]


@dataclass(frozen=True)
class Amount:
    """How much is measured: ``seconds`` of the network by itself on a CPU (twice, 10 runs at least), ``iterations`` of
    it on a GPU, ``frames`` end to end of which ``warmup`` don't count."""

    seconds: float = 3.0
    iterations: int = ITERATIONS
    frames: int = 60
    warmup: int = 5


class MemorySource(SyntheticSource):
    """``test:`` pictures, a few of them drawn before and given again and again: what reads them costs nothing."""

    about = "pictures in memory"
    _KEPT = 4

    def _prepare(self) -> None:
        super()._prepare()
        self._kept: list[Planes] = [super(MemorySource, self)._draw(11 * n) for n in range(self._KEPT)]

    def _draw(self, number: int) -> Planes:
        return self._kept[number % self._KEPT]


class PaintedSink:
    """Wants labels and overlay in host memory, and drops them."""

    needs_overlay = needs_labels = True
    runs_in_main_thread = False
    description = "labels and overlay, dropped"

    def open(self, info: StreamInfo, stats: RunStats) -> None:
        pass

    def write(self, segmentation: Segmentation) -> None:
        pass

    def close(self) -> None:
        pass


def measure(
    entry: ZooEntry, size: tuple[int, int], settings: Settings, amount: Amount, folder: Path, warn: Say, say: Say
) -> dict[str, Any]:
    """The row of a network at ``size`` (height, width): what it is, what runs it, and what was measured; or, where that
    cannot be, ``problem`` says why. ``folder`` gets its ONNX file, which is removed again."""
    row: dict[str, Any] = {"network": entry.name, "size": list(size)}
    path = folder / f"{entry.name}_{size[0]}x{size[1]}.onnx"
    try:
        made = export(path, entry.name, size=size, init="random", warn=lambda line: None, say=lambda line: None)
        row |= {"parameters": made.parameters, "gflops": round(made.gflops, 3)}
        network = Network.load(dataclasses.replace(settings, engine=str(path), size=""), warn, say)
        try:
            row |= _measured(network, size, amount)
            if isinstance(network.engine, DeviceEngine):
                row["gpu"] = dataclasses.asdict(network.engine.driver.device)
                row["drivers"] = _by_driver(network.engine, amount, say)
        finally:
            network.close()
    except SegcamError as error:
        row["problem"] = error.message
    finally:
        path.unlink(missing_ok=True)
    return row


def _measured(network: Network, size: tuple[int, int], amount: Amount) -> dict[str, Any]:
    """The network, the pipeline, and the network again: a machine that drifts counts for both."""
    rate_before = network_rate(network.engine, amount.seconds, amount.iterations)
    metrics = end_to_end(network, size, amount)
    rate = combined(rate_before, network_rate(network.engine, amount.seconds, amount.iterations))
    made = report.build(network.engine.info, {}, {}, metrics, rate)
    kept = (
        "engine",
        "network_only_hz",
        "network_only_runs",
        "network_only_inference_ms",
        "network_only_enqueue_ms",
        "network_only_graph_hz",
        "network_only_no_graph",
        "end_to_end_hz",
        "end_to_end_share",
        "frames",
        "stages_ms",
        "bound",
    )
    row = {"load_s": round(network.load_s, 2), **{key: made[key] for key in kept if key in made}}
    engine = network.engine
    if network.kernels and isinstance(engine, DeviceEngine) and engine.capturable and engine.driver.has_graphs:
        row["end_to_end_plain_hz"] = round(end_to_end(network, size, amount, graphs=False).rate_hz, 3)
    return row


def end_to_end(
    network: Network, size: tuple[int, int], amount: Amount, *, graphs: bool = True, depth: int = 0
) -> Metrics:
    """From pictures in memory, of the network's size, to class maps and overlays in memory. ``depth`` frames are in
    flight at once, 0: as many as the engine takes."""
    metrics, stats = Metrics(min(amount.warmup, max(0, amount.frames - 2))), RunStats()
    source = MemorySource(f"test:size={size[1]}x{size[0]}", SourceOptions(frames=amount.frames))
    info = source.open()
    sink = PaintedSink()
    sink.open(
        StreamInfo(info.description, info.width, info.height, info.rate_hz, info.frames, False, network.classes), stats
    )
    segmenter = network.segmenter(overlay=True, depth=depth, graphs=graphs)
    try:
        Pipeline(source, segmenter, [sink], network.controls, stats, metrics).run()
    finally:
        segmenter.close()
    return metrics


def _by_driver(engine: DeviceEngine[Any], amount: Amount, say: Say) -> dict[str, Any]:
    """The network by itself through each CUDA library, on the same GPU in turn; why not, where one isn't there."""
    from segcam.kernels.cuda.driver import Kind, open_driver

    found: dict[str, Any] = {}
    kinds: tuple[Kind, ...] = ("pycuda", "cuda-python")
    for kind in kinds:
        try:
            driver = open_driver(kind, engine.driver.device.index)
        except (MissingDependencyError, SegcamError) as error:
            found[kind] = {"problem": error.message}
            say(f"  through {kind}: {error.message}")
            continue
        try:
            again = engine.with_driver(driver)
            again.activate()
            try:
                rate = network_rate(again, iterations=amount.iterations)
            finally:
                again.close()
        except SegcamError as error:
            found[kind] = {"problem": error.message}
        else:
            found[kind] = {"network_only_hz": round(rate.rate_hz, 3), "enqueue_ms": round(rate.enqueue_ms, 4)}
            if rate.graph_hz:
                found[kind]["graph_hz"] = round(rate.graph_hz, 3)
            else:
                found[kind]["no_graph"] = rate.no_graph
        finally:
            driver.close()
        said = found[kind].get("problem") or f"{rate_words(found[kind]['network_only_hz'])} frames/s"
        say(f"  through {kind}: {said}")
    return found
