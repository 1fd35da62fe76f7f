"""ONNX Runtime on an NVIDIA GPU: what runs a network there without TensorRT. Never on the CPU without a word.

It works on our device addresses and our streams ("CUDA Execution Provider" and "I/O Binding" in its documentation). A
session's stream is fixed when it is made, so each slot has a session of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from segcam.engines.base import EngineInfo, Precision
from segcam.engines.device import DeviceEngine, quietly
from segcam.engines.model import PreparedModel, prepare, scores_layout
from segcam.engines.plan import ALIGNMENT, PlanTensor, Shape, show
from segcam.engines.tensorrt_api import numpy_dtype
from segcam.errors import CudaError, EngineError, MissingDependencyError, UsageError
from segcam.onnx_tools.spec import ModelSpec

if TYPE_CHECKING:
    import onnx

    from segcam.kernels.cuda.driver import Driver, Stream

PROVIDER = "CUDAExecutionProvider"
INSTALL = "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]': both are called onnxruntime."
#: What session creation says where operators would go to the CPU and may not.
_ON_CPU = "fallback to CPU EP has been explicitly disabled"
#: What ONNX Runtime's core gives its CUDA part.
_OF_THE_CORE = "Provider_GetHost"
#: Pixels of the network for one of a random picture.
_COARSE = 8


def load_onnxruntime() -> ModuleType:
    """``onnxruntime`` with CUDA compiled in and its libraries loaded. Raises MissingDependencyError."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX Runtime is not installed ({error})", "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        ) from None
    has: list[str] = ort.get_available_providers()
    if PROVIDER not in has:
        raise MissingDependencyError(
            f"the installed ONNX Runtime {ort.__version__} runs networks on the CPU only (it has {', '.join(has)})",
            INSTALL,
        )
    _preload(ort)
    module: ModuleType = ort
    return module


@lru_cache(maxsize=4)
def _preload(ort: ModuleType) -> str:
    """Loads CUDA and cuDNN from their own packages (PyTorch's need them as well), where they are; returns what it
    printed."""
    said = io.StringIO()
    # Since 1.21.
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(said):
            for folder in _library_folders(ort):
                ort.preload_dlls(directory=folder)
            ort.preload_dlls()
    return said.getvalue()


def _library_folders(ort: ModuleType) -> list[str]:
    """``nvidia/*/lib`` of every folder that Python imports from, but for ONNX Runtime's own, where it looks by itself:
    it may be installed in another place than CUDA's packages are."""
    own = Path(ort.__file__ or "").parent.parent
    folders = [Path(place) / "nvidia" for place in dict.fromkeys(sys.path) if place and Path(place) != own]
    return [str(path) for folder in folders for path in sorted(folder.glob("*/lib")) if path.is_dir()]


class OrtCudaNetwork:
    """A network for ONNX Runtime on the GPU; see ``engines.device.DeviceNetwork``. ``model`` has one input and one
    output of fixed sizes. ``warn`` hears once where operators without a CUDA kernel run on the CPU."""

    def __init__(
        self, ort: ModuleType, model: onnx.ModelProto, driver: Driver, name: str, warn: Callable[[str], None]
    ) -> None:
        self.name, self.driver = name, driver
        self._ort, self._data, self._warn = ort, model.SerializeToString(), warn
        self._told = False
        # Old exports list their weights among the inputs.
        weights = {weight.name for weight in model.graph.initializer}
        self.input = _tensor(next(i for i in model.graph.input if i.name not in weights), "input")
        self.output = _tensor(self._inferred(model), "output")

    def _inferred(self, model: onnx.ModelProto) -> onnx.ValueInfoProto:
        """The output with its size, which a graph need not declare: inferred, else seen on a run on the CPU."""
        import onnx

        known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0]
        tensor = known.type.tensor_type
        if tensor.HasField("shape") and all(dim.dim_value > 0 for dim in tensor.shape.dim):
            return known
        fed = np.zeros(self.input.shape, numpy_dtype(self.input.dtype))
        try:
            session = self._ort.InferenceSession(self._data, _settings(self._ort), providers=["CPUExecutionProvider"])
            made = session.run([known.name], {self.input.name: fed})[0]
        except Exception as error:  # ONNX Runtime's own error types share no base but Exception
            raise _refused(self.name, error) from None
        return onnx.helper.make_tensor_value_info(known.name, tensor.elem_type, made.shape)

    def execution(self, shape: Shape) -> OrtExecution:
        """Raises EngineError for another shape than the input's."""
        if shape != self.input.shape:
            raise EngineError(f"{self.name} takes an input of {show(self.input.shape)}, not {show(shape)}")
        return OrtExecution(self)

    def session(self, stream: Stream) -> Any:
        """A session whose work goes to ``stream``. Raises EngineError where CUDA does not come up or refuses it."""
        provider = (
            PROVIDER,
            {
                "device_id": str(self.driver.device.index),
                "user_compute_stream": str(int(stream.handle)),
                # Once, in the warm-up: the fastest way is looked for layer by layer.
                "cudnn_conv_algo_search": "EXHAUSTIVE",
                "arena_extend_strategy": "kSameAsRequested",
                # fp32 means fp32, as in plans.
                "use_tf32": "0",
            },
        )
        try:
            settings = _settings(self._ort)
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            try:
                session = self._session(settings, provider)
            except Exception as error:  # as above
                if _ON_CPU not in str(error):
                    raise
                session = self._session(_settings(self._ort), provider)
                if self._is_on_gpu(session) and not self._told:
                    self._told = True
                    self._warn(
                        f"{self.name}: ONNX Runtime has no CUDA kernel for some of its operators; these run on the "
                        "CPU, with copies there and back"
                    )
        except Exception as error:  # as above
            raise _refused(self.name, error) from None
        if not self._is_on_gpu(session):
            raise EngineError(
                f"ONNX Runtime cannot use CUDA here: {missing_library(self._ort) or 'its CUDA part does not load'}",
                "pip install 'onnxruntime-gpu[cuda,cudnn]' brings CUDA's libraries along; its version must fit the "
                "driver: 'segcam doctor' shows it. --device cpu runs on the CPU.",
            )
        return session

    def _session(self, settings: Any, provider: tuple[str, dict[str, str]]) -> Any:
        # enable_fallback=0: otherwise a failure prints a banner and makes a session on the CPU.
        return self._ort.InferenceSession(self._data, settings, providers=[provider], enable_fallback=0)

    def _is_on_gpu(self, session: Any) -> bool:
        providers: list[str] = session.get_providers()
        return providers[:1] == [PROVIDER]

    def run_options(self) -> Any:
        options = self._ort.RunOptions()
        # Otherwise each run waits for the GPU.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return options

    def close(self) -> None:
        """Executions hold all that there is."""


