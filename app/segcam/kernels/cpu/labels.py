"""The class map at the cost of its boundaries (design section 4), compiled by Numba; no GIL is held inside.

If one class c is the argmax at all four corners of a cell of the score grid, every bilinear sample inside the cell
is c, since each is the same convex combination of the classes' corner values. So the classes are interpolated only in
cells whose corners disagree. Exactness in float32, against ``kernels.reference.labels_from_scores``, bit for bit:

* Rounding is monotone, so a class above c in index can't overtake c: at worst it ties, and ties go to the lower index.
* A class below c in index could win such a tie. Five roundings stand between the corner values and a sample, so that
  can't happen where c leads every lower class by more than 2**-20 of both scores' size. A grid point whose winner leads
  by less, or that holds a NaN or an infinity, is marked unsure, and its cells are interpolated in full.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from segcam.geometry import Taps
from segcam.kernels.cpu.types import COUNTS, F32_IN, I32_IN, LABELS_IN, LABELS_OUT, SCORES

#: Marks a grid point whose winner doesn't lead safely; also the reason why a class index stays below 255.
UNSURE = 255

_MARGIN = np.float32(2.0**-20)
_FLOOR = np.float32(1e-37)
_LOWEST = np.float32(-3.0e38)


@njit(nogil=True)
def _argmax_point(scores: NDArray[np.float32], y: int, x: int) -> int:
    for k in range(scores.shape[0]):
        if np.isnan(scores[k, y, x]):
            return k
    best = scores[0, y, x]
    winner = 0
    for k in range(1, scores.shape[0]):
        if scores[k, y, x] > best:
            best = scores[k, y, x]
            winner = k
    return winner


@njit(nogil=True)
def _lead_of_four(
    row0: NDArray[np.float32],
    row1: NDArray[np.float32],
    row2: NDArray[np.float32],
    row3: NDArray[np.float32],
    k: int,
    best: NDArray[np.float32],
    lower: NDArray[np.float32],
    total: NDArray[np.float32],
    winner: NDArray[np.int32],
) -> None:
    """Four classes at a time, so that the running state is loaded and stored a quarter as often."""
    k0, k1, k2, k3 = np.int32(k), np.int32(k + 1), np.int32(k + 2), np.int32(k + 3)
    for x in range(best.size):
        v0, v1, v2, v3 = row0[x], row1[x], row2[x], row3[x]
        b, low, w = best[x], lower[x], winner[x]
        wins = v0 > b
        low, w, b = (b if wins else low), (k0 if wins else w), (v0 if wins else b)
        wins = v1 > b
        low, w, b = (b if wins else low), (k1 if wins else w), (v1 if wins else b)
        wins = v2 > b
        low, w, b = (b if wins else low), (k2 if wins else w), (v2 if wins else b)
        wins = v3 > b
        low, w, b = (b if wins else low), (k3 if wins else w), (v3 if wins else b)
        best[x], lower[x], winner[x] = b, low, w
        total[x] += (v0 + v1) + (v2 + v3)


@njit(nogil=True)
def _lead_of_one(
    row: NDArray[np.float32],
    k: int,
    best: NDArray[np.float32],
    lower: NDArray[np.float32],
    total: NDArray[np.float32],
    winner: NDArray[np.int32],
) -> None:
    k0 = np.int32(k)
    for x in range(best.size):
        value, b = row[x], best[x]
        wins = value > b
        lower[x] = b if wins else lower[x]
        winner[x] = k0 if wins else winner[x]
        best[x] = value if wins else b
        total[x] += value


@njit(nogil=True)
def _coarse_row(
    scores: NDArray[np.float32],
    y: int,
    ids: NDArray[np.uint8],
    keys: NDArray[np.uint8],
    best: NDArray[np.float32],
    lower: NDArray[np.float32],
    total: NDArray[np.float32],
    winner: NDArray[np.int32],
) -> None:
    """Row ``y`` of ``coarse_argmax``. ``total`` is a sum only to find what isn't finite: an overflow in it costs time."""
    classes, _, width = scores.shape
    best[:] = scores[0, y]
    total[:] = best
    lower[:] = _LOWEST
    winner[:] = 0
    k = 1
    while k + 4 <= classes:
        _lead_of_four(
            scores[k, y], scores[k + 1, y], scores[k + 2, y], scores[k + 3, y], k, best, lower, total, winner
        )
        k += 4
    while k < classes:
        _lead_of_one(scores[k, y], k, best, lower, total, winner)
        k += 1
    out_ids, out_keys = ids[y], keys[y]
    odd = 0
    for x in range(width):
        lead = best[x] - lower[x]
        need = _MARGIN * (abs(best[x]) + abs(lower[x])) + _FLOOR
        finite = total[x] * np.float32(0) == np.float32(0)
        out_ids[x] = winner[x]
        out_keys[x] = winner[x] if (lead > need) & finite else UNSURE
        odd += 0 if finite else 1
    if odd:
        for x in range(width):
            if total[x] * np.float32(0) != np.float32(0):
                out_ids[x] = _argmax_point(scores, y, x)


