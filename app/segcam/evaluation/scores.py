"""Figures of a confusion matrix, and the counting that makes one, in the same memory for any number of pictures.

What the figures mean, n[i][j] being the pixels that are class i and are called j (ignored pixels are in none of them):

* IoU of class c: n[c][c] / (what is c + what is called c - n[c][c]), as PASCAL VOC and Cityscapes define it over all
  pixels of all pictures; not a number (NaN) for a class that neither occurs nor is named
* mIoU: the mean IoU of the classes that occur or are named; ``miou_occurring``: of those that occur in the labels
* pixel accuracy: the sum of n[c][c] over all pixels; class accuracy: n[c][c] / what is c; mean accuracy: its mean
* frequency-weighted IoU: IoU weighted with the share of the labels that is c

"No class" is a column of its own: what the network calls void, or something that the labels don't have, is wrong
wherever the labels say a class, and is never a class itself.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Shares of equal pixels are kept to this fineness, so that any number of them takes the same memory.
_STEPS = 100_000


@dataclass(frozen=True, eq=False)
class Scores:
    """``classes`` and their (classes + 1, classes + 1) int64 ``matrix`` of pixels, the last one: no class."""

    classes: tuple[str, ...]
    matrix: NDArray[np.int64]

    @property
    def pixels(self) -> int:
        return int(self.matrix.sum())

    @property
    def occurring(self) -> NDArray[np.int64]:
        """(classes,) pixels that are each class."""
        return np.asarray(self.matrix[:-1].sum(1))

    @property
    def named(self) -> NDArray[np.int64]:
        """(classes,) pixels that are called each class."""
        return np.asarray(self.matrix[:, :-1].sum(0))

    @property
    def iou(self) -> NDArray[np.float64]:
        """(classes,) 0..1, NaN for a class that neither occurs nor is named."""
        right = self._right
        return _share(right, self.occurring + self.named - right)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(classes,) 0..1: the share of each class's pixels that are called so; NaN for a class that doesn't occur."""
        return _share(self._right, self.occurring)

    @property
    def miou(self) -> float:
        return _mean(self.iou)

    @property
    def miou_occurring(self) -> float:
        return _mean(self.iou[self.occurring > 0])

    @property
    def mean_accuracy(self) -> float:
        return _mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """For two networks the share of equal pixels: "no class" from both is equal, too."""
        return float(np.trace(self.matrix) / self.pixels) if self.pixels else float("nan")

    @property
    def frequency_weighted_iou(self) -> float:
        occurring = self.occurring
        if not occurring.sum():
            return float("nan")
        return float((np.nan_to_num(self.iou) * occurring).sum() / occurring.sum())

    @property
    def _right(self) -> NDArray[np.int64]:
        return np.diagonal(self.matrix)[:-1]

    def document(self) -> dict[str, Any]:
        """Plain data for JSON; None stands where a figure is not a number."""
        iou, accuracy, occurring, named = self.iou, self.accuracy, self.occurring, self.named
        return {
            "miou": _plain(self.miou),
            "miou_occurring": _plain(self.miou_occurring),
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "mean_accuracy": _plain(self.mean_accuracy),
            "frequency_weighted_iou": _plain(self.frequency_weighted_iou),
            "pixels": self.pixels,
            "classes": [
                {
                    "name": name,
                    "iou": _plain(iou[i]),
                    "accuracy": _plain(accuracy[i]),
                    "pixels": int(occurring[i]),
                    "named_pixels": int(named[i]),
                }
                for i, name in enumerate(self.classes)
            ],
            "confusion": {
                "rows": [*self.classes, "no class"],
                "columns": [*self.classes, "no class"],
                "pixels": self.matrix.tolist(),
            },
        }


class Spread:
    """Shares 0..1 of many pictures: mean, percentiles to a hundred-thousandth, and the ``keep`` worst by name."""

    def __init__(self, keep: int = 10) -> None:
        self._steps = np.zeros(_STEPS + 1, np.int64)
        self._total, self._keep = 0.0, keep
        self._worst: list[tuple[float, int, str]] = []
        self.count = 0

    def add(self, share: float, name: str) -> bool:
        """True: the worst so far (of several as bad, the first)."""
        self._steps[round(share * _STEPS)] += 1
        self._total += share
        worst = all(share < -other for other, _, _ in self._worst)
        item = (-share, -self.count, name)
        if len(self._worst) < self._keep:
            heapq.heappush(self._worst, item)
        else:
            heapq.heappushpop(self._worst, item)
        self.count += 1
        return worst

    @property
    def mean(self) -> float:
        return self._total / self.count if self.count else float("nan")

    @property
    def worst(self) -> list[tuple[str, int, float]]:
        """(name, number, share), the worst first."""
        return [(name, -number, -share) for share, number, name in sorted(self._worst, reverse=True)]

    def percentile(self, percent: float) -> float:
        """The share that ``percent`` of the pictures don't exceed (nearest rank)."""
        if not self.count:
            return float("nan")
        rank = max(1, int(np.ceil(percent / 100 * self.count)))
        return float(np.searchsorted(np.cumsum(self._steps), rank)) / _STEPS


class Confusion:
    """Counts pixels of (first, second) class maps. ``rows`` and ``columns`` are (256,): the index into ``classes`` of
    each id, ``len(classes)`` for no class, for ``rows`` also ``LEFT_OUT``."""

    LEFT_OUT = -1

    def __init__(self, classes: tuple[str, ...], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> None:
        self._classes, self._rows, self._columns = classes, rows, columns
        self._matrix = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)

    def add(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[int, int]:
        """Two class maps (H, W) uint8 of the same size; returns how many pixels are equal, of how many that count."""
        pairs = first.astype(np.uint16)
        pairs <<= 8
        pairs |= second
        counts = np.bincount(pairs.reshape(-1), minlength=1 << 16)
        seen = np.flatnonzero(counts)
        rows, columns = self._rows[seen >> 8], self._columns[seen & 255]
        found = np.zeros_like(self._matrix)
        kept = rows != self.LEFT_OUT
        np.add.at(found, (rows[kept], columns[kept]), counts[seen[kept]])
        self._matrix += found
        return int(np.trace(found)), int(found.sum())

    @property
    def scores(self) -> Scores:
        return Scores(self._classes, self._matrix.copy())


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    share = np.full(len(whole), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
