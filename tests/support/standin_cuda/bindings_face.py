"""The stand-in for ``cuda.bindings.driver``: functions that return (CUresult, values...), handles, and enums.

Names, parameters, enum values and error codes are those of cuda-bindings; a test compares them with the real package.
Like the real one it takes plain integers for handles, wants bytes for names, and raises RuntimeError where the driver's
library is missing.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any

from standin_cuda.words import CODES, DESCRIPTIONS, Refused

if TYPE_CHECKING:
    from standin_cuda.machine import Machine

VERSION = "13.5.0"

CUresult = IntEnum("CUresult", CODES)
CUstream_flags = IntEnum("CUstream_flags", {"CU_STREAM_DEFAULT": 0, "CU_STREAM_NON_BLOCKING": 1})
CUevent_flags = IntEnum(
    "CUevent_flags", {"CU_EVENT_DEFAULT": 0, "CU_EVENT_BLOCKING_SYNC": 1, "CU_EVENT_DISABLE_TIMING": 2}
)
CUdevice_attribute = IntEnum(
    "CUdevice_attribute",
    {
        "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT": 16,
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": 75,
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": 76,
    },
)
CUstreamCaptureMode = IntEnum(
    "CUstreamCaptureMode",
    {
        "CU_STREAM_CAPTURE_MODE_GLOBAL": 0,
        "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": 1,
        "CU_STREAM_CAPTURE_MODE_RELAXED": 2,
    },
)
ENUMS = (CUresult, CUstream_flags, CUevent_flags, CUdevice_attribute, CUstreamCaptureMode)
CONSTANTS = {"CU_MEMHOSTALLOC_PORTABLE": 1, "CU_MEMHOSTALLOC_DEVICEMAP": 2, "CU_MEMHOSTALLOC_WRITECOMBINED": 4}


class _Handle:
    def __init__(self, value: int = 0) -> None:
        self._value = int(value)

    def __int__(self) -> int:
        return self._value

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


HANDLES = {
    name: type(name, (_Handle,), {})
    for name in (
        "CUcontext", "CUdevice", "CUdeviceptr", "CUevent", "CUfunction", "CUgraph", "CUgraphExec", "CUmodule",
        "CUstream",
    )
}  # fmt: skip


def modules(machine: Machine) -> dict[str, ModuleType]:
    """``cuda``, ``cuda.bindings`` and ``cuda.bindings.driver`` over the machine."""
    top, package, driver = (ModuleType(name) for name in ("cuda", "cuda.bindings", "cuda.bindings.driver"))
    top.__path__, package.__path__ = [], []
    top.bindings, package.driver = package, driver  # type: ignore[attr-defined]
    package.__version__ = VERSION  # type: ignore[attr-defined]
    for enum in ENUMS:
        setattr(driver, enum.__name__, enum)
    for name, value in {**CONSTANTS, **HANDLES}.items():
        setattr(driver, name, value)
    functions = _Functions(machine)
    for name in dir(functions):
        if name.startswith("cu"):
            setattr(driver, name, _answering(machine, getattr(functions, name)))
    return {module.__name__: module for module in (top, package, driver)}


def _answering(machine: Machine, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as the real ones behave: its result behind an error code, Nones where it failed."""

    @functools.wraps(function)
    def call(*args: Any) -> tuple[Any, ...]:
        if not machine.installed:
            raise RuntimeError("Failed to dlopen libcuda.so.1")
        try:
            if function.__name__ not in ("cuGetErrorName", "cuGetErrorString"):
                try:
                    machine.called(function.__name__, *args)
                except Refused:
                    if function.__name__ == "cuStreamEndCapture":
                        # A capture is over also where its end fails.
                        machine.streams.drop_capture(int(args[0]))
                    raise
            if function.__name__ in machine.lacking:
                raise RuntimeError(f'Function "{function.__name__}" not found')
            with machine.lock:
                result = function(*args)
        except Refused as refused:
            count = function.__annotations__["return"].count(",") + (function.__annotations__["return"] != "None")
            return (CUresult[refused.name], *[None] * count)
        values = () if result is None else result if isinstance(result, tuple) else (result,)
        return (CUresult.CUDA_SUCCESS, *values)

    return call


