"""The segmenter for NVIDIA GPUs: a picture goes up, and what outputs ask for comes down; all between stays there.

    pinned memory ▸ upload ▸ preprocess ▸ network ▸ class map, counts and overlay ▸ download ▸ pinned memory

Each frame in flight has a slot of its own: memory, a stream, events and, with cuda-python, one CUDA graph that is
the whole line above, so that the copies of one frame run beside the network on another. Nothing is allocated for a
frame but for the first of its kind.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.classes import ClassTable
from segcam.controls import Controls
from segcam.engines.device import DeviceEngine, quietly
from segcam.errors import EngineError, let_go
from segcam.frame import Frame, Segmentation
from segcam.kernels.cuda.picture import PictureKind
from segcam.kernels.cuda.postprocess import color_table
from segcam.segmenters.cuda_slot import STAGES, Slot
from segcam.segmenters.cuda_work import COLORS_BYTES, Kernels, Work, kind_of, must_come_down
from segcam.segmenters.reading import Decorate, LabelSize, Legends, Spare, class_colors
from segcam.segmenters.surfaces import Surface, Surfaces

#: Where frames run as graphs, every so manieth of a slot runs in parts, which times them.
_PROBE = 8


@dataclass(eq=False)
class _Flight:
    slot: Slot
    frame: Frame
    work: Work
    surface: Surface | None
    in_parts: bool
    host_ms: float


class CudaSegmenter:
    """See ``segmenters.base.Segmenter``. Frames lie in host memory, or in the device memory of the engine's GPU.

    ``labels`` and ``overlay`` say what is looked at: without ``labels``, segmentations have an empty class map, (0, 0).
    ``decorate`` makes what is drawn over overlays, in host memory, while ``controls.legend`` is on, from the visible
    classes. Opacity and class filter are those of the moment of ``submit``. ``depth`` 0 uses every slot of the engine.
    ``resident``: overlays stay on the GPU (``Frame.device``, NV12) for an encoder there, until nobody refers to them;
    those that a legend is drawn over, that have another size than the first one, or that NVENC cannot take come down.
    ``graphs`` False queues each frame piece by piece; ``warn`` hears why that is so where it is not what was asked.

    Stages are timed on the GPU; a frame that runs as one graph has "gpu" instead, and every eighth runs in parts.
    "host" is what the calling thread itself did: copying into and out of pinned memory, and queueing.

    ``kernels`` are left open. Raises EngineError, and CudaError where memory doesn't suffice.
    """

    #: Launchers are kept for this many kinds of frame: a stream that alternates between two sizes is fine.
    _KEPT = 4

    def __init__(
        self,
        engine: DeviceEngine[Any],
        kernels: Kernels,
        classes: ClassTable,
        controls: Controls,
        *,
        labels: bool = True,
        overlay: bool = True,
        resident: bool = False,
        mask_only: bool = False,
        decorate: Decorate | None = None,
        label_size: LabelSize = "frame",
        depth: int = 0,
        graphs: bool = True,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._engine, self._kernels, self._driver = engine, kernels, engine.driver
        self._classes, self._controls, self._mask_only = classes, controls, mask_only
        self._labels, self._overlay, self._label_size = labels, overlay, label_size
        self._legends = Legends(controls, decorate)
        self._graphs = graphs and engine.capturable and self._driver.has_graphs
        self._graphs_used = False
        self._resident = resident and overlay
        self._surfaces: Surfaces | None = None
        self._surface_hw = (0, 0)
        self._warn = warn
        self._said: set[str] = set()
        self._depth = min(depth or engine.info.requests, engine.info.requests)
        self._works: dict[tuple[PictureKind, tuple[int, ...] | None, bool], Work] = {}
        self._colors: dict[Any, NDArray[np.uint8]] = {}
        self._colors_version = -1
        self._flying: deque[_Flight] = deque()
        self._spare_labels, self._spare_planes = Spare(), Spare()
        self._slots: list[Slot] = []
        self._closed = False
        with self._driver.current(), ExitStack() as made:
            for number in range(self._depth):
                self._slots.append(Slot(self._driver, engine.device_slot(number)))
                made.callback(self._slots[-1].close)
            made.pop_all()
        self._free = deque(self._slots)

    @property
    def depth(self) -> int:
        return self._depth

    @property
    def pending(self) -> int:
        return len(self._flying)

    @property
    def graphs_used(self) -> bool:
        """Whether a frame has run as a captured CUDA graph."""
        return self._graphs_used

    def submit(self, frame: Frame) -> None:
        """Start a frame. At most ``depth`` may be in flight. Where it fails, those in flight are still good."""
        begun = time.perf_counter()
        frame = self._fitting(frame)
        slot = self._free.popleft()
        try:
            with self._driver.current():
                work = self._work(frame, slot)
                slot.fit(work)
                surface = self._surface(work)
                in_parts = self._run(slot, work, frame, surface)
        except BaseException:
            self._settle(slot)
            self._free.append(slot)
            raise
        self._flying.append(_Flight(slot, frame, work, surface, in_parts, (time.perf_counter() - begun) * 1e3))

    def ready(self) -> bool:
        if not self._flying:
            return False
        with self._driver.current():
            return self._flying[0].slot.arrived.done()

    def collect(self) -> Segmentation:
        """Wait for the oldest frame. Raises EngineError."""
        flight = self._flying.popleft()
        slot, frame, work = flight.slot, flight.frame, flight.work
        try:
            with self._driver.current():
                slot.arrived.synchronize()
                timings = self._times(flight)
            begun = time.perf_counter()
            down = slot.down.array
            counts = work.counts(down)[: len(self._classes)]
            labels = np.empty((0, 0), np.uint8)
            if work.has_labels:
                (labels,) = self._spare_labels.take((work.labels_hw,))
                work.read_labels(down, labels)
            overlay = None
            if flight.surface is not None:
                overlay = work.overlay_on(flight.surface, frame)
            elif work.overlay is not None:
                planes = self._spare_planes.take(work.overlay.shapes)
                work.read_overlay(down, planes)
                overlay = frame.with_planes(planes)
                self._legends.paint(overlay)
            timings["host"] = flight.host_ms + (time.perf_counter() - begun) * 1e3
        except BaseException:
            self._settle(slot)
            raise
        finally:
            self._free.append(slot)
        return Segmentation(frame, labels, overlay, counts, self._classes, timings)

    def recycle(self, segmentation: Segmentation) -> None:
        if segmentation.labels.size:
            self._spare_labels.give((segmentation.labels,))
        if segmentation.overlay is not None and segmentation.overlay.device is None:
            self._spare_planes.give(segmentation.overlay.planes)

    def close(self) -> None:
        """Wait for what is in flight, which is lost, and give the memory back. Before the engine; again is fine."""
        if self._closed:
            return
        self._closed = True
        let_go(sys.exc_info()[1])
        self._flying.clear()
        self._free.clear()
        works, slots = list(self._works.values()), self._slots
        self._works, self._slots = {}, []

        def release() -> None:
            for slot in slots:
                slot.close()
            for work in works:
                quietly(work.close)
            if self._surfaces is not None:
                self._surfaces.close()

        with suppress(EngineError), self._driver.current():
            release()
        # Where the context could not be made current, each thing tries for itself.
        release()

    def _settle(self, slot: Slot) -> None:
        """Where a frame failed: what it had queued must not meet the next one's."""
        with suppress(EngineError), self._driver.current():
            slot.on.stream.synchronize()

    def _fitting(self, frame: Frame) -> Frame:
        """In host memory where the kernels cannot take it as it is."""
        on = frame.device
        if on is None:
            return frame
        if on.gpu != self._driver.device.index or any(pitch % 4 for pitch in on.pitches):
            return frame.to_host()
        return frame

    def _work(self, frame: Frame, slot: Slot) -> Work:
        kind, pitches = kind_of(frame)
        resident = self._stays(frame)
        key = (kind, pitches, resident)
        work = self._works.get(key)
        if work is None:
            while len(self._works) >= self._KEPT:
                old = self._works.pop(next(iter(self._works)))
                for other in self._slots:
                    other.forget(old)
                old.close()
            work = self._works[key] = Work(
                self._engine, self._kernels, kind, pitches,
                labels=self._labels, overlay=self._overlay, resident=resident, label_size=self._label_size,
                stream=slot.on.stream,
            )  # fmt: skip
        return work

    def _stays(self, frame: Frame) -> bool:
        """Whether the overlay of such a frame stays on the GPU."""
        if not self._resident:
            return False
        why = must_come_down(frame)
        if not why and not any(self._surface_hw):
            self._surface_hw = (frame.height, frame.width)
        if self._legends.on:
            why = "the legend is drawn by the processor"
        elif not why and (frame.height, frame.width) != self._surface_hw:
            # The encoder scales it to the first one's size, which is done by the processor.
            return False
        if why and why not in self._said:
            self._said.add(why)
            self._warn(f"pictures come down from the GPU before they are encoded: {why}")
        return not why

    def _surface(self, work: Work) -> Surface | None:
        if not work.resident:
            return None
        if self._surfaces is None:
            self._surfaces = Surfaces(self._driver, work.overlay_bytes)
        return self._surfaces.take()

    def _table(self, work: Work) -> NDArray[np.uint8]:
        """The class colours for such pictures as the controls are now, as bytes."""
        version = self._controls.version
        if version != self._colors_version:
            self._colors.clear()
            self._colors_version = version
        key = work.kind.colors
        if key not in self._colors:
            colors, alpha = class_colors(self._classes, self._controls)
            table = color_table(key, colors, alpha, mask_only=self._mask_only)
            self._colors[key] = table.reshape(-1).view(np.uint8)
        return self._colors[key]

    def _run(self, slot: Slot, work: Work, frame: Frame, surface: Surface | None) -> bool:
        """Queue a frame; False where it goes as a graph, and its stages are not timed."""
        stream, up = slot.on.stream, slot.up
        up.array[:COLORS_BYTES] = self._table(work)
        if work.on_device:
            # The decoder's work is on the default stream; ours does not wait for that by itself.
            slot.decoded.record(None)
            stream.wait(slot.decoded)
        else:
            work.stage(frame, up.array)
        graph = self._graph(slot, work)
        slot.begun.record(stream)
        if work.on_device:
            work.copy_in(frame, up.address, stream)
        slot.since += 1
        in_parts = graph is None or slot.since >= _PROBE
        if in_parts:
            slot.since = 0
            self._queue(slot, work, timed=True)
        else:
            graph.launch(stream)
            self._graphs_used = True
        slot.warm = work
        if surface is not None:
            # Not in the graph, whose addresses are always the same.
            work.copy_out(slot.down.address, surface.address, stream)
        if surface is not None or not in_parts:
            slot.arrived.record(stream)
        return in_parts

    def _queue(self, slot: Slot, work: Work, *, timed: bool) -> None:
        driver, on, up, down = self._driver, slot.on, slot.up, slot.down
        for stage, passed in zip(STAGES, slot.passed, strict=True):
            if stage == "upload":
                driver.upload(up.address, up.array[: work.up_bytes], on.stream)
            elif stage == "preprocess":
                work.preprocess(up.address, on.input, down.address, on.stream)
            elif stage == "inference":
                on.execution.enqueue(on.stream, on.input, on.output)
            elif stage == "postprocess":
                work.postprocess(on.output, up.address, down.address, on.stream)
            else:
                driver.download(down.array[: work.down_bytes], down.address, on.stream)
            if timed:
                passed.record(on.stream)

    def _graph(self, slot: Slot, work: Work) -> Any:
        """The slot's graph of such frames; None where there is none, and the frame runs in parts.

        It is captured when the slot has run such a frame, which its last one was: a stream of ever new sizes would have
        nothing of it.
        """
        if not self._graphs:
            return None
        graph = slot.graph(work)
        if graph is None and slot.warm is work:
            try:
                with self._driver.capture(slot.on.stream) as capture:
                    self._queue(slot, work, timed=False)
                graph = capture.graph
            except EngineError as error:
                let_go(error)
                self._graphs = False
                self._warn(f"frames run without a CUDA graph, which costs time between kernels: {error.message}")
                return None
            slot.keep_graph(work, graph)
        return graph

    def _times(self, flight: _Flight) -> dict[str, float]:
        slot, timings = flight.slot, {"decode": flight.frame.decode_ms}
        if not flight.in_parts:
            timings["gpu"] = slot.arrived.ms_since(slot.begun)
            return timings
        earlier = slot.begun
        for stage, passed in zip(STAGES, slot.passed, strict=True):
            timings[stage] = passed.ms_since(earlier)
            earlier = passed
        return timings
