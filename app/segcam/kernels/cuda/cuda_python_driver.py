"""The adapter for cuda-python: ``cuda.bindings.driver`` of the package cuda-bindings, 12.x and 13.x.

Its functions return tuples (CUresult, values...). The signatures used here are the same in 12.8, 12.9 and 13.5: what
changed between them (cuCtxCreate, cuStreamGetCaptureInfo, cuEventElapsedTime_v2, cuMemPrefetchAsync) is not needed.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.errors import CudaError, MissingDependencyError
from segcam.kernels.cuda.api import INSTALL, NO_DRIVER_HINT, DeviceInfo, megabytes, refusal

#: cuda-bindings of this major version and above need a driver of their own major version.
_FIRST_STRICT_MAJOR = 13


class CudaPythonApi:
    """See ``api.Api``. Making one initialises the driver and retains the primary context of GPU ``index``."""

    name = "cuda-python"
    has_graphs = True

    def __init__(self, index: int) -> None:
        try:
            import cuda.bindings as package
            from cuda.bindings import driver
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"cuda-python is not installed ({error})", INSTALL) from None
        except (ImportError, OSError) as error:
            raise CudaError(f"cuda-bindings cannot be loaded: {error}", INSTALL) from None
        # Any: a module without types.
        self._cuda: Any = driver
        self._version = str(getattr(package, "__version__", ""))
        self._runs = (0, 0)
        self._ask("starting CUDA", driver.cuInit, 0)
        version = self._ask("asking for the driver's version", driver.cuDriverGetVersion)
        self._runs = (version // 1000, version % 1000 // 10)
        self._refuse_old_driver()
        count = self._ask("counting the GPUs", driver.cuDeviceGetCount)
        if not 0 <= index < count:
            raise refusal(f"GPU {index}", "CUDA_ERROR_INVALID_DEVICE", detail=f"there are {count}, numbered from 0")
        what = f"asking GPU {index} what it is"
        self._device = self._ask(what, driver.cuDeviceGet, index)
        attribute = driver.CUdevice_attribute
        self.device = DeviceInfo(
            index,
            self._ask(what, driver.cuDeviceGetName, 256, self._device).split(b"\0")[0].decode(errors="replace"),
            (
                self._ask(
                    what,
                    driver.cuDeviceGetAttribute,
                    attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                    self._device,
                ),
                self._ask(
                    what,
                    driver.cuDeviceGetAttribute,
                    attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                    self._device,
                ),
            ),
            self._ask(what, driver.cuDeviceTotalMem, self._device),
            self._runs,
        )
        self._context = self._ask("opening the GPU", driver.cuDevicePrimaryCtxRetain, self._device)

    def _refuse_old_driver(self) -> None:
        major = int(self._version.split(".")[0]) if self._version.split(".")[0].isdigit() else 0
        if major >= _FIRST_STRICT_MAJOR and major > self._runs[0]:
            raise CudaError(
                f"cuda-bindings {self._version} need a driver for CUDA {major}; this one runs CUDA up to "
                f"{self._runs[0]}.{self._runs[1]}",
                f"pip install 'cuda-bindings<{major}', or update NVIDIA's driver.",
            )

    def _ask(self, what: str, function: Any, *args: Any) -> Any:
        """What the driver answers, without the error code; CudaError if there is one."""
        try:
            code, *values = function(*args)
        except RuntimeError as error:
            # How cuda-bindings say that the driver's library, or this function in it, is not there.
            raise self._unreached(what, error) from None
        if code != self._cuda.CUresult.CUDA_SUCCESS:
            raise self._refusal(what, code)
        return values[0] if len(values) == 1 else tuple(values)

    def _refusal(self, what: str, code: Any) -> CudaError:
        name = str(getattr(code, "name", f"CUDA error {int(code)}"))
        description = ""
        with contextlib.suppress(RuntimeError):
            error, text = self._cuda.cuGetErrorString(code)
            if error == self._cuda.CUresult.CUDA_SUCCESS and text:
                description = text.decode(errors="replace")
        return refusal(what, name, description)

    def _unreached(self, what: str, error: RuntimeError) -> CudaError:
        if self._runs == (0, 0):
            return CudaError(f"there is no NVIDIA driver here (libcuda.so.1: {error})", NO_DRIVER_HINT)
        runs = f"CUDA {self._runs[0]}.{self._runs[1]}"
        return CudaError(
            f"{what}: the driver (up to {runs}) lacks what cuda-bindings {self._version} ask for ({error})",
            f"pip install 'cuda-bindings<={self._runs[0]}.{self._runs[1]}.99', or update NVIDIA's driver.",
        )

    def push(self) -> None:
        self._ask("making the GPU's context current", self._cuda.cuCtxPushCurrent, self._context)

    def pop(self) -> None:
        self._ask("leaving the GPU's context", self._cuda.cuCtxPopCurrent)

    def release(self) -> None:
        self._ask("giving the GPU's context back", self._cuda.cuDevicePrimaryCtxRelease, self._device)

    def synchronize(self) -> None:
        self._ask("waiting for the GPU", self._cuda.cuCtxSynchronize)

    def memory(self) -> tuple[int, int]:
        free, total = self._ask("asking for free memory", self._cuda.cuMemGetInfo)
        return int(free), int(total)

    def stream(self) -> tuple[Any, int]:
        flags = self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING
        stream = self._ask("making a stream", self._cuda.cuStreamCreate, int(flags))
        return stream, int(stream)

    def _handle(self, stream: Any) -> Any:
        return self._cuda.CUstream(0) if stream is None else stream

    def stream_synchronize(self, stream: Any) -> None:
        self._ask("waiting for a stream", self._cuda.cuStreamSynchronize, stream)

    def stream_idle(self, stream: Any) -> bool:
        return self._passed("asking a stream", self._cuda.cuStreamQuery, stream)

    def _passed(self, what: str, function: Any, handle: Any) -> bool:
        try:
            self._ask(what, function, handle)
        except CudaError as error:
            if error.name == "CUDA_ERROR_NOT_READY":
                return False
            raise
        return True

    def stream_wait(self, stream: Any, event: Any) -> None:
        self._ask("waiting for an event", self._cuda.cuStreamWaitEvent, stream, event, 0)

    def stream_free(self, stream: Any) -> None:
        self._ask("closing a stream", self._cuda.cuStreamDestroy, stream)

    def event(self, timing: bool) -> Any:
        flags = self._cuda.CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING
        return self._ask("making an event", self._cuda.cuEventCreate, int(flag))

    def event_record(self, event: Any, stream: Any) -> None:
        self._ask("recording an event", self._cuda.cuEventRecord, event, self._handle(stream))

    def event_done(self, event: Any) -> bool:
        return self._passed("asking an event", self._cuda.cuEventQuery, event)

    def event_synchronize(self, event: Any) -> None:
        self._ask("waiting for an event", self._cuda.cuEventSynchronize, event)

    def event_ms(self, earlier: Any, later: Any) -> float:
        return float(self._ask("timing", self._cuda.cuEventElapsedTime, earlier, later))

    def event_free(self, event: Any) -> None:
        self._ask("closing an event", self._cuda.cuEventDestroy, event)

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        memory = self._ask(f"allocating {megabytes(nbytes)} of GPU memory", self._cuda.cuMemAlloc, nbytes)
        return memory, int(memory)

    def free(self, memory: Any) -> None:
        self._ask("freeing GPU memory", self._cuda.cuMemFree, memory)

    def pinned(self, nbytes: int) -> tuple[Any, int]:
        # Portable: counts as pinned in every context. Flag 4 (write-combined) would make reading it very slow.
        what = f"allocating {megabytes(nbytes)} of pinned memory"
        address = self._ask(what, self._cuda.cuMemHostAlloc, nbytes, self._cuda.CU_MEMHOSTALLOC_PORTABLE)
        return address, int(address)

    def pinned_free(self, memory: Any) -> None:
        self._ask("freeing pinned memory", self._cuda.cuMemFreeHost, memory)

    def upload(self, address: int, array: NDArray[np.uint8], stream: Any) -> None:
        self._ask("an upload", self._cuda.cuMemcpyHtoDAsync, address, array.ctypes.data, array.nbytes, stream)

    def download(self, array: NDArray[np.uint8], address: int, stream: Any) -> None:
        self._ask("a download", self._cuda.cuMemcpyDtoHAsync, array.ctypes.data, address, array.nbytes, stream)

    def copy(self, to: int, from_: int, nbytes: int, stream: Any) -> None:
        self._ask("a copy", self._cuda.cuMemcpyDtoDAsync, to, from_, nbytes, stream)

    def fill(self, address: int, byte: int, nbytes: int, stream: Any) -> None:
        self._ask("a fill", self._cuda.cuMemsetD8Async, address, byte, nbytes, stream)

    def module(self, image: bytes) -> Any:
        return self._ask("loading kernels", self._cuda.cuModuleLoadData, image)

    def module_free(self, module: Any) -> None:
        self._ask("unloading kernels", self._cuda.cuModuleUnload, module)

    def function(self, module: Any, name: str) -> Any:
        return self._ask(f"looking for kernel {name}", self._cuda.cuModuleGetFunction, module, name.encode())

    def function_free(self, function: Any) -> None:
        """It goes with its module."""

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: list[np.generic],
        stream: Any,
        shared_bytes: int,
    ) -> None:
        # The driver wants an array of pointers to the values, and has read both when the call returns.
        values = [np.array(argument) for argument in arguments]
        pointers = np.array([value.ctypes.data for value in values], np.uint64)
        self._ask(
            "launching a kernel",
            self._cuda.cuLaunchKernel,
            function, *grid, *block, shared_bytes, stream, pointers.ctypes.data, 0,
        )  # fmt: skip

    def capture_begin(self, stream: Any) -> None:
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._ask("beginning a capture", self._cuda.cuStreamBeginCapture, stream, mode)

    def capture_end(self, stream: Any) -> Any:
        return self._ask("ending a capture", self._cuda.cuStreamEndCapture, stream)

    def graph_instantiate(self, graph: Any) -> Any:
        return self._ask("making a graph executable", self._cuda.cuGraphInstantiate, graph, 0)

    def graph_free(self, graph: Any) -> None:
        self._ask("closing a graph", self._cuda.cuGraphDestroy, graph)

    def graph_launch(self, executable: Any, stream: Any) -> None:
        self._ask("launching a graph", self._cuda.cuGraphLaunch, executable, stream)

    def executable_free(self, executable: Any) -> None:
        self._ask("closing a graph", self._cuda.cuGraphExecDestroy, executable)
