"""The class map at the cost of its boundaries (design section 4), compiled by Numba; no GIL is held inside.

If one class c is the argmax at all four corners of a cell of the score grid, every bilinear sample inside the cell
is c, since each is the same convex combination of the classes' corner values. So classes are interpolated only in cells
whose corners disagree, and there only those that no corner's winner beats at all four corners. This equals
``kernels.reference.labels_from_scores`` bit for bit in float32: rounding is monotone, so a class above c in index can
at worst tie, and ties go to the lower index; a class below c in index could win such a tie, so it counts as beaten only
by a margin wider than all roundings (``kernels.cpu.coarse``). Whatever isn't finite is interpolated in full.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from segcam.geometry import Taps
from segcam.kernels.cpu.bfloat16 import candidates_bf16, coarse_row_bf16, masks_bf16, widen
from segcam.kernels.cpu.coarse import (
    CHW,
    HWC,
    HWC_BF16,
    coarse_argmax,
    coarse_row,
    score_row,
)
from segcam.kernels.cpu.points import UNSURE, safely_below
from segcam.kernels.cpu.types import COUNTS, F32_IN, I32_IN, LABELS_IN, LABELS_OUT, SCORES, SCORES_BF16

_RUN = 32
_NO_SCORES = np.empty((0, 0, 0), np.float32)
_NO_BF16 = np.empty((0, 0, 0), np.uint16)


@njit(nogil=True, inline="always")
def _argmax_sample(
    corners: NDArray[np.float32],
    classes: NDArray[np.int32],
    count: int,
    wy0: np.float32,
    wy1: np.float32,
    wx0: np.float32,
    wx1: np.float32,
) -> np.int32:
    """Which of ``classes[:count]``, rising, wins a bilinear sample; ``corners[:, :count]`` are their scores: top left,
    top right, bottom left, bottom right. A corner of weight 0 is not looked at, even if it is infinite.
    """
    w00, w01, w10, w11 = wx0 * wy0, wx1 * wy0, wx0 * wy1, wx1 * wy1
    best = np.float32(0)
    winner = -1
    for i in range(count):
        value = corners[0, i] * w00
        if wx1 != 0:
            value = value + corners[1, i] * w01
        if wy1 != 0:
            value = value + corners[2, i] * w10
            if wx1 != 0:
                value = value + corners[3, i] * w11
        # The first NaN wins over every number, as in numpy.argmax.
        if winner < 0 or value > best or (value != value and best == best):
            best = value
            winner = i
    won: np.int32 = classes[winner]
    return won


@njit(nogil=True, inline="always")
def _candidates(
    corners: NDArray[np.float32],
    winners: NDArray[np.int32],
    beaten: NDArray[np.int32],
    classes: NDArray[np.int32],
) -> int:
    """The classes that may win somewhere in the cell, rising, into ``classes``, and their scores into ``corners``, both
    from the left; returns how many. ``winners``: the corners' own."""
    count = corners.shape[1]
    for k in range(count):
        beaten[k] = 0
    # A NaN is never beaten, and a winner that isn't finite beats nothing: its thresholds are NaN.
    for i in range(4):
        c = winners[i]
        if i > 0 and (c == winners[0] or (i > 1 and c == winners[1]) or (i > 2 and c == winners[2])):
            continue
        b0, b1 = safely_below(corners[0, c]), safely_below(corners[1, c])
        b2, b3 = safely_below(corners[2, c]), safely_below(corners[3, c])
        r0, r1, r2, r3 = corners[0], corners[1], corners[2], corners[3]
        for k in range(count):
            beaten[k] |= np.int32((r0[k] <= b0) & (r1[k] <= b1) & (r2[k] <= b2) & (r3[k] <= b3))
    n = 0
    for k in range(count):
        classes[n] = k
        n += 1 - int(beaten[k])
    for i in range(4):
        for m in range(n):
            corners[i, m] = corners[i, classes[m]]
    return n


@njit(nogil=True, inline="always")
def _paint_cell(
    top: int,
    bottom: int,
    begin: int,
    end: int,
    wy0: NDArray[np.float32],
    wy1: NDArray[np.float32],
    wx0: NDArray[np.float32],
    wx1: NDArray[np.float32],
    labels: NDArray[np.uint8],
    counts: NDArray[np.int64],
    corners: NDArray[np.float32],
    classes: NDArray[np.int32],
    n: int,
) -> None:
    """Interpolate the pixels of one cell: rows ``top`` to ``bottom``, columns ``begin`` to ``end`` of ``labels``. Only
    the first ``n`` of ``classes``, with their scores ``corners``, may win."""
    for row in range(top, bottom):
        for x in range(begin, end):
            label = _argmax_sample(corners, classes, n, wy0[row], wy1[row], wx0[x], wx1[x])
            labels[row, x] = label
            counts[label] += 1


