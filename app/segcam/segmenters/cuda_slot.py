"""One frame in flight on the GPU: its memory, its stream's events, and its captured graph."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from segcam.engines.device import DeviceSlot, quietly
from segcam.kernels.cuda.driver import DeviceMemory, Driver, Event, Graph, PinnedMemory
from segcam.segmenters.cuda_work import Work

#: The stages of a frame on the GPU, in order.
STAGES = ("upload", "preprocess", "inference", "postprocess", "download")


class Block:
    """``nbytes`` of the device's memory, and pinned memory for the first ``pinned_bytes`` of it, by default for all."""

    def __init__(self, driver: Driver, nbytes: int, pinned_bytes: int = 0) -> None:
        self.nbytes, self.pinned_bytes = nbytes, pinned_bytes or nbytes
        self._held = ExitStack()
        with ExitStack() as made:
            self._device: DeviceMemory = driver.allocate(nbytes)
            made.callback(quietly, self._device.close)
            self._pinned: PinnedMemory = driver.pinned(self.pinned_bytes)
            made.callback(quietly, self._pinned.close)
            # What lies between rows is copied along; nobody reads it.
            self._pinned.array.fill(0)
            self._held = made.pop_all()

    @property
    def address(self) -> int:
        return self._device.address

    @property
    def array(self) -> NDArray[np.uint8]:
        """The pinned bytes; a view is not to be kept, for memory stays as long as there is one."""
        return self._pinned.array

    def close(self) -> None:
        self._held.close()


class Slot:
    """``on`` is the engine's own part. Made and used inside ``driver.current()``; ``close`` it when it is idle."""

    def __init__(self, driver: Driver, on: DeviceSlot) -> None:
        self._driver, self.on = driver, on
        self._up: Block | None = None
        self._down: Block | None = None
        self._graph: Graph | None = None
        self._graph_of: Work | None = None
        #: What ran here last: a graph may be captured of that.
        self.warm: Work | None = None
        #: Frames since the last one that ran in parts.
        self.since = 0
        with ExitStack() as made:
            self.begun = driver.event()
            made.callback(quietly, self.begun.close)
            self.passed: list[Event] = []
            for _ in STAGES:
                self.passed.append(driver.event())
                made.callback(quietly, self.passed[-1].close)
            self.decoded = driver.event(timing=False)
            made.callback(quietly, self.decoded.close)
            self._held = made.pop_all()

    @property
    def arrived(self) -> Event:
        """Everything of the frame is in pinned memory."""
        return self.passed[-1]

    @property
    def up(self) -> Block:
        assert self._up is not None
        return self._up

    @property
    def down(self) -> Block:
        assert self._down is not None
        return self._down

    def fit(self, work: Work) -> None:
        """Have memory for such frames: more is taken where it doesn't do, and kept."""
        if self._up is None or self._up.nbytes < work.frame_bytes:
            self._drop_graph()
            if self._up is not None:
                self._up.close()
                self._up = None
            self._up = Block(self._driver, work.frame_bytes)
        nbytes, pinned_bytes = work.made_bytes, work.down_bytes
        if self._down is None or self._down.nbytes < nbytes or self._down.pinned_bytes < pinned_bytes:
            self._drop_graph()
            if self._down is not None:
                # Kinds of frame that take turns must not take memory from each other.
                nbytes = max(nbytes, self._down.nbytes)
                pinned_bytes = max(pinned_bytes, self._down.pinned_bytes)
                self._down.close()
                self._down = None
            self._down = Block(self._driver, nbytes, pinned_bytes)

    def graph(self, work: Work) -> Graph | None:
        """The graph of such frames, if it is the one that is there."""
        return self._graph if self._graph_of is work else None

    def keep_graph(self, work: Work, graph: Graph) -> None:
        self._drop_graph()
        self._graph, self._graph_of = graph, work

    def _drop_graph(self) -> None:
        self.warm = None
        graph, self._graph, self._graph_of = self._graph, None, None
        if graph is not None:
            graph.close()

    def forget(self, work: Work) -> None:
        """That kind of frame is not expected any more."""
        if self._graph_of is work or self.warm is work:
            self._drop_graph()

    def close(self) -> None:
        quietly(self.on.stream.synchronize)
        quietly(self._drop_graph)
        for block in (self._up, self._down):
            if block is not None:
                quietly(block.close)
        self._up = self._down = None
        self._held.close()
