"""Streams, events and captured graphs of the stand-in machine.

The capture rules are those of the driver API's documentation ("CUDA Graphs", cuStreamBeginCapture and
cuThreadExchangeStreamCaptureMode); the error names are what it says for each.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from standin_cuda.words import IllegalAddress, Refused

if TYPE_CHECKING:
    from standin_cuda.machine import Machine

#: Modes of capture: another thread's allocation ends a global one, only the own thread's a thread-local one.
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2
#: The legacy default stream. Streams that are not "non-blocking" wait for it, and it for them.
LEGACY = 0
NON_BLOCKING = 1
DISABLE_TIMING = 2


@dataclass(eq=False)
class Work:
    """One queued piece; it may start when all of ``after`` are done. ``finished`` is the machine's clock in ms."""

    what: str
    run: Callable[[], None]
    stream: int
    after: list[Work] = field(default_factory=list)
    done: bool = False
    finished: float = 0.0


@dataclass(eq=False)
class Capture:
    origin: int
    mode: int
    thread: int
    nodes: list[Work] = field(default_factory=list)
    streams: set[int] = field(default_factory=set)
    joined: set[int] = field(default_factory=set)
    invalid: bool = False


@dataclass(eq=False)
class Stream:
    context: int
    flags: int
    queue: deque[Work] = field(default_factory=deque)
    last: Work | None = None
    capture: Capture | None = None


@dataclass(eq=False)
class Event:
    context: int
    flags: int
    record: Work | None = None
    captured: Capture | None = None
    captured_stream: int = 0


@dataclass(eq=False)
class Graph:
    nodes: list[Work]
    context: int
    executable: bool = False


