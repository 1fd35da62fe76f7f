"""The segmenter for engines that live in host memory: preprocess, run, name every pixel, paint."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.classes import ClassTable
from segcam.controls import Controls
from segcam.engines.base import Engine, Layout
from segcam.frame import Frame, Segmentation
from segcam.geometry import fit
from segcam.kernels.cpu.blend import OverlayPainter
from segcam.kernels.cpu.labels import LabelMapper, sample_ids
from segcam.kernels.cpu.preprocess import Preprocessor
from segcam.segmenters.reading import (
    Decorate,
    LabelSize,
    Legends,
    Spare,
    class_colors,
    class_map_axes,
    class_map_hw,
    grid_hw,
    id_points,
    score_taps,
)


@dataclass(eq=False)
class _Plan:
    """All that depends on the size and colours of the frames: made once, used for every frame like the first."""

    preprocess: Preprocessor
    labels_hw: tuple[int, int]
    mapper: LabelMapper | None
    nearest_y: NDArray[np.int32]
    nearest_x: NDArray[np.int32]


class CpuSegmenter:
    """See ``segmenters.base.Segmenter``.

    ``overlay`` False leaves painting out. ``decorate`` makes what is drawn over it while ``controls.legend`` is on,
    from the visible classes. ``depth`` 0 keeps every request of the engine busy; less lowers the latency.
    """

    #: Plans and painters are kept for this many kinds of frame: a stream that alternates between two sizes is fine.
    _KEPT = 4

    def __init__(
        self,
        engine: Engine,
        classes: ClassTable,
        controls: Controls,
        *,
        overlay: bool = True,
        mask_only: bool = False,
        decorate: Decorate | None = None,
        label_size: LabelSize = "frame",
        depth: int = 0,
    ) -> None:
        self._engine, self._classes, self._controls = engine, classes, controls
        self._overlay, self._mask_only = overlay, mask_only
        self._legends = Legends(controls, decorate)
        self._label_size = label_size
        self._depth = min(depth or engine.info.requests, engine.info.requests)
        self._free = deque(range(self._depth))
        self._flying: deque[tuple[int, Frame, _Plan, dict[str, float]]] = deque()
        self._plans: dict[tuple[Any, ...], _Plan] = {}
        self._painters: dict[tuple[Any, ...], OverlayPainter] = {}
        self._painted_version = -1
        self._spare_labels, self._spare_planes = Spare(), Spare()
        spec = engine.spec.input
        self._direct = spec.layout == "NCHW" and spec.dtype == "float32"
        height, width = engine.info.input_hw
        self._staging = np.empty((1, 3, height, width), np.float32) if not self._direct else np.empty(0, np.float32)
        self._input_hw = (height, width)
        self._grid = grid_hw(engine.info.output_shape, engine.spec.output.kind, engine.info.output_layout)

    @property
    def depth(self) -> int:
        return self._depth

    @property
    def pending(self) -> int:
        return len(self._flying)

    def submit(self, frame: Frame) -> None:
        """Start the network on a frame. At most ``depth`` may be in flight."""
        begun = time.perf_counter()
        plan = self._plan(frame)
        slot = self._free.popleft()
        target = self._engine.input(slot)
        if self._direct:
            plan.preprocess(frame, target)
        else:
            plan.preprocess(frame, self._staging)
            fill_input(target, self._staging, self._engine.spec.input.layout)
        self._engine.start(slot)
        timings = {"decode": frame.decode_ms, "preprocess": (time.perf_counter() - begun) * 1e3}
        self._flying.append((slot, frame, plan, timings))

    def ready(self) -> bool:
        return bool(self._flying) and self._engine.ready(self._flying[0][0])

    def collect(self) -> Segmentation:
        """Wait for the oldest frame. Raises EngineError."""
        slot, frame, plan, timings = self._flying.popleft()
        output = self._engine.wait(slot)
        timings["inference"] = self._engine.elapsed_ms(slot)
        begun = time.perf_counter()
        (labels,) = self._spare_labels.take((plan.labels_hw,))
        counts = self._name(output, plan, labels)
        self._free.append(slot)
        overlay = (
            self._paint(frame, labels) if self._overlay and plan.labels_hw == (frame.height, frame.width) else None
        )
        timings["postprocess"] = (time.perf_counter() - begun) * 1e3
        return Segmentation(frame, labels, overlay, counts, self._classes, timings)

    def recycle(self, segmentation: Segmentation) -> None:
        self._spare_labels.give((segmentation.labels,))
        if segmentation.overlay is not None:
            self._spare_planes.give(segmentation.overlay.planes)

    def close(self) -> None:
        """All that it has is the engine's and the garbage collector's."""

    def _name(self, output: NDArray[Any], plan: _Plan, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        if plan.mapper is not None:
            return plan.mapper(scores_3d(output), labels)
        ids = output.reshape(self._grid)
        if ids.dtype != np.uint8:
            # A network's own "ignore", such as -1 or 65535, is 255 here: no class, and never the class it wraps to.
            # Widened first: 255 is no int8, and in NumPy's eyes an error there.
            wide = ids.astype(np.int64, copy=False)
            ids = np.where((wide >= 0) & (wide <= 255), wide, 255).astype(np.uint8)
        counts = sample_ids(ids, plan.nearest_y, plan.nearest_x, labels)
        return counts[: len(self._classes)]

    def _paint(self, frame: Frame, labels: NDArray[np.uint8]) -> Frame:
        version = self._controls.version
        if version != self._painted_version:
            self._painters.clear()
            self._painted_version = version
        key = (frame.format, frame.matrix, frame.full_range)
        painter = self._painters.get(key)
        if painter is None:
            colors, alpha = class_colors(self._classes, self._controls)
            painter = self._painters[key] = OverlayPainter(frame, colors, alpha, mask_only=self._mask_only)
        planes = self._spare_planes.take(tuple(plane.shape for plane in frame.planes))
        painter(frame, labels, planes)
        overlay = frame.with_planes(planes)
        self._legends.paint(overlay)
        return overlay

    def _plan(self, frame: Frame) -> _Plan:
        key = (frame.width, frame.height, frame.format, frame.matrix, frame.full_range)
        plan = self._plans.get(key)
        if plan is None:
            while len(self._plans) >= self._KEPT:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[key] = self._make_plan(frame)
        return plan

    def _make_plan(self, frame: Frame) -> _Plan:
        spec, grid = self._engine.spec, self._grid
        frame_hw = (frame.height, frame.width)
        placement = fit(frame_hw, self._input_hw, spec.input.resize)
        preprocess = Preprocessor(frame, placement, spec.input.mean, spec.input.std, rgb=spec.input.color == "RGB")
        hw = class_map_hw(self._label_size, frame_hw, self._input_hw)
        axes = class_map_axes(hw, self._label_size, frame_hw, placement, self._input_hw, grid, spec.output)
        if spec.output.kind == "labels":
            return _Plan(preprocess, hw, None, *id_points(hw, grid, axes))
        channels_last = self._engine.info.output_layout == "NHWC"
        rows, cols = score_taps(hw, grid, axes)
        return _Plan(preprocess, hw, LabelMapper(rows, cols, channels_last=channels_last), rows.first, cols.first)


def fill_input(target: NDArray[Any], picture: NDArray[np.float32], layout: Layout) -> None:
    """Fill a network's input of any type in ``layout`` with a preprocessed ``picture``, (1, 3, H, W)."""
    fed = picture if layout == "NCHW" else picture.transpose(0, 2, 3, 1)
    target[...] = np.clip(np.rint(fed), 0, 255) if target.dtype == np.uint8 else fed


def scores_3d(output: NDArray[Any]) -> NDArray[np.float32] | NDArray[np.uint16]:
    """An engine's scores without their batch of one, C-contiguous, float32 or bfloat16 (as uint16); a copy only where
    they come otherwise."""
    scores = output.reshape(output.shape[-3:])
    return scores if scores.dtype == np.uint16 else np.ascontiguousarray(scores, np.float32)
