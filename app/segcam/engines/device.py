"""Engines on an NVIDIA GPU, whatever runs the network: slots with pinned host memory and device memory each.

A network on the device (``DeviceNetwork``) runs between two device addresses, as ``engines.plan.PlanEngine`` does.
Everything in it needs the driver's context: ``with driver.current():``.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from segcam.engines.base import EngineInfo, EngineOptions
from segcam.engines.plan import PlanTensor, Shape
from segcam.engines.tensorrt_api import numpy_dtype
from segcam.errors import EngineError, UsageError, let_go
from segcam.onnx_tools.spec import ModelSpec

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import DeviceMemory, Driver, Event, PinnedMemory, Stream


class DeviceRun(Protocol):
    """One run of a network at a time, on inputs of one shape. Used by one thread at a time, which any thread may be.

    ``enqueue`` runs it on a stream from one device address to another (multiples of 256) without waiting; the first
    run takes memory and time and is ``warm_up``'s. Both raise EngineError.
    """

    @property
    def input_shape(self) -> Shape: ...

    @property
    def output_shape(self) -> Shape: ...

    @property
    def input_bytes(self) -> int: ...

    @property
    def output_bytes(self) -> int: ...

    def enqueue(self, stream: Stream, input_address: int, output_address: int) -> None: ...

    def warm_up(self, stream: Stream, input_address: int, output_address: int) -> None: ...

    def close(self) -> None: ...


class DeviceNetwork(Protocol):
    """A network on the GPU. ``execution`` makes something that runs it; ``close`` it after all of them."""

    @property
    def name(self) -> str: ...

    @property
    def driver(self) -> Driver: ...

    @property
    def input(self) -> PlanTensor: ...

    @property
    def output(self) -> PlanTensor: ...

    def execution(self, shape: Shape) -> DeviceRun: ...

    def close(self) -> None: ...


@dataclass(frozen=True, eq=False)
class DeviceSlot:
    """What one frame in flight has on the GPU: ``execution`` reads at the address ``input``, writes at ``output``."""

    stream: Stream
    execution: DeviceRun
    input: int
    output: int


NetworkT = TypeVar("NetworkT", bound=DeviceNetwork)
EngineT = TypeVar("EngineT", bound="DeviceEngine[Any]")


@dataclass(eq=False)
class _Slot:
    """All that one frame in flight needs. Events: the network begins, it ends, its output has arrived. Pinned memory is
    there once somebody has asked for ``input``: who has memory of his own needs none."""

    execution: DeviceRun
    fed: PlanTensor
    read: PlanTensor
    stream: Stream
    given: DeviceMemory
    made: DeviceMemory
    begun: Event
    ended: Event
    arrived: Event
    host: tuple[PinnedMemory, PinnedMemory] | None = None

    # Made anew for each use: pinned memory stays for as long as there is a view of it.

    @property
    def input(self) -> NDArray[Any]:
        assert self.host is not None
        return self.host[0].array.view(numpy_dtype(self.fed.dtype)).reshape(self.execution.input_shape)

    @property
    def output(self) -> NDArray[Any]:
        assert self.host is not None
        return self.host[1].array.view(numpy_dtype(self.read.dtype)).reshape(self.execution.output_shape)

    def drop_host(self) -> None:
        # What is queued may still read or write it.
        quietly(self.stream.synchronize)
        for memory in self.host or ():
            quietly(memory.close)


class DeviceEngine(ABC, Generic[NetworkT]):
    """The part of ``engines.base.Engine`` that is the same for every runtime on a GPU. Each slot has an execution, a
    stream and memory of its own, so that the copies of one frame overlap with the network on another.

    Calls may come from any thread, one at a time for each slot. ``driver`` is used and left open; None: one is opened
    by ``activate`` and closed by ``close``.

    Who has device memory of his own uses ``device_slot`` in place of ``input``, ``start`` and ``wait``.
    """

    #: How many frames are in flight where nobody says: one's picture goes up, one is in the network, one's results come
    #: down.
    usual_requests = 3
    #: Whether ``DeviceSlot.execution.enqueue`` may be captured into a CUDA graph after it has run once.
    capturable = True

    def __init__(
        self, path: Path, options: EngineOptions, warn: Callable[[str], None], driver: Driver | None = None
    ) -> None:
        self._path, self._options, self._warn, self._given_driver = path, options, warn, driver
        self._driver: Driver | None = None
        self._plan: NetworkT | None = None
        self._spec: ModelSpec | None = None
        self._info: EngineInfo | None = None
        self._slots: list[_Slot] = []
        self._held = ExitStack()

    @abstractmethod
    def activate(self) -> None: ...

    def with_driver(self: EngineT, driver: Driver) -> EngineT:
        """The same engine on ``driver``, not yet active; both may be at once."""
        return type(self)(self._path, self._options, self._warn, driver)

    def _open_driver(self) -> Driver:
        from segcam.kernels.cuda.driver import open_driver

        return open_driver(device=device_number(self._options.device), warn=self._warn)

    def _make_slots(self, plan: NetworkT, shape: Shape) -> None:
        asked = self._options.requests
        for number in range(asked or self.usual_requests):
            with ExitStack() as made:
                try:
                    slot = self._make_slot(plan, shape, made)
                except BaseException as error:
                    let_go(error)
                    if number == 0 or asked or not isinstance(error, EngineError):
                        raise
                    frames = f"{number} frame{'s' if number > 1 else ''}"
                    self._warn(f"{plan.name}: {frames} in flight, there is no room for more ({error.message})")
                    return
                self._slots.append(slot)
                self._held.callback(made.pop_all().close)

    def _make_slot(self, plan: NetworkT, shape: Shape, made: ExitStack) -> _Slot:
        driver = plan.driver

        def event() -> Event:
            event = driver.event()
            made.callback(quietly, event.close)
            return event

        def memory(nbytes: int) -> DeviceMemory:
            memory = driver.allocate(nbytes)
            made.callback(quietly, memory.close)
            return memory

        # An execution goes before its stream.
        stream = driver.stream()
        made.callback(quietly, stream.close)
        execution = plan.execution(shape)
        made.callback(quietly, execution.close)
        slot = _Slot(
            execution,
            plan.input,
            plan.output,
            stream,
            memory(execution.input_bytes),
            memory(execution.output_bytes),
            event(),
            event(),
            event(),
        )
        # Memory may only be given back when nothing runs on it any more: this comes first when all is undone.
        made.callback(quietly, stream.synchronize)
        driver.fill(slot.given.address, 0, execution.input_bytes, stream)
        execution.warm_up(stream, slot.given.address, slot.made.address)
        return slot

    @property
    def spec(self) -> ModelSpec:
        self._active()
        assert self._spec
        return self._spec

    @property
    def info(self) -> EngineInfo:
        self._active()
        assert self._info
        return self._info

    @property
    def plan(self) -> NetworkT:
        """The loaded network, for who has device memory of his own. Raises EngineError."""
        self._active()
        assert self._plan
        return self._plan

    @property
    def driver(self) -> Driver:
        """What the network runs with. Raises EngineError."""
        return self._active()

    @property
    def input_dtype(self) -> str:
        """NumPy's word for the input's elements."""
        return self.plan.input.dtype

    @property
    def output_dtype(self) -> str:
        """NumPy's word for the output's elements, or "bfloat16"."""
        return self.plan.output.dtype

    def device_slot(self, slot: int) -> DeviceSlot:
        """The stream, execution (warmed up) and device memory of a slot. Raises EngineError."""
        self._active()
        on = self._slots[slot]
        return DeviceSlot(on.stream, on.execution, on.given.address, on.made.address)

    def _active(self) -> Driver:
        if self._info is None or self._driver is None:
            raise EngineError(f"the engine {self._path.name} is not active", "Call activate() first.")
        return self._driver

    def input(self, slot: int) -> NDArray[Any]:
        return self._on_host(slot).input

    def _on_host(self, slot: int) -> _Slot:
        """The slot, with pinned memory."""
        driver, on = self._active(), self._slots[slot]
        if on.host is None:
            with driver.current(), ExitStack() as made:
                given = driver.pinned(on.execution.input_bytes)
                made.callback(quietly, given.close)
                on.host = given, driver.pinned(on.execution.output_bytes)
                given.array.fill(0)
                self._held.callback(on.drop_host)
                made.pop_all()
        return on

    def start(self, slot: int) -> None:
        driver, on = self._active(), self._on_host(slot)
        with driver.current():
            driver.upload(on.given.address, on.input, on.stream)
            on.begun.record(on.stream)
            on.execution.enqueue(on.stream, on.given.address, on.made.address)
            on.ended.record(on.stream)
            driver.download(on.output, on.made.address, on.stream)
            on.arrived.record(on.stream)

    def ready(self, slot: int) -> bool:
        with self._active().current():
            return self._slots[slot].arrived.done()

    def wait(self, slot: int) -> NDArray[Any]:
        with self._active().current():
            self._slots[slot].arrived.synchronize()
        found = self._slots[slot].output
        assert self._plan and self._info
        if self._plan.output.dtype != "bfloat16" or self._info.output_layout == "NHWC":
            return found
        # Segcam's kernels read bfloat16 by pixels, not by planes: its numbers as float32, which holds them exactly.
        wide: NDArray[np.float32] = np.left_shift(found, 16, dtype=np.uint32).view(np.float32)
        return wide

    def elapsed_ms(self, slot: int) -> float:
        with self._active().current():
            return self._slots[slot].ended.ms_since(self._slots[slot].begun)

    def close(self) -> None:
        driver, self._driver = self._driver, None
        self._info = self._spec = self._plan = None
        let_go(sys.exc_info()[1])
        self._slots = []
        held = self._held.pop_all()
        if driver is None:
            return
        with suppress(EngineError), driver.current():
            held.close()
        # Where the context is gone, so is everything in it; what Python holds of it is let go all the same.
        held.close()
        if driver is not self._given_driver:
            quietly(driver.close)


def device_number(device: str) -> int:
    """Which GPU ``--device`` means: cuda:1, GPU.1 or 1; 0 where it says no number. Raises UsageError."""
    match = re.fullmatch(r"(?:|CPU|CUDA|GPU|AUTO)(?:(?:^|[:.])(\d+))?", device.strip().upper(), re.ASCII)
    if match is None:
        raise UsageError(f"--device {device!r} is no NVIDIA GPU", "Name it by number, such as --device cuda:0.")
    return int(match[1] or 0)


def quietly(undo: Callable[[], None]) -> None:
    """What fails while things are given back would hide why they are."""
    with suppress(EngineError):
        undo()
