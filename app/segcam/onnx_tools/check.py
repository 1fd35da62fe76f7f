"""Whether two networks give the same: both run on random input with ONNX Runtime and are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segcam.errors import EngineError, MissingDependencyError

if TYPE_CHECKING:
    import onnx

_TYPES: dict[int, type[np.generic]] = {1: np.float32, 10: np.float16, 11: np.float64, 2: np.uint8}

#: Float scores may differ by this share of their standard deviation; of labels, this share may be others.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Difference:
    """How two networks' outputs differ: ``largest`` absolute difference over the spread (standard deviation) of the
    first one's, the worst of all outputs; for whole numbers the share that differs.
    """

    largest: float

    @property
    def small(self) -> bool:
        return self.largest <= TOLERANCE


def random_inputs(model: onnx.ModelProto, seed: int = 0) -> dict[str, NDArray[Any]]:
    """One array for each input: standard normal, or any byte. Open dimensions are 1, but rows and columns 64.

    Raises EngineError for inputs of other types.
    """
    random = np.random.default_rng(seed)
    weights = {i.name for i in model.graph.initializer}
    made: dict[str, NDArray[Any]] = {}
    for tensor in model.graph.input:
        if tensor.name in weights:
            continue
        kind = tensor.type.tensor_type
        if kind.elem_type not in _TYPES:
            raise EngineError(f"input {tensor.name!r} has element type {kind.elem_type}, expected a picture")
        shape = [d.dim_value or (1 if axis < 2 else 64) for axis, d in enumerate(kind.shape.dim)]
        if kind.elem_type == 2:
            made[tensor.name] = random.integers(0, 256, shape, np.uint8)
        else:
            made[tensor.name] = random.standard_normal(shape, np.float32).astype(_TYPES[kind.elem_type])
    return made


def runner(model: onnx.ModelProto, *, exact: bool = False) -> Callable[[dict[str, NDArray[Any]]], list[NDArray[Any]]]:
    """``model`` loaded: a function from inputs by name to the outputs in order. ``exact`` runs the graph as it stands,
    without optimisations. Raises MissingDependencyError, and EngineError where it cannot load or run.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX Runtime, which checks rewritten networks, is not installed ({error})", "pip install onnxruntime"
        ) from None
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    if exact:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL

    def failed(error: Exception) -> EngineError:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        unknown = "not a registered function/op" in line
        return EngineError(
            # Where in its source it failed comes first, what failed last.
            f"ONNX Runtime cannot run the network: {line if len(line) <= 300 else '... ' + line[-296:]}",
            "Export it without operators of its own: ONNX has none of that name."
            if unknown
            else "Export the network again, with opset 17 if its operators allow it.",
        )

    try:
        session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own error types share no base but Exception
        raise failed(error) from None

    def run(inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            found = [np.asarray(output) for output in session.run(None, inputs)]
        except Exception as error:  # likewise
            raise failed(error) from None
        # An input that is an output, too, may come back as it was given, without holding on to its memory.
        return [
            np.array(output) if any(np.may_share_memory(output, given) for given in inputs.values()) else output
            for output in found
        ]

    return run


def outputs(model: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """What ``model`` gives for ``inputs``. Raises MissingDependencyError, and EngineError where it cannot run."""
    return runner(model)(inputs)


def compare(first: list[NDArray[Any]], second: list[NDArray[Any]]) -> Difference:
    """How ``second`` differs from ``first``; other shapes, types or numbers of outputs are infinitely different."""
    if len(first) != len(second):
        return Difference(float("inf"))
    worst = 0.0
    for one, other in zip(first, second, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return Difference(float("inf"))
        if one.size == 0:
            continue
        if not np.issubdtype(one.dtype, np.floating):
            worst = max(worst, float(np.mean(one != other)))
            continue
        apart = float(np.max(np.abs(one.astype(np.float64) - other)))
        spread = float(np.std(one.astype(np.float64)))
        # Where all scores are one number (or not finite) there is no spread to measure by.
        share = apart / spread if spread > 0 else apart
        worst = max(worst, share if np.isfinite(share) else float("inf"))
    return Difference(worst)


def difference(model: onnx.ModelProto, other: onnx.ModelProto, seed: int = 0) -> Difference:
    """How ``other`` differs from ``model`` on one random input. Raises as ``outputs`` does."""
    inputs = random_inputs(model, seed)
    return compare(outputs(model, inputs), outputs(other, inputs))
