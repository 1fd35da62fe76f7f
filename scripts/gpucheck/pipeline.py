"""The whole pipeline on the GPU: equal to the processor's, with and without graphs, as fast as its slowest part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpucheck.base import Context, Finding, best_kind, gpu
from gpucheck.recorded import RecordedEngine
from gpucheck.timing import per_run_ms
from segcam.frame import Frame

if TYPE_CHECKING:
    from segcam.engines.device import DeviceEngine
    from segcam.kernels.cuda.driver import Driver
    from segcam.metrics import Metrics
    from segcam.session import Network

#: Of the rate of the slowest part.
TARGET = 0.95
#: About what the smallest networks of the zoo take on a large GPU.
NETWORK_MS = 2.0
#: Of the plain rate: two rates of one run differ by a per cent or so by themselves.
NOT_SLOWER = 0.98


def check(context: Context) -> Iterator[Finding]:
    with gpu(context, best_kind(context)) as driver:
        yield _own_rate(context, driver)
        # Memory traffic for as long as a small network takes, in place of one: what is as fast as the host's own work
        # on a frame says nothing about how well the two overlap.
        work = 0 if context.quick else 400 << 20
        engine = RecordedEngine(driver, context.size, work, _copies(driver, work) if work else 1)
        engine.activate()
        with ExitStack() as held:
            held.callback(engine.close)
            yield from compare(context, engine, "recorded scores")
            yield from rates(context, engine, "recorded scores")


def _own_rate(context: Context, driver: Driver) -> Finding:
    """With a network that takes no time: what Segcam itself allows."""
    engine = RecordedEngine(driver, context.size)
    engine.activate()
    try:
        network = network_of(engine)
        try:
            metrics = _run(context, network, graphs=driver.has_graphs)
        finally:
            network.kernels.close()  # type: ignore[union-attr]  # there are some
    finally:
        engine.close()
    host_ms = metrics.summaries()["host"].mean
    words = (
        f"{metrics.rate_hz:.0f} frames/s with a network that takes no time; copying and queueing on the host take "
        f"{host_ms:.3f} ms of each"
    )
    return context.timed("no network: rate", words, rate_hz=round(metrics.rate_hz, 1), host_ms=round(host_ms, 4))


def _copies(driver: Driver, nbytes: int) -> int:
    """How many copies of so many bytes take as long as such a network."""
    stream = driver.stream()
    one, two = driver.allocate(nbytes), driver.allocate(nbytes)
    try:
        took_ms = per_run_ms(driver, [lambda: driver.copy(two.address, one.address, nbytes, stream)], 4, stream)
    finally:
        for held in (one, two, stream):
            held.close()
    return max(1, round(NETWORK_MS / took_ms))


def network_of(engine: DeviceEngine[Any]) -> Network:
    """As ``Network.load`` makes it, around an active engine."""
    from segcam.controls import Controls
    from segcam.segmenters.reading import count_classes
    from segcam.session import Network, gpu_kernels
    from segcam.settings import Settings

    said: list[str] = []
    kernels = gpu_kernels(engine, said.append, said.append)
    assert kernels is not None, said
    classes = engine.spec.class_table(count_classes(engine)).with_palette("cityscapes")
    controls = Controls(0.5, classes.visible(""), False)
    return Network(engine, classes, controls, Settings(), 0.0, kernels, said.append)


def frames(context: Context, size: tuple[int, int]) -> Iterator[Frame]:
    """One of each pixel format that sources give, random."""
    height, width = size
    half = ((height + 1) // 2, (width + 1) // 2)
    random = np.random.default_rng(3)
    shapes: dict[str, list[tuple[int, ...]]] = {
        "i420": [size, half, half],
        "nv12": [size, (*half, 2)],
        "bgr24": [(height, width, 3)],
    }
    for index, (format, planes) in enumerate(shapes.items()):
        made = tuple(random.integers(0, 256, shape, np.uint8) for shape in planes)
        yield Frame(index, index, Fraction(1, 25), 0.0, "random", width, height, format, made)  # type: ignore[arg-type]


def compare(context: Context, engine: DeviceEngine[Any], name: str) -> Iterator[Finding]:
    """Frames of all formats, of the network's size and of another, on the GPU and through the same network with the
    processor's kernels."""
    network = network_of(engine)
    try:
        equal, pixels, far, count = 0, 0, 0, 0
        for size in (context.size, (61, 147), (context.size[0] // 2, context.size[1] // 2)):
            on_gpu = network.segmenter()
            found = []
            for frame in frames(context, size):
                on_gpu.submit(frame)
                found.append(on_gpu.collect())
            on_gpu.close()
            for got, want in zip(found, others(context, network, size), strict=True):
                same = got.labels == want.labels
                equal, pixels, count = equal + int(same.sum()), pixels + same.size, count + 1
                assert got.overlay is not None
                far = max(far, *(_far(a, b, same) for a, b in zip(got.overlay.planes, want.planes, strict=True)))
        share = equal / pixels
        words = (
            f"{share:.4%} of the pixels of {count} frames have the class that the CPU names, overlays there within "
            f"{far} level(s)"
        )
        yield context.found(
            f"{name}: equal to the CPU's", share >= 0.9999 and far <= 1, words, target="equal", share=share, levels=far
        )
    finally:
        network.kernels.close()  # type: ignore[union-attr]  # there are some


@dataclass(eq=False)
class Expected:
    """(H, W) labels, and the planes of the overlay."""

    labels: NDArray[np.uint8]
    planes: tuple[NDArray[np.uint8], ...]


def others(context: Context, network: Network, size: tuple[int, int]) -> Iterator[Expected]:
    """The same frames through the same network, prepared and painted on the processor: by Segcam's kernels for it, or,
    without Numba, which is large, by the NumPy references."""
    engine: Any = network.engine
    try:
        from segcam.segmenters.cpu import CpuSegmenter
    except ModuleNotFoundError:
        for frame in frames(context, size):
            yield _by_reference(network, frame)
        return
    on_cpu = CpuSegmenter(engine, network.classes, network.controls)
    for frame in frames(context, size):
        on_cpu.submit(frame)
        made = on_cpu.collect()
        assert made.overlay is not None
        yield Expected(made.labels, made.overlay.planes)


def _by_reference(network: Network, frame: Frame) -> Expected:
    from segcam.geometry import fit
    from segcam.kernels.cuda import reference
    from segcam.kernels.cuda.postprocess import color_table
    from segcam.segmenters.cuda_work import kind_of
    from segcam.segmenters.reading import class_colors, class_map_axes, score_taps

    engine = network.engine
    given, hw, input_hw = engine.spec.input, (frame.height, frame.width), engine.info.input_hw
    placement = fit(hw, input_hw, given.resize)
    kind = kind_of(frame)[0]
    fed = engine.input(0)
    fed[0] = reference.preprocess(
        kind, frame.planes, placement, input_hw, given.mean, given.std, rgb=given.color == "RGB"
    )
    del fed
    engine.start(0)
    scores = engine.wait(0)[0]
    grid = (scores.shape[1], scores.shape[2])
    axes = class_map_axes(hw, "frame", hw, placement, input_hw, grid, engine.spec.output)
    labels, _ = reference.class_map(scores, *score_taps(hw, grid, axes))
    table = color_table(kind.colors, *class_colors(network.classes, network.controls))
    return Expected(labels, reference.overlay(kind, frame.planes, labels, table))


def _far(one: NDArray[np.uint8], other: NDArray[np.uint8], same: NDArray[np.bool_]) -> int:
    """The largest difference of two planes where the classes, (H, W) ``same``, are."""
    if one.shape[:2] != same.shape:
        # A sample of chroma is of four pixels.
        even = np.pad(same, [(0, n % 2) for n in same.shape], constant_values=True)
        same = np.asarray(even.reshape(even.shape[0] // 2, 2, -1, 2).all((1, 3)))
    return int(np.abs(one.astype(np.int16) - other)[same].max(initial=0))


def rates(context: Context, engine: DeviceEngine[Any], name: str) -> Iterator[Finding]:
    """From pictures in memory to labels and overlays in memory: against the slowest part, graphs against plain."""
    network = network_of(engine)
    try:
        # One frame at a time: in each other's company all parts take longer.
        alone = _run(context, network, graphs=False, depth=1)
        stages = {stage: summary.mean for stage, summary in alone.summaries().items()}
        runs = {False: _run(context, network, graphs=False)}
        if engine.driver.has_graphs and engine.capturable:
            runs[True] = _run(context, network, graphs=True)
        plain_hz, graph_hz = runs[False].rate_hz, runs[True].rate_hz if True in runs else 0.0
        rate_hz = max(plain_hz, graph_hz)
        if graph_hz > plain_hz:
            # Queueing is less there.
            stages["host"] = _run(context, network, graphs=True, depth=1).summaries()["host"].mean
        parts = {
            "upload": stages.get("upload", 0.0),
            "GPU": sum(stages.get(stage, 0.0) for stage in ("preprocess", "inference", "postprocess")),
            "download": stages.get("download", 0.0),
            "queueing and copying on the host": stages.get("host", 0.0),
        }
        slowest = max(parts, key=lambda part: parts[part])
        best_hz = 1e3 / parts[slowest] if parts[slowest] else 0.0
        figures = {f"{stage}_ms": round(value, 4) for stage, value in stages.items()}
        share = rate_hz / best_hz if best_hz else 1.0
        words = (
            f"{rate_hz:.0f} frames/s, {share:.1%} of what its slowest part ({slowest}, {parts[slowest]:.3f} ms) allows"
        )
        yield context.at_speed(
            f"{name}: rate", share >= TARGET, words, target="pipeline", rate_hz=round(rate_hz, 1),
            share=round(share, 3), slowest=slowest, slowest_ms=round(parts[slowest], 4), **figures,
        )  # fmt: skip
        if graph_hz:
            ratio = graph_hz / plain_hz if plain_hz else 1.0
            words = f"{graph_hz:.0f} frames/s as graphs, {plain_hz:.0f} plain"
            yield context.at_speed(
                f"{name}: graph against plain", ratio >= NOT_SLOWER, words, target="graph", ratio=round(ratio, 3)
            )
        else:
            yield context.absent(f"{name}: graph against plain", no_graphs(engine))
    finally:
        network.kernels.close()  # type: ignore[union-attr]  # there are some


def no_graphs(engine: DeviceEngine[Any]) -> str:
    """Why there are none."""
    if not engine.driver.has_graphs:
        return "PyCUDA has no graphs by itself: they come with cuda-bindings"
    return f"{engine.info.runtime}'s work cannot be captured into one"


def _run(context: Context, network: Network, *, graphs: bool, depth: int = 0) -> Metrics:
    from segcam.suite.measure import Amount, end_to_end

    amount = Amount(frames=12 if context.quick else max(200, context.runs))
    return end_to_end(network, network.engine.info.input_hw, amount, graphs=graphs, depth=depth)
