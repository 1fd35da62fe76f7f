"""Counting picture by picture, and the one that is kept."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from segcam.classes import ClassTable, generic_table
from segcam.errors import SourceError
from segcam.evaluation.compare import AgainstLabels, Agreement
from segcam.evaluation.datasets import Sample
from segcam.frame import Frame

TABLE = ClassTable(("road", "void", "car"), ((1, 1, 1), (0, 0, 0), (2, 2, 2)), frozenset({1}))


def sample(name: str, shade: int = 0, size: int = 4) -> Sample:
    picture = np.full((1, size, 3), shade, np.uint8)
    return Sample(name, Frame(0, 0, Fraction(1), 0.0, "t", size, 1, "bgr24", (picture,)), None)


def row(*ids: int) -> NDArray[np.uint8]:
    return np.array([ids], np.uint8)


def test_labels_of_the_networks_own_classes() -> None:
    """Ids of the network: 1 is its void, which labels may use for what isn't to be counted."""
    comparison = AgainstLabels("net", TABLE, None, {})
    comparison.add(sample("x"), row(0, 0, 1, 255, 2), row(0, 1, 0, 0, 2))
    scores = comparison.result.scores
    assert scores.classes == ("road", "car")
    assert scores.matrix.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert comparison.result.sides == ("labels", "net")
    with pytest.raises(SourceError, match="y: its labels have the numbers 3, 254, and there are 3 classes"):
        comparison.add(sample("y"), row(3, 254, 255), row(0, 0, 0))


def test_labels_of_a_table() -> None:
    labels = ClassTable(("car", "road"), ((0, 0, 0), (9, 9, 9)))
    comparison = AgainstLabels("net", TABLE, labels, {})
    comparison.add(sample("x"), row(0, 1, 255, 1), row(2, 0, 0, 1))
    assert comparison.result.scores.matrix.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    with pytest.raises(SourceError, match="numbers 2, and there are 2 classes"):
        comparison.add(sample("y"), row(2), row(0))


def test_the_worst_picture_is_kept_with_its_maps() -> None:
    comparison = Agreement(("a", "b"), TABLE, TABLE)
    comparison.add(sample("good", 1), row(0, 0, 2, 2), row(0, 0, 2, 2))
    comparison.add(sample("bad", 2), row(0, 0, 1, 2), row(2, 0, 1, 255))
    comparison.add(sample("fair", 3), row(0, 0, 2, 2), row(2, 0, 2, 2))
    worst = comparison.worst
    assert worst is not None
    assert (worst.name, worst.share) == ("bad", 0.5)
    assert (worst.picture == 2).all()
    assert worst.first.tolist() == [[0, 0, 2, 1]], "in the common table void is the number after the last"
    assert worst.second.tolist() == [[1, 0, 2, 2]]
    assert worst.counted.all(), "between networks every pixel counts"
    assert [(odd.name, odd.index, odd.share) for odd in comparison.result.worst] == [
        ("bad", 1, 0.5), ("fair", 2, 0.75), ("good", 0, 1.0)
    ]  # fmt: skip


def test_a_picture_that_is_all_ignored_is_not_the_worst() -> None:
    comparison = AgainstLabels("net", generic_table(2), None, {})
    comparison.add(sample("nothing"), row(255, 255), row(0, 1))
    assert comparison.worst is None
    assert comparison.result.worst == ()
    comparison.add(sample("something"), row(255, 1), row(0, 1))
    assert comparison.worst is not None
    assert comparison.worst.counted.tolist() == [[False, True]]


def test_what_is_kept_does_not_change_with_the_arrays_it_came_from() -> None:
    comparison = Agreement(("a", "b"), TABLE, TABLE)
    one, first, second = sample("x", 7), row(0, 0, 0, 0), row(0, 0, 2, 2)
    comparison.add(one, first, second)
    one.frame.planes[0][:] = 0
    first[:], second[:] = 2, 0
    worst = comparison.worst
    assert worst is not None
    assert (worst.picture == 7).all()
    assert worst.first.tolist() == [[0] * 4]
    assert worst.second.tolist() == [[0, 0, 1, 1]]
