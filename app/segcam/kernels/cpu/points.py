"""One grid point: its argmax, and whether its winner leads safely; compiled by Numba into the kernels that use it."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Marks a grid point whose winner doesn't lead safely; also the reason why a class index stays below 255.
UNSURE = 255

#: A lead of this share of the winner's score, plus the floor for scores near 0, is more than 2**-20 of both scores
#: whatever the other one is.
LEAD = np.float32(2.0**-18)
FLOOR = np.float32(1e-37)
_HUGE = np.float32(3.4e38)


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
def name_point(point: NDArray[np.float32], guess: int) -> tuple[int, int]:
    """Argmax and key of one point; ``guess`` is looked at first."""
    if _is_sure(point, guess):
        return guess, guess
    winner = _argmax(point)
    return winner, winner if _is_sure(point, winner) else UNSURE
