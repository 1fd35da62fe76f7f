"""Small painted things: signs, lamps, wheels, the sides of buses and trams."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from segcam.sources.street.dice import Dice

Picture = NDArray[np.uint8]
_RED, _BLUE, _WHITE, _BLACK, _YELLOW = (196, 24, 28), (22, 72, 160), (240, 240, 238), (24, 24, 24), (246, 196, 20)
#: Signs; ``sign0`` to ``sign{SIGNS - 1}``.
SIGNS = 9


def _clear(size: int = 128) -> Picture:
    return np.zeros((size, size, 4), np.uint8)


def _disc(out: Picture, color: tuple[int, int, int], radius: int) -> None:
    cv2.circle(out, (64, 64), radius, (*color, 255), -1, cv2.LINE_AA)


def _corners(count: int, radius: float, turn: float) -> NDArray[np.int32]:
    angles = [turn + 2 * math.pi * n / count for n in range(count)]
    return np.array([[64 + radius * math.cos(a), 64 + radius * math.sin(a)] for a in angles]).round().astype(np.int32)


def _shape(out: Picture, points: NDArray[np.int32], color: tuple[int, int, int]) -> None:
    cv2.fillPoly(out, [points], (*color, 255), cv2.LINE_AA)


def sign(kind: int) -> Picture:
    out = _clear()
    up = -math.pi / 2
    if kind == 0:  # speed limit
        _disc(out, _WHITE, 63)
        cv2.circle(out, (64, 64), 54, (*_RED, 255), 15, cv2.LINE_AA)
        cv2.putText(out, "30", (28, 82), cv2.FONT_HERSHEY_DUPLEX, 1.8, (*_BLACK, 255), 5, cv2.LINE_AA)
    elif kind == 1:  # no entry
        _disc(out, _RED, 63)
        cv2.rectangle(out, (22, 54), (106, 75), (*_WHITE, 255), -1)
    elif kind == 2:  # stop
        _shape(out, _corners(8, 66, math.pi / 8), _WHITE)
        _shape(out, _corners(8, 60, math.pi / 8), _RED)
        cv2.putText(out, "STOP", (18, 76), cv2.FONT_HERSHEY_DUPLEX, 1.2, (*_WHITE, 255), 4, cv2.LINE_AA)
    elif kind == 3:  # give way
        _shape(out, np.array([[2, 12], [126, 12], [64, 122]]), _RED)
        _shape(out, np.array([[25, 25], [103, 25], [64, 95]]), _WHITE)
    elif kind == 4:  # danger
        _shape(out, np.array([[64, 4], [126, 114], [2, 114]]), _RED)
        _shape(out, np.array([[64, 29], [104, 101], [24, 101]]), _WHITE)
        cv2.line(out, (64, 50), (64, 78), (*_BLACK, 255), 8)
        cv2.circle(out, (64, 92), 5, (*_BLACK, 255), -1)
    elif kind == 5:  # priority road
        _shape(out, _corners(4, 64, up), _WHITE)
        _shape(out, _corners(4, 48, up), _YELLOW)
    elif kind == 6:  # parking
        out[4:124, 4:124] = (*_BLUE, 255)
        cv2.putText(out, "P", (32, 100), cv2.FONT_HERSHEY_DUPLEX, 3.2, (*_WHITE, 255), 10, cv2.LINE_AA)
    elif kind == 7:  # crossing
        out[4:124, 4:124] = (*_BLUE, 255)
        _shape(out, np.array([[64, 18], [112, 106], [16, 106]]), _WHITE)
        cv2.circle(out, (64, 52), 7, (*_BLACK, 255), -1)
        cv2.line(out, (64, 58), (58, 80), (*_BLACK, 255), 7)
        cv2.line(out, (58, 80), (48, 98), (*_BLACK, 255), 6)
        cv2.line(out, (58, 80), (74, 98), (*_BLACK, 255), 6)
    else:  # this way
        _disc(out, _BLUE, 63)
        cv2.line(out, (64, 100), (64, 48), (*_WHITE, 255), 14)
        _shape(out, np.array([[64, 18], [92, 54], [36, 54]]), _WHITE)
    return out


def board() -> Picture:
    """A street's name, a direction: letters as bars."""
    out = _clear()
    out[:] = (*_WHITE, 255)
    throw = Dice(151)
    for y in (14, 46, 78):
        x = 10
        while x < 104:
            wide = throw.whole(6, 16)
            cv2.rectangle(out, (x, y), (x + wide, y + 20), (40, 44, 60, 255), -1)
            x += wide + 5
    out[:6], out[-6:], out[:, :4], out[:, -4:] = ((40, 44, 60, 255),) * 4
    return out


def lamps(lit: int) -> Picture:
    """A traffic light's three lamps; ``lit`` 0 red, 1 amber, 2 green."""
    out = _clear()
    out[:] = (26, 28, 28, 255)
    on = ((255, 52, 40), (255, 190, 40), (60, 255, 140))
    for n in range(3):
        color = on[n] if n == lit else tuple(int(18 + part * 0.14) for part in on[n])
        cv2.ellipse(out, (64, 22 + 42 * n), (44, 18), 0, 0, 360, (*color, 255), -1, cv2.LINE_AA)
    return out


