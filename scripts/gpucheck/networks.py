"""Networks of the zoo through ONNX Runtime and TensorRT, whichever is there: right, timed, dilated against phases."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from gpucheck.base import Absent, Context, Finding, best_kind, gpu
from gpucheck.pipeline import NOT_SLOWER, compare, rates

if TYPE_CHECKING:
    from segcam.engines.device import DeviceEngine
    from segcam.kernels.cuda.driver import Driver


def onnxruntime(context: Context) -> Iterator[Finding]:
    from segcam.engines.onnxruntime_cuda import load_onnxruntime

    load_onnxruntime()
    yield from _both(context, "onnxruntime")


def tensorrt(context: Context) -> Iterator[Finding]:
    from segcam.engines.tensorrt_api import load_tensorrt

    load_tensorrt()
    yield from _both(context, "tensorrt")


def _both(context: Context, runtime: str) -> Iterator[Finding]:
    from segcam.errors import SegcamError

    with gpu(context, best_kind(context)) as driver:
        for precision in ("fp32", "fp16"):
            took: dict[str, float] = {}
            for form, rewrite in (("dilated", "auto"), ("phases", "on")):
                path = _export(context, rewrite)
                name = f"{runtime} {precision} {form}"
                try:
                    engine = _engine(context, runtime, path, precision, driver)
                    engine.activate()
                except SegcamError as error:
                    if runtime == "onnxruntime" and (missing := _missing_library()):
                        raise Absent(f"ONNX Runtime's CUDA part does not load: {missing}") from None
                    # The other precision may well run.
                    yield context.found(f"{name}: load", False, error.message)
                    continue
                try:
                    if form == "dilated":
                        yield _right(context, engine, path, name, precision)
                        yield from compare(context, engine, name)
                        yield from rates(context, engine, name)
                    for finding in _timed(context, engine, name):
                        took.setdefault(form, finding.figures.get("ms", 0.0))
                        yield finding
                finally:
                    engine.close()
            if len(took) < 2:
                continue
            ratio = took["phases"] / took["dilated"]
            words = f"phase images take {ratio:.2f} of the dilated network's time"
            yield context.timed(f"{runtime} {precision}: dilated against phases", words, ratio=round(ratio, 3))


def _missing_library() -> str:
    from segcam.engines.onnxruntime_cuda import load_onnxruntime, missing_library

    return missing_library(load_onnxruntime())


def _export(context: Context, rewrite: Any) -> Path:
    import segcam

    path = context.work / f"network_{rewrite}.onnx"
    if not path.exists():
        # Quick: the only one of the zoo that takes small pictures; it has nothing dilated.
        name, size = ("FastSCNN", context.size) if context.quick else ("MobileV3Small", context.size)
        segcam.export(path, name, size=size, init="random", rewrite=rewrite, warn=lambda line: None)
    return path


def _engine(context: Context, runtime: str, path: Path, precision: Any, driver: Driver) -> DeviceEngine[Any]:
    from segcam.engines.base import EngineOptions

    # The file is as it shall run.
    options = EngineOptions(precision=precision, device=f"cuda:{context.device}", rewrite=False, requests=3)
    if runtime == "onnxruntime":
        from segcam.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

        return OnnxRuntimeCudaEngine(path, options, _ignore, driver)
    from segcam.cli.main import main
    from segcam.engines.tensorrt import TensorRtEngine
    from segcam.errors import EngineError

    plan = context.work / f"{path.stem}_{precision}.plan"
    with redirect_stderr(_Heard(sys.stderr)) as heard:
        code = main(["build", "--onnx", str(path), f"--{precision}", "--no-rewrite", "--force", "--output", str(plan)])
    if code:
        why = heard.getvalue().rpartition("segcam: error: ")[2]
        raise EngineError(f"segcam build: {'; '.join(line.strip() for line in why.strip().splitlines())}")
    return TensorRtEngine(plan, options, _ignore, driver)


class _Heard(StringIO):
    """Passes on what is written, at once, and keeps it."""

    def __init__(self, to: TextIO) -> None:
        super().__init__()
        self._to = to

    def write(self, text: str) -> int:
        self._to.write(text)
        return super().write(text)


def _right(context: Context, engine: DeviceEngine[Any], path: Path, name: str, precision: str) -> Finding:
    """Classes of noise, against ONNX Runtime in fp32 on the CPU."""
    import onnxruntime

    random = np.random.default_rng(0)
    height, width = context.size
    coarse = random.standard_normal((1, 3, -(-height // 8), -(-width // 8)))
    picture = coarse.repeat(8, 2).repeat(8, 3)[..., :height, :width].astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    want = session.run(None, {session.get_inputs()[0].name: picture})[0]
    fed = engine.input(0)
    fed[...] = picture.astype(fed.dtype)
    del fed
    engine.start(0)
    got = engine.wait(0).astype(np.float32)
    share = float((got.argmax(1) == want.argmax(1)).mean())
    spread, far = float(want.std()), float(np.abs(got - want).max())
    words = f"{share:.4%} of the classes are fp32's on the CPU; scores differ by up to {far:.2e} (spread {spread:.2e})"
    # An untrained network's scores lie close together: in halves many swap.
    good = share >= 0.999 if precision == "fp32" else far <= 0.1 * spread or share >= 0.99
    return context.found(f"{name}: right", good, words, share=share, largest=far, spread=spread)


def _timed(context: Context, engine: DeviceEngine[Any], name: str) -> Iterator[Finding]:
    from segcam.bench import network_rate

    rate = network_rate(engine, iterations=max(100, context.runs) if not context.quick else 5)
    mean = rate.inference_ms.mean
    words = f"{rate.rate_hz:.1f} frames/s by itself ({mean:.3f} ms; {rate.enqueue_ms:.3f} ms to queue it)"
    yield context.timed(
        f"{name}: network only", words, hz=round(rate.rate_hz, 2), ms=round(mean, 4),
        enqueue_ms=round(rate.enqueue_ms, 4), graph_hz=round(rate.graph_hz, 2),
    )  # fmt: skip
    what = f"{name}: network only, graph against plain"
    if rate.graph_hz:
        ratio = rate.graph_hz / rate.rate_hz
        words = f"{rate.graph_hz:.1f} frames/s as a graph, {rate.rate_hz:.1f} plain"
        yield context.at_speed(what, ratio >= NOT_SLOWER, words, target="graph", ratio=round(ratio, 3))
    else:
        yield context.absent(what, rate.no_graph)


def _ignore(line: str) -> None:
    pass
