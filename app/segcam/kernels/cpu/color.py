"""YUV to BGR for people and files that want it, compiled by Numba; no GIL is held inside."""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from segcam.frame import Frame
from segcam.kernels.cpu.types import F32_IN, MATRIX, U8_IN, U8_OUT, flat
from segcam.kernels.reference import yuv_to_rgb_matrix


@njit(
    [
        types.void(
            U8_IN, types.intp, U8_IN, U8_IN, types.intp, types.intp, types.intp, types.intp, MATRIX, F32_IN, U8_OUT
        )
    ],
    nogil=True,
    cache=True,
)
def _yuv_to_bgr(
    y: NDArray[np.uint8],
    y_pitch: int,
    u: NDArray[np.uint8],
    v: NDArray[np.uint8],
    chroma_pitch: int,
    chroma_step: int,
    height: int,
    width: int,
    matrix: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: NDArray[np.uint8],
) -> None:
    low, high = np.float32(0), np.float32(255)
    for row in range(height):
        for col in range(width):
            luma = np.float32(y[row * y_pitch + col])
            at = (row >> 1) * chroma_pitch + (col >> 1) * chroma_step
            cb, cr = np.float32(u[at]), np.float32(v[at])
            for channel in range(3):
                rgb = 2 - channel
                value = matrix[rgb, 0] * luma + matrix[rgb, 1] * cb + matrix[rgb, 2] * cr + offset[rgb]
                out[(row * width + col) * 3 + channel] = np.uint8(min(max(value, low), high))


def yuv_to_bgr(frame: Frame) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, blue first, of an i420 or nv12 frame: as ``kernels.reference.yuv_to_bgr``, in float32."""
    matrix, offset = yuv_to_rgb_matrix(frame.matrix, frame.full_range)
    y, y_pitch = flat(frame.planes[0])
    if frame.format == "i420":
        (u, pitch), (v, v_pitch) = flat(frame.planes[1]), flat(frame.planes[2])
        if v_pitch != pitch:
            (u, pitch), (v, _) = (flat(np.ascontiguousarray(plane)) for plane in frame.planes[1:])
        step = 1
    else:
        uv, pitch = flat(frame.planes[1])
        u, v, step = uv, uv[1:], 2
    out = np.empty((frame.height, frame.width, 3), np.uint8)
    # Truncation after adding a half is rounding to nearest for what isn't negative.
    _yuv_to_bgr(
        y, y_pitch, u, v, pitch, step, frame.height, frame.width,
        matrix.astype(np.float32), (offset + 0.5).astype(np.float32), out.reshape(-1),
    )  # fmt: skip
    return out