@njit([types.void(SCORES, LABELS_OUT, LABELS_OUT)], nogil=True, cache=True)
def coarse_argmax(scores: NDArray[np.float32], ids: NDArray[np.uint8], keys: NDArray[np.uint8]) -> None:
    """``ids`` (H, W): argmax of ``scores`` (classes, H, W) as NumPy gives it; ``keys``: the same, or UNSURE."""
    width = scores.shape[2]
    best, lower, total = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    winner = np.empty(width, np.int32)
    for y in range(scores.shape[1]):
        _coarse_row(scores, y, ids, keys, best, lower, total, winner)


@njit(nogil=True)
def _argmax_sample(
    corners: NDArray[np.float32], sums: NDArray[np.float32], wy0: np.float32, wy1: np.float32, wx0: np.float32, wx1: np.float32
) -> int:
    """Argmax of one bilinear sample; ``corners`` is (4, classes): top left, top right, bottom left, bottom right."""
    classes = corners.shape[1]
    w00, w01, w10, w11 = wx0 * wy0, wx1 * wy0, wx0 * wy1, wx1 * wy1
    if wx1 == 0 and wy1 == 0:
        for k in range(classes):
            sums[k] = corners[0, k] * w00
    elif wx1 == 0:
        for k in range(classes):
            sums[k] = corners[0, k] * w00 + corners[2, k] * w10
    elif wy1 == 0:
        for k in range(classes):
            sums[k] = corners[0, k] * w00 + corners[1, k] * w01
    else:
        for k in range(classes):
            sums[k] = ((corners[0, k] * w00 + corners[1, k] * w01) + corners[2, k] * w10) + corners[3, k] * w11
    best = sums[0]
    winner = 0
    for k in range(1, classes):
        value = sums[k]
        # The first NaN wins over every number, as in numpy.argmax.
        if value > best or (value != value and best == best):
            best = value
            winner = k
    return winner


@njit(nogil=True)
def _paint_band(
    scores: NDArray[np.float32],
    keys: NDArray[np.uint8],
    y0: int,
    y1: int,
    wy0: NDArray[np.float32],
    wy1: NDArray[np.float32],
    x_first: NDArray[np.int32],
    x_second: NDArray[np.int32],
    wx0: NDArray[np.float32],
    wx1: NDArray[np.float32],
    spans: NDArray[np.int32],
    labels: NDArray[np.uint8],
    counts: NDArray[np.int64],
    cells: NDArray[np.uint8],
    corners: NDArray[np.float32],
    sums: NDArray[np.float32],
) -> None:
    """Label the rows of one row of cells: ``labels`` is (rows of the band, W)."""
    rows, width = labels.shape
    grid_width = keys.shape[1]
    classes = scores.shape[0]
    top, bottom = keys[y0], keys[y1]
    for i in range(grid_width - 1):
        key = top[i]
        same = (key == top[i + 1]) & (key == bottom[i]) & (key == bottom[i + 1])
        cells[i] = key if same else UNSURE
    last = grid_width - 1
    cells[last] = top[last] if top[last] == bottom[last] else UNSURE

    line = labels[0]
    for x in range(width):
        line[x] = cells[x_first[x]]
    for row in range(1, rows):
        labels[row, :] = line

    run_class = UNSURE
    run = 0
    for i in range(grid_width):
        begin, end = spans[i], spans[i + 1]
        if begin == end:
            continue
        cell = cells[i]
        if cell != run_class:
            counts[run_class] += run * rows
            run_class = cell
            run = 0
        run += end - begin
        if cell != UNSURE:
            continue
        j = x_second[begin]
        for k in range(classes):
            corners[0, k] = scores[k, y0, i]
            corners[1, k] = scores[k, y0, j]
            corners[2, k] = scores[k, y1, i]
            corners[3, k] = scores[k, y1, j]
        for row in range(rows):
            for x in range(begin, end):
                label = _argmax_sample(corners, sums, wy0[row], wy1[row], wx0[x], wx1[x])
                labels[row, x] = label
                counts[label] += 1
    counts[run_class] += run * rows
    counts[UNSURE] = 0


