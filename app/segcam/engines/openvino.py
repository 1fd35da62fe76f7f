"""OpenVINO: the engine of machines without an NVIDIA GPU, and of Intel's GPUs and NPUs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segcam.engines.base import EngineInfo, EngineOptions, Layout, Precision
from segcam.engines.host import HostEngine
from segcam.engines.mixed import keep_first_layers_fp32
from segcam.engines.model import prepare, scores_layout
from segcam.engines.signal_stack import kept_signal_stack
from segcam.errors import EngineError, MissingDependencyError, UsageError
from segcam.onnx_tools.spec import ModelSpec

if TYPE_CHECKING:
    import openvino as ov

_HINTS: dict[str, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoEngine(HostEngine):
    """See ``engines.base.Engine``. One request more than the streams that compute, so that no stream waits for the
    thread that prepares frames and reads results."""

    def __init__(self, path: Path, options: EngineOptions, warn: Callable[[str], None]) -> None:
        super().__init__(path, options, warn)
        self._requests: list[ov.InferRequest] = []

    def activate(self) -> None:
        with kept_signal_stack():
            self._activate()

    def _activate(self) -> None:
        if self._info:
            return
        try:
            import openvino as ov
        except ImportError as error:
            raise MissingDependencyError(
                f"OpenVINO is not installed ({error})", "pip install openvino, or use --runtime onnxruntime."
            ) from None
        options = self._options
        core = ov.Core()
        device = options.device.upper() or "CPU"
        if device.split(":")[0].split(".")[0] not in (
            "AUTO",
            "HETERO",
            "MULTI",
            *(d.split(".")[0] for d in core.available_devices),
        ):
            raise UsageError(
                f"OpenVINO has no device {device!r} here, only: {', '.join(core.available_devices)}",
                "Choose one of these with --device, or see 'segcam doctor'.",
            )
        self._model = prepare(self._path, options, self._warn, "openvino")
        precision = _precision(core, device, options.precision)
        config: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": _HINTS[precision]}
        if options.requests:
            config["PERFORMANCE_HINT_NUM_REQUESTS"] = max(1, options.requests - 1)
        if options.threads and device == "CPU":
            config["INFERENCE_NUM_THREADS"] = options.threads
        try:
            network = core.read_model(self._model.proto.SerializeToString())
            kept = 0
            if precision == "bf16" and options.precision == "auto":
                network, kept = keep_first_layers_fp32(core, network)
            network, layout = _as_computed(network, self._model.spec, precision)
            compiled = core.compile_model(network, device, config)
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO cannot run {self._path.name}: {_first_line(error)}",
                f"Check the file with 'check-model {self._path}', or try --runtime onnxruntime.",
            ) from None
        count = options.requests or int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + 1
        self._make_requests(ov, compiled, count)
        threads = int(compiled.get_property("INFERENCE_NUM_THREADS")) if device == "CPU" else 0
        found = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        names = {hint: name for name, hint in _HINTS.items()}
        if names.get(found) != precision:
            raise EngineError(f"{precision} was asked for and OpenVINO took {found}", "Use --precision fp32, or auto.")
        self._info = EngineInfo(
            model=self._path.name,
            runtime="OpenVINO",
            version=ov.__version__.split("-")[0],
            device=f"{device}, {str(core.get_property(device, 'FULL_DEVICE_NAME')).strip()}"
            if device == "CPU"
            else device,
            precision=precision,
            first_layers_fp32=kept,
            threads=threads,
            requests=count,
            input_shape=self._model.input_shape,
            output_shape=self._outputs[0].shape,
            output_layout=layout,
            head="+".join(self._model.cut.removed) if self._model.cut else "",
            spec=self._model.spec.origin,
            rewrites=self._model.rewrites,
        )

    def _make_requests(self, ov: Any, compiled: ov.CompiledModel, count: int) -> None:
        port = compiled.outputs[0]
        if port.partial_shape.is_dynamic:
            raise EngineError(
                f"{self._path.name}: the size of its output {port.partial_shape} depends on the picture",
                "Export the network with a fixed input size, or give --size HEIGHT,WIDTH.",
            )
        for _ in range(count):
            fed = np.zeros(tuple(compiled.inputs[0].shape), compiled.inputs[0].element_type.to_dtype())
            bf16 = port.element_type == ov.Type.bf16
            read = np.zeros(tuple(port.shape), np.uint16 if bf16 else port.element_type.to_dtype())
            request = compiled.create_infer_request()
            request.set_input_tensor(ov.Tensor(fed, shared_memory=True))
            request.set_output_tensor(
                ov.Tensor(read, port.shape, ov.Type.bf16) if bf16 else ov.Tensor(read, shared_memory=True)
            )
            self._requests.append(request)
            self._inputs.append(fed)
            self._outputs.append(read)

    def start(self, slot: int) -> None:
        self._requests[slot].start_async()

    def ready(self, slot: int) -> bool:
        return bool(self._requests[slot].wait_for(0))

    def elapsed_ms(self, slot: int) -> float:
        return float(self._requests[slot].latency)

    def wait(self, slot: int) -> NDArray[Any]:
        try:
            self._requests[slot].wait()
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO failed while running {self._path.name}: {_first_line(error)}", "Try --precision fp32."
            ) from None
        return self._outputs[slot]

    def close(self) -> None:
        for request in self._requests:
            request.cancel()
        for request in self._requests:
            # A cancelled inference still writes until it says that it was cancelled.
            with suppress(RuntimeError):
                request.wait()
        self._requests = []
        self._forget()


def _as_computed(network: ov.Model, spec: ModelSpec, precision: Precision) -> tuple[ov.Model, Layout]:
    """The network with its scores as OpenVINO's convolutions make them: NHWC, and bfloat16 when it computes in that.

    Asked for NCHW it transposes 20 classes at 512x1024 in 60 of 155 ms; asked for float32 it computes the last layer in
    it, for 5 ms more and twice the bytes (OpenVINO 2026.4, bf16, one core). Our kernels read either.
    """
    shape = network.outputs[0].partial_shape
    if shape.is_dynamic:
        return network, "NCHW"
    layout = scores_layout(tuple(shape.to_shape()), spec)
    if spec.output.kind == "labels" or layout == "NHWC" or len(shape) != 4:
        return network, layout
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(network)
    steps.output().model().set_layout(ov.Layout("NCHW"))
    steps.output().tensor().set_layout(ov.Layout("NHWC"))
    if precision == "bf16":
        steps.output().tensor().set_element_type(ov.Type.bf16)
    return steps.build(), "NHWC"


def _precision(core: ov.Core, device: str, asked: str) -> Precision:
    """What ``auto`` means on this device: bf16 or fp16 where the processor computes in it, else fp32."""
    capable = (
        {str(c) for c in core.get_property(device, "OPTIMIZATION_CAPABILITIES")}
        if device in core.available_devices
        else set()
    )
    if asked == "auto":
        if device == "CPU":
            return "bf16" if "BF16" in capable else "fp16" if "FP16" in capable else "fp32"
        return "fp16" if "FP16" in capable else "fp32"
    if asked != "fp32" and capable and asked.upper() not in capable:
        offered = ", ".join(sorted(capable & {"FP32", "BF16", "FP16"}))
        raise UsageError(
            f"{asked} was asked for, but this {device} computes in {offered} only",
            "Use --precision auto.",
        )
    return asked  # type: ignore[return-value]  # auto is handled above


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    framing = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")
    plain = [line.removeprefix("-- ") for line in lines if not line.startswith(framing)]
    return (plain or lines or [type(error).__name__])[0][:300]
