"""Where a pixel of one grid lies on another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcam.geometry import AxisMap, Upsample, even, fit, nearest, resize_axis, taps

SIZE = st.integers(1, 300)
MODE = st.sampled_from(["half_pixel", "align_corners", "asymmetric"])
AXIS = st.builds(AxisMap, st.floats(0.01, 50), st.floats(-500, 500))


@given(AXIS, AXIS, st.floats(-1000, 1000))
def test_maps_compose_and_invert(first: AxisMap, second: AxisMap, at: float) -> None:
    both = first.then(second)
    assert both.scale * at + both.offset == pytest.approx(
        second.scale * (first.scale * at + first.offset) + second.offset, abs=1e-6
    )
    there_and_back = first.then(first.inverse())
    assert there_and_back.scale * at + there_and_back.offset == pytest.approx(at, abs=1e-6)


@given(SIZE, SIZE)
def test_resizing_maps_edges_to_edges(size_out: int, size_in: int) -> None:
    half = resize_axis(size_out, size_in)
    assert half.scale * -0.5 + half.offset == pytest.approx(-0.5)
    assert half.scale * (size_out - 0.5) + half.offset == pytest.approx(size_in - 0.5)
    corners = resize_axis(size_out, size_in, "align_corners")
    assert corners.offset == 0
    if size_out > 1:
        assert corners.scale * (size_out - 1) == pytest.approx(size_in - 1)
    assert resize_axis(size_out, size_in, "asymmetric") == AxisMap(size_in / size_out, 0.0)


@given(SIZE)
def test_a_resize_to_the_same_size_is_no_resize(size: int) -> None:
    axis = resize_axis(size, size)
    assert axis.is_identity
    assert taps(size, size, axis).is_identity


@given(SIZE, SIZE, AXIS)
def test_taps_are_convex_and_inside(count: int, size: int, axis: AxisMap) -> None:
    found = taps(count, size, axis)
    assert found.first.dtype == found.second.dtype == np.int32
    assert found.weight_first.dtype == found.weight_second.dtype == np.float32
    assert (found.first >= 0).all()
    assert (np.diff(found.first) >= 0).all()
    np.testing.assert_array_equal(found.second, np.minimum(found.first + 1, size - 1))
    assert (found.weight_first > 0).all()
    assert (found.weight_second >= 0).all()
    np.testing.assert_allclose(found.weight_first + found.weight_second, 1, atol=1e-7)
    assert not found.weight_second[found.second == found.first].any()
    at = np.clip(axis.scale * np.arange(count) + axis.offset, 0, size - 1)
    np.testing.assert_allclose(found.first + found.weight_second, at, atol=1e-4)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), MODE)
def test_a_grid_met_through_another_is_met_exactly(size: int, other: int, third: int, mode: Upsample) -> None:
    """Rounding on the way (1e-16) must not turn a point into a blend of two: not from below either."""
    axis = resize_axis(size, other).then(resize_axis(third, other).inverse()).then(resize_axis(third, size))
    assert taps(size, size, axis).is_identity


@given(SIZE, SIZE, AXIS)
def test_nearest(count: int, size: int, axis: AxisMap) -> None:
    found = nearest(count, size, axis)
    at = np.clip(axis.scale * np.arange(count) + axis.offset, 0, size - 1)
    assert found.dtype == np.int32
    assert (np.abs(found - at) <= 0.5 + 1e-9).all()


def test_nearest_goes_up_at_a_half() -> None:
    assert nearest(4, 3, AxisMap(0.5, 0.0)).tolist() == [0, 1, 1, 2]


@given(SIZE, SIZE, SIZE, SIZE)
def test_letterbox_shows_the_whole_picture(height: int, width: int, to_h: int, to_w: int) -> None:
    placed = fit((height, width), (to_h, to_w), "letterbox")
    assert 0 <= placed.top < placed.bottom <= to_h
    assert 0 <= placed.left < placed.right <= to_w
    assert placed.bottom - placed.top == to_h or placed.right - placed.left == to_w
    for axis, begin, end, size in (
        (placed.y, placed.top, placed.bottom, height),
        (placed.x, placed.left, placed.right, width),
    ):
        assert axis.scale * (begin - 0.5) + axis.offset == pytest.approx(-0.5, abs=1e-6)
        assert axis.scale * (end - 0.5) + axis.offset == pytest.approx(size - 0.5, abs=1e-6)


def test_stretch_fills_the_input() -> None:
    placed = fit((100, 300), (64, 64))
    assert (placed.top, placed.bottom, placed.left, placed.right) == (0, 64, 0, 64)
    assert placed.x.scale == 300 / 64


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 2), (2, 2), (481, 482)])
def test_even(n: int, expected: int) -> None:
    assert even(n) == expected
