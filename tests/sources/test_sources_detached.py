"""The thread around sources whose waits cannot be broken off."""

from __future__ import annotations

import threading
from fractions import Fraction

import numpy as np
import pytest

from segcam.errors import SourceError
from segcam.frame import Frame
from segcam.sources.base import Source, SourceInfo
from segcam.sources.detached import DetachedSource


class Scripted:
    """Gives ``frames`` frames, then hangs, fails or ends; hangs only until ``release``."""

    def __init__(self, frames: int = 3, end: str = "end", hang_open: bool = False) -> None:
        self.frames, self.end, self.hang_open = frames, end, hang_open
        self.given = 0
        self.release = threading.Event()
        self.closed = threading.Event()

    def open(self) -> SourceInfo:
        if self.hang_open:
            self.release.wait(30)
        return SourceInfo("scripted", 2, 2, None, None, True)

    def read(self) -> Frame | None:
        if self.given < self.frames:
            self.given += 1
            plane = np.zeros((2, 2, 3), np.uint8)
            return Frame(self.given - 1, 0, Fraction(1), 0.0, "s", 2, 2, "bgr24", (plane,))
        if self.end == "hang":
            self.release.wait(30)
        if self.end == "fail":
            raise SourceError("lost the camera")
        return None

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        self.closed.set()


def test_frames_pass_in_order_and_the_end_stays():
    inner = Scripted(50)
    source: Source = DetachedSource(inner)
    assert source.open().description == "scripted"
    assert [source.read().index for _ in range(50)] == list(range(50))
    assert source.read() is None and source.read() is None
    source.close()
    source.close()
    assert inner.closed.is_set()


def test_errors_reach_the_reader_after_the_frames_before_them():
    source = DetachedSource(Scripted(2, "fail"))
    source.open()
    assert source.read() is not None and source.read() is not None
    with pytest.raises(SourceError, match="lost the camera"):
        source.read()
    assert source.read() is None
    source.close()


def test_interrupt_frees_a_reader_whose_source_hangs():
    inner = Scripted(1, "hang")
    source = DetachedSource(inner)
    source.open()
    assert source.read() is not None
    threading.Timer(0.2, source.interrupt).start()
    assert source.read() is None
    assert not inner.closed.is_set()
    inner.release.set()
    assert inner.closed.wait(10)


def test_interrupt_frees_a_hanging_open():
    inner = Scripted(hang_open=True)
    source = DetachedSource(inner)
    threading.Timer(0.2, source.interrupt).start()
    with pytest.raises(SourceError, match="stopped before"):
        source.open()
    inner.release.set()
    assert inner.closed.wait(10)


def test_closing_before_opening_is_fine():
    DetachedSource(Scripted()).close()


def test_a_full_slot_does_not_keep_the_thread(monkeypatch):
    inner = Scripted(50)
    source = DetachedSource(inner)
    source.open()
    source.close()
    assert inner.closed.wait(10) and inner.given < 50