class Streams:
    """All streams of a machine. Each work that ran is 0.25 ms on the machine's clock, whatever it did."""

    STEP_MS = 0.25

    def __init__(self, machine: Machine, order: Any) -> None:
        self.machine = machine
        self.order = order
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, Event] = {}
        self.graphs: dict[int, Graph] = {}
        self.history: list[str] = []
        self.accidents: list[BaseException] = []
        self.clock = 0.0

    def leftovers(self) -> dict[str, int]:
        made = sum(handle != LEGACY for handle in self.streams)
        return {"streams": made, "events": len(self.events), "graphs": len(self.graphs)}

    def forget(self, context: int) -> None:
        """What a destroyed context takes with it."""
        for table in (self.streams, self.events, self.graphs):
            for handle in [handle for handle, held in table.items() if held.context == context]:
                del table[handle]

    # --- streams

    def create(self, flags: int) -> int:
        context = self.machine.require_context()
        handle = self.machine.new_handle()
        self.streams[handle] = Stream(context.handle, flags)
        return handle

    def destroy(self, handle: int) -> None:
        stream = self.stream(handle)
        if handle == LEGACY or stream.capture is not None:
            raise Refused("CUDA_ERROR_INVALID_HANDLE")
        self.run(handle)
        del self.streams[handle]

    def stream(self, handle: int) -> Stream:
        context = self.machine.require_context()
        if handle == LEGACY:
            self.streams.setdefault(LEGACY, Stream(context.handle, 0))
        if handle not in self.streams or self.streams[handle].context != context.handle:
            raise Refused("CUDA_ERROR_INVALID_HANDLE")
        return self.streams[handle]

    def enqueue(self, handle: int, run: Callable[[], None], what: str) -> Work:
        stream = self.stream(handle)
        work = Work(what, run, handle)
        if stream.capture is not None:
            self._valid(stream.capture).nodes.append(work)
            return work
        others: Iterable[Stream] = ()
        if handle == LEGACY:
            others = [other for other in self.streams.values() if other is not stream and not other.flags]
        elif not stream.flags and LEGACY in self.streams:
            others = [self.streams[LEGACY]]
        for other in others:
            if handle == LEGACY and other.capture is not None:
                other.capture.invalid = True
                raise Refused("CUDA_ERROR_STREAM_CAPTURE_IMPLICIT")
            if other.last is not None and not other.last.done:
                work.after.append(other.last)
        self._append(stream, work)
        return work

    def _append(self, stream: Stream, work: Work) -> None:
        stream.queue.append(work)
        stream.last = work
        if self.order == "eager":
            self.run()
        elif isinstance(self.order, random.Random):
            while self.order.random() < 0.5 and (ready := [h for h, s in self.streams.items() if s.queue]):
                self.run(self.order.choice(ready), 1)

    def run(self, handle: int | None = None, steps: int | None = None) -> None:
        """Runs queued work, and first what it waits for in other streams."""
        for number in [handle] if handle is not None else list(self.streams):
            stream = self.streams.get(number)
            while stream is not None and stream.queue and (steps is None or steps > 0):
                self._run_first(stream)
                steps = None if steps is None else steps - 1

    def _run_first(self, stream: Stream) -> None:
        work = stream.queue[0]
        for earlier in work.after:
            while not earlier.done:
                self._run_first(self.streams[earlier.stream])
        stream.queue.popleft()
        self._execute(work, stream.context)

    def _execute(self, work: Work, context: int) -> None:
        held = next(held for held in self.machine.contexts.values() if held.handle == context)
        try:
            if not held.fault:
                self.history.append(work.what)
                work.run()
        except IllegalAddress as error:
            held.fault = "CUDA_ERROR_ILLEGAL_ADDRESS"
            self.accidents.append(error)
        except Exception as error:
            held.fault = "CUDA_ERROR_LAUNCH_FAILED"
            self.accidents.append(error)
        self.clock += self.STEP_MS
        work.done, work.finished = True, self.clock

    def synchronize(self, handle: int) -> None:
        stream = self.stream(handle)
        self._no_wait_while_capturing(stream)
        self.run(handle)
        self.machine.require_context()

    def idle(self, handle: int) -> bool:
        """Whether nothing was left to do; asking lets one more piece happen, so that a loop of asking ends."""
        stream = self.stream(handle)
        self._no_wait_while_capturing(stream)
        idle = not stream.queue
        self.run(handle, 1)
        self.machine.require_context()
        return idle

    def synchronize_all(self) -> None:
        self.machine.require_context()
        self.unsafe_in_capture()
        self.run()
        self.machine.require_context()

    # --- events

    def create_event(self, flags: int) -> int:
        context = self.machine.require_context()
        handle = self.machine.new_handle()
        self.events[handle] = Event(context.handle, flags)
        return handle

    def destroy_event(self, handle: int) -> None:
        self.event(handle)
        del self.events[handle]

    def event(self, handle: int) -> Event:
        context = self.machine.require_context()
        if handle not in self.events or self.events[handle].context != context.handle:
            raise Refused("CUDA_ERROR_INVALID_HANDLE")
        return self.events[handle]

    def record(self, event_handle: int, handle: int) -> None:
        event, stream = self.event(event_handle), self.stream(handle)
        work = self.enqueue(handle, lambda: None, "record")
        event.record, event.captured = work, stream.capture
        if stream.capture is not None:
            event.captured_stream = handle

    def wait(self, handle: int, event_handle: int) -> None:
        stream, event = self.stream(handle), self.event(event_handle)
        if event.captured is not None:
            capture = self._valid(event.captured)
            if stream.capture is None:
                if handle == LEGACY:
                    raise Refused("CUDA_ERROR_STREAM_CAPTURE_IMPLICIT")
                stream.capture = capture
                capture.streams.add(handle)
            elif stream.capture is not capture:
                capture.invalid = stream.capture.invalid = True
                raise Refused("CUDA_ERROR_STREAM_CAPTURE_MERGE")
            if handle == capture.origin:
                capture.joined.add(event.captured_stream)
        elif stream.capture is not None:
            if event.record is not None:
                stream.capture.invalid = True
                raise Refused("CUDA_ERROR_STREAM_CAPTURE_ISOLATION")
        elif event.record is not None:
            work = Work("wait", lambda: None, handle)
            if not event.record.done:
                work.after.append(event.record)
            self._append(stream, work)

    def event_done(self, handle: int) -> bool:
        """As ``idle``: an event never recorded is done."""
        event = self.event(handle)
        if event.captured is not None:
            event.captured.invalid = True
            raise Refused("CUDA_ERROR_CAPTURED_EVENT")
        done = event.record is None or event.record.done
        if event.record is not None:
            self.run(event.record.stream, 1)
            self.machine.require_context()
        return done

    def synchronize_event(self, handle: int) -> None:
        event = self.event(handle)
        if event.captured is not None:
            event.captured.invalid = True
            raise Refused("CUDA_ERROR_CAPTURED_EVENT")
        while event.record is not None and not event.record.done:
            self.run(event.record.stream, 1)
        self.machine.require_context()

    def elapsed_ms(self, start: int, end: int) -> float:
        first, last = self.event(start), self.event(end)
        for event in (first, last):
            if event.flags & DISABLE_TIMING or event.record is None or event.captured is not None:
                raise Refused("CUDA_ERROR_INVALID_HANDLE")
        assert first.record is not None and last.record is not None
        if not (first.record.done and last.record.done):
            raise Refused("CUDA_ERROR_NOT_READY")
        return last.record.finished - first.record.finished

    # --- capture

    def begin_capture(self, handle: int, mode: int) -> None:
        stream = self.stream(handle)
        if handle == LEGACY:
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        if stream.capture is not None:
            raise Refused("CUDA_ERROR_ILLEGAL_STATE")
        stream.capture = Capture(handle, mode, threading.get_ident())

    def end_capture(self, handle: int) -> int:
        """The graph's handle; the capture is over whatever happens."""
        stream = self.stream(handle)
        capture = stream.capture
        if capture is None:
            raise Refused("CUDA_ERROR_ILLEGAL_STATE")
        if capture.origin != handle:
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_UNMATCHED")
        if capture.mode != RELAXED and capture.thread != threading.get_ident():
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD")
        self.drop_capture(handle)
        if capture.invalid:
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        if not capture.streams <= capture.joined:
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_UNJOINED")
        return self._keep(Graph(capture.nodes, stream.context))

    def drop_capture(self, handle: int) -> None:
        """What was captured on that stream, and on those that joined, is forgotten."""
        capture = self.stream(handle).capture
        for other in self.streams.values():
            if other.capture is capture:
                other.capture = None

    def refuse_capture(self, handle: int) -> None:
        """Copies of pageable memory: refused, though newer drivers take some of them."""
        capture = self.stream(handle).capture
        if capture is not None:
            capture.invalid = True
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def unsafe_in_capture(self) -> None:
        """What may wait for the device (allocating, freeing, synchronising) ends captures of the strict modes."""
        mine = threading.get_ident()
        for stream in self.streams.values():
            capture = stream.capture
            if capture is not None and (
                capture.mode == GLOBAL or (capture.mode == THREAD_LOCAL and capture.thread == mine)
            ):
                capture.invalid = True
                raise Refused("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def _no_wait_while_capturing(self, stream: Stream) -> None:
        if stream.capture is not None:
            stream.capture.invalid = True
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def _valid(self, capture: Capture) -> Capture:
        if capture.invalid:
            raise Refused("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        return capture

    def _keep(self, graph: Graph) -> int:
        handle = self.machine.new_handle()
        self.graphs[handle] = graph
        return handle

    def graph(self, handle: int, executable: bool) -> Graph:
        context = self.machine.require_context()
        graph = self.graphs.get(handle)
        if graph is None or graph.executable != executable or graph.context != context.handle:
            raise Refused("CUDA_ERROR_INVALID_VALUE")
        return graph

    def instantiate(self, handle: int) -> int:
        graph = self.graph(handle, executable=False)
        return self._keep(Graph(graph.nodes, graph.context, executable=True))

    def launch_graph(self, handle: int, stream: int) -> None:
        graph = self.graph(handle, executable=True)

        def run() -> None:
            for node in graph.nodes:
                self.history.append(node.what)
                node.run()

        self.enqueue(stream, run, "graph")

    def destroy_graph(self, handle: int, executable: bool) -> None:
        self.graph(handle, executable)
        del self.graphs[handle]
