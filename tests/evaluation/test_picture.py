"""What the two pictures show, read back from their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from segcam.classes import CITYSCAPES, ClassTable, generic_table
from segcam.errors import SinkError
from segcam.evaluation.compare import Worst
from segcam.evaluation.picture import confusion_picture, worst_picture, write_png
from segcam.evaluation.scores import Scores

TABLE = ClassTable(("road", "car"), ((128, 64, 128), (0, 0, 142)))


def scores(matrix: list[list[int]], names: tuple[str, ...] = ("road", "car")) -> Scores:
    return Scores(names, np.array(matrix, np.int64))


def cells(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns, 3): the colour at each cell's upper left corner; cells are 44 pixels."""
    wide = 44 * columns
    # The first cell begins where the first non-white pixel of the last row of cells is.
    bottom = picture.shape[0] - 16 - 44 * rows
    left = next(x for x in range(picture.shape[1] - wide) if (picture[bottom + 1, x] != 255).any())
    return picture[bottom + 1 :: 44, left + 1 :: 44][:rows, :columns]


def test_confusion_cells_are_as_dark_as_their_share() -> None:
    picture = confusion_picture(scores([[90, 10, 0], [50, 0, 50], [0, 0, 0]]), ("labels", "net"))
    found = cells(picture, 2, 3).astype(int)
    darkness = 255 * 3 - found.sum(2)
    assert darkness[0, 0] > darkness[0, 1] > darkness[0, 2] == 0
    assert darkness[1, 0] == darkness[1, 2] > 0
    assert darkness[1, 1] == 0
    assert found[0, 0, 1] > found[0, 0, 2], "right is green to blue"
    assert found[1, 0, 2] > found[1, 0, 1], "wrong is red"


def test_a_row_without_pixels_is_empty() -> None:
    picture = confusion_picture(scores([[4, 0, 0], [0, 0, 0], [0, 0, 0]]), ("labels", "net"))
    assert (cells(picture, 2, 3)[1] == 245).all()


def test_no_class_is_a_row_only_between_two_networks() -> None:
    low = confusion_picture(scores([[4, 0, 0], [0, 4, 0], [0, 0, 0]]), ("labels", "net"))
    high = confusion_picture(scores([[4, 0, 0], [0, 4, 0], [1, 0, 3]]), ("a", "b"))
    assert high.shape[0] == low.shape[0] + 44


@pytest.mark.parametrize("count", [1, 19, 40, 150, 254])
def test_any_number_of_classes(count: int) -> None:
    random = np.random.default_rng(count)
    matrix = random.integers(0, 1000, (count + 1, count + 1))
    picture = confusion_picture(Scores(generic_table(count).names, matrix), ("labels", "net"))
    assert picture.dtype == np.uint8
    assert max(picture.shape) < 3000
    assert (picture < 200).any()


def test_worst_picture_panels() -> None:
    first, second = np.zeros((20, 40), np.uint8), np.zeros((20, 40), np.uint8)
    second[:, 20:] = 1
    first[:10] = 2
    counted = first < 2
    photo = np.full((20, 40, 3), (10, 20, 30), np.uint8)
    picture = worst_picture(Worst("a.png", 0.5, photo, first, second, counted), TABLE, ("labels", "net"))
    road, car = ([c[2], c[1], c[0]] for c in TABLE.colors)
    top, low = slice(26, 46), slice(26 + 46, 46 + 46)
    assert (picture[top, :40] == (10, 20, 30)).all()
    assert (picture[top, 42:82][:10] == 0).all(), "ignored is black"
    assert (picture[top, 42:82][10:] == road).all()
    assert (picture[low, :40][:, :20] == road).all()
    assert (picture[low, :40][:, 20:] == car).all()
    difference = picture[low, 42:82]
    assert (difference[10:, 20:] == car).all(), "where they differ, the second side's colour"
    grey = difference[10:, :20]
    assert (grey == grey[0, 0, 0]).all(), "where they agree, the picture in grey"
    assert (difference[:10] == grey[0, 0]).all(), "ignored pixels don't differ"


@pytest.mark.parametrize("hw", [(1, 1), (3, 7), (1500, 3000), (2000, 300)])
def test_worst_picture_of_any_size(hw: tuple[int, int]) -> None:
    maps = np.random.default_rng(1).integers(0, 20, (2, *hw), np.uint8)
    photo = np.zeros((hw[0] * 2, hw[1] * 2, 3), np.uint8)
    worst = Worst("x" * 300, 0.1, photo, maps[0], maps[1], np.ones(hw, bool))
    assert worst_picture(worst, CITYSCAPES, ("a", "b")).shape[1] <= 2 * 962


def test_png_is_written_whole(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (5, 6, 3), np.uint8)
    write_png(tmp_path / "x.png", picture)
    assert np.array_equal(cv2.imread(str(tmp_path / "x.png")), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    with pytest.raises(SinkError, match=r"x\.png failed"):
        write_png(tmp_path / "none" / "x.png", picture)
