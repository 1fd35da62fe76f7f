"""What a ``Driver`` makes: streams, events, memory, kernels and graphs, all closable. See ``driver`` for the rules."""

from __future__ import annotations

import ctypes
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segcam.errors import CudaError

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import Driver


class Resource(ABC):
    """Something of the GPU's, given back by ``close()`` (in any thread, any number of times) or with the driver."""

    kind = ""

    def __init__(self, driver: Driver, raw: Any) -> None:
        self.driver = driver
        # A list, so that one thread gets it, however many close at once.
        self._held = [raw]
        driver.keep(self)

    @property
    def closed(self) -> bool:
        return not self._held

    @property
    def raw(self) -> Any:
        """The library's own object (Any: the two share no types). ``CudaError`` after ``close()``."""
        if not self._held:
            raise CudaError(f"{self.kind} was closed and is used again")
        return self._held[0]

    def close(self) -> None:
        try:
            raw = self._held.pop()
        except IndexError:
            return
        self.driver.drop(self)
        if not self.driver.released:
            with self.driver.freeing():
                self._free(raw)

    @abstractmethod
    def _free(self, raw: Any) -> None:
        """Frees it; the context is current."""


class Stream(Resource):
    """Work in order. ``handle`` is the CUstream as an int, for libraries that take one."""

    kind = "a stream"

    def __init__(self, driver: Driver) -> None:
        raw, self.handle = driver.api.stream()
        super().__init__(driver, raw)

    def synchronize(self) -> None:
        """Waits until all queued work is done; raises the error that it met."""
        self.driver.require("waiting for a stream")
        self.driver.api.stream_synchronize(self.raw)

    def idle(self) -> bool:
        """Whether all queued work is done; does not wait."""
        self.driver.require("asking a stream")
        return self.driver.api.stream_idle(self.raw)

    def wait(self, event: Event) -> None:
        """What is queued from now on starts after the event as it was recorded last."""
        self.driver.require("a wait for an event")
        self.driver.api.stream_wait(self.raw, event.raw)

    def _free(self, raw: Any) -> None:
        self.driver.api.stream_free(raw)


class Event(Resource):
    """A point in a stream's work."""

    kind = "an event"

    def __init__(self, driver: Driver, timing: bool) -> None:
        super().__init__(driver, driver.api.event(timing))
        self.timing = timing

    def record(self, stream: Stream | None) -> None:
        """Marks the point after what is queued on ``stream`` so far; None is the default stream, FFmpeg's."""
        self.driver.require("recording an event")
        self.driver.api.event_record(self.raw, None if stream is None else stream.raw)

    def done(self) -> bool:
        """Whether that point is passed; does not wait. True for an event that was never recorded."""
        self.driver.require("asking an event")
        return self.driver.api.event_done(self.raw)

    def synchronize(self) -> None:
        """Waits for that point."""
        self.driver.require("waiting for an event")
        self.driver.api.event_synchronize(self.raw)

    def ms_since(self, earlier: Event) -> float:
        """Milliseconds of GPU time between two recorded and passed events."""
        self.driver.require("timing")
        if not (self.timing and earlier.timing):
            raise CudaError("an event made without timing has no time")
        return self.driver.api.event_ms(earlier.raw, self.raw)

    def _free(self, raw: Any) -> None:
        self.driver.api.event_free(raw)


class DeviceMemory(Resource):
    """``nbytes`` of GPU memory at ``address``. Closing waits for the GPU."""

    kind = "GPU memory"

    def __init__(self, driver: Driver, nbytes: int) -> None:
        raw, self._address = driver.api.allocate(nbytes)
        self.nbytes = nbytes
        super().__init__(driver, raw)

    @property
    def address(self) -> int:
        if self.closed:
            raise CudaError(f"{self.kind} was closed and is used again")
        return self._address

    def _free(self, raw: Any) -> None:
        self.driver.api.free(raw)


class PinnedMemory(Resource):
    """``nbytes`` of page-locked host memory, as ``array``: uint8, 1-D.

    Views of ``array`` keep the memory, as with any NumPy array. Closing while there are some warns (ResourceWarning):
    the memory goes with the last of them, and the driver's context stays until then.
    """

    kind = "pinned memory"

    def __init__(self, driver: Driver, nbytes: int) -> None:
        raw, address = driver.api.pinned(nbytes)
        buffer = (ctypes.c_uint8 * nbytes).from_address(address)
        self.nbytes = nbytes
        self._arrays: list[NDArray[np.uint8]] = [np.frombuffer(memoryview(buffer), np.uint8)]
        self._fate = _Fate(driver, raw)
        super().__init__(driver, raw)
        # Everything that views the memory refers to ``buffer`` in the end.
        self._finalizer = weakref.finalize(buffer, self._fate)
        # At the end of the process the driver may be gone before this.
        self._finalizer.atexit = False

    @property
    def array(self) -> NDArray[np.uint8]:
        try:
            return self._arrays[0]
        except IndexError:
            raise CudaError(f"{self.kind} was closed and is used again") from None

    def _free(self, raw: Any) -> None:
        # The context must last as long as the memory; ``_Fate`` leaves it.
        self.driver.enter()
        self._fate.leaves = True
        self._arrays.clear()
        if self._finalizer.alive:
            self._fate.late = True
            warnings.warn(
                f"{self.nbytes} bytes of pinned memory are closed while an array still views them",
                ResourceWarning,
                stacklevel=4,
            )
        elif self._fate.error is not None:
            raise self._fate.error


