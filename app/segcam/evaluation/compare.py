"""Two class maps of each picture, compared and counted; the picture on which they differ most is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segcam.classes import ClassTable
from segcam.errors import SourceError
from segcam.evaluation.datasets import Sample
from segcam.evaluation.mapping import IGNORED, without_void
from segcam.evaluation.matching import columns_of, common_table, own_columns
from segcam.evaluation.scores import Confusion, Scores, Spread


@dataclass(frozen=True)
class Odd:
    """A picture by name and number, and which share (0..1) of its pixels is equal or right."""

    name: str
    index: int
    share: float


@dataclass(frozen=True)
class PerImage:
    """Equal or right pixels, 0..1, over the pictures: mean, least, and what 1, 5 and 50 % of them don't exceed."""

    mean: float
    minimum: float
    p1: float
    p5: float
    p50: float


@dataclass(frozen=True, eq=False)
class Compared:
    """How two sides agree: all pixels together (``scores``), picture by picture, and the ``worst`` ones."""

    sides: tuple[str, str]
    scores: Scores
    per_image: PerImage
    worst: tuple[Odd, ...]


@dataclass(frozen=True, eq=False)
class Worst:
    """The picture with the least equal pixels: (H, W, 3) uint8, blue first; two class maps (H, W) uint8 as ids of
    ``table``, ``len(table)`` for no class; ``counted`` (H, W) bool: pixels that are not ignored."""

    name: str
    share: float
    picture: NDArray[np.uint8]
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    counted: NDArray[np.bool_]


class Comparison:
    """Counts, streaming; ``table``, ``rows`` and ``columns`` as for ``Confusion``."""

    def __init__(
        self, sides: tuple[str, str], table: ClassTable, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> None:
        self.sides, self.table = sides, table
        self._rows, self._columns = rows, columns
        self._confusion = Confusion(table.names, rows, columns)
        self._spread = Spread()
        self.worst: Worst | None = None

    def add(self, sample: Sample, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        equal, counted = self._confusion.add(first, second)
        if not counted:
            return
        if self._spread.add(equal / counted, sample.name):
            rows = self._rows[first]
            self.worst = Worst(
                sample.name,
                equal / counted,
                sample.frame.bgr().copy(),
                np.where(rows < 0, len(self.table), rows).astype(np.uint8),
                self._columns[second].astype(np.uint8),
                rows >= 0,
            )

    @property
    def result(self) -> Compared:
        spread = self._spread
        return Compared(
            self.sides,
            self._confusion.scores,
            PerImage(spread.mean, *(spread.percentile(percent) for percent in (0, 1, 5, 50))),
            tuple(Odd(*one) for one in spread.worst),
        )


class AgainstLabels(Comparison):
    """A network against the labels: the labels' ``classes`` (None: the network's own) are the rows.

    Raises UsageError where the classes don't fit together.
    """

    def __init__(self, who: str, network: ClassTable, classes: ClassTable | None, renamed: dict[str, str]) -> None:
        if classes is None:
            self._allowed = len(network)
            table = without_void(network)
            columns = own_columns(network)
            rows = columns.copy()
            # Pixels that the labels leave to a void class of the network are not counted.
            rows[rows == len(table)] = Confusion.LEFT_OUT
        else:
            table, self._allowed = classes, len(classes)
            columns = columns_of(network, table, renamed, who)
            rows = np.arange(256, dtype=np.intp)
            rows[len(table) :] = Confusion.LEFT_OUT
        super().__init__(("labels", who), table, rows, columns)

    def add(self, sample: Sample, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        """Raises SourceError for labels beyond the classes."""
        beyond = (first >= self._allowed) & (first != IGNORED)
        if beyond.any():
            numbers = ", ".join(map(str, np.unique(first[beyond])[:12]))
            raise SourceError(
                f"{sample.name}: its labels have the numbers {numbers}, and there are {self._allowed} classes",
                f"Labels hold class indices 0..{self._allowed - 1}, or 255 where it is to be ignored; "
                "say what others mean in a --mapping FILE.",
            )
        super().add(sample, first, second)


class Agreement(Comparison):
    """Two networks, the first one's classes as rows; pixels that both call no class are equal. Raises UsageError."""

    def __init__(self, sides: tuple[str, str], first: ClassTable, second: ClassTable) -> None:
        super().__init__(sides, *common_table(first, second, "--against"))
