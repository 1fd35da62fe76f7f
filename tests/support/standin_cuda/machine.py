"""The machine itself: contexts per thread, memory behind addresses, faults on demand, and a log of calls."""

from __future__ import annotations

import ctypes
import random
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from standin_cuda.code import Code, Triple
from standin_cuda.streams import Streams
from standin_cuda.words import IllegalAddress, Refused

__all__ = ["Call", "Context", "IllegalAddress", "Kernel", "Machine", "Refused"]

#: Far from any host address, so that neither is ever taken for the other.
_FIRST_ADDRESS = 0x7_0000_0000
_ALIGNMENT = 512
#: Between allocations: no address just outside of one lies in the next.
_GUARD = 4096
_POISON = 0xDD

#: Called with (machine, grid, block, the parameters' bytes).
Kernel = Callable[["Machine", Triple, Triple, list[bytes]], None]
Order: TypeAlias = "Literal['lazy', 'eager'] | random.Random"


@dataclass(frozen=True)
class Call:
    name: str
    args: tuple[Any, ...]
    thread: str


@dataclass
class Context:
    """A primary context. ``fault`` sticks, as an illegal address does in a real one."""

    handle: int
    device: int
    retained: int = 0
    fault: str = ""


@dataclass
class _Block:
    data: bytearray
    context: int


@dataclass
class _Fault:
    name: str
    at: int
    error: str
    times: int
    sticks: bool = False


