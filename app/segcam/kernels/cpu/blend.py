"""The overlay: class colours blended into the planes of a frame, compiled by Numba; no GIL is held inside.

Equals ``kernels.reference.blend_plane`` and ``blend_chroma`` byte for byte. A street is mostly long runs of one class,
so rows are taken in blocks: a block of one class is one multiply-add with constants, which vectorises.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from segcam.frame import Frame
from segcam.kernels.cpu.types import I32_IN, LABELS_IN, U8_IN, U8_OUT, flat
from segcam.kernels.reference import overlay_tables

#: Pixels that are taken together; found by trying. For chroma it is a block of labels, two rows high.
_BLOCK = 64
_HALF = np.int32(1 << 15)
_HALF_OF_FOUR = np.int32(1 << 17)


@njit([types.void(U8_IN, types.intp, LABELS_IN, I32_IN, I32_IN, U8_OUT, types.intp)], nogil=True, cache=True)
def blend_luma(
    source: NDArray[np.uint8],
    source_pitch: int,
    labels: NDArray[np.uint8],
    keep: NDArray[np.int32],
    add: NDArray[np.int32],
    out: NDArray[np.uint8],
    out_pitch: int,
) -> None:
    """Flat planes of the size of ``labels`` (H, W); ``keep`` and ``add`` are 256 long, from ``blend_tables``."""
    height, width = labels.shape
    whole = width - width % _BLOCK
    for y in range(height):
        row_in = source[y * source_pitch : y * source_pitch + width]
        row_out = out[y * out_pitch : y * out_pitch + width]
        row_labels = labels[y]
        for left in range(0, whole, _BLOCK):
            first = row_labels[left]
            differs = np.uint8(0)
            for i in range(_BLOCK):
                differs |= row_labels[left + i] ^ first
            if differs == 0:
                k, a = keep[first], add[first] + _HALF
                for i in range(_BLOCK):
                    row_out[left + i] = (np.int32(row_in[left + i]) * k + a) >> 16
            else:
                for i in range(_BLOCK):
                    c = row_labels[left + i]
                    row_out[left + i] = (np.int32(row_in[left + i]) * keep[c] + add[c] + _HALF) >> 16
        for x in range(whole, width):
            c = row_labels[x]
            row_out[x] = (np.int32(row_in[x]) * keep[c] + add[c] + _HALF) >> 16


@njit(nogil=True)
def _four(table: NDArray[np.int32], upper: NDArray[np.uint8], under: NDArray[np.uint8], x0: int, x1: int) -> np.int32:
    """Sum of a table over the two by two pixels of a chroma sample."""
    return np.int32(table[upper[x0]] + table[upper[x1]] + table[under[x0]] + table[under[x1]])


@njit(
    [types.void(U8_IN, types.intp, LABELS_IN, I32_IN, I32_IN, U8_OUT, types.intp)],
    nogil=True,
    cache=True,
)
def blend_chroma(
    source: NDArray[np.uint8],
    source_pitch: int,
    labels: NDArray[np.uint8],
    keep: NDArray[np.int32],
    add: NDArray[np.int32],
    out: NDArray[np.uint8],
    out_pitch: int,
) -> None:
    """Flat (ceil(H/2), ceil(W/2)) planes; a sample takes the mean of its four pixels' tables, edges repeated."""
    height, width = labels.shape
    rows, cols = (height + 1) // 2, (width + 1) // 2
    half = _BLOCK // 2
    whole = width - width % _BLOCK
    for y in range(rows):
        upper = labels[2 * y]
        under = labels[min(2 * y + 1, height - 1)]
        row_in = source[y * source_pitch : y * source_pitch + cols]
        row_out = out[y * out_pitch : y * out_pitch + cols]
        for left in range(0, whole, _BLOCK):
            first = upper[left]
            differs = np.uint8(0)
            for i in range(_BLOCK):
                differs |= (upper[left + i] ^ first) | (under[left + i] ^ first)
            at = left // 2
            if differs == 0:
                k, a = keep[first], add[first] + _HALF
                for i in range(half):
                    row_out[at + i] = (np.int32(row_in[at + i]) * k + a) >> 16
            else:
                for x in range(at, at + half):
                    k = _four(keep, upper, under, 2 * x, 2 * x + 1)
                    a = _four(add, upper, under, 2 * x, 2 * x + 1) + _HALF_OF_FOUR
                    row_out[x] = (np.int32(row_in[x]) * k + a) >> 18
        for x in range(whole // 2, cols):
            right = min(2 * x + 1, width - 1)
            k = _four(keep, upper, under, 2 * x, right)
            a = _four(add, upper, under, 2 * x, right) + _HALF_OF_FOUR
            row_out[x] = (np.int32(row_in[x]) * k + a) >> 18


@njit(
    [types.void(U8_IN, types.intp, LABELS_IN, I32_IN, I32_IN, I32_IN, U8_OUT, types.intp)],
    nogil=True,
    cache=True,
)
def blend_chroma_nv12(
    source: NDArray[np.uint8],
    source_pitch: int,
    labels: NDArray[np.uint8],
    keep: NDArray[np.int32],
    add_u: NDArray[np.int32],
    add_v: NDArray[np.int32],
    out: NDArray[np.uint8],
    out_pitch: int,
) -> None:
    """As ``blend_chroma``, for the interleaved U, V plane of NV12."""
    height, width = labels.shape
    rows, cols = (height + 1) // 2, (width + 1) // 2
    for y in range(rows):
        upper = labels[2 * y]
        under = labels[min(2 * y + 1, height - 1)]
        row_in = source[y * source_pitch : y * source_pitch + 2 * cols]
        row_out = out[y * out_pitch : y * out_pitch + 2 * cols]
        for x in range(cols):
            right = min(2 * x + 1, width - 1)
            k = _four(keep, upper, under, 2 * x, right)
            u = _four(add_u, upper, under, 2 * x, right) + _HALF_OF_FOUR
            v = _four(add_v, upper, under, 2 * x, right) + _HALF_OF_FOUR
            row_out[2 * x] = (np.int32(row_in[2 * x]) * k + u) >> 18
            row_out[2 * x + 1] = (np.int32(row_in[2 * x + 1]) * k + v) >> 18


@njit(
    [types.void(U8_IN, types.intp, LABELS_IN, I32_IN, I32_IN, I32_IN, I32_IN, U8_OUT, types.intp)],
    nogil=True,
    cache=True,
)
def blend_bgr(
    source: NDArray[np.uint8],
    source_pitch: int,
    labels: NDArray[np.uint8],
    keep: NDArray[np.int32],
    add_b: NDArray[np.int32],
    add_g: NDArray[np.int32],
    add_r: NDArray[np.int32],
    out: NDArray[np.uint8],
    out_pitch: int,
) -> None:
    """Flat (H, W, 3) interleaved pictures."""
    height, width = labels.shape
    for y in range(height):
        row_in = source[y * source_pitch : y * source_pitch + 3 * width]
        row_out = out[y * out_pitch : y * out_pitch + 3 * width]
        for x in range(width):
            c = labels[y, x]
            k = keep[c]
            row_out[3 * x] = (np.int32(row_in[3 * x]) * k + add_b[c] + _HALF) >> 16
            row_out[3 * x + 1] = (np.int32(row_in[3 * x + 1]) * k + add_g[c] + _HALF) >> 16
            row_out[3 * x + 2] = (np.int32(row_in[3 * x + 2]) * k + add_r[c] + _HALF) >> 16


class OverlayPainter:
    """Blends class colours into frames of one pixel format, colour matrix and range.

    ``colors_rgb`` is (256, 3) uint8 and ``alpha`` (256,) float64 in 0..1, one row for every id a uint8 can hold: ids
    that are no class have alpha 0. With ``mask_only`` the picture is replaced: shown classes in their full colour,
    everything else black.
    """

    def __init__(
        self, frame: Frame, colors_rgb: NDArray[np.uint8], alpha: NDArray[np.float64], *, mask_only: bool = False
    ) -> None:
        matrix = None if frame.format == "bgr24" else (frame.matrix, frame.full_range)
        self.keep, add = overlay_tables(matrix, colors_rgb, alpha, mask_only=mask_only)
        self.add = tuple(np.ascontiguousarray(add[:, i]) for i in range(3))

    def __call__(self, frame: Frame, labels: NDArray[np.uint8], out: tuple[NDArray[np.uint8], ...]) -> None:
        """Write the overlay of ``frame`` with ``labels`` (H, W) into ``out``, C-contiguous, shaped as its planes."""
        first, *rest = ((*flat(source), *flat(target)) for source, target in zip(frame.planes, out, strict=True))
        source, pitch, target, target_pitch = first
        if frame.format == "bgr24":
            blend_bgr(source, pitch, labels, self.keep, self.add[0], self.add[1], self.add[2], target, target_pitch)
            return
        blend_luma(source, pitch, labels, self.keep, self.add[0], target, target_pitch)
        if frame.format == "nv12":
            source, pitch, target, target_pitch = rest[0]
            blend_chroma_nv12(source, pitch, labels, self.keep, self.add[1], self.add[2], target, target_pitch)
            return
        for (source, pitch, target, target_pitch), add in zip(rest, self.add[1:], strict=True):
            blend_chroma(source, pitch, labels, self.keep, add, target, target_pitch)
