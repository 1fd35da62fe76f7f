"""The contact sheet."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segcam.classes import CITYSCAPES
from segcam.demo.score import Shown
from segcam.demo.sheet import contact_sheet, spread_out


def shown(number: int, label: int) -> Shown:
    picture = np.full((100, 200, 3), 10 + number, np.uint8)
    return Shown(number, number / 20, picture, picture + 100, np.full((100, 200), label, np.uint8), 0.5)


def test_a_row_for_each_frame_and_the_names_below() -> None:
    sheet = contact_sheet([shown(3, 0), shown(7, 10)], CITYSCAPES)
    # Panels have a caption of 26 rows and an edge of 2 columns.
    assert sheet.shape[1] == 3 * 202 and sheet.shape[0] >= 2 * 126 + 26
    for row, (value, label) in enumerate(((13, 0), (17, 10))):
        middle = row * 126 + 26 + 50
        assert (sheet[middle, 100] == value).all() and (sheet[middle, 302] == value + 100).all()
        assert tuple(sheet[middle, 504][::-1]) == CITYSCAPES.colors[label]
    strip = sheet[252:].reshape(-1, 3)[:, ::-1]
    for label in (0, 10):
        assert (strip == CITYSCAPES.colors[label]).all(1).any()
    assert not (strip == CITYSCAPES.colors[13]).all(1).any()


@given(st.integers(0, 500), st.integers(1, 9))
def test_rows_lie_evenly(frames: int, rows: int) -> None:
    numbers = spread_out(frames, rows)
    assert len(numbers) == min(frames, rows)
    assert numbers == sorted(set(numbers)) and all(0 <= number < frames for number in numbers)
    if len(numbers) > 1:
        assert (numbers[0], numbers[-1]) == (0, frames - 1)
        gaps = np.diff(numbers)
        assert gaps.max() - gaps.min() <= 1
