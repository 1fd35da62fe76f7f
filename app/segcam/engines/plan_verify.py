"""A plan run and compared with the graph that it was built from: a wrong plan is found when it is built."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segcam.engines.device import quietly
from segcam.engines.plan import PlanEngine, show
from segcam.engines.plan_options import PlanPrecision
from segcam.engines.tensorrt_api import numpy_dtype
from segcam.errors import EngineError
from segcam.onnx_tools.agreement import Agreement
from segcam.onnx_tools.check import runner
from segcam.onnx_tools.rounding import rounded

if TYPE_CHECKING:
    import onnx

    from segcam.kernels.cuda.driver import Driver

#: A plan is wrong where it has less than this share of labels in common with its graph, and scores that are off by more
#: than this part of their spread. Kernels sum in other orders than a CPU, and networks that nobody has trained have
#: pixels whose classes are as good as equal: either alone says little.
_LEAST: dict[PlanPrecision, tuple[float, float]] = {
    "fp32": (0.999, 0.01),
    "fp16": (0.98, 0.1),
    "bf16": (0.95, 0.5),
    "int8": (0.95, 1.0),
    "fp8": (0.95, 1.0),
}


def expected_outputs(model: onnx.ModelProto, feeds: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """What the prepared graph gives for each of ``feeds`` (its input, as it takes it), on the CPU, with every half
    really rounded. Halves come as float32. Raises EngineError, and MissingDependencyError without ONNX Runtime.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    name = next(value.name for value in model.graph.input if value.name not in initializers)
    run = runner(rounded(model), exact=True)
    return [run({name: _widened(feed)})[0] for feed in feeds]


def verify_plan(
    data: bytes,
    feeds: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    driver: Driver,
    source: str,
    *,
    host_code: bool = False,
    channel_axis: int = 1,
) -> Agreement:
    """Load a plan, run it on ``feeds`` and compare with ``expected`` (of ``expected_outputs``, one for each).

    Each feed has the type and the rank of the plan's input and a shape that it takes; ``source`` says where they come
    from. ``nonfinite`` counts frames here. Raises EngineError where TensorRT cannot load or run it, or where shapes
    differ, and CudaError.
    """
    if not feeds:
        raise EngineError("no frames to run the plan on", "Give at least one.")
    plan = PlanEngine(data, driver, "the plan just built", host_code=host_code)
    try:
        found = [_run(plan, feed) for feed in feeds]
    finally:
        plan.close()
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            raise EngineError(
                f"the plan gives {show(other.shape)}, its network {show(one.shape)}",
                "It is not kept. Report this with the network and TensorRT's version.",
            )
    pairs = list(zip(expected, found, strict=True))
    finite = [one for one in expected if _is_float(one) and np.isfinite(one).all()]
    return Agreement(
        labels_equal=float(
            np.mean([np.mean(_labels(one, channel_axis) == _labels(two, channel_axis)) for one, two in pairs])
        ),
        largest_difference=max(_difference(one, two) for one, two in pairs),
        spread=max((float(np.std(one, dtype=np.float64)) for one in finite), default=0.0),
        nonfinite=sum(bool(np.isfinite(one).all() and not np.isfinite(two).all()) for one, two in pairs),
        frames=len(feeds),
        source=source,
    )


def _labels(array: NDArray[Any], axis: int) -> NDArray[Any]:
    return array.argmax(axis) if _is_float(array) and array.ndim > 2 and array.shape[axis] > 1 else array


def _difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    if not _is_float(one):
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.astype(np.float64) - other)
    return float(np.where(np.isfinite(one), np.nan_to_num(apart, nan=np.inf, posinf=np.inf), 0.0).max())


def _is_float(array: NDArray[Any]) -> bool:
    return np.issubdtype(array.dtype, np.floating)


def refuse_wrong(found: Agreement, precision: PlanPrecision) -> None:
    """Raise EngineError where ``verify_plan`` found another network than the one that was built."""
    labels, part = _LEAST[precision]
    off = found.largest_difference > part * found.spread or found.spread == 0
    if found.nonfinite or (found.labels_equal < labels and off):
        wild = f", and scores are not finite in {found.nonfinite} of {found.frames} frames" if found.nonfinite else ""
        raise EngineError(
            f"the plan does not compute what its network does: {100 * found.labels_equal:.2f} % of pixels have the "
            f"same class ({found.source}); scores, with a standard deviation of {found.spread:.3g}, are off by up to "
            f"{found.largest_difference:.3g}{wild}",
            "It is not kept. Build with --fp32 or another --optimization-level, and report it with TensorRT's version.",
        )


def _run(plan: PlanEngine, feed: NDArray[Any]) -> NDArray[Any]:
    wanted = numpy_dtype(plan.input.dtype)
    if feed.dtype != wanted:
        raise EngineError(f"the plan's input is {plan.input.words}, the frame {feed.dtype} {show(feed.shape)}")
    driver = plan.driver
    with driver.current(), contextlib.ExitStack() as taken:
        execution = plan.execution(feed.shape)
        taken.callback(quietly, execution.close)
        memory = []
        for nbytes in (execution.input_bytes, execution.output_bytes):
            memory.append(driver.allocate(nbytes))
            taken.callback(quietly, memory[-1].close)
        stream = driver.stream()
        taken.callback(quietly, stream.close)
        given, made = (one.address for one in memory)
        result = np.empty(execution.output_shape, numpy_dtype(plan.output.dtype))
        driver.upload(given, np.ascontiguousarray(feed), stream)
        execution.enqueue(stream, given, made)
        driver.download(result, made, stream)
        stream.synchronize()
    if plan.output.dtype == "bfloat16":
        return (result.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return _widened(result)


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float16 else array
