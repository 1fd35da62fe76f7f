"""From an ONNX file to a running TensorRT engine, on machines that have TensorRT and an NVIDIA GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from segcam.engines.base import Engine, EngineOptions
from segcam.engines.factory import Runtime
from segcam.engines.manifest import is_plan
from segcam.engines.tensorrt_api import has_driver_library
from segcam.errors import EngineError, MissingDependencyError


def gpu_engine(
    path: Path, options: EngineOptions, runtime: Runtime, say: Callable[[str], None], warn: Callable[[str], None]
) -> Engine | None:
    """An active TensorRT engine for the ONNX file ``path``, whose plan is built the first time and kept in the cache.

    None where another runtime is to run it: by ``runtime`` or the device named, because the file is a plan already, or,
    for ``auto``, because TensorRT isn't there. A GPU named for ``auto`` is then ONNX Runtime's, if it can. Where
    TensorRT is there and cannot be used, ``auto`` warns with the reason;
    ``tensorrt`` raises MissingDependencyError, CudaError or EngineError.
    """
    if is_plan(path) or not path.is_file():
        return None
    asked = runtime == "tensorrt" or (runtime == "auto" and options.device.lower().startswith("cuda"))
    # Found without loading either.
    installed = sys.modules["tensorrt"] is not None if "tensorrt" in sys.modules else find_spec("tensorrt") is not None
    if asked and runtime == "auto" and not installed:
        other = _other_engine(path, options, warn)
        if other is not None:
            return other
    if not asked:
        if runtime != "auto" or options.device or not installed:
            return None
        if not has_driver_library():
            warn(
                "TensorRT is installed, but there is no NVIDIA driver here: the network runs on the CPU "
                "(see 'segcam doctor'; a container needs --gpus all; --runtime openvino asks for the CPU)"
            )
            return None
    from segcam.building import cached_plan
    from segcam.engines.tensorrt import TensorRtEngine

    engine: Engine | None = None
    try:
        engine = TensorRtEngine(cached_plan(path, options, say, warn), options, warn)
        engine.activate()
    except (MissingDependencyError, EngineError) as error:
        if asked:
            raise
        reason = error.message.splitlines()[0].rstrip(":")
        warn(f"the GPU is not used, the network runs on the CPU: {reason} (--runtime tensorrt says more)")
        return None
    return engine


def _other_engine(path: Path, options: EngineOptions, warn: Callable[[str], None]) -> Engine | None:
    """An active engine of ONNX Runtime on the GPU; None where it is not installed or is for the CPU."""
    from segcam.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine, load_onnxruntime

    try:
        load_onnxruntime()
    except MissingDependencyError:
        return None
    warn("TensorRT is not installed: ONNX Runtime runs the network on the GPU (TensorRT is usually faster)")
    engine = OnnxRuntimeCudaEngine(path, options, warn)
    engine.activate()
    return engine
