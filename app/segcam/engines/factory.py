"""From the string after --engine to an engine."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from segcam.engines.base import Engine, EngineOptions
from segcam.engines.manifest import is_plan
from segcam.errors import EngineError, MissingDependencyError, UsageError

Runtime = Literal["auto", "tensorrt", "openvino", "onnxruntime"]


def make_engine(name: str, options: EngineOptions, warn: Callable[[str], None], runtime: Runtime = "auto") -> Engine:
    """An engine, not yet active, for a TensorRT plan or an ``.onnx`` file, which ``auto`` gives to OpenVINO, else to
    ONNX Runtime with a warning. The device "cuda" is ONNX Runtime's on an NVIDIA GPU.

    Raises UsageError where file and runtime don't fit, MissingDependencyError when no runtime is installed.
    """
    path = Path(name)
    if is_plan(path):
        if runtime not in ("auto", "tensorrt"):
            raise UsageError(
                f"{path} is a TensorRT plan, which {runtime} cannot run",
                f"Leave --runtime out, or give the ONNX file: segcam --engine MODEL.onnx --runtime {runtime}",
            )
        from segcam.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(path, options, warn)
    if runtime == "tensorrt":
        if not path.is_file():
            raise EngineError(f"there is no file {path}", "Check the name after --engine.")
        raise UsageError(
            f"{path} is not a TensorRT plan, and TensorRT runs nothing else",
            f"Build one: build-engine --onnx {path} --fp16",
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
    if options.device.lower().startswith("cuda"):
        from segcam.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine

        return OnnxRuntimeCudaEngine(path, options, warn)
    from segcam.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, options, warn)
