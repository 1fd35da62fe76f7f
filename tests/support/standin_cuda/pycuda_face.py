"""The stand-in for ``pycuda.driver``, after PyCUDA 2026.1's source (src/cpp/cuda.hpp, src/wrapper/wrap_cudadrv.cpp).

What matters about the real one and is kept: a stack of ``Context`` objects per thread beside the driver's own; objects
remember the Context object that was current when they were made; freed with another one current, they push it by
themselves in the thread that retained it, and anywhere else warn and leak; errors are "cuFunction failed: description"
in classes of their own; ``detach`` does nothing in a foreign thread unless the context is current, and leaves it on the
driver's stack.
"""

from __future__ import annotations

import ctypes
import gc
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from standin_cuda.words import DESCRIPTIONS, Refused

if TYPE_CHECKING:
    from standin_cuda.machine import Machine


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class LogicError(Error):
    pass


class RuntimeError(Error):
    pass


class LaunchError(Error):
    pass


_CLASSES: dict[str, type[Error]] = {
    "CUDA_ERROR_LAUNCH_FAILED": LaunchError,
    "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES": LaunchError,
    "CUDA_ERROR_LAUNCH_TIMEOUT": LaunchError,
    "CUDA_ERROR_OUT_OF_MEMORY": MemoryError,
    "CUDA_ERROR_NO_DEVICE": RuntimeError,
    "CUDA_ERROR_NO_BINARY_FOR_GPU": RuntimeError,
    "CUDA_ERROR_NOT_READY": RuntimeError,
    "CUDA_ERROR_UNKNOWN": Error,
}


def modules(machine: Machine) -> dict[str, ModuleType]:
    """``pycuda`` and ``pycuda.driver`` over the machine."""
    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")
    package.__path__ = []
    package.driver = driver  # type: ignore[attr-defined]
    library = _Library(machine)
    for name in dir(library):
        if not name.startswith("_"):
            setattr(driver, name, getattr(library, name))
    for error in (Error, MemoryError, LogicError, RuntimeError, LaunchError):
        setattr(driver, error.__name__, error)
    return {"pycuda": package, "pycuda.driver": driver}