@njit(nogil=True)
def _uniform_cells(top: NDArray[np.uint8], bottom: NDArray[np.uint8], cells: NDArray[np.uint8]) -> None:
    """The class of each cell between two rows of keys, or UNSURE."""
    last = top.size - 1
    for i in range(last):
        key = top[i]
        same = (key == top[i + 1]) & (key == bottom[i]) & (key == bottom[i + 1])
        cells[i] = key if same else UNSURE
    cells[last] = top[last] if top[last] == bottom[last] else UNSURE


@njit(nogil=True)
def _fill_line(
    cells: NDArray[np.uint8],
    spans: NDArray[np.int32],
    line: NDArray[np.uint8],
    rows: int,
    counts: NDArray[np.int64],
    mixed: NDArray[np.int32],
) -> int:
    """Label ``line`` (W,) with the classes of its cells and count ``rows`` lines of it; runs of one class in one go.

    Returns how many cells are undecided, whose indices go to ``mixed``; their pixels are neither right nor counted yet.
    """
    undecided = 0
    for left in range(0, cells.size, _RUN):
        right = min(left + _RUN, cells.size)
        first = cells[left]
        differs = np.uint8(0)
        for i in range(left, right):
            differs |= cells[i] ^ first
        if differs == 0 and first != UNSURE:
            line[spans[left] : spans[right]] = first
            counts[first] += rows * (spans[right] - spans[left])
            continue
        for i in range(left, right):
            begin, end = spans[i], spans[i + 1]
            if cells[i] != UNSURE:
                for x in range(begin, end):
                    line[x] = cells[i]
                counts[cells[i]] += rows * (end - begin)
            elif begin < end:
                mixed[undecided] = i
                undecided += 1
    return undecided


