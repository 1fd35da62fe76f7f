"""What the camera adds to a picture: softness, glare, a wet road's mirror, rain, noise. Edges stay within a pixel."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from segcam.sources.street import shade as places
from segcam.sources.street.dice import Dice, noise
from segcam.sources.street.shade import LABELS_OUT, RGB_OUT

Picture = NDArray[np.uint8]
_TILE = 512
_GRAIN = types.Array(types.int8, 2, "C", readonly=True)


@lru_cache(1)
def _grain() -> NDArray[np.int8]:
    """(512, 512) noise of standard deviation 32."""
    total = noise(401, _TILE, _TILE, 3).sum(2) - 1.5
    return np.asarray(np.clip(np.round(total * 64), -127, 127), np.int8)


@njit([types.void(RGB_OUT, _GRAIN, types.int64, types.int64, types.int64)], nogil=True, cache=True, error_model="numpy")
def _add_grain(picture: Picture, grain: NDArray[np.int8], strength: int, down: int, right: int) -> None:
    """In place: grain times strength / 256, its corner moved."""
    height, width = picture.shape[:2]
    for row in range(height):
        for column in range(width):
            at = (column + right) & 511
            base = (row + down) & 511
            for channel in range(3):
                extra = (grain[base, (at + 170 * channel) & 511] * strength + 128) >> 8
                picture[row, column, channel] = min(max(picture[row, column, channel] + extra, 0), 255)


@njit([types.void(RGB_OUT, LABELS_OUT, RGB_OUT, types.int64, types.int64)], nogil=True, cache=True, error_model="numpy")
def _mirror(picture: Picture, labels: NDArray[np.uint8], upper: Picture, horizon: int, strength: int) -> None:
    """In place: roads and pavements show ``upper`` (the picture above the horizon, small, upside down)."""
    height, width = labels.shape
    small_h, small_w = upper.shape[:2]
    for row in range(max(horizon, 0), height):
        # Flat looks mirror more: strongest at the horizon.
        part = strength * 40 * height // (40 * height + 100 * (row - horizon))
        y = min((row - horizon) * small_h // max(height - horizon, 1), small_h - 1)
        for column in range(width):
            if labels[row, column] <= 1:
                x = column * small_w // width
                for channel in range(3):
                    dry = picture[row, column, channel] * (256 - part // 2)
                    picture[row, column, channel] = min((dry + upper[y, x, channel] * part) >> 8, 255)


def finished(
    picture: Picture, labels: NDArray[np.uint8], air: NDArray[np.float64], horizon: float, seed: int, index: int
) -> Picture:
    """The picture (H, W, 3) RGB as a camera would give it; ``horizon`` is its row."""
    height, width = labels.shape
    throw = Dice(seed, 61, index)
    if air[places.WETNESS] > 0:
        _wet(picture, labels, air, horizon)
    if air[places.NIGHT] > 0.3:
        small = cv2.resize(picture, (width // 8, height // 8), interpolation=cv2.INTER_AREA)
        glare = cv2.GaussianBlur(cv2.subtract(small, np.full_like(small, 150)), (0, 0), 3.0 * width / 2048)
        spread = cv2.resize(glare, (width, height), interpolation=cv2.INTER_LINEAR)
        picture = np.asarray(cv2.add(picture, spread), np.uint8)
    if air[places.WETNESS] > 0:
        picture = _rain(picture, throw)
    sharpness = Dice(seed, 62).between(0.8, 1.15)
    soft: Picture = np.ascontiguousarray(
        cv2.GaussianBlur(picture, (3, 3), sharpness * (0.45 + 0.25 * min(width, 2048) / 2048)), np.uint8
    )
    strength = Dice(seed, 63).between(12, 34) * (1.5 if air[places.NIGHT] > 0.3 else 1.0)
    _add_grain(soft, _grain(), int(strength), throw.whole(0, 511), throw.whole(0, 511))
    return soft


def _wet(picture: Picture, labels: NDArray[np.uint8], air: NDArray[np.float64], horizon: float) -> None:
    height, width = labels.shape
    level = int(min(max(horizon, 8), height - 8))
    below = height - level
    top = max(0, level - below)
    small = cv2.resize(picture[top:level], (max(8, width // 8), max(8, height // 16)), interpolation=cv2.INTER_AREA)
    upper: Picture = np.ascontiguousarray(cv2.blur(small[::-1], (3, max(3, height // 64))), np.uint8)
    _mirror(picture, labels, upper, level, int(air[places.WETNESS] * 150))


def _rain(picture: Picture, throw: Dice) -> Picture:
    """Streaks in the air."""
    height, width = picture.shape[:2]
    veil = np.zeros((height, width), np.uint8)
    size = height / 1024
    for _ in range(260):
        x, y = throw.between(0, width), throw.between(-0.05, 1) * height
        long = throw.between(18, 60) * size
        cv2.line(veil, (int(x), int(y)), (int(x + 0.12 * long), int(y + long)), throw.whole(8, 26), 1)
    return np.asarray(cv2.add(picture, cv2.cvtColor(veil, cv2.COLOR_GRAY2RGB)), np.uint8)
