"""The CUDA driver as Segcam uses it: one protocol over PyCUDA or cuda-python. No other module names either library.

    driver = open_driver()
    try:
        with driver.current():
            stream, memory = driver.stream(), driver.allocate(nbytes)
            driver.upload(memory.address, array, stream)
            stream.synchronize()
    finally:
        driver.close()

Rules, the same for both libraries:

* The device's *primary* context is retained, the one that TensorRT and FFmpeg use. Every call that reaches the GPU is
  made inside ``with driver.current()``, in whichever thread: contexts are current per thread. ``current()`` may be
  nested. ``close()`` of anything may be called anywhere: it makes the context current itself. (PyCUDA's objects
  remember the thread that retained their context; another thread frees them only while that very context is current.)
* Nothing is freed by garbage collection: queued work that Python knows nothing of may still use the memory. What is not
  closed stays until the driver is closed. A closed thing used again is a ``CudaError``; closing again does nothing.
* Streams do not wait for the default stream, nor it for them.
* ``close()`` of the driver waits for the GPU, closes what is open and gives the context back: at once, or when the last
  thread has left ``current()`` and the last view of pinned memory is gone.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from segcam.errors import CudaError, MissingDependencyError
from segcam.kernels.cuda.api import FATAL, INSTALL, Api, DeviceInfo, megabytes
from segcam.kernels.cuda.resources import (
    Capture,
    DeviceMemory,
    Event,
    Function,
    Graph,
    Module,
    PinnedMemory,
    Resource,
    Stream,
    as_bytes,
    kernel_arguments,
)

__all__ = [
    "Capture",
    "DeviceInfo",
    "DeviceMemory",
    "Driver",
    "Event",
    "Function",
    "Graph",
    "Kind",
    "Module",
    "PinnedMemory",
    "Stream",
    "open_driver",
]

Kind = Literal["auto", "pycuda", "cuda-python"]
Triple = tuple[int, int, int]


def open_driver(kind: Kind = "auto", device: int = 0, warn: Callable[[str], None] | None = None) -> Driver:
    """The driver of GPU number ``device``, its primary context retained and not yet current.

    "auto" takes PyCUDA where it is installed, else cuda-python; a PyCUDA that is installed and does not load is said
    through ``warn`` (a line of text; a RuntimeWarning without it). Raises ``MissingDependencyError`` where the library
    is not installed, ``CudaError`` where there is no driver, no such GPU, or a driver too old for the library.
    """
    if kind not in ("auto", "pycuda", "cuda-python"):
        raise CudaError(f"{kind!r} is no CUDA library", "Known are pycuda and cuda-python.")
    broken: CudaError | None = None
    if kind != "cuda-python":
        from segcam.kernels.cuda.pycuda_driver import PyCudaApi

        try:
            return Driver(PyCudaApi(device))
        except MissingDependencyError:
            if kind == "pycuda":
                raise
        except CudaError as error:
            # A driver that was reached will not answer otherwise to another library.
            if kind == "pycuda" or error.name:
                raise
            broken = error
    from segcam.kernels.cuda.cuda_python_driver import CudaPythonApi

    try:
        driver = Driver(CudaPythonApi(device))
    except MissingDependencyError:
        if kind == "cuda-python":
            raise
        if broken is not None:
            raise broken from None
        raise MissingDependencyError("the GPU needs PyCUDA or cuda-python: neither is installed", INSTALL) from None
    if broken is not None:
        line = f"{broken.message}: using cuda-python"
        if warn is not None:
            warn(line)
        else:
            warnings.warn(line, RuntimeWarning, stacklevel=2)
    return driver


class Driver:
    """A GPU through one of the two libraries. Made by ``open_driver``; thread-safe under the rules above.

    ``name`` is "pycuda" or "cuda-python"; ``has_graphs`` says whether ``capture`` works: with cuda-python, and with
    PyCUDA where cuda-python is installed beside it.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self._lock = threading.RLock()
        self._threads = threading.local()
        self._open: dict[int, Resource] = {}
        self._users = 0
        self._closing = self._closed = False

    @property
    def name(self) -> str:
        return self.api.name

    @property
    def has_graphs(self) -> bool:
        return self.api.has_graphs

    @property
    def device(self) -> DeviceInfo:
        return self.api.device

    @property
    def closed(self) -> bool:
        return self._closing

    @property
    def released(self) -> bool:
        """Whether the context is given back, and with it all that was made in it."""
        return self._closed

    # --- the context

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context current in the calling thread; nested uses are fine. ``CudaError`` after ``close()``."""
        if self.closed and not self._depth:
            raise CudaError("the CUDA driver is closed")
        with self.freeing():
            yield

    @contextlib.contextmanager
    def freeing(self) -> Iterator[None]:
        """For closing things: as ``current``, while the driver is closing too."""
        self.enter()
        entered = False
        try:
            # Once a thread: with PyCUDA a push inside another is a pop and two pushes, any of which may fail.
            if not self._depth:
                self.api.push()
            self._threads.depth = self._depth + 1
            entered = True
            yield
        except BaseException:
            # What went wrong inside says more than what went wrong in consequence.
            with contextlib.suppress(CudaError):
                self._leave(entered)
            raise
        self._leave(entered)

    def _leave(self, entered: bool) -> None:
        try:
            if entered:
                self._threads.depth = self._depth - 1
                if not self._depth:
                    self.api.pop()
        finally:
            self.leave()

    @property
    def _depth(self) -> int:
        return getattr(self._threads, "depth", 0)

    def require(self, what: str) -> None:
        """``CudaError`` unless the calling thread is inside ``current()``."""
        if not self._depth:
            hint = "This is a fault of Segcam's: it belongs inside `with driver.current()`."
            raise CudaError(f"{what} in a thread where the CUDA context is not current", hint)

    def enter(self) -> None:
        """Somebody needs the context: it is not given back before ``leave``."""
        with self._lock:
            if self._closed:
                raise CudaError("the CUDA driver is closed")
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._closing and not self._closed and self._users == 0
            if last:
                self._closed = True
        if last:
            self.api.release()

    def close(self) -> None:
        """Waits for the GPU, closes everything that is open and gives the context back. Does nothing the second time.

        Raises the first ``CudaError`` after all has been tried; none where the context had failed before.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = True
        first: CudaError | None = None
        try:
            with self.freeing():
                try:
                    self.api.synchronize()
                except CudaError as error:
                    first = error
                # The newest first: a function goes before its module.
                for resource in list(self._open.values())[::-1]:
                    try:
                        resource.close()
                    except CudaError as error:
                        first = first or error
        except CudaError as error:
            first = first or error
        if first is not None and first.name not in FATAL:
            raise first

    def keep(self, resource: Resource) -> None:
        with self._lock:
            self._open[id(resource)] = resource

    def drop(self, resource: Resource) -> None:
        with self._lock:
            self._open.pop(id(resource), None)

    # --- streams, events, memory

    def stream(self) -> Stream:
        """A new stream, which does not wait for the default stream."""
        self.require("making a stream")
        return Stream(self)

    def event(self, timing: bool = True) -> Event:
        """A new event; without ``timing`` it is cheaper and has no ``ms_since``."""
        self.require("making an event")
        return Event(self, timing)

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Device memory, aligned to at least 256 bytes, its contents undefined."""
        self.require("allocating GPU memory")
        if nbytes <= 0:
            raise CudaError(f"{nbytes} bytes of GPU memory cannot be allocated")
        try:
            return DeviceMemory(self, nbytes)
        except CudaError as error:
            if error.name != "CUDA_ERROR_OUT_OF_MEMORY":
                raise
            with contextlib.suppress(CudaError):
                free, total = self.memory()
                error.message += f": {megabytes(nbytes)} asked, {megabytes(free)} of {megabytes(total)} free"
            raise error from None

    def pinned(self, nbytes: int) -> PinnedMemory:
        """Page-locked host memory (never write-combined), which copies run from and to beside other work."""
        self.require("allocating pinned memory")
        if nbytes <= 0:
            raise CudaError(f"{nbytes} bytes of pinned memory cannot be allocated")
        return PinnedMemory(self, nbytes)

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the GPU, all processes counted."""
        self.require("asking for free memory")
        return self.api.memory()

    def upload(self, address: int, array: np.ndarray[Any, Any], stream: Stream) -> None:
        """Queues a copy of ``array`` (C-contiguous, any dtype) to the device address.

        From pinned memory the bytes are read when the copy runs: they must stay as they are until then. From other
        memory they have been read when this returns.
        """
        self.require("an upload")
        data = as_bytes(array)
        if data.size:
            self.api.upload(int(address), data, stream.raw)

    def download(self, array: np.ndarray[Any, Any], address: int, stream: Stream) -> None:
        """Queues a copy from the device address into ``array`` (C-contiguous, writable, any dtype).

        Into pinned memory it runs beside other work; the array holds it after the stream is synchronised. Into other
        memory this call waits for the stream.
        """
        self.require("a download")
        data = as_bytes(array, writable=True)
        if data.size:
            self.api.download(data, int(address), stream.raw)

    def copy(self, to: int, from_: int, nbytes: int, stream: Stream) -> None:
        """Queues a copy of ``nbytes`` from one device address to another; the two must not overlap."""
        self.require("a copy")
        if nbytes:
            self.api.copy(int(to), int(from_), nbytes, stream.raw)

    def fill(self, address: int, byte: int, nbytes: int, stream: Stream) -> None:
        """Queues setting ``nbytes`` at the device address to ``byte`` (0..255)."""
        self.require("a fill")
        if nbytes:
            self.api.fill(int(address), byte, nbytes, stream.raw)

    # --- kernels and graphs

    def load_module(self, ptx: bytes) -> Module:
        """Compiles PTX (or loads a cubin) for this GPU."""
        self.require("loading kernels")
        return Module(self, ptx)

    def launch(
        self,
        function: Function,
        grid: Triple,
        block: Triple,
        arguments: Sequence[np.generic | int],
        stream: Stream,
        shared_bytes: int = 0,
    ) -> None:
        """Queues a kernel. ``arguments`` are NumPy scalars of the parameters' very types; a plain int is an address."""
        self.require("a launch")
        values = kernel_arguments(function.name, arguments)
        self.api.launch(function.raw, grid, block, values, stream.raw, shared_bytes)

    @contextlib.contextmanager
    def capture(self, stream: Stream) -> Iterator[Capture]:
        """Records what is queued on ``stream`` inside the block instead of running it; ``.graph`` is there afterwards.

        Thread-local: other threads may go on allocating; this one must not allocate, free or wait inside the block. Run
        the same work once before, and wait for it: first calls allocate. An exception ends and discards the capture.
        """
        self.require("a capture")
        if not self.has_graphs:
            raise CudaError(f"{self.name} has no CUDA graphs by itself", f"Install cuda-python beside it: {INSTALL}")
        capture = Capture()
        self.api.capture_begin(stream.raw)
        try:
            yield capture
        except BaseException:
            with contextlib.suppress(CudaError):
                self.api.graph_free(self.api.capture_end(stream.raw))
            raise
        capture.finish(Graph(self, self.api.capture_end(stream.raw)))