class Machine:
    """A GPU with ``memory_bytes`` of memory, of which only what is allocated exists.

    ``order`` says when queued work happens: "lazy" when somebody waits for it, "eager" at once, a ``random.Random`` at
    times that it chooses. ``driver_version`` is the newest CUDA that the driver knows, (major, minor).
    Every method that stands for a driver call raises ``Refused`` with the name of the CUresult.
    """

    def __init__(
        self,
        *,
        order: Order = "lazy",
        devices: int = 1,
        memory_bytes: int = 8 << 30,
        driver_version: tuple[int, int] = (13, 0),
        compute_capability: tuple[int, int] = (8, 9),
        name: str = "NVIDIA Stand-in",
    ) -> None:
        self.devices = devices
        self.memory_bytes = memory_bytes
        self.driver_version = driver_version
        self.compute_capability = compute_capability
        self.name = name
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.kernels: dict[str, Kernel] = {}
        self.initialized = False
        #: False: libcuda.so.1 is not there. ``lacking``: functions that this (old) driver does not have.
        self.installed = True
        self.lacking: set[str] = set()
        self.lock = threading.RLock()
        self.contexts = {device: Context(0xC0000 + device, device) for device in range(devices)}
        self.streams = Streams(self, order)
        self.code = Code(self)
        self.accidents = self.streams.accidents
        self._stacks = threading.local()
        self._blocks: dict[int, _Block] = {}
        self._starts: list[int] = []
        self._next = _FIRST_ADDRESS
        self._pinned: dict[int, ctypes.Array[ctypes.c_uint8]] = {}
        self._graveyard: list[Any] = []
        self.pinned_flags: list[int] = []
        self.lost = 0
        self._faults: list[_Fault] = []
        self._handle = 0x5000

    # --- what tests say and ask

    def fail(self, name: str, at: int = 1, error: str = "CUDA_ERROR_UNKNOWN", times: int = 1) -> None:
        """The ``at``-th call of driver function ``name`` from now on fails, and ``times - 1`` calls after it."""
        self._faults.append(_Fault(name, at, error, times))

    def die(self, name: str, at: int = 1, error: str = "CUDA_ERROR_ILLEGAL_ADDRESS") -> None:
        """The ``at``-th call of driver function ``name`` from now on fails, and then every other in its context."""
        self._faults.append(_Fault(name, at, error, 1, sticks=True))

    def heal(self) -> None:
        """Forgets the faults that have not happened."""
        self._faults.clear()

    @property
    def allocated(self) -> int:
        """Bytes of device memory not yet freed."""
        return sum(len(block.data) for block in self._blocks.values())

    @property
    def pinned(self) -> int:
        """Bytes of page-locked host memory not yet freed."""
        return sum(map(len, self._pinned.values()))

    def leftovers(self) -> dict[str, int]:
        """What is still there of each kind; all 0 after a clean end. ``lost``: what was never freed and went with its
        context. ``pushed``: contexts on the calling thread's stack, without those destroyed (PyCUDA leaves one).
        """
        retained = sum(context.retained for context in self.contexts.values())
        pushed = sum(context.retained > 0 for context in self.stack)
        return self._made() | {"contexts": retained, "pushed": pushed, "lost": self.lost}

    def _made(self) -> dict[str, int]:
        made = {"device bytes": self.allocated, "pinned bytes": self.pinned, "modules": len(self.code.modules)}
        return made | self.streams.leftovers()

    def run(self, stream: int | None = None, steps: int | None = None) -> None:
        """Lets queued work happen: of one stream or all, at most ``steps`` pieces of it."""
        with self.lock:
            self.streams.run(stream, steps)

    # --- calls and contexts

    def called(self, name: str, *args: Any) -> None:
        """Notes a call of a driver function, and fails it if a test asked for that."""
        with self.lock:
            self.calls.append(Call(name, args, threading.current_thread().name))
            self.counts[name] += 1
            for fault in [fault for fault in self._faults if fault.name == name]:
                fault.at -= 1
                if fault.at <= 0:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                    if fault.sticks and self.stack:
                        self.stack[-1].fault = fault.error
                    raise Refused(fault.error)

    @property
    def stack(self) -> list[Context]:
        """The calling thread's contexts, the current one last."""
        if not hasattr(self._stacks, "contexts"):
            self._stacks.contexts = []
        stack: list[Context] = self._stacks.contexts
        return stack

    def require_context(self) -> Context:
        if not self.initialized:
            raise Refused("CUDA_ERROR_NOT_INITIALIZED")
        if not self.stack:
            raise Refused("CUDA_ERROR_INVALID_CONTEXT")
        context = self.stack[-1]
        if context.retained == 0:
            raise Refused("CUDA_ERROR_CONTEXT_IS_DESTROYED")
        if context.fault:
            raise Refused(context.fault)
        return context

    def initialize(self) -> None:
        if self.devices == 0:
            raise Refused("CUDA_ERROR_NO_DEVICE")
        self.initialized = True

    def count(self) -> int:
        if not self.initialized:
            raise Refused("CUDA_ERROR_NOT_INITIALIZED")
        return self.devices

    def device(self, ordinal: int) -> int:
        if not 0 <= ordinal < self.count():
            raise Refused("CUDA_ERROR_INVALID_DEVICE")
        return ordinal

    def push(self, context: int) -> None:
        held = next((held for held in self.contexts.values() if held.handle == context and held.retained), None)
        if held is None:
            raise Refused("CUDA_ERROR_INVALID_CONTEXT")
        self.stack.append(held)

    def pop(self) -> int:
        if not self.stack:
            raise Refused("CUDA_ERROR_INVALID_CONTEXT")
        return self.stack.pop().handle

    def retain(self, device: int) -> Context:
        self.contexts[device].retained += 1
        return self.contexts[device]

    def release(self, device: int) -> None:
        """The last release destroys the context with all that was made in it, and pops it from no stack."""
        context = self.contexts[device]
        if context.retained == 0:
            raise Refused("CUDA_ERROR_INVALID_CONTEXT")
        context.retained -= 1
        if context.retained == 0:
            context.fault = ""
            before = sum(self._made().values())
            for address in [a for a, block in self._blocks.items() if block.context == context.handle]:
                self._forget(address)
            if not any(other.retained for other in self.contexts.values()):
                self._graveyard.extend(self._pinned.values())
                self._pinned.clear()
            self.code.forget(context.handle)
            self.streams.forget(context.handle)
            self.lost += before - sum(self._made().values())

    def new_handle(self) -> int:
        self._handle += 16
        return self._handle

    # --- memory

    def allocate(self, nbytes: int) -> int:
        """The address of new device memory, aligned to 512 bytes and filled with a pattern that is no zero."""
        context = self.require_context()
        self.streams.unsafe_in_capture()
        if nbytes <= 0:
            raise Refused("CUDA_ERROR_INVALID_VALUE")
        with self.lock:
            if self.allocated + nbytes > self.memory_bytes:
                raise Refused("CUDA_ERROR_OUT_OF_MEMORY")
            address = self._next
            # Addresses are never used again: whoever keeps one after freeing it is found out.
            self._next += -(-(nbytes + _GUARD) // _ALIGNMENT) * _ALIGNMENT
            self._blocks[address] = _Block(bytearray([0xA5]) * nbytes, context.handle)
            self._starts.append(address)
            return address

    def free(self, address: int) -> None:
        """Waits for all queued work first, as the real one does."""
        self.require_context()
        self.streams.unsafe_in_capture()
        with self.lock:
            if address not in self._blocks:
                raise Refused("CUDA_ERROR_INVALID_VALUE")
            self.streams.run()
            self._forget(address)

    def _forget(self, address: int) -> None:
        block = self._blocks.pop(address)
        self._starts.remove(address)
        block.data[:] = bytes([_POISON]) * len(block.data)

    def bytes_at(self, address: int, nbytes: int, align: int = 1) -> memoryview:
        """The ``nbytes`` at a device address, to read and write. IllegalAddress where they are not all inside one live
        allocation, or ``address`` is not a multiple of ``align``."""
        with self.lock:
            position = bisect_right(self._starts, address) - 1
            start = self._starts[position] if position >= 0 else None
            if start is None or nbytes < 0 or address + nbytes > start + len(self._blocks[start].data):
                raise IllegalAddress(f"{nbytes} bytes at {address:#x} are not inside one allocation")
            if address % align:
                raise IllegalAddress(f"{address:#x} is not aligned to {align} bytes")
            return memoryview(self._blocks[start].data)[address - start : address - start + nbytes]

    def allocate_pinned(self, nbytes: int, flags: int = 0) -> int:
        """The host address of new page-locked memory, filled with a pattern. ``flags`` are kept in ``pinned_flags``."""
        self.require_context()
        self.streams.unsafe_in_capture()
        if nbytes <= 0:
            raise Refused("CUDA_ERROR_INVALID_VALUE")
        buffer = (ctypes.c_uint8 * nbytes)()
        ctypes.memset(buffer, 0xA5, nbytes)
        self._pinned[ctypes.addressof(buffer)] = buffer
        self.pinned_flags.append(flags)
        return ctypes.addressof(buffer)

    def free_pinned(self, address: int) -> None:
        self.require_context()
        self.streams.unsafe_in_capture()
        if address not in self._pinned:
            raise Refused("CUDA_ERROR_INVALID_VALUE")
        with self.lock:
            self.streams.run()
            buffer = self._pinned.pop(address)
            ctypes.memset(buffer, _POISON, len(buffer))
            # Kept, so that a view that outlives it reads the poison and not somebody else's memory.
            self._graveyard.append(buffer)

    def pinned_at(self, address: int, nbytes: int) -> memoryview | None:
        """The page-locked bytes at a host address; None if they are not page-locked."""
        for start, buffer in self._pinned.items():
            if start <= address and address + nbytes <= start + len(buffer):
                return memoryview(buffer).cast("B")[address - start : address - start + nbytes]
        return None

    # --- work

    def enqueue(self, stream: int, work: Callable[[], None], what: str = "work") -> None:
        """Queues ``work`` behind the stream's work, or records it if the stream is being captured. ``work`` may use
        ``bytes_at``; what it raises becomes the context's fault (illegal address, launch failed) and is kept in
        ``accidents``."""
        self.require_context()
        with self.lock:
            self.streams.enqueue(stream, work, what)

    def upload(self, address: int, host: memoryview, pinned: bool, stream: int) -> None:
        """From page-locked memory the bytes are read when the work happens, from other memory now."""
        self._check(address, host.nbytes)
        if not pinned:
            self.streams.refuse_capture(stream)
            host = memoryview(bytes(host))
        self.enqueue(stream, lambda: _assign(self.bytes_at(address, host.nbytes), host), "upload")

    def download(self, host: memoryview, pinned: bool, address: int, stream: int) -> None:
        """To memory that is not page-locked the copy is over when this returns."""
        self._check(address, host.nbytes)
        if not pinned:
            self.streams.refuse_capture(stream)
        self.enqueue(stream, lambda: _assign(host, self.bytes_at(address, host.nbytes)), "download")
        if not pinned:
            self.streams.synchronize(stream)

    def copy(self, to: int, from_: int, nbytes: int, stream: int) -> None:
        self._check(to, nbytes)
        self._check(from_, nbytes)
        self.enqueue(stream, lambda: _assign(self.bytes_at(to, nbytes), bytes(self.bytes_at(from_, nbytes))), "copy")

    def fill(self, address: int, byte: int, nbytes: int, stream: int) -> None:
        self._check(address, nbytes)
        self.enqueue(stream, lambda: _assign(self.bytes_at(address, nbytes), bytes([byte]) * nbytes), "fill")

    def _check(self, address: int, nbytes: int) -> None:
        self.require_context()
        try:
            self.bytes_at(address, nbytes)
        except IllegalAddress:
            raise Refused("CUDA_ERROR_INVALID_VALUE") from None


def _assign(to: memoryview, values: memoryview | bytes) -> None:
    to[:] = values
