"""Where a pixel of one grid lies on another: affine maps per axis, and the taps of a bilinear sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: ONNX Resize's ``coordinate_transformation_mode`` names for the three that are affine in the output index.
Upsample = Literal["half_pixel", "align_corners", "asymmetric"]
ResizePolicy = Literal["stretch", "letterbox"]


@dataclass(frozen=True)
class AxisMap:
    """Pixel ``i`` of one axis lies at ``scale * i + offset`` of another (both count pixel centres from 0)."""

    scale: float = 1.0
    offset: float = 0.0

    def then(self, other: AxisMap) -> AxisMap:
        """First this map, then ``other``."""
        return AxisMap(self.scale * other.scale, self.offset * other.scale + other.offset)

    def inverse(self) -> AxisMap:
        return AxisMap(1.0 / self.scale, -self.offset / self.scale)

    @property
    def is_identity(self) -> bool:
        return self.scale == 1.0 and self.offset == 0.0


def resize_axis(size_out: int, size_in: int, mode: Upsample = "half_pixel") -> AxisMap:
    """Where output pixel i of a resize of ``size_in`` to ``size_out`` samples its input (ONNX Resize, opset 19)."""
    if mode == "align_corners":
        return AxisMap((size_in - 1) / (size_out - 1) if size_out > 1 else 0.0, 0.0)
    ratio = size_in / size_out
    return AxisMap(ratio, 0.5 * ratio - 0.5 if mode == "half_pixel" else 0.0)


@dataclass(frozen=True)
class Fit:
    """How a frame is laid into the network's input: input pixel -> frame pixel for each axis, and the
    rectangle [top, bottom) x [left, right) of the input that shows the frame (all of it but for letterbox)."""

    y: AxisMap
    x: AxisMap
    top: int
    bottom: int
    left: int
    right: int


def fit(frame_hw: tuple[int, int], input_hw: tuple[int, int], policy: ResizePolicy = "stretch") -> Fit:
    """Lay a frame of size (H, W) into an input of size (H, W): stretched, or scaled whole and centred."""
    if policy == "stretch":
        return Fit(
            resize_axis(input_hw[0], frame_hw[0]), resize_axis(input_hw[1], frame_hw[1]), 0, input_hw[0], 0, input_hw[1]
        )
    shrink = min(input_hw[0] / frame_hw[0], input_hw[1] / frame_hw[1])
    height, width = (max(1, min(n, round(size * shrink))) for n, size in zip(input_hw, frame_hw, strict=True))
    top, left = (input_hw[0] - height) // 2, (input_hw[1] - width) // 2
    y, x = resize_axis(height, frame_hw[0]), resize_axis(width, frame_hw[1])
    return Fit(AxisMap(1.0, -top).then(y), AxisMap(1.0, -left).then(x), top, top + height, left, left + width)


@dataclass(frozen=True, eq=False)
class Taps:
    """The two neighbours of each of n bilinear samples on one axis of ``size`` points, in the order of the samples.

    ``first`` and ``second`` are (n,) int32 with ``second`` = min(first + 1, size - 1); ``weight_first`` and
    ``weight_second`` are (n,) float32, >= 0, summing to 1. Where both neighbours are one point, the second weighs 0.
    """

    size: int
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    weight_first: NDArray[np.float32]
    weight_second: NDArray[np.float32]

    @property
    def is_identity(self) -> bool:
        """Every sample is the point of the same index."""
        n = self.first.size
        return n == self.size and not self.weight_second.any() and bool((self.first == np.arange(n)).all())


def taps(count: int, size: int, axis: AxisMap) -> Taps:
    """Taps of ``count`` samples at ``axis`` on ``size`` points; samples outside are clamped to the edge."""
    at = np.clip(axis.scale * np.arange(count, dtype=np.float64) + axis.offset, 0.0, size - 1.0)
    # Sampling grids that should meet a point exactly miss it by rounding (0.1 * 30); a tap of weight 1e-13 is noise.
    point = np.rint(at)
    at = np.where(np.abs(at - point) < 1e-9, point, at)
    first = np.floor(at).astype(np.int32)
    second = np.minimum(first + 1, size - 1).astype(np.int32)
    fraction = np.where(second == first, 0.0, at - first)
    return Taps(size, first, second, (1.0 - fraction).astype(np.float32), fraction.astype(np.float32))


def nearest(count: int, size: int, axis: AxisMap) -> NDArray[np.int32]:
    """(count,) int32: the nearest of ``size`` points to each sample, halves upwards."""
    at = axis.scale * np.arange(count, dtype=np.float64) + axis.offset
    return np.clip(np.floor(at + 0.5), 0, size - 1).astype(np.int32)


def even(n: int) -> int:
    """The smallest even number that is at least ``n``."""
    return 2 * math.ceil(n / 2)