class OrtExecution:
    """See ``engines.device.DeviceRun``. It belongs to the first stream that it runs on."""

    def __init__(self, network: OrtCudaNetwork) -> None:
        self._network = network
        self.input_shape, self.output_shape = network.input.shape, network.output.shape
        self._session: Any = None
        self._stream = 0
        self._binding: Any = None
        self._addresses = (0, 0)
        self._options = network.run_options()

    @property
    def input_bytes(self) -> int:
        return _bytes(self._network.input)

    @property
    def output_bytes(self) -> int:
        return _bytes(self._network.output)

    def enqueue(self, stream: Stream, input_address: int, output_address: int) -> None:
        """Raises EngineError; CudaError for an address that isn't a multiple of 256."""
        network, handle = self._network, int(stream.handle)
        if self._session is None:
            self._session, self._stream = network.session(stream), handle
        if handle != self._stream:
            raise EngineError(f"{network.name}: a session of ONNX Runtime was moved to another stream")
        try:
            if self._addresses != (input_address, output_address):
                self._bind(input_address, output_address)
            self._session.run_with_iobinding(self._binding, self._options)
        except CudaError:
            raise
        except Exception as error:  # ONNX Runtime's own error types share no base but Exception
            raise EngineError(
                f"ONNX Runtime failed while running {network.name} on the GPU: {_first_line(error)}",
                "Try --device cpu.",
            ) from None

    def _bind(self, *addresses: int) -> None:
        self._addresses = (0, 0)
        binding = self._session.io_binding()
        device = self._network.driver.device.index
        tensors = (self._network.input, self._network.output)
        for tensor, address, bind in zip(tensors, addresses, (binding.bind_input, binding.bind_output), strict=True):
            if address <= 0 or address % ALIGNMENT:
                raise CudaError(
                    f"the device address {address:#x} for {tensor.name!r} is not a multiple of {ALIGNMENT}",
                    "Give each tensor memory of its own.",
                )
            bind(tensor.name, "cuda", device, numpy_dtype(tensor.dtype).type, list(tensor.shape), address)
        self._binding, self._addresses = binding, (addresses[0], addresses[1])

    def warm_up(self, stream: Stream, input_address: int, output_address: int) -> None:
        """Twice: the first run chooses algorithms, and takes more memory for that than later ones."""
        for _ in range(2):
            self.enqueue(stream, input_address, output_address)
            stream.synchronize()

    def close(self) -> None:
        """Give its memory back; nothing of it may be running any more. Again is fine."""
        if self._session is not None:
            with self._network.driver.current():
                self._binding = self._session = None
            self._addresses = (0, 0)


