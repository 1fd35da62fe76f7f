"""Argmax on the score grid, and how safely each winner leads, compiled by Numba; no GIL is held inside.

A grid point is *sure* when its winner c leads every class below it in index by more than rounding can take away between
here and a bilinear sample (five roundings; 2**-20 of both scores is far more), is not below any class above it, is
finite itself, and no score is NaN. ``keys`` holds the winner of sure points and UNSURE elsewhere; ``ids`` the plain
argmax. Everything works on rows of (W, classes): one point's scores lie together.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from segcam.kernels.cpu.bfloat16 import coarse_row_bf16, masks_bf16
from segcam.kernels.cpu.points import name_point, safely_below
from segcam.kernels.cpu.types import LABELS_OUT, SCORES, SCORES_BF16

#: How scores may lie in memory: (H, W, classes) float32 or bfloat16, or (classes, H, W) float32.
HWC, HWC_BF16, CHW = 0, 1, 2

#: Points that are looked at together: one comparison for each score and one answer for all.
_BLOCK = 8


@njit(nogil=True)
def score_row(
    channels_last: bool, scores: NDArray[np.float32], y: int, spare: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Row ``y`` as (W, classes): a view where it lies so, else written to ``spare``."""
    if channels_last:
        row: NDArray[np.float32] = scores[y]
        return row
    # Planes often lie a power of two apart, where the same column of all classes fights for a few cache lines: a line
    # is used up before the next class is looked at.
    width, classes = spare.shape
    for left in range(0, width, 16):
        right = min(left + 16, width)
        for k in range(classes):
            plane = scores[k, y]
            for x in range(left, right):
                spare[x, k] = plane[x]
    return spare


@njit(nogil=True)
def coarse_row(row: NDArray[np.float32], ids: NDArray[np.uint8], keys: NDArray[np.uint8]) -> None:
    """``ids`` and ``keys`` (W,) of ``row`` (W, classes).

    Neighbours mostly agree, so the last winner is tried first, on a block of points at once: it leads in all of them if
    all other scores are safely below the least of its own, which is one comparison each and no search.
    """
    width, classes = row.shape
    flat = row.reshape(-1)
    winner = 0
    x = 0
    while x < width:
        if x + _BLOCK <= width:
            below = safely_below(row[x, winner])
            finite = below == below
            for j in range(1, _BLOCK):
                other = safely_below(row[x + j, winner])
                finite &= other == other
                below = min(below, other)
            block = flat[x * classes : (x + _BLOCK) * classes]
            beaten = np.int32(0)
            for i in range(block.size):
                beaten += np.int32(block[i] <= below)
            if finite and beaten == _BLOCK * (classes - 1):
                for j in range(_BLOCK):
                    ids[np.uintp(x + j)] = winner
                    keys[np.uintp(x + j)] = winner
                x += _BLOCK
                continue
        for at in range(x, min(x + _BLOCK, width)):
            winner, keys[at] = name_point(row[at], winner)
            ids[at] = winner
        x += _BLOCK


@njit([types.void(types.intp, SCORES, SCORES_BF16, LABELS_OUT, LABELS_OUT)], nogil=True, cache=True)
def coarse_argmax(
    kind: int,
    scores: NDArray[np.float32],
    scores_bf16: NDArray[np.uint16],
    ids: NDArray[np.uint8],
    keys: NDArray[np.uint8],
) -> None:
    """``ids`` and ``keys`` (H, W) of scores that lie as ``kind`` says (the other array is not looked at)."""
    classes = scores_bf16.shape[2] if kind == HWC_BF16 else scores.shape[0] if kind == CHW else scores.shape[2]
    spare = np.empty((ids.shape[1], classes), np.float32)
    masks = masks_bf16(classes if kind == HWC_BF16 else 0)
    for y in range(ids.shape[0]):
        if kind == HWC_BF16:
            coarse_row_bf16(scores_bf16, y, ids[y], keys[y], masks, spare[0])
        else:
            coarse_row(score_row(kind == HWC, scores, y, spare), ids[y], keys[y])
