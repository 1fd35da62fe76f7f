"""bfloat16 scores as they lie in memory, compared as whole numbers; compiled by Numba into the kernels that use them.

Highest and lowest of many are what a processor finds for a whole register at once (``lanes``). One step of bfloat16 is
a lead that no rounding of a bilinear sample takes away (``coarse``), but for scores near 0; those, and winners that
aren't finite, take the long way in float32. Past a point's classes lie the next point's, which masks take out.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from segcam.kernels.cpu.lanes import LANES, at_least, corner_bound, first, highest, trailing_zeros
from segcam.kernels.cpu.points import name_point

_TINY, _INFINITE = np.uint16(0x0E00), np.uint16(0x7F80)


@njit(nogil=True)
def widen(point: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
    """bfloat16 to float32: it is the upper half of one."""
    bits = out.view(np.uint32)
    for k in range(point.size):
        bits[k] = np.uint32(point[k]) << np.uint32(16)


@njit(nogil=True)
def _rank(bits: np.uint16) -> np.uint16:
    """A bfloat16's place in the order of numbers, as ``lanes`` has it."""
    negative = np.uint16(np.int16(bits) >> np.int16(15))
    return np.uint16((bits ^ (negative | np.uint16(0x8000))) - np.uint16(0x007F))


@njit(nogil=True)
def _are_ordinary(lowest: np.uint16, highest: np.uint16) -> bool:
    """Whether all numbers between these ranks are finite, and so far from 0 (``_TINY`` is 1.6e-30) that one step of
    bfloat16 is more than ``points.FLOOR``."""
    positive = lowest > _rank(_TINY) and highest < _rank(_INFINITE)
    return bool(positive or (lowest > 0 and highest < _rank(_TINY | np.uint16(0x8000))))


@njit(nogil=True)
def _padded(size: int) -> int:
    return (size + LANES - 1) // LANES * LANES


@njit(nogil=True)
def masks_bf16(classes: int) -> NDArray[np.uint16]:
    """One row of whole registers after the other: all bits for every class but that of the row; a last row for all."""
    masks = np.zeros((classes + 1, _padded(classes)), np.uint16)
    masks[:, :classes] = 0xFFFF
    for c in range(classes):
        masks[c, c] = 0
    return masks.reshape(-1)


@njit(nogil=True)
def _name(
    scores: NDArray[np.uint16], begin: int, guess: int, masks: NDArray[np.uint16], point: NDArray[np.float32]
) -> tuple[int, int]:
    """Argmax and key of the point whose scores begin there; ``point`` is (classes,), for use
    in the long way, which looks at ``guess`` first."""
    classes = point.size
    size = _padded(classes)
    if begin + size <= scores.size:
        best = highest(scores, begin, masks, classes * size, size)
        winner = first(scores, begin, best, size)
        if _are_ordinary(best, best) and highest(scores, begin, masks, winner * size, size) < best:
            return winner, winner
    widen(scores[begin : begin + classes], point)
    return name_point(point, guess)


@njit(nogil=True)
def coarse_row_bf16(
    scores: NDArray[np.uint16],
    y: int,
    ids: NDArray[np.uint8],
    keys: NDArray[np.uint8],
    masks: NDArray[np.uint16],
    point: NDArray[np.float32],
) -> None:
    """As ``coarse.coarse_row`` for row ``y`` of ``scores`` (H, W, classes); ``point`` is (classes,), for use here."""
    width, classes = scores.shape[1], scores.shape[2]
    flat = scores.reshape(-1)
    row = y * width * classes
    size = _padded(classes)
    winner = 0
    for x in range(width):
        # Neighbours mostly agree, so the last winner is tried first.
        begin = row + x * classes
        best = _rank(flat[begin + winner])
        beaten = begin + size <= flat.size and highest(flat, begin, masks, winner * size, size) < best
        key = winner
        if not (beaten and _are_ordinary(best, best)):
            winner, key = _name(flat, begin, winner, masks, point)
        ids[x] = winner
        keys[x] = key


@njit(nogil=True, inline="always")
def candidates_bf16(
    scores: NDArray[np.uint16],
    top_left: int,
    top_right: int,
    bottom_left: int,
    bottom_right: int,
    count: int,
    masks: NDArray[np.uint16],
    reached: NDArray[np.uint16],
    bits: NDArray[np.uint32],
    classes: NDArray[np.int32],
) -> int:
    """Which of ``count`` classes may win somewhere in a cell whose corners' scores begin there: rising, into
    ``classes``, their scores as float32's bits into ``bits`` (4, count), both from the left; returns how many.

    ``reached`` is for use here: as many as the classes' masks are wide. A class whose highest corner is below another's
    lowest is below it in every sample. 0: the long way is needed.
    """
    size = reached.size
    if bottom_right + size > scores.size:
        return 0
    corners = (top_left, top_right, bottom_left, bottom_right)
    bound = corner_bound(scores, corners, masks, count * size, reached, size)
    if not _are_ordinary(bound, bound):
        return 0
    n = 0
    for begin in range(0, size, LANES):
        left = at_least(reached, begin, bound)
        while left:
            k = begin + trailing_zeros(left)
            left &= left - np.uint32(1)
            if k >= count:
                break
            bits[0, n] = np.uint32(scores[top_left + k]) << np.uint32(16)
            bits[1, n] = np.uint32(scores[top_right + k]) << np.uint32(16)
            bits[2, n] = np.uint32(scores[bottom_left + k]) << np.uint32(16)
            bits[3, n] = np.uint32(scores[bottom_right + k]) << np.uint32(16)
            classes[n] = k
            n += 1
    return n
