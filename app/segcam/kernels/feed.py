"""What every preprocessor is told: where each pixel of the input samples the frame, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segcam.frame import ColorMatrix
from segcam.geometry import AxisMap, Fit, Taps, taps
from segcam.kernels.reference import chroma_axis, yuv_to_rgb_matrix


@dataclass(frozen=True, eq=False)
class Feed:
    """For frames of one size, depth, matrix and range, on one input.

    The taps are those of the rectangle that shows the frame; ``x`` says where its columns lie. Channels are in the
    order fed: ``matrix`` (3, 3) and ``offset`` (3,) make 0..255 of Y, U, V code values, ``scale`` and ``shift`` (3,)
    normalise that; all float32. BGR pictures have no chroma, and a matrix of zeros.
    """

    rows: Taps
    cols: Taps
    chroma_rows: Taps
    chroma_cols: Taps
    x: AxisMap
    matrix: NDArray[np.float32]
    offset: NDArray[np.float32]
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]


def make_feed(
    frame_hw: tuple[int, int],
    colors: tuple[ColorMatrix, bool] | None,
    placement: Fit,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    rgb: bool,
    bits: int = 8,
) -> Feed:
    """``colors`` are the YUV matrix and whether the range is full, or None for BGR pictures, whose samples have 8 bits.

    ``mean`` and ``std`` are per channel in the order fed, acting on 0..255.
    """
    height, width = placement.bottom - placement.top, placement.right - placement.left
    y, x = _shifted(placement, "y"), _shifted(placement, "x")
    rows, cols = taps(height, frame_hw[0], y), taps(width, frame_hw[1], x)
    std64 = np.asarray(std, np.float64)
    scale, shift = (1.0 / std64).astype(np.float32), (-np.asarray(mean, np.float64) / std64).astype(np.float32)
    if colors is None:
        return Feed(rows, cols, rows, cols, x, np.zeros((3, 3), np.float32), np.zeros(3, np.float32), scale, shift)
    matrix, offset = yuv_to_rgb_matrix(*colors, bits)
    order = [0, 1, 2] if rgb else [2, 1, 0]
    return Feed(
        rows,
        cols,
        taps(height, (frame_hw[0] + 1) // 2, chroma_axis(y)),
        taps(width, (frame_hw[1] + 1) // 2, chroma_axis(x)),
        x,
        matrix[order].astype(np.float32),
        offset[order].astype(np.float32),
        scale,
        shift,
    )


def _shifted(placement: Fit, axis: Literal["y", "x"]) -> AxisMap:
    """Pixel of the shown rectangle -> frame pixel."""
    if axis == "y":
        return AxisMap(1.0, placement.top).then(placement.y)
    return AxisMap(1.0, placement.left).then(placement.x)
