"""The plain NumPy form of every kernel: what each one means, and the oracle that tests compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.frame import LUMA_WEIGHTS, ColorMatrix, Frame
from segcam.geometry import AxisMap, Taps, taps

#: Blends are done in fixed point with this many fractional bits; the result is within 0.004 of the real number.
BLEND_BITS = 16


def rgb_to_yuv_matrix(
    matrix: ColorMatrix, full_range: bool, bits: int = 8
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(3, 3) and (3,) float64 with ``yuv = m @ rgb + b`` for RGB in 0..255 and Y, U, V code values of ``bits`` bits.

    Source: ITU-R BT.601-7 2.5, BT.709-6 3.2-3.5 (limited range 16..235 / 16..240, with more bits multiplied by a power
    of two), JFIF 1.02 and ITU-T H.273 8.3 (full range).
    """
    kr, kb = LUMA_WEIGHTS[matrix]
    luma: NDArray[np.float64] = np.array([kr, 1.0 - kr - kb, kb])
    rows: NDArray[np.float64] = np.stack(
        [luma, (np.array([0, 0, 1.0]) - luma) / (2 * (1 - kb)), (np.array([1.0, 0, 0]) - luma) / (2 * (1 - kr))]
    )
    finer = float(1 << (bits - 8))
    if full_range:
        return rows * (((1 << bits) - 1) / 255.0), np.array([0.0, 128.0, 128.0]) * finer
    return rows * np.array([[219.0], [224.0], [224.0]]) / 255.0 * finer, np.array([16.0, 128.0, 128.0]) * finer


