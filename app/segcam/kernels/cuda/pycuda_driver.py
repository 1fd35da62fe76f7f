"""The adapter for PyCUDA (2024.1 and newer; read in the source of 2026.1).

PyCUDA wraps the driver's handles in objects that remember the ``Context`` object that they were made in, and through it
a thread. They are freed when the last reference goes: in any thread if that very object is current there; if not, only
in the thread that retained it, and elsewhere with a UserWarning and a leak. Hence everything is freed explicitly here,
with the context current. PyCUDA has no CUDA graphs: they are cuda-python's, where that is installed as well. A stream
is the same handle to both, and the primary context the same context.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.errors import CudaError, MissingDependencyError, let_go
from segcam.kernels.cuda.api import INSTALL, NO_DRIVER_HINT, DeviceInfo, megabytes, refusal
from segcam.kernels.cuda.cuda_python_calls import CudaPythonCalls

_INSTALL_PYCUDA = f"pip install pycuda (compiles; needs the CUDA toolkit), or instead: {INSTALL}"
#: CUstream_flags; PyCUDA has no names for them.
_NON_BLOCKING = 1


class _Box:
    """Holds an object of PyCUDA's that is freed with its last reference: that is ``it``, whoever still holds the box
    (the traceback of an error, for one)."""

    def __init__(self, it: Any) -> None:
        self.it = it

    def empty(self) -> None:
        self.it = None


class PyCudaApi:
    """See ``api.Api``. Making one initialises the driver and retains the primary context of GPU ``index``."""

    name = "pycuda"

    def __init__(self, index: int) -> None:
        try:
            # Never pycuda.autoinit: it makes a context of its own, apart from TensorRT's.
            import pycuda.driver as cuda
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"PyCUDA is not installed ({error})", _INSTALL_PYCUDA) from None
        except (ImportError, OSError) as error:
            raise _broken(error) from None
        # Any: a module without types.
        self._cuda: Any = cuda
        with self._telling("starting CUDA"):
            cuda.init()
        with self._telling("counting the GPUs"):
            version = cuda.get_driver_version()
            count = cuda.Device.count()
        if not 0 <= index < count:
            raise refusal(f"GPU {index}", "CUDA_ERROR_INVALID_DEVICE", detail=f"there are {count}, numbered from 0")
        with self._telling(f"asking GPU {index} what it is"):
            device = cuda.Device(index)
            self.device = DeviceInfo(
                index,
                device.name(),
                tuple(device.compute_capability()),
                int(device.total_memory()),
                (version // 1000, version % 1000 // 10),
            )
        with self._telling("opening the GPU"):
            self._context: Any = device.retain_primary_context()
        self._graphs = _cuda_python()
        self.has_graphs = self._graphs is not None

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """PyCUDA's errors, which are "cuFunction failed: description", as ``CudaError``."""
        try:
            yield
        except self._cuda.Error as error:
            # Its frames hold objects that must go while the context is current.
            let_go(error)
            text = str(error.with_traceback(None))
            _, found, description = text.partition(" failed: ")
            # PyCUDA adds remarks of its own behind " - ".
            description, _, remark = description.partition(" - ")
            if not found:
                raise CudaError(f"{what}: PyCUDA says {text}") from None
            raise refusal(what, "", description, detail=remark) from None

    def push(self) -> None:
        with self._telling("making the GPU's context current"):
            self._context.push()

    def pop(self) -> None:
        with self._telling("leaving the GPU's context"):
            self._cuda.Context.pop()

    def release(self) -> None:
        # Current while it is detached: otherwise PyCUDA does nothing, save in the thread that retained it.
        self.push()
        with self._telling("giving the GPU's context back"):
            self._context.detach()

    def synchronize(self) -> None:
        with self._telling("waiting for the GPU"):
            self._cuda.Context.synchronize()

    def memory(self) -> tuple[int, int]:
        with self._telling("asking for free memory"):
            free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def stream(self) -> tuple[Any, int]:
        with self._telling("making a stream"):
            stream = _Box(self._cuda.Stream(_NON_BLOCKING))
        return stream, int(stream.it.handle)

    def stream_synchronize(self, stream: Any) -> None:
        with self._telling("waiting for a stream"):
            stream.it.synchronize()

    def stream_idle(self, stream: Any) -> bool:
        with self._telling("asking a stream"):
            return bool(stream.it.is_done())

    def stream_wait(self, stream: Any, event: Any) -> None:
        with self._telling("waiting for an event"):
            stream.it.wait_for_event(event.it)

    def stream_free(self, stream: Any) -> None:
        stream.empty()

    def event(self, timing: bool) -> Any:
        flags = self._cuda.event_flags
        with self._telling("making an event"):
            return _Box(self._cuda.Event(int(flags.DEFAULT if timing else flags.DISABLE_TIMING)))

    def event_record(self, event: Any, stream: Any) -> None:
        with self._telling("recording an event"):
            event.it.record(None if stream is None else stream.it)

    def event_done(self, event: Any) -> bool:
        with self._telling("asking an event"):
            return bool(event.it.query())

    def event_synchronize(self, event: Any) -> None:
        with self._telling("waiting for an event"):
            event.it.synchronize()

    def event_ms(self, earlier: Any, later: Any) -> float:
        with self._telling("timing"):
            return float(later.it.time_since(earlier.it))

    def event_free(self, event: Any) -> None:
        event.empty()

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        with self._telling(f"allocating {megabytes(nbytes)} of GPU memory"):
            memory = self._cuda.mem_alloc(nbytes)
        return memory, int(memory)

    def free(self, memory: Any) -> None:
        with self._telling("freeing GPU memory"):
            memory.free()

    def pinned(self, nbytes: int) -> tuple[Any, int]:
        flags = int(self._cuda.host_alloc_flags.PORTABLE)
        with self._telling(f"allocating {megabytes(nbytes)} of pinned memory"):
            array = self._cuda.pagelocked_empty(nbytes, np.uint8, mem_flags=flags)
        return array.base, int(array.ctypes.data)

    def pinned_free(self, memory: Any) -> None:
        with self._telling("freeing pinned memory"):
            memory.free()

    def upload(self, address: int, array: NDArray[np.uint8], stream: Any) -> None:
        with self._telling("an upload"):
            self._cuda.memcpy_htod_async(address, array, stream.it)

    def download(self, array: NDArray[np.uint8], address: int, stream: Any) -> None:
        with self._telling("a download"):
            self._cuda.memcpy_dtoh_async(array, address, stream.it)

    def copy(self, to: int, from_: int, nbytes: int, stream: Any) -> None:
        with self._telling("a copy"):
            self._cuda.memcpy_dtod_async(to, from_, nbytes, stream.it)

    def fill(self, address: int, byte: int, nbytes: int, stream: Any) -> None:
        with self._telling("a fill"):
            self._cuda.memset_d8_async(address, byte, nbytes, stream.it)

    def module(self, image: bytes) -> Any:
        with self._telling("loading kernels"):
            return _Box(self._cuda.module_from_buffer(image))

    def module_free(self, module: Any) -> None:
        module.empty()

    def function(self, module: Any, name: str) -> Any:
        with self._telling(f"looking for kernel {name}"):
            return _Box(module.it.get_function(name))

    def function_free(self, function: Any) -> None:
        # Functions hold their module.
        function.empty()

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: list[np.generic],
        stream: Any,
        shared_bytes: int,
    ) -> None:
        with self._telling("launching a kernel"):
            function.it(*map(_packable, arguments), grid=grid, block=block, stream=stream.it, shared=shared_bytes)

    def capture_begin(self, stream: Any) -> None:
        self._calls.capture_begin(self._calls.stream_of(int(stream.it.handle)))

    def capture_end(self, stream: Any) -> Any:
        return self._calls.capture_end(self._calls.stream_of(int(stream.it.handle)))

    def graph_instantiate(self, graph: Any) -> Any:
        return self._calls.graph_instantiate(graph)

    def graph_free(self, graph: Any) -> None:
        self._calls.graph_free(graph)

    def graph_launch(self, executable: Any, stream: Any) -> None:
        self._calls.graph_launch(executable, self._calls.stream_of(int(stream.it.handle)))

    def executable_free(self, executable: Any) -> None:
        self._calls.executable_free(executable)

    @property
    def _calls(self) -> CudaPythonCalls:
        if self._graphs is None:
            raise CudaError("PyCUDA has no CUDA graphs", f"Install cuda-python beside it: {INSTALL}")
        return self._graphs


def _cuda_python() -> CudaPythonCalls | None:
    """For graphs, where it is installed as well and fits the driver."""
    try:
        return CudaPythonCalls()
    except (MissingDependencyError, CudaError):
        return None


def _packable(argument: np.generic) -> np.generic:
    """PyCUDA's packing knows no half and takes no bool: the same bytes as an unsigned integer."""
    if isinstance(argument, np.float16):
        return argument.view(np.uint16)
    return argument.view(np.uint8) if isinstance(argument, np.bool_) else argument


def _broken(error: ImportError | OSError) -> CudaError:
    """A PyCUDA that is installed and does not load."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "undefined symbol" in text:
        return CudaError(
            f"PyCUDA was built for a newer CUDA than this machine's driver ({text})",
            "Update NVIDIA's driver (CUDA 13 builds need 580 or newer), or: pip uninstall pycuda, and pip install "
            "'cuda-bindings<13'",
        )
    if "libcuda" in text:
        return CudaError(f"PyCUDA finds no NVIDIA driver ({text})", NO_DRIVER_HINT)
    return CudaError(f"PyCUDA cannot be loaded ({text})", f"pip install --force-reinstall pycuda, or: {INSTALL}")