@njit(
    [
        types.void(
            types.intp, SCORES, SCORES_BF16, LABELS_OUT, LABELS_OUT, I32_IN, I32_IN, F32_IN, F32_IN,
            I32_IN, F32_IN, F32_IN, I32_IN, LABELS_OUT, COUNTS,
        )
    ],
    nogil=True,
    cache=True,
)  # fmt: skip
def _labels_from_scores(
    kind: int,
    scores: NDArray[np.float32],
    scores_bf16: NDArray[np.uint16],
    ids: NDArray[np.uint8],
    keys: NDArray[np.uint8],
    y_first: NDArray[np.int32],
    y_second: NDArray[np.int32],
    wy0: NDArray[np.float32],
    wy1: NDArray[np.float32],
    x_second: NDArray[np.int32],
    wx0: NDArray[np.float32],
    wx1: NDArray[np.float32],
    spans: NDArray[np.int32],
    labels: NDArray[np.uint8],
    counts: NDArray[np.int64],
) -> None:
    """``spans``: the output columns of cell i are spans[i] <= column < spans[i + 1]."""
    height = labels.shape[0]
    grid_width = keys.shape[1]
    classes = scores_bf16.shape[2] if kind == HWC_BF16 else scores.shape[0] if kind == CHW else scores.shape[2]
    cells = np.empty(grid_width, np.uint8)
    corners = np.empty((4, classes), np.float32)
    winners = np.empty(4, np.int32)
    beaten = np.empty(classes, np.int32)
    chosen = np.empty(classes + 1, np.int32)
    mixed = np.empty(grid_width, np.int32)
    spare = np.empty((2, grid_width, classes), np.float32)
    masks = masks_bf16(classes if kind == HWC_BF16 else 0)
    reached = np.empty(masks.size // (classes + 1), np.uint16)
    flat_bf16, bits = scores_bf16.reshape(-1), corners.view(np.uint32)
    counts[:] = 0
    done = -1
    upper = spare[0]
    under = spare[0]
    top = 0
    while top < height:
        bottom = top + 1
        while bottom < height and y_first[bottom] == y_first[top]:
            bottom += 1
        y0, y1 = y_first[top], y_second[top]
        # The grid's rows are looked at just before the cells between them, while they are in the cache.
        for y in range(max(done + 1, y0), y1 + 1):
            if kind == HWC_BF16:
                coarse_row_bf16(scores_bf16, y, ids[y], keys[y], masks, corners[0])
            else:
                upper = under
                under = score_row(kind == HWC, scores, y, spare[y & 1])
                coarse_row(under, ids[y], keys[y])
            done = y
        if y1 == y0:
            upper = under
        _uniform_cells(keys[y0], keys[y1], cells)
        undecided = _fill_line(cells, spans, labels[top], bottom - top, counts, mixed)
        for row in range(top + 1, bottom):
            labels[row, :] = labels[top]
        for n in range(undecided):
            i = mixed[n]
            j = x_second[spans[i]]
            found = 0
            if kind == HWC_BF16:
                a, b = (y0 * grid_width + i) * classes, (y0 * grid_width + j) * classes
                c, d = (y1 * grid_width + i) * classes, (y1 * grid_width + j) * classes
                found = candidates_bf16(flat_bf16, a, b, c, d, classes, masks, reached, bits, chosen)
            if found == 0:
                if kind == HWC_BF16:
                    widen(scores_bf16[y0, i], corners[0])
                    widen(scores_bf16[y0, j], corners[1])
                    widen(scores_bf16[y1, i], corners[2])
                    widen(scores_bf16[y1, j], corners[3])
                else:
                    for k in range(classes):
                        corners[0, k] = upper[i, k]
                        corners[1, k] = upper[j, k]
                        corners[2, k] = under[i, k]
                        corners[3, k] = under[j, k]
                winners[0], winners[1], winners[2], winners[3] = ids[y0, i], ids[y0, j], ids[y1, i], ids[y1, j]
                found = _candidates(corners, winners, beaten, chosen)
            _paint_cell(
                top, bottom, spans[i], spans[i + 1], wy0, wy1, wx0, wx1, labels, counts, corners, chosen, found
            )  # fmt: skip
        top = bottom


@njit([types.void(LABELS_IN, I32_IN, I32_IN, LABELS_OUT, COUNTS)], nogil=True, cache=True)
def _sample_ids(
    ids: NDArray[np.uint8],
    y: NDArray[np.int32],
    x: NDArray[np.int32],
    labels: NDArray[np.uint8],
    counts: NDArray[np.int64],
) -> None:
    counts[:] = 0
    height, width = labels.shape
    for row in range(height):
        if row and y[row] == y[row - 1]:
            labels[row, :] = labels[row - 1]
        else:
            source = ids[y[row]]
            for col in range(width):
                labels[row, col] = source[x[col]]
        run_class = labels[row, 0]
        run = 0
        for col in range(width):
            label = labels[row, col]
            if label != run_class:
                counts[run_class] += run
                run_class = label
                run = 0
            run += 1
        counts[run_class] += run


class LabelMapper:
    """Scores on one grid to a class map on another; made once for a pair of grids, it allocates nothing afterwards.

    ``scores`` are (classes, Hs, Ws) float32, or with ``channels_last`` (Hs, Ws, classes) float32 or bfloat16 (its bits
    as uint16), C-contiguous, writable, in host memory; at most 255 classes. Not for use by two threads at once.
    """

    def __init__(self, y: Taps, x: Taps, *, channels_last: bool = False) -> None:
        self.y, self.x, self._channels_last = y, x, channels_last
        self._identity = y.is_identity and x.is_identity
        self._ids = np.empty((y.size, x.size), np.uint8)
        self._keys = np.empty((y.size, x.size), np.uint8)
        # x.first rises, so the columns of a cell are neighbours.
        self._spans = np.searchsorted(x.first, np.arange(x.size + 1)).astype(np.int32)
        self._counts = np.zeros(256, np.int64)

    def __call__(
        self, scores: NDArray[np.float32] | NDArray[np.uint16], labels: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """Write ``labels`` (H, W) uint8; return (classes,) int64 pixels per class (a new array)."""
        lie: tuple[int, NDArray[Any], NDArray[Any]] = (HWC if self._channels_last else CHW, scores, _NO_BF16)
        if scores.dtype == np.uint16:
            lie = (HWC_BF16, _NO_SCORES, scores)
        if self._identity:
            coarse_argmax(*lie, self._ids, self._keys)
            _sample_ids(self._ids, self.y.first, self.x.first, labels, self._counts)
        else:
            y, x = self.y, self.x
            _labels_from_scores(
                *lie, self._ids, self._keys,
                y.first, y.second, y.weight_first, y.weight_second,
                x.second, x.weight_first, x.weight_second,
                self._spans, labels, self._counts,
            )  # fmt: skip
        return self._counts[: scores.shape[2 if self._channels_last else 0]].copy()

    def undecided_cells(self) -> float:
        """Share of the grid's cells, 0..1, whose corners disagreed in the last call: where the exact work was done."""
        keys = self._keys
        same = (keys[:-1, :-1] == keys[1:, :-1]) & (keys[:-1, :-1] == keys[:-1, 1:]) & (keys[:-1, :-1] == keys[1:, 1:])
        same &= keys[:-1, :-1] != UNSURE
        return 1.0 - float(same.mean()) if same.size else 0.0


def sample_ids(
    ids: NDArray[np.uint8], y: NDArray[np.int32], x: NDArray[np.int32], labels: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Class ids (Hs, Ws) uint8 to ``labels`` (H, W) by the nearest-point indices; returns (256,) pixels per id."""
    counts = np.zeros(256, np.int64)
    _sample_ids(np.ascontiguousarray(ids), y, x, labels, counts)
    return counts