class _Fate:
    """Frees pinned memory when its last view is gone, in whatever thread that is. ``leaves``: it was closed before, and
    the driver waits for this; ``late``: nobody is there any more to raise ``error`` to."""

    def __init__(self, driver: Driver, raw: Any) -> None:
        self.driver = driver
        self.raw = raw
        self.leaves = self.late = False
        self.error: CudaError | None = None

    def __call__(self) -> None:
        try:
            if not self.driver.released:
                with self.driver.freeing():
                    self.driver.api.pinned_free(self.raw)
        except CudaError as error:
            self.error = error
            if self.late:
                raise
        finally:
            if self.leaves:
                self.driver.leave()


class Module(Resource):
    """Compiled kernels."""

    kind = "a module"

    def __init__(self, driver: Driver, ptx: bytes) -> None:
        # The driver reads PTX up to a zero byte.
        super().__init__(driver, driver.api.module(ptx if ptx.endswith(b"\0") else ptx + b"\0"))
        self._functions: list[Function] = []

    def function(self, name: str) -> Function:
        """The kernel of that name (extern "C"), good until the module is closed."""
        self.driver.require("looking for a kernel")
        function = Function(name, self.driver.api.function(self.raw, name))
        self._functions.append(function)
        return function

    def _free(self, raw: Any) -> None:
        for function in self._functions:
            self.driver.api.function_free(function.forget())
        self.driver.api.module_free(raw)


class Function:
    """A kernel; ``Driver.launch`` runs it."""

    def __init__(self, name: str, raw: Any) -> None:
        self.name = name
        self._raw = raw

    @property
    def raw(self) -> Any:
        if self._raw is None:
            raise CudaError(f"kernel {self.name} is used after its module was closed")
        return self._raw

    def forget(self) -> Any:
        """The library's own object, for the last time."""
        raw, self._raw = self._raw, None
        return raw


class Graph(Resource):
    """Captured work, which runs again and again with one call. Addresses and shapes are those of the capture."""

    kind = "a graph"

    def __init__(self, driver: Driver, captured: Any) -> None:
        try:
            raw = driver.api.graph_instantiate(captured)
        finally:
            driver.api.graph_free(captured)
        super().__init__(driver, raw)

    def launch(self, stream: Stream) -> None:
        self.driver.require("launching a graph")
        self.driver.api.graph_launch(self.raw, stream.raw)

    def _free(self, raw: Any) -> None:
        self.driver.api.executable_free(raw)


class Capture:
    """What ``Driver.capture`` gives: ``graph`` is there after the block."""

    def __init__(self) -> None:
        self._graph: Graph | None = None

    def finish(self, graph: Graph) -> None:
        self._graph = graph

    @property
    def graph(self) -> Graph:
        if self._graph is None:
            raise CudaError("a capture has no graph before its block ends")
        return self._graph


def as_bytes(array: np.ndarray[Any, Any], writable: bool = False) -> NDArray[np.uint8]:
    """The bytes of a C-contiguous array, without a copy."""
    if not array.flags.c_contiguous:
        raise CudaError(f"an array of shape {array.shape} and strides {array.strides} is not C-contiguous")
    if writable and not array.flags.writeable:
        raise CudaError("a download into a read-only array")
    return array.reshape(-1).view(np.uint8)


def kernel_arguments(kernel: str, arguments: Sequence[np.generic | int]) -> list[np.generic]:
    """Each as a NumPy scalar: a plain int is an address (64 bits unsigned)."""
    values: list[np.generic] = []
    for position, argument in enumerate(arguments):
        if isinstance(argument, int) and not isinstance(argument, bool):
            values.append(np.uint64(argument))
        elif isinstance(argument, (np.number, np.bool_)):
            values.append(argument)
        else:
            found = type(argument).__name__
            raise CudaError(f"argument {position} of {kernel} is a {found}: NumPy scalars and addresses are accepted")
    return values