class _Functions:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._streams = machine.streams

    def cuInit(self, Flags: int) -> None:
        self._machine.initialize()

    def cuDriverGetVersion(self) -> int:
        major, minor = self._machine.driver_version
        return major * 1000 + minor * 10

    def cuDeviceGetCount(self) -> int:
        return self._machine.count()

    def cuDeviceGet(self, ordinal: int) -> Any:
        return HANDLES["CUdevice"](self._machine.device(ordinal))

    def cuDeviceGetName(self, length: int, dev: Any) -> bytes:
        return self._machine.name.encode()[: length - 1].ljust(length, b"\0")

    def cuDeviceGetAttribute(self, attrib: Any, dev: Any) -> int:
        major, minor = self._machine.compute_capability
        known = {CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: major,
                 CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: minor}  # fmt: skip
        return known[attrib]

    def cuDeviceTotalMem(self, dev: Any) -> int:
        return self._machine.memory_bytes

    def cuDevicePrimaryCtxRetain(self, dev: Any) -> Any:
        return HANDLES["CUcontext"](self._machine.retain(int(dev)).handle)

    def cuDevicePrimaryCtxRelease(self, dev: Any) -> None:
        self._machine.release(int(dev))

    def cuCtxPushCurrent(self, ctx: Any) -> None:
        self._machine.push(int(ctx))

    def cuCtxPopCurrent(self) -> Any:
        return HANDLES["CUcontext"](self._machine.pop())

    def cuCtxSynchronize(self) -> None:
        self._streams.synchronize_all()

    def cuMemGetInfo(self) -> tuple[int, int]:
        self._machine.require_context()
        return self._machine.memory_bytes - self._machine.allocated, self._machine.memory_bytes

    def cuStreamCreate(self, Flags: int) -> Any:
        return HANDLES["CUstream"](self._streams.create(Flags))

    def cuStreamDestroy(self, hStream: Any) -> None:
        self._streams.destroy(int(hStream))

    def cuStreamSynchronize(self, hStream: Any) -> None:
        self._streams.synchronize(int(hStream))

    def cuStreamQuery(self, hStream: Any) -> None:
        if not self._streams.idle(int(hStream)):
            raise Refused("CUDA_ERROR_NOT_READY")

    def cuStreamWaitEvent(self, hStream: Any, hEvent: Any, Flags: int) -> None:
        self._streams.wait(int(hStream), int(hEvent))

    def cuEventCreate(self, Flags: int) -> Any:
        return HANDLES["CUevent"](self._streams.create_event(Flags))

    def cuEventDestroy(self, hEvent: Any) -> None:
        self._streams.destroy_event(int(hEvent))

    def cuEventRecord(self, hEvent: Any, hStream: Any) -> None:
        self._streams.record(int(hEvent), int(hStream))

    def cuEventQuery(self, hEvent: Any) -> None:
        if not self._streams.event_done(int(hEvent)):
            raise Refused("CUDA_ERROR_NOT_READY")

    def cuEventSynchronize(self, hEvent: Any) -> None:
        self._streams.synchronize_event(int(hEvent))

    def cuEventElapsedTime(self, hStart: Any, hEnd: Any) -> float:
        return self._streams.elapsed_ms(int(hStart), int(hEnd))

    def cuMemAlloc(self, bytesize: int) -> Any:
        return HANDLES["CUdeviceptr"](self._machine.allocate(bytesize))

    def cuMemFree(self, dptr: Any) -> None:
        self._machine.free(int(dptr))

    def cuMemHostAlloc(self, bytesize: int, Flags: int) -> int:
        return self._machine.allocate_pinned(bytesize, Flags)

    def cuMemFreeHost(self, p: int) -> None:
        self._machine.free_pinned(int(p))

    def cuMemcpyHtoDAsync(self, dstDevice: Any, srcHost: int, ByteCount: int, hStream: Any) -> None:
        host, pinned = self._host(srcHost, ByteCount)
        self._machine.upload(int(dstDevice), host, pinned, int(hStream))

    def cuMemcpyDtoHAsync(self, dstHost: int, srcDevice: Any, ByteCount: int, hStream: Any) -> None:
        host, pinned = self._host(dstHost, ByteCount)
        self._machine.download(host, pinned, int(srcDevice), int(hStream))

    def _host(self, address: int, nbytes: int) -> tuple[memoryview, bool]:
        pinned = self._machine.pinned_at(address, nbytes)
        if pinned is not None:
            return pinned, True
        return memoryview((ctypes.c_uint8 * nbytes).from_address(address)).cast("B"), False

    def cuMemcpyDtoDAsync(self, dstDevice: Any, srcDevice: Any, ByteCount: int, hStream: Any) -> None:
        self._machine.copy(int(dstDevice), int(srcDevice), ByteCount, int(hStream))

    def cuMemsetD8Async(self, dstDevice: Any, uc: int, N: int, hStream: Any) -> None:
        if not 0 <= uc <= 255:
            raise OverflowError("value too large to convert to unsigned char")
        self._machine.fill(int(dstDevice), uc, N, int(hStream))

    def cuModuleLoadData(self, image: bytes) -> Any:
        if not isinstance(image, (bytes, bytearray, memoryview)):
            raise TypeError(f"Provided argument is of type {type(image)} but expected a buffer")
        return HANDLES["CUmodule"](self._machine.code.load(bytes(image)))

    def cuModuleUnload(self, hmod: Any) -> None:
        self._machine.code.unload(int(hmod))

    def cuModuleGetFunction(self, hmod: Any, name: bytes) -> Any:
        if not isinstance(name, bytes):
            raise TypeError(f"expected bytes, {type(name).__name__} found")
        return HANDLES["CUfunction"](self._machine.code.function(int(hmod), name.decode()))

    def cuLaunchKernel(
        self,
        f: Any,
        gridDimX: int,
        gridDimY: int,
        gridDimZ: int,
        blockDimX: int,
        blockDimY: int,
        blockDimZ: int,
        sharedMemBytes: int,
        hStream: Any,
        kernelParams: int,
        extra: int,
    ) -> None:
        sizes = self._machine.code.sizes(int(f))
        pointers = struct.unpack(f"{len(sizes)}Q", ctypes.string_at(kernelParams, 8 * len(sizes)))
        args = [ctypes.string_at(pointer, size) for pointer, size in zip(pointers, sizes, strict=True)]
        grid, block = (gridDimX, gridDimY, gridDimZ), (blockDimX, blockDimY, blockDimZ)
        self._machine.code.launch(int(f), grid, block, sharedMemBytes, int(hStream), args)

    def cuStreamBeginCapture(self, hStream: Any, mode: Any) -> None:
        self._streams.begin_capture(int(hStream), int(mode))

    def cuStreamEndCapture(self, hStream: Any) -> Any:
        return HANDLES["CUgraph"](self._streams.end_capture(int(hStream)))

    def cuGraphInstantiate(self, hGraph: Any, flags: int) -> Any:
        return HANDLES["CUgraphExec"](self._streams.instantiate(int(hGraph)))

    def cuGraphDestroy(self, hGraph: Any) -> None:
        self._streams.destroy_graph(int(hGraph), executable=False)

    def cuGraphLaunch(self, hGraphExec: Any, hStream: Any) -> None:
        self._streams.launch_graph(int(hGraphExec), int(hStream))

    def cuGraphExecDestroy(self, hGraphExec: Any) -> None:
        self._streams.destroy_graph(int(hGraphExec), executable=True)

    def cuGetErrorName(self, error: Any) -> bytes:
        return CUresult(error).name.encode()

    def cuGetErrorString(self, error: Any) -> bytes:
        return DESCRIPTIONS.get(CUresult(error).name, "no description").encode()
