"""ONNX Runtime on the CPU: the second engine, exact in fp32, and there wherever OpenVINO is not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.engines.base import EngineInfo, EngineOptions
from segcam.engines.host import HostEngine
from segcam.engines.model import prepare, scores_layout
from segcam.errors import EngineError, MissingDependencyError, UsageError

_NUMPY: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(uint32)": np.uint32,
    "tensor(int32)": np.int32,
    "tensor(uint64)": np.uint64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeEngine(HostEngine):
    """See ``engines.base.Engine``. Each request runs in a thread of its own on buffers bound once."""

    def __init__(self, path: Path, options: EngineOptions, warn: Callable[[str], None]) -> None:
        super().__init__(path, options, warn)
        self._pool: ThreadPoolExecutor | None = None
        self._session: Any = None
        self._bindings: list[Any] = []
        self._running: dict[int, Future[float]] = {}
        self._elapsed_ms: dict[int, float] = {}

    def activate(self) -> None:
        if self._info:
            return
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingDependencyError(
                f"ONNX Runtime is not installed ({error})", "pip install onnxruntime, or use --runtime openvino."
            ) from None
        options = self._options
        if options.precision not in ("auto", "fp32"):
            raise UsageError(
                f"{options.precision} was asked for, but ONNX Runtime computes in fp32 on a CPU",
                "Use --precision fp32, or --runtime openvino.",
            )
        if options.device.upper() not in ("", "CPU", "AUTO"):
            raise UsageError(
                f"ONNX Runtime runs on the CPU or on an NVIDIA GPU (cuda:0), not on {options.device!r}",
                "Use --runtime openvino for other devices.",
            )
        self._model = prepare(self._path, options, self._warn, "onnxruntime")
        requests = options.requests or 2
        threads = options.threads or len(os.sched_getaffinity(0))
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = threads
        # Threads that spin between operators would take the cores from decoding and drawing.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                self._model.proto.SerializeToString(), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own error types share no base but Exception
            raise EngineError(
                f"ONNX Runtime cannot run {self._path.name}: {str(error).strip().splitlines()[0][:300]}",
                f"Check the file with 'check-model {self._path}', or try --runtime openvino.",
            ) from None
        self._bind(requests)
        self._info = EngineInfo(
            model=self._path.name,
            runtime="ONNX Runtime",
            version=ort.__version__,
            device="CPU",
            precision="fp32",
            threads=threads,
            requests=requests,
            input_shape=self._model.input_shape,
            output_shape=self._outputs[0].shape,
            output_layout=scores_layout(self._outputs[0].shape, self._model.spec),
            head="+".join(self._model.cut.removed) if self._model.cut else "",
            spec=self._model.spec.origin,
            rewrites=self._model.rewrites,
        )

    def _bind(self, requests: int) -> None:
        import onnxruntime as ort

        assert self._model
        fed, read = self._session.get_inputs()[0], self._session.get_outputs()[0]
        first = np.zeros(self._model.input_shape, _NUMPY[fed.type])
        # The first run tells the output's size, which a graph need not declare.
        shape = self._session.run([read.name], {fed.name: first})[0].shape
        for _ in range(requests):
            given, made = np.zeros_like(first), np.zeros(shape, _NUMPY[read.type])
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(fed.name, ort.OrtValue.ortvalue_from_numpy(given))
            binding.bind_output(read.name, "cpu", 0, made.dtype.type, list(shape), made.ctypes.data)
            self._bindings.append(binding)
            self._inputs.append(given)
            self._outputs.append(made)
        self._pool = ThreadPoolExecutor(requests, "segcam-onnxruntime")

    def start(self, slot: int) -> None:
        assert self._pool
        self._running[slot] = self._pool.submit(self._run, slot)

    def _run(self, slot: int) -> float:
        begun = time.perf_counter()
        self._session.run_with_iobinding(self._bindings[slot])
        return (time.perf_counter() - begun) * 1e3

    def ready(self, slot: int) -> bool:
        return self._running[slot].done()

    def elapsed_ms(self, slot: int) -> float:
        return self._elapsed_ms[slot]

    def wait(self, slot: int) -> NDArray[Any]:
        try:
            self._elapsed_ms[slot] = self._running.pop(slot).result()
        except Exception as error:  # ONNX Runtime's own error types share no base but Exception
            raise EngineError(
                f"ONNX Runtime failed while running {self._path.name}: {str(error).strip().splitlines()[0][:300]}",
                "Try --runtime openvino.",
            ) from None
        return self._outputs[slot]

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(wait=True)
        self._pool = self._session = None
        self._bindings, self._running = [], {}
        self._forget()
