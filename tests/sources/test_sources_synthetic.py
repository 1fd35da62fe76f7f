"""The test pattern."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction

import numpy as np
import pytest

from segcam.errors import SourceError, UsageError
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source
from segcam.sources.synthetic import _FONT, SyntheticSource, yuv709

NOON = datetime(2024, 5, 6, 12, 34, 56, 789_500)


def pattern(spec: str, options: SourceOptions = SourceOptions()) -> SyntheticSource:  # noqa: B008
    return SyntheticSource(spec, options, wall_clock=lambda: NOON)


def test_defaults():
    source = make_source("test:", SourceOptions(frames=2))
    info = source.open()
    assert (info.width, info.height, info.rate_hz, info.frames, info.live) == (1280, 720, 30, 2, False)
    frame = source.read()
    assert (frame.format, frame.matrix, frame.full_range) == ("i420", "bt709", False)
    assert [plane.shape for plane in frame.planes] == [(720, 1280), (360, 640), (360, 640)]
    assert source.read() is not None and source.read() is None
    assert make_source("test").open().frames is None


def test_settings(read_all):
    source = make_source("test:size=101x67,rate=30000/1001,frames=4")
    info = source.open()
    assert (info.width, info.height, info.rate_hz, info.frames) == (101, 67, Fraction(30000, 1001), 4)
    source.close()
    got = read_all(make_source("test:size=101x67,rate=30000/1001,frames=4"))
    assert [frame.pts for frame in got] == [0, 1, 2, 3] and got[3].time_s == pytest.approx(3 * 1001 / 30000)
    assert got[0].planes[1].shape == (34, 51)


def test_same_on_every_run_but_for_the_clock(read_all):
    first, second = (read_all(pattern("test:size=160x120,frames=3")) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a.planes, b.planes, strict=True))
    later = SyntheticSource("test:size=160x120", SourceOptions(), wall_clock=lambda: NOON.replace(hour=13))
    later.open()
    frame = later.read()
    assert np.array_equal(frame.planes[0][:72], first[0].planes[0][:72])
    assert not np.array_equal(frame.planes[0], first[0].planes[0])


def test_frames_move_and_do_not_share_memory(read_all):
    a, b = read_all(pattern("test:size=320x240,frames=2"))
    assert not np.array_equal(a.planes[0][:144], b.planes[0][:144])
    assert not any(np.shares_memory(x, y) for x, y in zip(a.planes, b.planes, strict=True))


def text_in(luma: np.ndarray, left: int, top: int, dot: int, length: int) -> str:
    """Reads the drawn characters back, dot by dot."""
    known = {"".join(rows): char for char, rows in _FONT.items()}
    text = ""
    for place in range(length):
        x = left + place * 6 * dot
        dots = luma[top + dot // 2 : top + 7 * dot : dot, x + dot // 2 : x + 5 * dot : dot] > 128
        text += known.get("".join("1" if lit else "0" for lit in dots.ravel()), "?")
    return text


@pytest.mark.parametrize("size", ["1280x720", "640x360", "200x160"])
def test_number_and_clock_can_be_read_off(read_all, size):
    frame = read_all(pattern(f"test:size={size},frames=1300", SourceOptions(every=1234)))[1]
    width, height = frame.width, frame.height
    dot = max(1, min(width // 74, height * 3 // 10 // 18))
    top = height * 6 // 10 + dot
    assert text_in(frame.planes[0], dot, top, dot, 5) == "#1234"
    assert text_in(frame.planes[0], dot, top + 9 * dot, dot, 12) == "12:34:56.789"


def test_bars_are_bt709_limited(read_all):
    (frame,) = read_all(pattern("test:size=1400x720,frames=1"))
    for place, rgb in enumerate([(0.75,) * 3, (0.75, 0.75, 0), (0, 0.75, 0.75), (0, 0.75, 0), (0.75, 0, 0.75)]):
        x = place * 200 + 100
        got = (frame.planes[0][40, x], frame.planes[1][20, x // 2], frame.planes[2][20, x // 2])
        assert got == yuv709(rgb)
    # ITU-R BT.709: 75 % green and red, worked out by hand.
    assert yuv709((0, 0.75, 0)) == (133, 63, 52) and yuv709((0.75, 0, 0)) == (51, 109, 212)
    assert yuv709((1, 1, 1)) == (235, 128, 128) and yuv709((0, 0, 0)) == (16, 128, 128)


def test_start_every_and_loop(read_all):
    options = SourceOptions(start_s=0.1, every=2, loops=2)
    source = pattern("test:size=64x64,rate=10,frames=6", options)
    assert source.open().frames == 6
    got = read_all(pattern("test:size=64x64,rate=10,frames=6", options))
    assert [frame.pts for frame in got] == [1, 3, 5, 6, 8, 10] and [f.index for f in got] == list(range(6))
    with pytest.raises(SourceError, match="behind the end"):
        pattern("test:rate=10,frames=6", SourceOptions(start_s=0.6)).open()


def test_live_keeps_the_pace():
    now = [100.0]
    source = SyntheticSource("test:size=64x64,rate=10,live=1", SourceOptions(), clock=lambda: now[0])
    waited: list[float] = []
    source._stop.wait = lambda seconds: waited.append(seconds) or False  # type: ignore[assignment,method-assign]
    assert source.open().live
    for pause in (0.0, 0.02, 0.5):
        now[0] += pause
        assert source.read() is not None
    assert waited == pytest.approx([0.0, 0.08, 0.0])


def test_live_wait_ends_on_interrupt():
    source = make_source("test:size=64x64,rate=1/900,live=1")
    source.open()
    assert source.read() is not None
    source.interrupt()
    assert source.read() is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("test:sise=3x3", "Did you mean 'size'"),
        ("test:size=3", "WIDTHxHEIGHT"),
        ("test:size=8x8", "outside"),
        ("test:rate=0", "rate"),
        ("test:rate=x", "rate"),
        ("test:frames=-1", "whole number"),
        ("test:live=2", "whole number"),
        ("test:size", "no value"),
        ("test:rate=1,rate=2", "twice"),
    ],
)
def test_wrong_settings(spec, says):
    with pytest.raises(UsageError, match=says):
        make_source(spec)


def test_live_refuses_start_and_loop():
    for options in (SourceOptions(start_s=1), SourceOptions(loops=2)):
        with pytest.raises(UsageError):
            make_source("test:live=1", options)
