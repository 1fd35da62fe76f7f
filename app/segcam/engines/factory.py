"""From the string after --engine to an engine."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from segcam.engines.base import Engine, EngineOptions
from segcam.errors import EngineError, MissingDependencyError

Runtime = Literal["auto", "openvino", "onnxruntime"]


def make_engine(name: str, options: EngineOptions, warn: Callable[[str], None], runtime: Runtime = "auto") -> Engine:
    """An engine, not yet active, for an ``.onnx`` file. ``auto`` is OpenVINO, else ONNX Runtime with a warning.

    Raises EngineError for TensorRT plans, MissingDependencyError when no runtime is installed.
    """
    path = Path(name)
    if path.suffix.lower() in (".plan", ".engine", ".trt"):
        onnx = path.with_suffix(".onnx")
        instead = onnx if onnx.is_file() else "MODEL.onnx"
        raise EngineError(
            f"{path} is a TensorRT plan, and TensorRT runs are not part of this version of Segcam",
            f"Give the ONNX file that the plan was built from: segcam --engine {instead} --source ...",
        )
    if runtime == "auto":
        if find_spec("openvino"):
            runtime = "openvino"
        elif find_spec("onnxruntime"):
            warn(
                "OpenVINO is not installed: using ONNX Runtime, which needs about twice the time (pip install openvino)"
            )
            runtime = "onnxruntime"
        else:
            raise MissingDependencyError("no runtime for networks is installed", "pip install openvino")
    if runtime == "openvino":
        from segcam.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(path, options, warn)
    from segcam.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, options, warn)
