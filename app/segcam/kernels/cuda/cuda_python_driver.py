"""The adapter for cuda-python; ``cuda_python_calls`` has what it shares with the graphs of others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.errors import CudaError
from segcam.kernels.cuda.api import DeviceInfo, megabytes, refusal
from segcam.kernels.cuda.cuda_python_calls import CudaPythonCalls


class CudaPythonApi(CudaPythonCalls):
    """See ``api.Api``. Making one initialises the driver and retains the primary context of GPU ``index``."""

    name = "cuda-python"
    has_graphs = True

    def __init__(self, index: int) -> None:
        super().__init__()
        from cuda.bindings import driver

        self._cuda: Any = driver
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
        # The driver wants an array of pointers to the values, and has read both when the call returns. Each value has a
        # place of 8 bytes: arrays of their own take three times as long.
        places = np.frombuffer(b"".join([value.tobytes().ljust(8, b"\0") for value in arguments]), np.uint64).copy()
        pointers = places.ctypes.data + 8 * np.arange(len(arguments), dtype=np.uint64)
        self._ask(
            "launching a kernel",
            self._cuda.cuLaunchKernel,
            function, *grid, *block, shared_bytes, stream, pointers.ctypes.data, 0,
        )  # fmt: skip
