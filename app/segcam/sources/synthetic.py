"""A picture that needs no file, camera or network: colour bars, motion, the frame's number and the time of day."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import numpy as np

from segcam.frame import LUMA_WEIGHTS, Plane
from segcam.sources.base import SourceOptions
from segcam.sources.made import MadeSource, Planes
from segcam.sources.settings import FORMAT, parse_format, parse_settings

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


class SyntheticSource(MadeSource):
    """``test:size=1280x720,rate=30,frames=100,live=1``, each part optional; those are the defaults but for ``frames``
    (endless) and ``live`` (0).

    I420, BT.709, limited range, fresh arrays for each frame. Seven bars of 75 % colour, a gray ramp, a bar and a ball
    that move by the frame's number, the number itself after "#", and the wall clock at which the frame was made: read
    off a screen beside a clock, that gives the delay of everything between. The same but for the clock on every run.
    With ``live=1`` frames come in real time, none is skipped, and --start and --loop are refused. Raises UsageError.
    """

    about = "test pattern"

    def __init__(
        self,
        spec: str,
        options: SourceOptions,
        wall_clock: Callable[[], datetime] = datetime.now,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        settings = parse_settings(spec.removeprefix("test:"), FORMAT, spec)
        super().__init__(spec, options, parse_format(settings, spec, "1280x720", "30"), clock)
        self._width, self._height, self._rate = self._format.width, self._format.height, self._format.rate
        self._wall_clock = wall_clock
        self._background: Planes | None = None

    def _prepare(self) -> None:
        self._background = self._draw_background()

    def _draw_background(self) -> Planes:
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

    def _draw(self, number: int) -> Planes:
        assert self._background is not None
        now = self._wall_clock()
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


def _paint(planes: Planes, left: int, top: int, right: int, bottom: int, rgb: tuple[float, float, float]) -> None:
    y, u, v = yuv709(rgb)
    planes[0][top:bottom, left:right] = y
    for plane, value in ((planes[1], u), (planes[2], v)):
        plane[top // 2 : -(-bottom // 2), left // 2 : -(-right // 2)] = value


def _ball(planes: Planes, x: int, y: int, radius: int, rgb: tuple[float, float, float]) -> None:
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
