"""What segmenters have in common, wherever they work: how a network's output becomes a class map and its colours."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from segcam.classes import MAX_CLASSES, ClassTable
from segcam.controls import Controls
from segcam.engines.base import Engine, EngineInfo, Layout
from segcam.errors import EngineError
from segcam.frame import Frame
from segcam.geometry import AxisMap, Fit, Taps, nearest, resize_axis, taps
from segcam.onnx_tools.spec import OutputSpec

#: Size of the class map: the frame's, the network's, or (height, width).
LabelSize = Literal["frame", "network"] | tuple[int, int]

Planes = tuple[NDArray[np.uint8], ...]


class Decoration(Protocol):
    """Something drawn onto a finished overlay, in place: a legend."""

    def paint(self, overlay: Frame) -> None: ...


#: Makes a decoration for the visible classes, (classes,) bool.
Decorate = Callable[[NDArray[np.bool_]], Decoration]


class Legends:
    """What is drawn over overlays while ``controls.legend`` is on; made anew when the controls have changed."""

    def __init__(self, controls: Controls, decorate: Decorate | None) -> None:
        self._controls, self._decorate = controls, decorate
        self._made: Decoration | None = None
        self._version = -1

    @property
    def on(self) -> bool:
        return self._controls.legend and self._decorate is not None

    def paint(self, overlay: Frame) -> None:
        if not self.on:
            return
        assert self._decorate is not None
        version = self._controls.version
        if self._made is None or version != self._version:
            self._made, self._version = self._decorate(self._controls.visible), version
        self._made.paint(overlay)


class Spare:
    """Arrays that came back, for the next results of the same shapes. Any thread may give them back."""

    def __init__(self) -> None:
        self._held: deque[Planes] = deque(maxlen=32)

    def give(self, planes: Planes) -> None:
        self._held.append(planes)

    def take(self, shapes: tuple[tuple[int, ...], ...]) -> Planes:
        """Arrays of these shapes, C-contiguous uint8, with anything in them."""
        while self._held:
            try:
                planes = self._held.pop()
            except IndexError:
                break
            if tuple(plane.shape for plane in planes) == shapes:
                return planes
        return tuple(np.empty(shape, np.uint8) for shape in shapes)


def class_colors(classes: ClassTable, controls: Controls) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Colours (256, 3) uint8, red first, and opacities (256,) 0..1 of every id that a uint8 can hold.

    An id beyond the table (a network's own "ignore") finds an entry, and is not painted.
    """
    alpha, colors = np.zeros(256), np.zeros((256, 3), np.uint8)
    alpha[: len(classes)] = controls.alpha * controls.visible
    colors[: len(classes)] = classes.colors_rgb()
    return colors, alpha


def class_map_hw(size: LabelSize, frame_hw: tuple[int, int], input_hw: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the class map of such a frame."""
    if size == "frame":
        return frame_hw
    if size == "network":
        return input_hw
    assert not isinstance(size, str)
    return size


def class_map_axes(
    hw: tuple[int, int],
    size: LabelSize,
    frame_hw: tuple[int, int],
    placement: Fit,
    input_hw: tuple[int, int],
    grid: tuple[int, int],
    output: OutputSpec,
) -> tuple[AxisMap, AxisMap]:
    """Rows and columns of a class map of ``hw`` -> those of the network's output of size ``grid``."""
    axes: list[AxisMap] = []
    for i, to_frame in enumerate((placement.y, placement.x)):
        to_grid = resize_axis(input_hw[i], grid[i], output.upsample)
        if size == "network":
            axes.append(to_grid)
        else:
            axes.append(resize_axis(hw[i], frame_hw[i]).then(to_frame.inverse()).then(to_grid))
    return axes[0], axes[1]


def score_taps(hw: tuple[int, int], grid: tuple[int, int], axes: tuple[AxisMap, AxisMap]) -> tuple[Taps, Taps]:
    """Scores are interpolated."""
    return taps(hw[0], grid[0], axes[0]), taps(hw[1], grid[1], axes[1])


def id_points(
    hw: tuple[int, int], grid: tuple[int, int], axes: tuple[AxisMap, AxisMap]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ids never are: the nearest counts."""
    return nearest(hw[0], grid[0], axes[0]), nearest(hw[1], grid[1], axes[1])


def grid_hw(shape: tuple[int, ...], kind: str, layout: Layout) -> tuple[int, int]:
    """(height, width) of an engine's output. Raises EngineError for shapes that are not a picture."""
    if kind == "labels":
        plain = [n for n in shape if n != 1]
        if len(plain) > 2 or len(shape) < 2:
            raise EngineError(
                f"the network's labels have shape {shape}, expected NxHxW or Nx1xHxW with N = 1",
                "If these are scores, say output.kind = logits in the spec.",
            )
        if len(shape) == 4:
            return (shape[1], shape[2]) if shape[3] == 1 and shape[1] != 1 else (shape[2], shape[3])
        return shape[-2], shape[-1]
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] != 1):
        raise EngineError(
            f"the network's scores have shape {shape}, expected 1xCxHxW",
            "Name another output in the spec (output.name).",
        )
    return (shape[-3], shape[-2]) if layout == "NHWC" else (shape[-2], shape[-1])


def score_channels(info: EngineInfo) -> int:
    """How many channels an engine's scores have."""
    return info.output_shape[-1] if info.output_layout == "NHWC" else info.output_shape[-3]


def count_classes(engine: Engine) -> int:
    """How many classes an active engine's output has; for labels, as many as the spec names, else 255.

    Raises EngineError for more than a uint8 class map can hold.
    """
    info, spec = engine.info, engine.spec
    if spec.output.kind == "labels":
        return len(spec.classes) if spec.classes else MAX_CLASSES
    grid_hw(info.output_shape, "logits", info.output_layout)
    count = score_channels(info)
    if count > MAX_CLASSES:
        raise EngineError(
            f"the network's scores have shape {info.output_shape}: {count} classes, at most {MAX_CLASSES} fit into a "
            "class map",
            "If this output is not 1xCxHxW scores, name another in the spec (output.name).",
        )
    return count
