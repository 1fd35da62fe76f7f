"""What the CUDA kernels mean, in NumPy, on pictures in host memory: documentation, and the oracle of their tests.

``kernels.reference`` has the steps; here they are put together as one launch does it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.geometry import AxisMap, Fit, Taps
from segcam.kernels.cuda.picture import PictureKind, overlay_kinds
from segcam.kernels.reference import (
    blend_chroma,
    blend_plane,
    count_classes,
    labels_from_ids,
    labels_from_scores,
    preprocess_planes,
    yuv_to_rgb_matrix,
)

_Planes = tuple[NDArray[np.unsignedinteger[Any]], ...]


def preprocess(
    kind: PictureKind,
    planes: _Planes,
    placement: Fit,
    input_hw: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    rgb: bool,
) -> NDArray[np.float64]:
    """(3, H, W) float64: the whole input, 0 where a letterbox shows no frame.

    ``planes`` are shaped as in ``frame.Frame``, uint8, or uint16 with 10 bits (the upper ones in P010).
    """
    height, width = placement.bottom - placement.top, placement.right - placement.left
    if kind.format == "bgr24":
        flat = [planes[0][..., c] for c in (2, 1, 0)]
    elif kind.format in ("nv12", "p010"):
        flat = [planes[0], planes[1][..., 0], planes[1][..., 1]]
    else:
        flat = list(planes)
    if kind.format == "p010":
        flat = [plane // np.uint16(64) for plane in flat]
    to_rgb = None if kind.colors is None else yuv_to_rgb_matrix(*kind.colors, kind.bits)
    whole = np.zeros((3, *input_hw))
    whole[:, placement.top : placement.bottom, placement.left : placement.right] = preprocess_planes(
        flat,
        to_rgb,
        height,
        width,
        AxisMap(1.0, placement.top).then(placement.y),
        AxisMap(1.0, placement.left).then(placement.x),
        np.asarray(mean, np.float64),
        np.asarray(std, np.float64),
        rgb,
    )
    return whole


def class_map(
    grid: NDArray[Any], y: Taps | NDArray[np.int32], x: Taps | NDArray[np.int32]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Labels (H, W) uint8 and pixels of each of 256 ids of scores (classes, Hs, Ws) float, or of ids (Hs, Ws) int.

    An id that no uint8 holds is 255.
    """
    if isinstance(y, Taps) and isinstance(x, Taps):
        labels = labels_from_scores(grid.astype(np.float32), y, x)
    elif not isinstance(y, Taps) and not isinstance(x, Taps):
        wide = grid.astype(np.int64)
        labels = labels_from_ids(np.where((wide >= 0) & (wide <= 255), wide, 255), y, x)
    else:
        raise ValueError("one axis has taps and the other nearest points")
    return labels, count_classes(labels, 256)


def eight_bits(kind: PictureKind, plane: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.uint8]:
    """Samples of a picture of this kind in 8 bits: those of 10 rounded to nearest, ties to even (``sources.planes``).

    Limited range is a shift (16 is 64 in ten bits), full range maps the highest value to 255.
    """
    if kind.bits == 8:
        return plane.astype(np.uint8)
    ten = (plane >> (6 if kind.format == "p010" else 0)).astype(np.float64)
    return np.minimum(np.rint(ten * (255 / 1023) if kind.full_range else ten / 4), 255).astype(np.uint8)


def overlay(
    kind: PictureKind,
    planes: _Planes,
    labels: NDArray[np.uint8],
    colors: NDArray[np.int32],
    into: PictureKind | None = None,
) -> tuple[NDArray[np.uint8], ...]:
    """``planes`` with the table ``colors`` (``postprocess.color_table``) of each pixel's class blended in.

    Planes are shaped as in ``frame.Frame``, those of the result as ``into`` says, which is one of
    ``picture.overlay_kinds`` and the picture's own ``kind`` by default; else ValueError.
    """
    into = into or kind
    if into not in overlay_kinds(kind):
        raise ValueError(f"{kind} is not painted into {into}")
    keep, adds = colors[:, 0], [colors[:, i] for i in (1, 2, 3)]
    first, *rest = (eight_bits(kind, plane) for plane in planes)
    if kind.format == "bgr24":
        return (np.stack([blend_plane(first[..., i], labels, keep, add) for i, add in enumerate(adds)], axis=-1),)
    pair = [rest[0][..., 0], rest[0][..., 1]] if len(rest) == 1 else rest
    chroma = [blend_chroma(plane, labels, keep, add) for plane, add in zip(pair, adds[1:], strict=True)]
    luma = blend_plane(first, labels, keep, adds[0])
    return (luma, np.stack(chroma, axis=-1)) if into.format == "nv12" else (luma, *chroma)