def wheel() -> Picture:
    """A car's wheel, cut out."""
    out = _clear()
    _disc(out, (22, 22, 23), 62)
    _disc(out, (150, 152, 156), 42)
    _disc(out, (60, 62, 64), 36)
    for n in range(5):
        angle = 2 * math.pi * n / 5
        end = (int(64 + 40 * math.cos(angle)), int(64 + 40 * math.sin(angle)))
        cv2.line(out, (64, 64), end, (176, 178, 182, 255), 11, cv2.LINE_AA)
    _disc(out, (120, 122, 126), 9)
    out[..., 3] = np.where(np.hypot(*(np.mgrid[:128, :128] - 63.5)) < 62, 255, 0)
    return out


def hoop() -> Picture:
    """A bicycle's wheel: tyre, rim and spokes, cut out."""
    out = _clear()
    out[..., :3] = 60
    cv2.circle(out, (64, 64), 58, (26, 26, 26, 255), 10, cv2.LINE_AA)
    cv2.circle(out, (64, 64), 51, (136, 138, 140, 255), 4, cv2.LINE_AA)
    for n in range(8):
        angle = math.pi * n / 8
        dx, dy = 52 * math.cos(angle), 52 * math.sin(angle)
        cv2.line(out, (int(64 - dx), int(64 - dy)), (int(64 + dx), int(64 + dy)), (130, 132, 134, 255), 3, cv2.LINE_AA)
    _disc(out, (70, 70, 72), 9)
    out[..., 3] = np.where(out[..., 3] > 90, 255, 0)
    return out


def arch() -> Picture:
    """The dark round above a wheel, cut out."""
    out = _clear()
    _disc(out, (16, 16, 17), 62)
    return out


def disc() -> Picture:
    """A shadow-dark or tinted round, cut out."""
    out = _clear()
    _disc(out, (255, 255, 255), 62)
    return out


def doors() -> Picture:
    """The lower side of a car: gaps between doors, handles, a dark sill."""
    out = _clear(256)
    out[:] = 255
    rows = np.linspace(1.0, 0.86, 256)[:, None, None]
    out[..., :3] = out[..., :3] * rows
    for x in (70, 128, 188):
        cv2.line(out, (x, 0), (x, 216), (86, 86, 88, 255), 2)
    for x in (76, 134):
        cv2.rectangle(out, (x + 30, 34), (x + 46, 44), (120, 120, 122, 200), -1)
    cv2.line(out, (0, 84), (255, 96), (214, 214, 214, 255), 3)
    out[222:] = (36, 36, 38, 60)
    return out


def bus(kind: int) -> Picture:
    """The side of a bus (0) or tram (1): a band of windows, doors, a stripe. Tint is the paint's."""
    throw = Dice(161, kind)
    size = 256
    out = _clear(size)
    out[:] = (236, 236, 236, 255)
    out[150:172] = (196, 196, 198, 90) if kind else (150, 150, 154, 255)
    out[44:134, 6:250] = (34, 40, 46, 0)
    for x in range(6, 250, 41):
        out[44:134, x : x + 4] = (60, 62, 64, 100)
    rows = np.linspace(1.5, 0.8, 90)[:, None]
    out[44:134, :, :3] = np.clip(out[44:134, :, :3] * rows[..., None], 0, 255)
    for x in (46, 172):
        out[40:232, x : x + 36] = (52, 56, 60, 100)
        out[50:214, x + 4 : x + 16] = (44, 52, 60, 0)
        out[50:214, x + 20 : x + 32] = (44, 52, 60, 0)
    for _ in range(9):  # heads behind the glass
        x = throw.whole(12, 240)
        cv2.circle(out, (x, 122), 9, (74, 62, 56, 0), -1)
    out[240:] = (44, 44, 46, 60)
    return out


def crate() -> Picture:
    """The side of a lorry's box: ribs, a stripe, letters."""
    out = _clear(256)
    out[:] = (240, 240, 240, 255)
    for x in range(0, 256, 21):
        out[:, x : x + 2, :3] = 200
    throw = Dice(163)
    x = 40
    while x < 200:
        wide = throw.whole(10, 22)
        cv2.rectangle(out, (x, 90), (x + wide, 140), (70, 72, 80, 120), -1)
        x += wide + 7
    out[168:184] = (90, 92, 98, 160)
    out[:5, :, :3], out[-8:, :, :3] = 150, 110
    return out


def grille() -> Picture:
    out = _clear(64)
    out[:] = (40, 40, 42, 0)
    for y in range(4, 64, 10):
        out[y : y + 4] = (110, 112, 114, 0)
    return out


PAINTERS: dict[str, Callable[[], Picture]] = {
    **{f"sign{kind}": partial(sign, kind) for kind in range(SIGNS)},
    **{f"lamps{lit}": partial(lamps, lit) for lit in range(3)},
    "board": board, "wheel": wheel, "hoop": hoop, "arch": arch, "disc": disc, "doors": doors, "crate": crate,
    "bus": partial(bus, 0), "tram": partial(bus, 1), "grille": grille,
}  # fmt: skip
