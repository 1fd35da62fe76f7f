"""The legend: in the right place, in the right colours, in every format."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from segcam.classes import CITYSCAPES, VOC, ClassTable, generic_table
from segcam.frame import LUMA_WEIGHTS, Frame
from segcam.legend import Legend

GREY = 90


def grey_frame(width, height, format="i420", matrix="bt709", full_range=False, index=0):
    half_w, half_h = (width + 1) // 2, (height + 1) // 2
    luma = np.full((height, width + 5), GREY, np.uint8)[:, :width]
    planes = {
        "i420": (luma, np.full((half_h, half_w), 128, np.uint8), np.full((half_h, half_w), 128, np.uint8)),
        "nv12": (luma, np.full((half_h, half_w, 2), 128, np.uint8)),
        "bgr24": (np.full((height, width, 3), GREY, np.uint8),),
    }[format]
    return Frame(
        index, 0, Fraction(1, 25), 0.0, "x", width, height, format, planes, matrix=matrix, full_range=full_range
    )


def all_of(table):
    return np.ones(len(table), np.bool_)


def code_values(rgb, matrix, full_range):
    kr, kb = LUMA_WEIGHTS[matrix]
    red, green, blue = (value / 255 for value in rgb)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    black, y_span, c_span = (0, 255, 255) if full_range else (16, 219, 224)
    levels = (
        black + y_span * y,
        128 + c_span * (blue - y) / (2 * (1 - kb)),
        128 + c_span * (red - y) / (2 * (1 - kr)),
    )
    return tuple(min(255, round(level)) for level in levels)


def painted_area(frame, background=GREY):
    changed = frame.planes[0] != background
    changed = changed.any(2) if changed.ndim == 3 else changed
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("format", ["i420", "nv12"])
def test_swatches_have_the_classes_colors(format, matrix, full_range):
    frame = grey_frame(1024, 768, format, matrix, full_range)
    Legend(CITYSCAPES, all_of(CITYSCAPES)).paint(frame)
    y = frame.planes[0]
    u, v = (frame.planes[1], frame.planes[2]) if format == "i420" else np.moveaxis(frame.planes[1], 2, 0)
    for rgb in CITYSCAPES.colors:
        wanted = code_values(rgb, matrix, full_range)
        hits = (y[::2, ::2] == wanted[0]) & (u == wanted[1]) & (v == wanted[2])
        assert hits.sum() >= 20, rgb


def test_bgr_has_blue_first():
    table = ClassTable(("red", "blue"), ((255, 0, 0), (0, 0, 255)))
    frame = grey_frame(640, 480, "bgr24")
    Legend(table, all_of(table)).paint(frame)
    for bgr in ((0, 0, 255), (255, 0, 0)):
        assert (frame.planes[0] == bgr).all(2).sum() > 30


@pytest.mark.parametrize("format", ["i420", "nv12", "bgr24"])
@pytest.mark.parametrize("size", [(2048, 1024), (480, 360), (361, 203), (65, 64), (200, 1000), (1000, 100)])
@pytest.mark.parametrize("table", [CITYSCAPES, VOC, generic_table(255)], ids=["19", "21", "255"])
def test_the_panel_lies_inside_at_the_top_right(format, size, table):
    frame = grey_frame(*size, format)
    Legend(table, all_of(table)).paint(frame)
    top, bottom, left, right = painted_area(frame)
    assert right >= size[0] - size[1] // 20 - 4
    assert top <= size[1] // 40 + 2 and bottom < size[1]
    if size[0] > 400:
        assert left >= size[0] * 0.3
    assert (frame.planes[0][: size[1] // 2, 0] == GREY).all() or size[0] < 300


def test_only_visible_classes_are_named():
    few, many = grey_frame(1024, 768), grey_frame(1024, 768)
    Legend(CITYSCAPES, CITYSCAPES.visible("car,road")).paint(few)
    Legend(CITYSCAPES, CITYSCAPES.visible("-sky")).paint(many)
    assert painted_area(few)[1] < painted_area(many)[1] / 4
    sky = code_values(CITYSCAPES.colors[10], "bt709", False)
    hits = (many.planes[0][::2, ::2] == sky[0]) & (many.planes[1] == sky[1]) & (many.planes[2] == sky[2])
    assert hits.sum() < 5


def test_ground_lets_the_picture_shine_through():
    dark, bright = grey_frame(1024, 768), grey_frame(1024, 768)
    bright.planes[0][...] = 230
    legend = Legend(CITYSCAPES, all_of(CITYSCAPES))
    legend.paint(dark)
    legend.paint(bright)
    top, _, left, _ = painted_area(dark)
    difference = int(bright.planes[0][top, left]) - int(dark.planes[0][top, left])
    assert difference == pytest.approx(0.3 * (230 - GREY), abs=2)


def test_text_can_be_read():
    for size in ((2048, 1024), (480, 360)):
        frame = grey_frame(*size)
        Legend(CITYSCAPES, all_of(CITYSCAPES)).paint(frame)
        top, bottom, left, right = painted_area(frame)
        panel = frame.planes[0][top:bottom, left:right]
        assert (panel > 150).mean() > 0.02  # letters
        assert np.median(panel) < 70  # on dark


@pytest.mark.parametrize("size", [(63, 400), (400, 63), (1, 1)])
def test_small_frames_are_left_alone(size):
    frame = grey_frame(*size)
    Legend(CITYSCAPES, all_of(CITYSCAPES)).paint(frame)
    assert (frame.planes[0] == GREY).all()


def test_nothing_visible_paints_nothing():
    frame = grey_frame(640, 480)
    Legend(CITYSCAPES, np.zeros(19, np.bool_)).paint(frame)
    assert (frame.planes[0] == GREY).all()


def test_a_change_of_size_or_colors_on_the_way():
    legend = Legend(CITYSCAPES, all_of(CITYSCAPES))
    for width, height, format, full in ((640, 480, "i420", False), (320, 240, "nv12", False), (320, 240, "nv12", True)):
        painted, fresh = (grey_frame(width, height, format, full_range=full) for _ in range(2))
        legend.paint(painted)
        Legend(CITYSCAPES, all_of(CITYSCAPES)).paint(fresh)
        for a, b in zip(painted.planes, fresh.planes, strict=True):
            np.testing.assert_array_equal(a, b)


def test_nv12_and_i420_agree():
    i420, nv12 = grey_frame(641, 481), grey_frame(641, 481, "nv12")
    for frame in (i420, nv12):
        Legend(VOC, all_of(VOC)).paint(frame)
    np.testing.assert_array_equal(i420.planes[0], nv12.planes[0])
    np.testing.assert_array_equal(np.stack(i420.planes[1:], 2), nv12.planes[1])
