"""The vector loops against NumPy, over every bfloat16 there is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from segcam.kernels.cpu.lanes import LANES, at_least, corner_bound, first, highest, trailing_zeros

EVERY_BFLOAT16 = np.arange(1 << 16, dtype=np.uint16)
ALL = np.full(4 * LANES, 0xFFFF, np.uint16)


@njit
def call_highest(scores: Any, begin: int, mask: Any, row: int, size: int) -> Any:
    return highest(scores, begin, mask, row, size)


@njit
def call_first(scores: Any, begin: int, rank: Any, size: int) -> Any:
    return first(scores, begin, np.uint16(rank), size)


@njit
def call_bound(scores: Any, corners: Any, mask: Any, row: int, out: Any, size: int) -> Any:
    return corner_bound(scores, corners, mask, row, out, size)


@njit
def call_at_least(ranks: Any, begin: int, bound: Any) -> Any:
    return at_least(ranks, begin, np.uint16(bound))


@njit
def call_trailing_zeros(bits: Any) -> Any:
    return trailing_zeros(np.uint32(bits))


def ranks_of(bits: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Of each number alone: the others of its register are minus infinity, which has rank 0."""
    found = np.empty(bits.size, np.uint16)
    register = np.full(LANES, 0xFF80, np.uint16)
    for i, value in enumerate(bits):
        register[i % LANES] = value
        found[i] = call_highest(register, 0, ALL, 0, LANES)
        register[i % LANES] = 0xFF80
    return found


@pytest.fixture(scope="module")
def rank() -> NDArray[np.uint16]:
    """The rank of every bfloat16, by its bits."""
    return ranks_of(EVERY_BFLOAT16)


def test_ranks_are_the_order_of_numbers_and_nans_come_last(rank: NDArray[np.uint16]) -> None:
    values = (EVERY_BFLOAT16.astype(np.uint32) << 16).view(np.float32)
    numbers = ~np.isnan(values)
    by_rank = values[numbers][np.argsort(rank[numbers], kind="stable")]
    assert (np.diff(by_rank[1:-1]) >= 0).all()
    assert by_rank[0] == -np.inf
    assert by_rank[-1] == np.inf
    assert rank[EVERY_BFLOAT16[~numbers]].min() > rank[0x7F80]
    assert rank[0xFF80] == 0
    assert len(set(rank.tolist())) == rank.size


@pytest.mark.parametrize("size", [LANES, 2 * LANES, 4 * LANES])
def test_highest_and_first_look_at_their_part_only(rank: NDArray[np.uint16], size: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(200):
        scores = random.choice(EVERY_BFLOAT16, 6 * LANES)
        scores[random.integers(0, scores.size, 8)] = scores[random.integers(0, scores.size)]
        begin, row = int(random.integers(0, LANES)), int(random.integers(0, LANES))
        mask = np.where(random.random(row + size) < 0.5, 0xFFFF, 0).astype(np.uint16)
        part = rank[scores[begin : begin + size]]
        assert call_highest(scores, begin, mask, row, size) == np.where(mask[row:], part, 0).max()
        wanted = part[random.integers(0, size)]
        assert call_first(scores, begin, wanted, size) == np.argmax(part == wanted)
        absent = np.setdiff1d(np.arange(1000), part)[0]
        assert call_first(scores, begin, absent, size) == size


@pytest.mark.parametrize("size", [LANES, 3 * LANES])
def test_corner_bound_is_the_highest_of_the_lowest(rank: NDArray[np.uint16], size: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(200):
        scores = random.choice(EVERY_BFLOAT16, 8 * LANES)
        corners = tuple(int(i) for i in random.integers(0, 5 * LANES, 4))
        mask = np.where(np.arange(size) < random.integers(1, size + 1), 0xFFFF, 0).astype(np.uint16)
        out = np.zeros(size, np.uint16)
        bound = call_bound(scores, corners, mask, 0, out, size)
        seen = np.stack([rank[scores[c : c + size]] for c in corners])
        np.testing.assert_array_equal(out, seen.max(0))
        assert bound == np.where(mask, seen.min(0), 0).max()


def test_at_least_gives_a_bit_for_each() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        ranks = random.integers(0, 1 << 16, 3 * LANES).astype(np.uint16)
        begin, bound = int(random.integers(0, 2 * LANES)), int(random.integers(0, 1 << 16))
        wanted = sum(1 << i for i in range(LANES) if ranks[begin + i] >= bound)
        assert call_at_least(ranks, begin, bound) == wanted


def test_trailing_zeros() -> None:
    assert [call_trailing_zeros(1 << i | 1 << 31) for i in range(32)] == list(range(32))
