"""A picture that needs no file, camera or network: colour bars, motion, the frame's number and the time of day."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction

import numpy as np

from segcam.errors import SourceError
from segcam.frame import LUMA_WEIGHTS, Frame, Plane
from segcam.sources.base import SourceInfo, SourceOptions
from segcam.sources.select import announced_frames, check_options, given_rate, refuse_looping, refuse_seeking
from segcam.sources.settings import parse_rate, parse_settings, parse_size, parse_whole

_SETTINGS = ("size", "rate", "frames", "live")

# 5 x 7 dots, one string of rows for each character.
_FONT: dict[str, tuple[str, ...]] = {
    "0": ("01110", "10001", "10011", "10101", "11001", "10001", "01110"),
    "1": ("00100", "01100", "00100", "00100", "00100", "00100", "01110"),
    "2": ("01110", "10001", "00001", "00110", "01000", "10000", "11111"),
    "3": ("11111", "00010", "00100", "00010", "00001", "10001", "01110"),
    "4": ("00010", "00110", "01010", "10010", "11111", "00010", "00010"),
    "5": ("11111", "10000", "11110", "00001", "00001", "10001", "01110"),
    "6": ("00110", "01000", "10000", "11110", "10001", "10001", "01110"),
    "7": ("11111", "00001", "00010", "00100", "01000", "01000", "01000"),
    "8": ("01110", "10001", "10001", "01110", "10001", "10001", "01110"),
    "9": ("01110", "10001", "10001", "01111", "00001", "00010", "01100"),
    ":": ("00000", "00100", "00100", "00000", "00100", "00100", "00000"),
    ".": ("00000", "00000", "00000", "00000", "00000", "00110", "00110"),
    "#": ("01010", "01010", "11111", "01010", "11111", "01010", "01010"),
}

_RED, _GREEN, _BLUE = (0.75, 0.0, 0.0), (0.0, 0.75, 0.0), (0.0, 0.0, 0.75)
_BARS = ((0.75,) * 3, (0.75, 0.75, 0.0), (0.0, 0.75, 0.75), _GREEN, (0.75, 0.0, 0.75), _RED, _BLUE)
_BLACK, _WHITE, _ORANGE = (0.0,) * 3, (1.0,) * 3, (1.0, 0.5, 0.0)


def yuv709(rgb: tuple[float, float, float]) -> tuple[int, int, int]:
    """(Y, U, V) of limited range BT.709 for red, green, blue in 0..1."""
    kr, kb = LUMA_WEIGHTS["bt709"]
    red, green, blue = rgb
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    return round(16 + 219 * luma), round(128 + 224 * cb), round(128 + 224 * cr)


class SyntheticSource:
    """``test:size=1280x720,rate=30,frames=100,live=1``, each part optional; those are the defaults but for ``frames``
    (endless) and ``live`` (0).

    I420, BT.709, limited range, fresh arrays for each frame. Seven bars of 75 % colour, a gray ramp, a bar and a ball
    that move by the frame's number, the number itself after "#", and the wall clock at which the frame was made: read
    off a screen beside a clock, that gives the delay of everything between. The same but for the clock on every run.
    With ``live=1`` frames come in real time, none is skipped, and --start and --loop are refused. Raises UsageError.
    """

    def __init__(
        self,
        spec: str,
        options: SourceOptions,
        wall_clock: Callable[[], datetime] = datetime.now,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_options(options)
        settings = parse_settings(spec.removeprefix("test:"), _SETTINGS, spec)
        self._width, self._height = parse_size(settings.get("size", "1280x720"), spec, 64, 8192)
        self._rate = parse_rate(settings.get("rate", "30"), "rate", spec)
        self._length = parse_whole(settings.get("frames", "0"), "frames", spec, 10**9)
        self._live = bool(parse_whole(settings.get("live", "0"), "live", spec, 1))
        if self._live:
            refuse_seeking(options, spec)
            refuse_looping(options, spec)
        self._spec = spec
        self._options = options
        self._wall_clock = wall_clock
        self._clock = clock
        self._stop = threading.Event()
        self._background: tuple[Plane, Plane, Plane] | None = None
        self._first = round(Fraction(options.start_s) * self._rate)
        self._given = 0
        self._began_s: float | None = None

    def open(self) -> SourceInfo:
        if self._length and self._first >= self._length:
            lasts_s = float(self._length / self._rate)
            raise SourceError(
                f"{self._spec}: --start {self._options.start_s:g} s is behind the end (it lasts {lasts_s:.2f} s)",
                f"Give --start between 0 and {lasts_s:.2f}.",
            )
        self._background = self._draw_background()
        left = self._length - self._first if self._length else None
        frames = announced_frames(left, self._options)
        return SourceInfo(
            description=f"{self._spec} (test pattern)",
            width=self._width,
            height=self._height,
            rate_hz=given_rate(self._rate, self._options),
            # Without an end of its own the pattern still stops at --frames.
            frames=frames if frames is not None else self._options.frames or None,
            live=self._live,
        )

    def read(self) -> Frame | None:
        if self._background is None or self._stop.is_set():
            return None
        number, pts = self._place(self._given)
        if number is None:
            return None
        if self._live and not self._wait(self._given * self._options.every / self._rate):
            return None
        asked_s = time.perf_counter()
        planes = self._draw(number, self._wall_clock())
        ready_s = time.perf_counter()
        frame = Frame(
            index=self._given,
            pts=pts,
            time_base=1 / self._rate,
            captured_at_s=ready_s,
            source_id=self._spec,
            width=self._width,
            height=self._height,
            format="i420",
            planes=planes,
            matrix="bt709",
            decode_ms=(ready_s - asked_s) * 1000,
        )
        self._given += 1
        return frame

    def interrupt(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._stop.set()
        self._background = None

    def _place(self, given: int) -> tuple[int | None, int]:
        """Number in the pattern and presentation time (in frames) of the ``given``-th frame; number None at the end."""
        options = self._options
        if options.frames and given >= options.frames:
            return None, 0
        if not self._length:
            number = self._first + given * options.every
            return number, number
        in_round = self._length - self._first
        played, place = divmod(given, -(-in_round // options.every))
        if options.loops and played >= options.loops:
            return None, 0
        number = self._first + place * options.every
        return number, number + played * in_round

    def _wait(self, due_s: Fraction) -> bool:
        if self._began_s is None:
            self._began_s = self._clock()
        return not self._stop.wait(max(0.0, self._began_s + float(due_s) - self._clock()))

    def _draw_background(self) -> tuple[Plane, Plane, Plane]:
        width, height = self._width, self._height
        planes = (
            np.full((height, width), 16, np.uint8),
            np.full((-(-height // 2), -(-width // 2)), 128, np.uint8),
            np.full((-(-height // 2), -(-width // 2)), 128, np.uint8),
        )
        edges = [round(width * n / len(_BARS)) for n in range(len(_BARS) + 1)]
        for color, left, right in zip(_BARS, edges, edges[1:], strict=False):
            _paint(planes, left, 0, right, height * 6 // 10, color)
        ramp = np.linspace(16, 235, width).round().astype(np.uint8)
        planes[0][height * 9 // 10 :] = ramp
        return planes

    def _draw(self, number: int, now: datetime) -> tuple[Plane, Plane, Plane]:
        assert self._background is not None
        luma, cb, cr = (plane.copy() for plane in self._background)
        planes = (luma, cb, cr)
        width, height = self._width, self._height
        thick = max(2, width // 64)
        # Two seconds for the bar from edge to edge, three for the ball there and back, whatever the rate.
        turn_s = float(number / self._rate)
        at = round(turn_s / 2 % 1 * (width - thick))
        _paint(planes, at, 0, at + thick, height * 6 // 10, _WHITE)
        radius = max(3, height // 20)
        there = abs(turn_s / 1.5 % 2 - 1)
        _ball(planes, round(radius + (1 - there) * (width - 1 - 2 * radius)), height * 3 // 10, radius, _ORANGE)
        clock = f"{now:%H:%M:%S}.{now.microsecond // 1000:03d}"
        dot = max(1, min(width // (len(clock) * 6 + 2), height * 3 // 10 // 18))
        top = height * 6 // 10 + dot
        _text(luma, f"#{number}", dot, top, dot)
        _text(luma, clock, dot, top + 9 * dot, dot)
        return planes


def _paint(
    planes: tuple[Plane, Plane, Plane], left: int, top: int, right: int, bottom: int, rgb: tuple[float, float, float]
) -> None:
    y, u, v = yuv709(rgb)
    planes[0][top:bottom, left:right] = y
    for plane, value in ((planes[1], u), (planes[2], v)):
        plane[top // 2 : -(-bottom // 2), left // 2 : -(-right // 2)] = value


def _ball(planes: tuple[Plane, Plane, Plane], x: int, y: int, radius: int, rgb: tuple[float, float, float]) -> None:
    for plane, value, span in zip(planes, yuv709(rgb), (1, 2, 2), strict=True):
        rows = np.arange(max(0, y - radius) // span, min(plane.shape[0], (y + radius) // span + 1))
        columns = np.arange(max(0, x - radius) // span, min(plane.shape[1], (x + radius) // span + 1))
        middle = (span - 1) / 2
        inside = (rows[:, None] * span + middle - y) ** 2 + (columns[None] * span + middle - x) ** 2 <= radius**2
        plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][inside] = value


def _text(luma: Plane, text: str, left: int, top: int, dot: int) -> None:
    """White digits straight into the luma of the black band; what does not fit is cut off at the edge."""
    dots = np.concatenate([np.array([[*map(int, row), 0] for row in _FONT[char]], np.uint8) for char in text], axis=1)
    glyphs = dots.repeat(dot, axis=0).repeat(dot, axis=1)
    area = luma[top : top + glyphs.shape[0], left : left + glyphs.shape[1]]
    area[glyphs[: area.shape[0], : area.shape[1]] == 1] = yuv709(_WHITE)[0]