def yuv_to_rgb_matrix(
    matrix: ColorMatrix, full_range: bool, bits: int = 8
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(3, 3) and (3,) float64 with ``rgb = m @ yuv + b``: the inverse of ``rgb_to_yuv_matrix``."""
    forward, offset = rgb_to_yuv_matrix(matrix, full_range, bits)
    inverse = np.linalg.inv(forward)
    return np.asarray(inverse, np.float64), np.asarray(-inverse @ offset, np.float64)


def planes_444(frame: Frame) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: Y, U, V of each pixel of a YUV frame, chroma from the nearest sample."""
    if frame.format == "i420":
        y, u, v = frame.planes
    else:
        y, uv = frame.planes
        u, v = uv[..., 0], uv[..., 1]
    rows, cols = np.arange(frame.height) // 2, np.arange(frame.width) // 2
    return np.stack([y, u[rows][:, cols], v[rows][:, cols]], axis=-1)


def rgb_float(frame: Frame) -> NDArray[np.float64]:
    """(H, W, 3) float64 RGB, not rounded and not clipped (a stream may hold more than 0..255)."""
    if frame.format == "bgr24":
        return frame.planes[0][..., ::-1].astype(np.float64)
    matrix, offset = yuv_to_rgb_matrix(frame.matrix, frame.full_range)
    rgb: NDArray[np.float64] = planes_444(frame) @ matrix.T + offset
    return rgb


def yuv_to_bgr(frame: Frame) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, blue first: float conversion, rounded to nearest, clipped."""
    rgb = np.clip(np.floor(rgb_float(frame) + 0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rgb[..., ::-1])


def _sample(plane: NDArray[np.float64], y: Taps, x: Taps) -> NDArray[np.float64]:
    """Bilinear sample of (H, W) float64 at the taps."""
    wy0, wy1 = (w.astype(np.float64)[:, None] for w in (y.weight_first, y.weight_second))
    wx0, wx1 = (w.astype(np.float64)[None, :] for w in (x.weight_first, x.weight_second))
    rows = plane[y.first] * wy0 + plane[y.second] * wy1
    return np.asarray(rows[:, x.first] * wx0 + rows[:, x.second] * wx1)


def chroma_axis(luma: AxisMap) -> AxisMap:
    """The same samples on the half-resolution chroma grid, each of whose samples stands amid its two luma pixels."""
    return luma.then(AxisMap(0.5, -0.25))


def preprocess(
    frame: Frame,
    height: int,
    width: int,
    y: AxisMap,
    x: AxisMap,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    *,
    rgb: bool,
) -> NDArray[np.float64]:
    """(3, height, width) float64: the frame sampled bilinearly at ``y``, ``x``, clipped to 0..255, normalised.

    Normalised is ``(v - mean) / std``.
    ``mean`` and ``std`` are (3,) in the order fed: RGB when ``rgb``, else BGR.
    """
    if frame.format == "bgr24":
        return preprocess_planes(
            [frame.planes[0][..., c] for c in (2, 1, 0)], None, height, width, y, x, mean, std, rgb
        )
    if frame.format == "i420":
        planes = list(frame.planes)
    else:
        planes = [frame.planes[0], frame.planes[1][..., 0], frame.planes[1][..., 1]]
    to_rgb = yuv_to_rgb_matrix(frame.matrix, frame.full_range)
    return preprocess_planes(planes, to_rgb, height, width, y, x, mean, std, rgb)


def preprocess_planes(
    planes: Sequence[NDArray[np.unsignedinteger[Any]]],
    to_rgb: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    height: int,
    width: int,
    y: AxisMap,
    x: AxisMap,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    rgb: bool,
) -> NDArray[np.float64]:
    """As ``preprocess`` for three (H, W) planes of any depth: Y, U, V with ``to_rgb`` from ``yuv_to_rgb_matrix``, else
    R, G, B in 0..255."""
    luma = taps(height, planes[0].shape[0], y), taps(width, planes[0].shape[1], x)
    chroma = luma
    if to_rgb is not None:
        h2, w2 = planes[1].shape
        chroma = taps(height, h2, chroma_axis(y)), taps(width, w2, chroma_axis(x))
    picture = np.stack(
        [_sample(p.astype(np.float64), *grid) for p, grid in zip(planes, (luma, chroma, chroma), strict=True)]
    )
    if to_rgb is not None:
        matrix, offset = to_rgb
        picture = np.clip(np.einsum("ij,jhw->ihw", matrix, picture) + offset[:, None, None], 0, 255)
    if not rgb:
        picture = picture[::-1]
    return np.asarray((picture - mean[:, None, None]) / std[:, None, None])


def labels_from_scores(scores_chw: NDArray[np.float32], y: Taps, x: Taps) -> NDArray[np.uint8]:
    """(H, W) uint8: argmax over classes of the scores sampled bilinearly at the taps.

    The four products are added in ONNX Runtime's order in float32. A tap of weight 0 contributes nothing, even if its
    score is infinite. Ties go to the lowest index; a NaN wins over every number, the first NaN over the others, as
    in ``numpy.argmax``.
    """

    def term(rows: NDArray[np.int32], cols: NDArray[np.int32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
        with np.errstate(invalid="ignore", over="ignore"):
            return np.where(weight == 0, np.float32(0), weight * scores_chw[:, rows][:, :, cols])

    def weight(wy: NDArray[np.float32], wx: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(wx[None, :] * wy[:, None])

    with np.errstate(invalid="ignore", over="ignore"):
        total = term(y.first, x.first, weight(y.weight_first, x.weight_first))
        total = total + term(y.first, x.second, weight(y.weight_first, x.weight_second))
        total = total + term(y.second, x.first, weight(y.weight_second, x.weight_first))
        total = total + term(y.second, x.second, weight(y.weight_second, x.weight_second))
    return np.asarray(np.argmax(total, axis=0), np.uint8)


def labels_from_ids(ids_hw: NDArray[np.integer], y: NDArray[np.int32], x: NDArray[np.int32]) -> NDArray[np.uint8]:
    """(H, W) uint8: class ids of a network that gives labels, taken from the nearest point. Ids are never mixed."""
    return np.asarray(ids_hw[y][:, x]).astype(np.uint8)


def blend_tables(
    colors: NDArray[np.float64], alpha: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """``keep`` (classes,) and ``add`` (classes, planes) int32 with 16 fractional bits for ``blend``.

    ``colors`` is (classes, planes) in code values of the planes, ``alpha`` (classes,) 0..1. What 8 bits cannot hold is
    clipped: in full range, pure blue has U = 255.5.
    """
    colors = np.clip(colors, 0.0, 255.0)
    one = 1 << BLEND_BITS
    keep = np.floor((1.0 - alpha) * one + 0.5).astype(np.int32)
    add = np.floor(colors * (one - keep)[:, None] + 0.5).astype(np.int32)
    return keep, add


def overlay_tables(
    matrix: tuple[ColorMatrix, bool] | None,
    colors_rgb: NDArray[np.uint8],
    alpha: NDArray[np.float64],
    *,
    mask_only: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """``blend_tables`` for pictures of one matrix and range (None: BGR), with ``add`` (classes, 3) in planes' order.

    ``colors_rgb`` is (classes, 3) uint8, ``alpha`` (classes,) 0..1. With ``mask_only`` the picture is replaced: shown
    classes (alpha above 0) in their full colour, everything else black.
    """
    colors = colors_rgb.astype(np.float64)
    if mask_only:
        colors = np.where(alpha[:, None] > 0, colors, 0.0)
        alpha = np.ones(len(colors))
    if matrix is None:
        return blend_tables(colors[:, ::-1], alpha)
    rows, offset = rgb_to_yuv_matrix(*matrix)
    return blend_tables(colors @ rows.T + offset, alpha)


def blend_plane(
    plane: NDArray[np.uint8], labels: NDArray[np.uint8], keep: NDArray[np.int32], add: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """Full-resolution plane: ``(keep * source + add + half) >> 16`` with the tables of each pixel's class."""
    half = 1 << (BLEND_BITS - 1)
    return ((plane.astype(np.int64) * keep[labels] + add[labels] + half) >> BLEND_BITS).astype(np.uint8)


def blend_chroma(
    plane: NDArray[np.uint8], labels: NDArray[np.uint8], keep: NDArray[np.int32], add: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """Half-resolution plane: a sample takes the mean of the tables of its four pixels (edges repeated)."""
    rows, cols = plane.shape
    height, width = labels.shape
    total_keep = np.zeros(plane.shape, np.int64)
    total_add = np.zeros(plane.shape, np.int64)
    for dy in (0, 1):
        for dx in (0, 1):
            ids = labels[np.minimum(2 * np.arange(rows) + dy, height - 1)]
            ids = ids[:, np.minimum(2 * np.arange(cols) + dx, width - 1)]
            total_keep += keep[ids]
            total_add += add[ids]
    half = 1 << (BLEND_BITS + 1)
    return ((plane.astype(np.int64) * total_keep + total_add + half) >> (BLEND_BITS + 2)).astype(np.uint8)


def count_classes(labels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(classes,) int64: pixels of each class."""
    return np.bincount(labels.ravel(), minlength=classes)[:classes].astype(np.int64)
