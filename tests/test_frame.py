"""The words that every stage shares, and the controls that change while a run goes on."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from threading import Thread

import numpy as np
import pytest

from segcam.classes import CITYSCAPES
from segcam.controls import Controls
from segcam.frame import DevicePlanes, Frame, Segmentation, default_matrix


def _frame(height: int = 5, width: int = 7) -> Frame:
    half = (height + 1) // 2, (width + 1) // 2
    planes = (np.full((height, width), 81, np.uint8), np.full(half, 90, np.uint8), np.full(half, 240, np.uint8))
    return Frame(3, 12, Fraction(1, 24), 1.5, "a", width, height, "i420", planes, "bt601", owner=object())


@pytest.mark.parametrize(("height", "matrix"), [(1, "bt601"), (576, "bt601"), (577, "bt709"), (1080, "bt709")])
def test_the_matrix_of_a_stream_that_declares_none(height: int, matrix: str) -> None:
    assert default_matrix(height) == matrix


def test_a_frame_is_frozen_and_knows_its_time() -> None:
    frame = _frame()
    assert frame.time_s == 0.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.index = 4  # type: ignore[misc]


def test_a_frame_around_other_planes() -> None:
    frame = _frame()
    planes = tuple(plane.copy() for plane in frame.planes)
    other = frame.with_planes(planes)
    assert other.planes is planes
    assert other.owner is None
    assert (other.index, other.pts, other.matrix, other.format) == (3, 12, "bt601", "i420")


def test_red_is_red() -> None:
    bgr = _frame().bgr()
    assert bgr.shape == (5, 7, 3)
    assert bgr.dtype == np.uint8
    assert np.abs(bgr.astype(int) - (0, 0, 255)).max() <= 2
    same = Frame(0, 0, Fraction(1), 0.0, "a", 7, 5, "bgr24", (bgr,))
    assert same.bgr() is bgr


def test_a_frame_on_a_gpu_comes_down_where_it_is_asked_for() -> None:
    host = _frame().planes
    device = DevicePlanes("nv12", (512, 1024), (256, 256), 0, lambda: ("i420", host))
    frame = dataclasses.replace(_frame(), format="nv12", planes=(), device=device)
    down = frame.to_host()
    assert (down.format, down.device, down.owner, down.index) == ("i420", None, None, 3)
    assert down.planes is host and down.to_host() is down
    assert np.array_equal(frame.bgr(), _frame().bgr())
    assert frame.with_planes(host).device is None


def test_shares() -> None:
    labels = np.zeros((5, 7), np.uint8)
    counts = np.zeros(19, np.int64)
    counts[[0, 13]] = 28, 7
    found = Segmentation(_frame(), labels, None, counts, CITYSCAPES)
    assert found.shares[13] == pytest.approx(0.2)
    assert found.shares.sum() == pytest.approx(1)
    nothing = Segmentation(_frame(), labels, None, np.zeros(19, np.int64), CITYSCAPES)
    assert not nothing.shares.any()


def test_controls_count_changes_and_give_copies() -> None:
    visible = np.ones(3, np.bool_)
    controls = Controls(0.5, visible)
    visible[0] = False
    assert controls.visible.all()
    assert controls.version == 0
    controls.alpha = 7
    assert controls.alpha == 1.0
    controls.alpha = -1
    assert controls.alpha == 0.0
    assert controls.version == 2
    mask = np.array([True, False, True])
    controls.visible = mask
    mask[:] = False
    controls.visible[:] = False
    assert controls.visible.tolist() == [True, False, True]
    assert controls.version == 3


def test_no_change_is_lost_between_threads() -> None:
    controls = Controls(0.5, np.ones(3, np.bool_))

    def change() -> None:
        for _ in range(300):
            controls.alpha = 0.25
            controls.visible = np.zeros(3, np.bool_)

    threads = [Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controls.version == 4 * 600
