"""Textures of what is built: house fronts of four bays by four floors, shops, roofs, walls, fences.

In fronts, alpha 255 is wall that takes the house's tint and 0 is glass or frame; glass is told from frames by nothing
but its alpha being under 100, which the night lights up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from segcam.sources.street.dice import Dice, noise, smooth_noise
from segcam.sources.street.grounds import _slabs, rgba

Picture = NDArray[np.uint8]
_FRAME, _GLASS = 140, 0


def plaster(seed: int = 81, size: int = 512) -> Picture:
    stains = cv2.resize(smooth_noise(seed, size // 2, 4, 5), (size, size))
    gray = 0.93 + 0.08 * (stains - 0.5) * 2 + 0.05 * (noise(seed + 1, size, size) - 0.5)
    return rgba(np.asarray(gray, np.float32), (232, 232, 232))


def brick() -> Picture:
    """3 m a side."""
    return rgba(_slabs(256, 32, 12, True, 1.2, 83), (176, 170, 166))


def concrete() -> Picture:
    gray = _slabs(256, 2, 2, False, 0.7, 85) * 0.4 + 0.55 + 0.1 * smooth_noise(86, 256, 3, 6)
    return rgba(gray, (186, 186, 184))


def stones() -> Picture:
    return rgba(_slabs(256, 9, 7, True, 0.6, 88), (170, 164, 154))


def _window(out: Picture, box: tuple[int, int, int, int], style: int, throw: Dice) -> None:
    left, top, right, bottom = box
    frame = throw.pick(((228, 228, 226), (228, 228, 226), (96, 78, 60), (70, 74, 78)))
    cv2.rectangle(out, (left - 3, top - 3), (right + 3, bottom + 3), (*frame, _FRAME), -1)
    dark = throw.whole(28, 62)
    rows = np.linspace(1.35, 0.7, bottom - top)[:, None, None]
    glass = np.array([dark, dark * 1.1 + 4, dark * 1.2 + 8]) * rows
    out[top:bottom, left:right, :3] = np.clip(glass, 0, 255)
    out[top:bottom, left:right, 3] = _GLASS
    kind = throw.unit()
    if kind < 0.3:  # curtains at both sides
        wide = max(2, (right - left) // 4)
        for x in (left, right - wide):
            out[top:bottom, x : x + wide, :3] = throw.whole(120, 190)
    elif kind < 0.5:  # a blind, some way down
        out[top : top + int((bottom - top) * throw.between(0.2, 0.9)), left:right] = (172, 170, 162, _FRAME)
    bars = ((0.5, 0.0), (0.5, 0.35), (0.0, 0.4), (0.0, 0.0))[style % 4]
    if bars[0]:
        middle = int(left + (right - left) * bars[0])
        cv2.line(out, (middle, top), (middle, bottom - 1), (*frame, _FRAME), 3)
    if bars[1]:
        level = int(top + (bottom - top) * bars[1])
        cv2.line(out, (left, level), (right - 1, level), (*frame, _FRAME), 2)


def front(style: int) -> Picture:
    """Four bays and four floors of windows."""
    throw = Dice(90, style)
    size, cell = 512, 128
    out = brick() if style % 3 == 2 else plaster(100 + style)
    if len(out) != size:
        out = np.tile(out, (2, 2, 1))
    wide, tall = throw.whole(46, 74), throw.whole(62, 84)
    if style % 4 == 3:
        wide, tall = throw.whole(98, 120), throw.whole(58, 70)
    for floor in range(4):
        if style % 2:
            out[floor * cell : floor * cell + 5, :, :3] = out[floor * cell : floor * cell + 5, :, :3] * 0.82
        for bay in range(4):
            left, top = bay * cell + (cell - wide) // 2, floor * cell + 24
            if style % 4 == 0:
                cv2.rectangle(out, (left - 10, top - 10), (left + wide + 10, top + tall + 10), (246, 244, 240, 160), -1)
            _window(out, (left, top, left + wide, top + tall), style, throw)
            cv2.rectangle(out, (left - 8, top + tall + 4), (left + wide + 8, top + tall + 9), (206, 204, 200, 180), -1)
            cv2.rectangle(
                out, (left - 6, top + tall + 10), (left + wide + 6, top + tall + 13), (120, 120, 120, 255), -1
            )
    return out


def shops(style: int) -> Picture:
    """A ground floor of four bays: shop windows with boards above, doors. Only the lower row counts; it is drawn in all
    four, so that the side is that of a front."""
    throw = Dice(91, style)
    out = plaster(120 + style) if style else np.tile(stones(), (2, 2, 1))
    for floor in range(4):
        top, bottom = floor * 128, floor * 128 + 128
        for bay in range(4):
            left = bay * 128
            kind = throw.unit()
            if kind < 0.22:  # a door
                cv2.rectangle(out, (left + 42, top + 34), (left + 86, bottom - 1), (190, 186, 178, _FRAME), -1)
                color = throw.pick(((70, 48, 34), (40, 58, 52), (60, 62, 70), (96, 34, 30)))
                cv2.rectangle(out, (left + 47, top + 38), (left + 81, bottom - 1), (*color, _FRAME), -1)
                out[top + 40 : top + 62, left + 50 : left + 78] = (52, 58, 64, _GLASS)
            elif kind < 0.75:  # a shop
                board = throw.pick(
                    ((150, 34, 32), (28, 62, 118), (236, 196, 52), (40, 92, 60), (230, 230, 226), (52, 52, 56))
                )
                cv2.rectangle(out, (left + 4, top + 8), (left + 123, top + 30), (*board, _FRAME), -1)
                ink = (240, 240, 236) if sum(board) < 400 else (50, 50, 54)
                for x in range(left + 18, left + 104, 9):
                    if throw.chance(0.8):
                        cv2.rectangle(out, (x, top + 14), (x + 5, top + 24), (*ink, _FRAME), -1)
                out[top + 34 : bottom - 14, left + 8 : left + 120] = (44, 48, 52, _GLASS)
                for _ in range(7):  # goods
                    x, y = throw.whole(left + 10, left + 104), throw.whole(top + 60, bottom - 34)
                    tone = [throw.whole(60, 210) for _ in range(3)]
                    cv2.rectangle(out, (x, y), (x + throw.whole(5, 13), bottom - 15), (*tone, 60), -1)
                cv2.line(out, (left + 64, top + 34), (left + 64, bottom - 14), (86, 88, 90, _FRAME), 3)
            elif kind < 0.88:  # a garage
                out[top + 30 : bottom, left + 14 : left + 114] = (150, 152, 152, _FRAME)
                for y in range(top + 32, bottom, 9):
                    out[y : y + 2, left + 14 : left + 114] = (112, 114, 116, _FRAME)
            else:
                _window(out, (left + 36, top + 32, left + 92, top + 92), style, throw)
        out[bottom - 9 : bottom, :, :3] = out[bottom - 9 : bottom, :, :3] * 0.7
    return out


def roof() -> Picture:
    """3 m a side."""
    size, rows = 256, 12
    wave = np.arange(size) * rows / size % 1
    gray = (0.62 + 0.45 * wave)[:, None] * (0.88 + 0.24 * np.abs(np.sin(np.arange(size) * np.pi * 14 / size)))[None]
    return rgba(np.asarray(gray * (0.85 + 0.3 * smooth_noise(131, size, 6, 4)), np.float32), (190, 190, 190))


def planks() -> Picture:
    """A wooden fence: upright boards with gaps between, 2 m a side and high."""
    size = 256
    out = rgba(0.75 + 0.3 * cv2.GaussianBlur(noise(133, size, size).astype(np.float32), (1, 31), 0), (190, 176, 158))
    at = np.arange(size) % 32
    out[:, at < 5, 3] = 0
    for level in (48, 190):
        out[level : level + 22, :, 3] = 255
        out[level : level + 22, at < 5, :3] = out[level : level + 22, at < 5, :3] * 0.7
    out[:10, (at < 11) | (at > 26), 3] = 0
    return out


def railing() -> Picture:
    """Iron bars, 2 m a side."""
    size = 256
    out = np.zeros((size, size, 4), np.uint8)
    out[..., :3] = 255
    at = np.arange(size) % 16
    out[20:, at < 7, 3] = 255
    for level in (24, 232):
        out[level : level + 14, :, 3] = 255
    return out


def wire() -> Picture:
    """A mesh fence: posts, a top rail and slanted wire, 2 m a side."""
    size = 256
    rows, columns = np.mgrid[:size, :size]
    out = np.zeros((size, size, 4), np.uint8)
    out[..., :3] = 255
    crossed = ((rows + columns) % 32 < 11) | ((rows - columns) % 32 < 11)
    out[..., 3] = np.where(crossed | (rows < 14) | (rows > 246) | (columns < 10), 255, 0)
    return out


def panels() -> Picture:
    """Close boards, without gaps."""
    size = 256
    at = np.arange(size) % 43
    gray = 0.8 + 0.25 * cv2.GaussianBlur(noise(137, size, size).astype(np.float32), (31, 1), 0)
    gray = gray * np.where(np.arange(size) % 32 < 3, 0.55, 1.0)[:, None] * np.where(at < 2, 0.8, 1.0)[None]
    return rgba(np.asarray(gray, np.float32), (190, 178, 162))


PAINTERS: dict[str, Callable[[], Picture]] = {
    "plaster": plaster, "brick": brick, "concrete": concrete, "stones": stones, "roof": roof, "planks": planks,
    "railing": railing, "wire": wire, "panels": panels,
    **{f"front{style}": partial(front, style) for style in range(8)},
    **{f"shops{style}": partial(shops, style) for style in range(3)},
}  # fmt: skip
