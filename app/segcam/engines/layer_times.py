"""How long each layer of a plan takes, by TensorRT's own profiler."""

from __future__ import annotations

from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from segcam.engines.tensorrt_api import load_tensorrt
from segcam.errors import EngineError

if TYPE_CHECKING:
    import tensorrt as trt

    from segcam.engines.plan import PlanEngine, Shape


class _Times(Protocol):
    ms: dict[str, float]


def layer_times(plan: PlanEngine, shape: Shape, runs: int) -> list[tuple[str, float]]:
    """See ``PlanEngine.profile``."""
    times = _make_profiler(load_tensorrt())
    driver = plan.driver
    with driver.current(), ExitStack() as stack:
        execution = plan.execution(shape)
        stack.callback(execution.close)
        stream = driver.stream()
        stack.callback(stream.close)
        given = driver.allocate(execution.input_bytes)
        stack.callback(given.close)
        made = driver.allocate(execution.output_bytes)
        stack.callback(made.close)
        driver.fill(given.address, 0, given.nbytes, stream)
        execution.warm_up(stream, given.address, made.address)
        context: trt.IExecutionContext = execution.context
        context.profiler = times
        for _ in range(runs):
            execution.enqueue(stream, given.address, made.address)
            stream.synchronize()
    if not times.ms:
        raise EngineError(
            f"TensorRT gave no times for the layers of {plan.name}", "Build it again with this version's build-engine."
        )
    return [(layer, total / runs) for layer, total in times.ms.items()]


def _make_profiler(trt: ModuleType) -> _Times:
    class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # TensorRT ships no types
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.ms[layer_name] = self.ms.get(layer_name, 0.0) + ms

    made: _Times = Profiler()
    return made
