"""Frame to network input in one pass: sample, convert, normalise. Compiled by Numba; no GIL is held inside.

Equals ``kernels.reference.preprocess`` within float32 rounding.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from segcam.frame import Frame
from segcam.geometry import AxisMap, Fit, Taps
from segcam.kernels.cpu.types import F32_IN, I32_IN, MATRIX, TAPS, U8_IN, flat
from segcam.kernels.feed import make_feed

#: First and second neighbour and their weights, as ``geometry.Taps`` holds them.
_TapArrays = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]

#: The part of the network's input that shows the frame: its rows lie further apart when it is letterboxed.
PICTURE = types.Array(types.float32, 3, "A")


@njit(nogil=True)
def _blend_rows(
    upper: NDArray[np.uint8], under: NDArray[np.uint8], w0: np.float32, w1: np.float32, line: NDArray[np.float32]
) -> None:
    if w1 == 0:
        for x in range(line.size):
            line[x] = np.float32(upper[x])
    else:
        for x in range(line.size):
            line[x] = np.float32(upper[x]) * w0 + np.float32(under[x]) * w1


@njit(nogil=True)
def _blend_columns(
    line: NDArray[np.float32],
    first: NDArray[np.int32],
    second: NDArray[np.int32],
    w0: NDArray[np.float32],
    w1: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    for x in range(out.size):
        out[x] = line[first[x]] * w0[x] + line[second[x]] * w1[x]


@njit(nogil=True)
def _halve_columns(line: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    half = np.float32(0.5)
    for x in range(out.size):
        out[x] = (line[2 * x] + line[2 * x + 1]) * half


@njit(
    [
        types.void(
            U8_IN, types.intp, types.intp, U8_IN, U8_IN, types.intp, types.intp,
            TAPS, TAPS, TAPS, TAPS, types.boolean, MATRIX, F32_IN, F32_IN, F32_IN, PICTURE,
        )
    ],
    nogil=True,
    cache=True,
)  # fmt: skip
def _preprocess_yuv(
    y: NDArray[np.uint8],
    y_pitch: int,
    y_width: int,
    u: NDArray[np.uint8],
    v: NDArray[np.uint8],
    chroma_pitch: int,
    chroma_width: int,
    luma_y: _TapArrays,
    luma_x: _TapArrays,
    chroma_y: _TapArrays,
    chroma_x: _TapArrays,
    halves: bool,
    matrix: NDArray[np.float32],
    offset: NDArray[np.float32],
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """``out`` is a (3, H, W) view in the order fed; ``matrix`` and ``offset`` give 0..255 in that order."""
    height, width = out.shape[1], out.shape[2]
    line = np.empty(y_width, np.float32)
    line2 = np.empty(chroma_width, np.float32)
    row_y = np.empty(width, np.float32)
    row_u = np.empty(width, np.float32)
    row_v = np.empty(width, np.float32)
    fed = np.empty(width, np.float32)
    low, high = np.float32(0), np.float32(255)
    for row in range(height):
        a, b = luma_y[0][row] * y_pitch, luma_y[1][row] * y_pitch
        _blend_rows(y[a : a + y_width], y[b : b + y_width], luma_y[2][row], luma_y[3][row], line)
        if halves:
            _halve_columns(line, row_y)
        else:
            _blend_columns(line, luma_x[0], luma_x[1], luma_x[2], luma_x[3], row_y)
        a, b = chroma_y[0][row] * chroma_pitch, chroma_y[1][row] * chroma_pitch
        w0, w1 = chroma_y[2][row], chroma_y[3][row]
        if halves:
            _blend_rows(u[a : a + width], u[b : b + width], w0, w1, row_u)
            _blend_rows(v[a : a + width], v[b : b + width], w0, w1, row_v)
        else:
            _blend_rows(u[a : a + chroma_width], u[b : b + chroma_width], w0, w1, line2)
            _blend_columns(line2, chroma_x[0], chroma_x[1], chroma_x[2], chroma_x[3], row_u)
            _blend_rows(v[a : a + chroma_width], v[b : b + chroma_width], w0, w1, line2)
            _blend_columns(line2, chroma_x[0], chroma_x[1], chroma_x[2], chroma_x[3], row_v)
        for c in range(3):
            my, mu, mv, mo = matrix[c, 0], matrix[c, 1], matrix[c, 2], offset[c]
            s, t = scale[c], shift[c]
            for x in range(width):
                value = my * row_y[x] + mu * row_u[x] + mv * row_v[x] + mo
                fed[x] = min(max(value, low), high) * s + t
            for x in range(width):
                out[c, row, x] = fed[x]


@njit(
    [types.void(U8_IN, types.intp, types.intp, TAPS, TAPS, I32_IN, F32_IN, F32_IN, PICTURE)],
    nogil=True,
    cache=True,
)
def _preprocess_bgr(
    bgr: NDArray[np.uint8],
    pitch: int,
    frame_width: int,
    rows: _TapArrays,
    cols: _TapArrays,
    order: NDArray[np.int32],
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    height, width = out.shape[1], out.shape[2]
    line = np.empty(3 * frame_width, np.float32)
    for row in range(height):
        a, b = rows[0][row] * pitch, rows[1][row] * pitch
        _blend_rows(bgr[a : a + line.size], bgr[b : b + line.size], rows[2][row], rows[3][row], line)
        for c in range(3):
            channel = order[c]
            for x in range(width):
                value = line[3 * cols[0][x] + channel] * cols[2][x] + line[3 * cols[1][x] + channel] * cols[3][x]
                out[c, row, x] = value * scale[c] + shift[c]


def _arrays(t: Taps) -> _TapArrays:
    return t.first, t.second, t.weight_first, t.weight_second


class Preprocessor:
    """Frames of one size, format, matrix and range into (1, 3, H, W) float32; allocates nothing per frame but rows.

    ``mean`` and ``std`` are per channel in the order fed, acting on 0..255. Outside the frame (letterbox) the input
    is the mean colour, which is 0 after normalisation.
    """

    def __init__(
        self,
        frame: Frame,
        placement: Fit,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        rgb: bool,
    ) -> None:
        self._box = (slice(placement.top, placement.bottom), slice(placement.left, placement.right))
        yuv = frame.format != "bgr24"
        colors = (frame.matrix, frame.full_range) if yuv else None
        feed = make_feed((frame.height, frame.width), colors, placement, mean, std, rgb=rgb)
        self._y, self._x = _arrays(feed.rows), _arrays(feed.cols)
        self._scale, self._shift = feed.scale, feed.shift
        self._order = np.array([2, 1, 0] if rgb else [0, 1, 2], np.int32)
        if yuv:
            self._cy, self._cx = _arrays(feed.chroma_rows), _arrays(feed.chroma_cols)
            # Exactly half the width: a pixel is the mean of two luma pixels and has one chroma sample to itself.
            self._halves = frame.width == 2 * feed.cols.first.size and feed.x == AxisMap(2.0, 0.5)
            self._matrix, self._offset = feed.matrix, feed.offset

    def __call__(self, frame: Frame, out: NDArray[np.float32]) -> None:
        """Fill ``out`` (1, 3, H, W) float32."""
        target = out[0, :, self._box[0], self._box[1]]
        if target.shape != out.shape[1:]:
            out.fill(0.0)
        if frame.format == "bgr24":
            picture, pitch = flat(frame.planes[0])
            _preprocess_bgr(
                picture, pitch, frame.width, self._y, self._x, self._order, self._scale, self._shift, target
            )
            return
        y, y_pitch = flat(frame.planes[0])
        if frame.format == "i420":
            planes = frame.planes[1:]
            if planes[0].strides != planes[1].strides:
                planes = tuple(np.ascontiguousarray(plane) for plane in planes)
        else:
            planes = tuple(np.ascontiguousarray(frame.planes[1][..., i]) for i in (0, 1))
        (u, pitch), (v, _) = flat(planes[0]), flat(planes[1])
        _preprocess_yuv(
            y, y_pitch, frame.width, u, v, pitch, (frame.width + 1) // 2,
            self._y, self._x, self._cy, self._cx, self._halves,
            self._matrix, self._offset, self._scale, self._shift, target,
        )  # fmt: skip