class _Library:
    """One set of classes for one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        stacks = threading.local()
        lib = self

        def stack() -> list[Any]:
            if not hasattr(stacks, "contexts"):
                stacks.contexts = []
            found: list[Any] = stacks.contexts
            return found

        def ask(name: str, function: Callable[..., Any], *args: Any) -> Any:
            try:
                machine.called(name, *args)
                with machine.lock:
                    return function(*args)
            except Refused as refused:
                found = refused.name
            # Outside of the handler: the real one's errors have no others, with frames that hold objects, behind them.
            raise _CLASSES.get(found, LogicError)(f"{name} failed: {DESCRIPTIONS.get(found, found)}")

        def clean_up(name: str, function: Callable[..., Any], *args: Any) -> None:
            """What ends something: a failure is a remark on stderr in the real one."""
            try:
                ask(name, function, *args)
            except Error as error:
                warnings.warn(f"a clean-up operation failed: {error}", UserWarning, stacklevel=2)

        self._ask = ask
        self.event_flags = SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1, DISABLE_TIMING=2, INTERPROCESS=4)
        self.host_alloc_flags = SimpleNamespace(PORTABLE=1, DEVICEMAP=2, WRITECOMBINED=4)

        class Device:
            def __init__(self, ordinal: int) -> None:
                self._ordinal = ask("cuDeviceGet", machine.device, ordinal)

            @staticmethod
            def count() -> int:
                return int(ask("cuDeviceGetCount", machine.count))

            def name(self) -> str:
                return str(ask("cuDeviceGetName", lambda: machine.name))

            def compute_capability(self) -> tuple[int, int]:
                found: tuple[int, int] = ask("cuDeviceGetAttribute", lambda: machine.compute_capability)
                return found

            def total_memory(self) -> int:
                return int(ask("cuDeviceTotalMem", lambda: machine.memory_bytes))

            def retain_primary_context(self) -> Context:
                return Context(ask("cuDevicePrimaryCtxRetain", machine.retain, self._ordinal).handle, self._ordinal)

        class Context:
            def __init__(self, handle: int, device: int) -> None:
                self.handle = handle
                self._device = device
                self._valid = True
                self._thread = threading.get_ident()

            def push(self) -> None:
                if stack():
                    ask("cuCtxPopCurrent", machine.pop)
                ask("cuCtxPushCurrent", machine.push, self.handle)
                stack().append(self)

            @staticmethod
            def pop() -> None:
                if not stack():
                    raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
                ask("cuCtxPopCurrent", machine.pop)
                stack().pop()
                if stack():
                    ask("cuCtxPushCurrent", machine.push, stack()[-1].handle)

            def detach(self) -> None:
                if not self._valid:
                    raise LogicError(
                        "context::detach failed: invalid device context - cannot detach from invalid context"
                    )
                active = bool(stack()) and stack()[-1] is self
                if not active and self._thread == threading.get_ident():
                    ask("cuCtxPushCurrent", machine.push, self.handle)
                if active or self._thread == threading.get_ident():
                    clean_up("cuDevicePrimaryCtxRelease", machine.release, self._device)
                self._valid = False
                while stack() and not stack()[-1]._valid:
                    stack().pop()
                if active and stack():
                    ask("cuCtxPushCurrent", machine.push, stack()[-1].handle)

            @staticmethod
            def synchronize() -> None:
                ask("cuCtxSynchronize", machine.streams.synchronize_all)

        class Dependent:
            """What remembers its context; ``_destroy`` is the driver's call that ends it."""

            _owner: Any = None

            def _remember(self) -> None:
                if not stack():
                    raise LogicError(
                        "explicit_context_dependent failed: invalid device context - no currently active context?"
                    )
                self._owner = stack()[-1]

            @contextmanager
            def _activated(self) -> Iterator[bool]:
                owner = self._owner
                if owner is None or not owner._valid:
                    yield False
                elif stack() and stack()[-1] is owner:
                    yield True
                elif owner._thread != threading.get_ident():
                    kind = type(self).__name__
                    warnings.warn(f"{kind} in out-of-thread context could not be cleaned up", UserWarning, stacklevel=2)
                    yield False
                else:
                    owner.push()
                    try:
                        yield True
                    finally:
                        owner.pop()

            def _clean_up(self, name: str, function: Callable[..., Any], *args: Any) -> None:
                with self._activated() as may:
                    if may:
                        clean_up(name, function, *args)

        class Stream(Dependent):
            def __init__(self, flags: int = 0) -> None:
                self._remember()
                self.handle = 0
                self.handle = int(ask("cuStreamCreate", machine.streams.create, flags))

            def synchronize(self) -> None:
                ask("cuStreamSynchronize", machine.streams.synchronize, self.handle)

            def is_done(self) -> bool:
                return bool(ask("cuStreamQuery", machine.streams.idle, self.handle))

            def wait_for_event(self, evt: Event) -> None:
                ask("cuStreamWaitEvent", machine.streams.wait, self.handle, evt._handle)

            def __del__(self) -> None:
                if getattr(self, "handle", 0):
                    self._clean_up("cuStreamDestroy", machine.streams.destroy, self.handle)

        class Event(Dependent):
            def __init__(self, flags: int = 0) -> None:
                self._remember()
                self._handle = 0
                self._handle = int(ask("cuEventCreate", machine.streams.create_event, flags))

            def record(self, stream: Stream | None = None) -> Event:
                ask("cuEventRecord", machine.streams.record, self._handle, _handle(stream))
                return self

            def query(self) -> bool:
                return bool(ask("cuEventQuery", machine.streams.event_done, self._handle))

            def synchronize(self) -> Event:
                ask("cuEventSynchronize", machine.streams.synchronize_event, self._handle)
                return self

            def time_since(self, start: Event) -> float:
                return float(ask("cuEventElapsedTime", machine.streams.elapsed_ms, start._handle, self._handle))

            def __del__(self) -> None:
                if getattr(self, "_handle", 0):
                    self._clean_up("cuEventDestroy", machine.streams.destroy_event, self._handle)

        class Allocation(Dependent):
            """Memory, freed by ``free`` or with the last reference."""

            _freeing: tuple[str, Callable[..., Any]]
            _address = 0

            def free(self) -> None:
                if not self._address:
                    raise LogicError("allocation::free failed: invalid resource handle")
                address, self._address = self._address, 0
                with self._activated() as may:
                    if may:
                        ask(*self._freeing, address)

            def __del__(self) -> None:
                if self._address:
                    self._clean_up(*self._freeing, self._address)

        class DeviceAllocation(Allocation):
            _freeing = ("cuMemFree", machine.free)

            def __init__(self, nbytes: int) -> None:
                self._remember()
                try:
                    self._address = ask("cuMemAlloc", machine.allocate, nbytes)
                except MemoryError:
                    # As the real one: garbage may hold the memory.
                    gc.collect()
                    self._address = ask("cuMemAlloc", machine.allocate, nbytes)

            def __int__(self) -> int:
                return self._address

            __index__ = __int__

        class PagelockedHostAllocation(Allocation):
            _freeing = ("cuMemFreeHost", machine.free_pinned)

            def __init__(self, nbytes: int, flags: int) -> None:
                self._remember()
                self._address = ask("cuMemHostAlloc", machine.allocate_pinned, nbytes, flags)

        class Module(Dependent):
            def __init__(self, image: bytes) -> None:
                self._remember()
                self._handle = 0
                self._handle = int(ask("cuModuleLoadDataEx", machine.code.load, image))

            def get_function(self, name: str) -> Function:
                return Function(self, name)

            def __del__(self) -> None:
                if getattr(self, "_handle", 0):
                    self._clean_up("cuModuleUnload", machine.code.unload, self._handle)

        class Function:
            def __init__(self, module: Module, name: str) -> None:
                self._module = module
                self._handle = int(ask("cuModuleGetFunction", machine.code.function, module._handle, name))

            def __call__(
                self,
                *args: Any,
                block: tuple[int, ...],
                grid: tuple[int, ...] = (1, 1),
                stream: Stream | None = None,
                shared: int = 0,
            ) -> None:
                fields = []
                for position, arg in enumerate(args):
                    if isinstance(arg, np.number) and arg.dtype.char in "bBhHiIlLqQfd":
                        fields.append(arg.tobytes())
                    elif isinstance(arg, DeviceAllocation):
                        fields.append(struct.pack("Q", int(arg)))
                    else:
                        raise TypeError(f"invalid type on parameter #{position} (0-based)")
                three = [(*size, 1, 1)[:3] for size in (grid, block)]
                ask("cuLaunchKernel", machine.code.launch, self._handle, *three, shared, _handle(stream), fields)

        def pagelocked_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
            nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            return _OwnedArray(PagelockedHostAllocation(nbytes, mem_flags), nbytes, dtype)

        self.Device, self.Context, self.Stream, self.Event = Device, Context, Stream, Event
        self.DeviceAllocation, self.Function, self.Module = DeviceAllocation, Function, Module
        self.mem_alloc = DeviceAllocation
        self.pagelocked_empty = pagelocked_empty
        self.module_from_buffer = lambda buffer, options=(), message_handler=None: lib._load(Module, buffer)

    def _load(self, module: Any, image: bytes) -> Any:
        return module(bytes(image))

    def init(self, flags: int = 0) -> None:
        self._ask("cuInit", self._machine.initialize)

    def get_driver_version(self) -> int:
        major, minor = self._machine.driver_version
        return major * 1000 + minor * 10

    def mem_get_info(self) -> tuple[int, int]:
        def ask() -> tuple[int, int]:
            self._machine.require_context()
            return self._machine.memory_bytes - self._machine.allocated, self._machine.memory_bytes

        found: tuple[int, int] = self._ask("cuMemGetInfo", ask)
        return found

    def memcpy_htod_async(self, dest: int, src: Any, stream: Any = None) -> None:
        host, pinned = self._host(src)
        self._ask("cuMemcpyHtoDAsync", self._machine.upload, int(dest), host, pinned, _handle(stream))

    def memcpy_dtoh_async(self, dest: Any, src: int, stream: Any = None) -> None:
        host, pinned = self._host(dest)
        self._ask("cuMemcpyDtoHAsync", self._machine.download, host, pinned, int(src), _handle(stream))

    def _host(self, array: Any) -> tuple[memoryview, bool]:
        view = memoryview(array).cast("B")
        address = np.frombuffer(view, np.uint8).ctypes.data
        pinned = self._machine.pinned_at(address, view.nbytes)
        return (pinned, True) if pinned is not None else (view, False)

    def memcpy_dtod_async(self, dest: int, src: int, size: int, stream: Any = None) -> None:
        self._ask("cuMemcpyDtoDAsync", self._machine.copy, int(dest), int(src), size, _handle(stream))

    def memset_d8_async(self, dest: int, data: int, size: int, stream: Any = None) -> None:
        if not 0 <= data <= 255:
            raise OverflowError("value too large to convert to unsigned char")
        self._ask("cuMemsetD8Async", self._machine.fill, int(dest), data, size, _handle(stream))


class _OwnedArray(np.ndarray):
    """An array over ``base``'s memory whose ``base`` is the allocation itself, as the real one makes it."""

    def __new__(cls, held: Any, nbytes: int, dtype: Any) -> Any:
        made = np.frombuffer((ctypes.c_uint8 * nbytes).from_address(held._address), dtype).view(cls)
        made._held = held
        return made

    @property
    def base(self) -> Any:
        return self._held


def _handle(stream: Any) -> int:
    return 0 if stream is None else int(stream.handle)
