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

from segcam.kernels.cpu.types import LABELS_OUT, SCORES, SCORES_BF16

#: Marks a grid point whose winner doesn't lead safely; also the reason why a class index stays below 255.
UNSURE = 255

#: How scores may lie in memory: (H, W, classes) float32 or bfloat16, or (classes, H, W) float32.
HWC, HWC_BF16, CHW = 0, 1, 2

#: A lead of this share of the winner's score, plus the floor for scores near 0, is more than 2**-20 of both scores
#: whatever the other one is.
LEAD = np.float32(2.0**-18)
FLOOR = np.float32(1e-37)
_HUGE = np.float32(3.4e38)

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
def _argmax(point: NDArray[np.float32]) -> int:
    """As numpy.argmax: the first of the highest; the first NaN if there is one."""
    best = point[0]
    winner = 0
    for k in range(1, point.size):
        value = point[k]
        if value > best or (value != value and best == best):
            best = value
            winner = k
    return winner


@njit(nogil=True)
def safely_below(best: np.float32) -> np.float32:
    """The highest score that ``best`` beats by more than rounding. NaN, below which is nothing, for what isn't finite:
    minus infinity would seem to beat itself and its equals."""
    return best - (abs(best) * LEAD + FLOOR) if abs(best) <= _HUGE else np.float32(np.nan)


@njit(nogil=True)
def _is_sure(point: NDArray[np.float32], winner: int) -> bool:
    best = point[winner]
    below = safely_below(best)
    for k in range(point.size):
        # Written so that a NaN fails. Minus infinity stays beaten by whatever is finite.
        if k != winner and not point[k] <= (below if k < winner else best):
            return False
    return bool(abs(best) <= _HUGE)


@njit(nogil=True)
def _name(point: NDArray[np.float32], guess: int) -> tuple[int, int]:
    """Argmax and key of one point; ``guess`` is looked at first."""
    if _is_sure(point, guess):
        return guess, guess
    winner = _argmax(point)
    return winner, winner if _is_sure(point, winner) else UNSURE


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
                    ids[x + j] = winner
                    keys[x + j] = winner
                x += _BLOCK
                continue
        for at in range(x, min(x + _BLOCK, width)):
            winner, keys[at] = _name(row[at], winner)
            ids[at] = winner
        x += _BLOCK


@njit(nogil=True)
def widen(point: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
    """bfloat16 to float32: it is the upper half of one."""
    bits = out.view(np.uint32)
    for k in range(point.size):
        bits[k] = np.uint32(point[k]) << np.uint32(16)


@njit(nogil=True)
def _rank(bits: np.uint16) -> np.uint16:
    """A bfloat16's place in the order of numbers, from 0 for minus infinity; NaNs come last, past plus infinity."""
    negative = np.uint16(np.int16(bits) >> np.int16(15))
    return np.uint16((bits ^ (negative | np.uint16(0x8000))) - np.uint16(0x007F))


@njit(nogil=True)
def _is_ordinary(bits: np.uint16) -> bool:
    """Finite, and so far from 0 (0x0E00 is 1.6e-30) that one step of bfloat16 is more than FLOOR."""
    size = bits & np.uint16(0x7FFF)
    return bool((size > np.uint16(0x0E00)) & (size < np.uint16(0x7F80)))


@njit(nogil=True)
def coarse_row_bf16(
    row: NDArray[np.uint16], ids: NDArray[np.uint8], keys: NDArray[np.uint8], point: NDArray[np.float32]
) -> None:
    """As ``coarse_row`` for bfloat16, compared as whole numbers; ``point`` is (classes,), for use here.

    One step of bfloat16 is a lead that is wide enough, but for scores near 0, which take the long way, as does a winner
    that isn't finite.
    """
    width, classes = row.shape
    flat = row.reshape(-1)
    winner = 0
    x = 0
    while x < width:
        if x + _BLOCK <= width:
            best = np.uint16(0xFFFF)
            ordinary = True
            for j in range(_BLOCK):
                ordinary &= _is_ordinary(row[x + j, winner])
                best = min(best, _rank(row[x + j, winner]))
            block = flat[x * classes : (x + _BLOCK) * classes]
            beaten = np.int32(0)
            for i in range(block.size):
                beaten += np.int32(_rank(block[i]) < best)
            if ordinary and beaten == _BLOCK * (classes - 1):
                for j in range(_BLOCK):
                    ids[x + j] = winner
                    keys[x + j] = winner
                x += _BLOCK
                continue
        for at in range(x, min(x + _BLOCK, width)):
            widen(row[at], point)
            winner, keys[at] = _name(point, winner)
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
    for y in range(ids.shape[0]):
        if kind == HWC_BF16:
            coarse_row_bf16(scores_bf16[y], ids[y], keys[y], spare[0])
        else:
            coarse_row(score_row(kind == HWC, scores, y, spare), ids[y], keys[y])