@njit(
    [
        types.void(
            SCORES, LABELS_OUT, LABELS_OUT, I32_IN, I32_IN, F32_IN, F32_IN, I32_IN, I32_IN, F32_IN, F32_IN,
            I32_IN, LABELS_OUT, COUNTS,
        )
    ],
    nogil=True,
    cache=True,
)  # fmt: skip
def _labels_from_scores(
    scores: NDArray[np.float32],
    ids: NDArray[np.uint8],
    keys: NDArray[np.uint8],
    y_first: NDArray[np.int32],
    y_second: NDArray[np.int32],
    wy0: NDArray[np.float32],
    wy1: NDArray[np.float32],
    x_first: NDArray[np.int32],
    x_second: NDArray[np.int32],
    wx0: NDArray[np.float32],
    wx1: NDArray[np.float32],
    spans: NDArray[np.int32],
    labels: NDArray[np.uint8],
    counts: NDArray[np.int64],
) -> None:
    height = labels.shape[0]
    cells = np.empty(keys.shape[1], np.uint8)
    width = scores.shape[2]
    best, lower, total = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    winner = np.empty(width, np.int32)
    done = -1
    corners = np.empty((4, scores.shape[0]), np.float32)
    sums = np.empty(scores.shape[0], np.float32)
    counts[:] = 0
    top = 0
    while top < height:
        bottom = top + 1
        while bottom < height and y_first[bottom] == y_first[top]:
            bottom += 1
        y0, y1 = y_first[top], y_second[top]
        for y in range(max(done + 1, y0), y1 + 1):
            _coarse_row(scores, y, ids, keys, best, lower, total, winner)
            done = y
        _paint_band(
            scores,
            keys,
            y0,
            y1,
            wy0[top:bottom],
            wy1[top:bottom],
            x_first,
            x_second,
            wx0,
            wx1,
            spans,
            labels[top:bottom],
            counts,
            cells,
            corners,
            sums,
        )
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

    ``scores`` are (classes, Hs, Ws) float32, C-contiguous, in host memory; at most 255 classes. Not for use by two
    threads at once.
    """

    def __init__(self, y: Taps, x: Taps) -> None:
        self.y, self.x = y, x
        self._identity = y.is_identity and x.is_identity
        self._ids = np.empty((y.size, x.size), np.uint8)
        self._keys = np.empty((y.size, x.size), np.uint8)
        # x.first rises, so the output columns of cell i are spans[i] <= column < spans[i + 1].
        self._spans = np.searchsorted(x.first, np.arange(x.size + 1)).astype(np.int32)
        self._counts = np.zeros(256, np.int64)

    def __call__(self, scores: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Write ``labels`` (H, W) uint8; return (classes,) int64 pixels per class (a new array)."""
        if self._identity:
            coarse_argmax(scores, self._ids, self._keys)
            _sample_ids(self._ids, self.y.first, self.x.first, labels, self._counts)
        else:
            _labels_from_scores(
                scores,
                self._ids,
                self._keys,
                self.y.first,
                self.y.second,
                self.y.weight_first,
                self.y.weight_second,
                self.x.first,
                self.x.second,
                self.x.weight_first,
                self.x.weight_second,
                self._spans,
                labels,
                self._counts,
            )
        return self._counts[: scores.shape[0]].copy()

    def undecided_cells(self) -> float:
        """Share of the grid's cells, 0..1, whose corners disagreed in the last call: what the exact work was spent on."""
        keys = self._keys
        same = (keys[:-1, :-1] == keys[1:, :-1]) & (keys[:-1, :-1] == keys[:-1, 1:]) & (keys[:-1, :-1] == keys[1:, 1:])
        same &= keys[:-1, :-1] != UNSURE
        return 1.0 - float(same.mean()) if same.size else 0.0


def sample_ids(
    ids: NDArray[np.uint8], y: NDArray[np.int32], x: NDArray[np.int32], labels: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Class ids (Hs, Ws) uint8 to ``labels`` (H, W) by the nearest-point indices; returns (256,) pixels per id."""
    counts = np.zeros(256, np.int64)
    _sample_ids(ids, y, x, labels, counts)
    return counts