class OnnxRuntimeCudaEngine(DeviceEngine[OrtCudaNetwork]):
    """See ``engines.device.DeviceEngine``. The network computes in fp32 unless ``precision`` is fp16 or it was
    prepared in halves (``build-engine --fp16 --target onnx``)."""

    #: A session allocates from an arena of its own as it goes.
    capturable = False
    #: Each has a session, with all weights and a search for convolutions of its own.
    usual_requests = 2

    def activate(self) -> None:
        """Raises EngineError, CudaError, MissingDependencyError, UsageError for a precision that isn't there."""
        if self._info:
            return
        if self._options.precision not in ("auto", "fp32", "fp16"):
            raise UsageError(
                f"{self._options.precision} was asked for, but ONNX Runtime computes in fp32 or fp16 on a GPU",
                "Use --precision fp32 or fp16, or TensorRT: build-engine --bf16.",
            )
        ort = load_onnxruntime()
        # Before the driver: a file that is no network is said on any machine.
        prepared = prepare(self._path, self._options, self._warn)
        precision = _arithmetic(prepared.proto)
        if self._options.precision == "fp16" and precision != "fp16":
            prepared, precision = self._halved(prepared), "fp16"
        elif self._options.precision == "fp32" and precision != "fp32":
            raise UsageError(
                f"--precision fp32 was asked for, but {self._path.name} is in halves",
                "Leave --precision out, or give the fp32 network.",
            )
        try:
            driver = self._driver = self._given_driver or self._open_driver()
            with driver.current():
                network = OrtCudaNetwork(ort, prepared.proto, driver, self._path.name, self._warn)
                self._plan = network
                self._held.callback(quietly, network.close)
                self._make_slots(network, prepared.input_shape)
            self._spec = prepared.spec
            self._info = EngineInfo(
                model=self._path.name,
                runtime="ONNX Runtime",
                version=ort.__version__,
                device=driver.device.name,
                precision=precision,
                threads=0,
                requests=len(self._slots),
                input_shape=prepared.input_shape,
                output_shape=network.output.shape,
                output_layout=scores_layout(network.output.shape, prepared.spec),
                head="+".join(prepared.cut.removed) if prepared.cut else "",
                spec=prepared.spec.origin,
                rewrites=prepared.rewrites,
            )
        except BaseException:
            self.close()
            raise

    def _halved(self, prepared: PreparedModel) -> PreparedModel:
        """In float16, as far as the network holds in it: proven on a picture of noise, and said."""
        from segcam.onnx_tools.precision import fit_precision

        fed = {prepared.spec.input.name: _noise(prepared.spec, prepared.input_shape)}
        axis = 1 if scores_layout(prepared.input_shape, prepared.spec) == "NCHW" else -1
        try:
            found = fit_precision(prepared.proto, "fp16", [fed], "a random picture", channel_axis=axis)
        except EngineError as error:
            raise EngineError(
                error.message,
                "Use --precision fp32, or prepare it on pictures of yours: build-engine "
                f"--onnx {self._path} --fp16 --target onnx --calibrate SOURCE",
            ) from None
        kept = f"; {len(found.kept)} operators stay in fp32" if found.kept else ""
        self._warn(f"{self._path.name}: fp16 gives {found.agreement.labels_equal:.2%} of fp32's labels on noise{kept}")
        return replace(prepared, proto=found.model)


def _tensor(value: onnx.ValueInfoProto, mode: str) -> PlanTensor:
    import onnx

    tensor = value.type.tensor_type
    word = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    numpy_dtype(word)
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    return PlanTensor(value.name, "input" if mode == "input" else "output", word, shape, "linear")


def _bytes(tensor: PlanTensor) -> int:
    return prod(tensor.shape) * numpy_dtype(tensor.dtype).itemsize


def _settings(ort: ModuleType) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    return settings


def _refused(name: str, error: Exception) -> EngineError:
    return EngineError(
        f"ONNX Runtime cannot run {name} on the GPU: {_first_line(error)}",
        "Try --device cpu, or --runtime openvino.",
    )


def _first_line(error: Exception) -> str:
    """Without the place in its source, where that comes first."""
    text = re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : |(?=CUDA failure \d+)", str(error))[-1]
    return (text.strip().splitlines() or [type(error).__name__])[0][:300]


def missing_library(ort: ModuleType) -> str:
    """What the loader says of ONNX Runtime's CUDA part; "" where it loads."""
    library = Path(ort.__file__ or "").parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        text = str(error)
        # Loaded by itself it lacks what ONNX Runtime's core gives it: that is no fault.
        return "" if f"undefined symbol: {_OF_THE_CORE}" in text else text
    return ""


def _arithmetic(model: onnx.ModelProto) -> Precision:
    """What most of the weights are."""
    elements = {1: 0, 10: 0}
    for weight in model.graph.initializer:
        if weight.data_type in elements:
            elements[weight.data_type] += prod(weight.dims)
    return "fp16" if elements[10] > elements[1] else "fp32"


def _noise(spec: ModelSpec, shape: Shape) -> np.ndarray[Any, Any]:
    """A random picture as the network is fed it: coarse, since neighbouring pixels of a picture are alike."""
    last = spec.input.layout == "NHWC"
    height, width = shape[1:3] if last else shape[2:4]
    coarse = np.random.default_rng(0).uniform(0, 255, (-(-height // _COARSE), -(-width // _COARSE), 3))
    picture = coarse.repeat(_COARSE, 0).repeat(_COARSE, 1)[:height, :width]
    if spec.input.dtype != "uint8":
        picture = (picture - spec.input.mean) / spec.input.std
    picture = picture if last else picture.transpose(2, 0, 1)
    return np.ascontiguousarray(picture[None], np.dtype(spec.input.dtype))
