"""Chance without state: every number is a hash of the seed and of what it is for, on every machine the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T")
_MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): 64 bits to 64 bits."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Dice:
    """Throws that follow from ``names``, whole numbers of either sign: the same names give the same throws."""

    def __init__(self, *names: int) -> None:
        state = 0
        for name in names:
            state = mix(state ^ (name & _MASK))
        self._state = state

    def unit(self) -> float:
        """In [0, 1)."""
        self._state = mix(self._state)
        return (self._state >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def whole(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, share: float) -> bool:
        return self.unit() < share

    def pick(self, things: Sequence[_T]) -> _T:
        return things[int(self.unit() * len(things))]


def noise(seed: int, *shape: int) -> NDArray[np.float64]:
    """Independent numbers in [0, 1). The raw bits of PCG64 are what NumPy promises never to change."""
    bits = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    high = (np.asarray(bits, np.uint64) >> np.uint64(11)).astype(np.float64)
    return high.reshape(shape) * np.float64(2.0**-53)


def smooth_noise(seed: int, size: int, cells: int, octaves: int = 4, fall: float = 0.5) -> NDArray[np.float32]:
    """(size, size) float32 in 0..1 that repeats without a seam: lattice noise of ``cells`` cells a side and finer."""
    total = np.zeros((size, size), np.float32)
    weight = whole = 1.0
    whole = 0.0
    for octave in range(octaves):
        count = cells << octave
        if count > size:
            break
        lattice = noise(seed * 31 + octave, count, count).astype(np.float32)
        at = np.arange(size) * (count / size)
        low = at.astype(np.int64)
        part = (at - low).astype(np.float32)
        part = part * part * (3 - 2 * part)
        nxt = (low + 1) % count
        rows = lattice[low] * (1 - part)[:, None] + lattice[nxt] * part[:, None]
        total += weight * (rows[:, low] * (1 - part) + rows[:, nxt] * part)
        whole += weight
        weight *= fall
    return total / np.float32(whole)
