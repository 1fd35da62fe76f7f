"""Textures of what lies and grows: asphalt, paving, grass, leaves, bark, clouds, plain colours."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from segcam.sources.street.dice import Dice, noise, smooth_noise

Picture = NDArray[np.uint8]


def rgba(
    gray: NDArray[np.floating], color: tuple[float, float, float], alpha: float | NDArray[np.floating] = 1.0
) -> Picture:
    """``gray`` (S, S), 1 = as the colour (0..255)."""
    out = np.empty((*gray.shape, 4), np.float32)
    out[..., :3] = gray[..., None] * np.array(color, np.float32)
    out[..., 3] = np.asarray(alpha, np.float32) * 255
    return np.clip(np.round(out), 0, 255).astype(np.uint8)


def plain() -> Picture:
    return np.full((4, 4, 4), 255, np.uint8)


def asphalt() -> Picture:
    """4 m a side."""
    size = 512
    grain = noise(11, size, size).astype(np.float32)
    grain = grain * 0.7 + cv2.GaussianBlur(grain, (3, 3), 0) * 0.6
    stones = (noise(12, size, size) > 0.985).astype(np.float32) * 0.25
    gray = 0.72 + 0.24 * grain + stones + 0.22 * (smooth_noise(13, size, 4, 5) - 0.5)
    picture = rgba(gray, (108, 108, 110))
    throw = Dice(14)
    for _ in range(3):
        at = np.array([throw.between(0, size), throw.between(0, size)])
        points = [at]
        for _ in range(14):
            at = at + np.array([throw.between(-9, 9), throw.between(4, 15)])
            points.append(at)
        for shift in (0, -size):
            line = np.round(np.array(points) + np.array([0, shift])).astype(np.int32)
            cv2.polylines(picture, [line], False, (72, 72, 73, 255), 1, cv2.LINE_AA)
    return picture


def _slabs(size: int, rows: int, across: int, bond: bool, joint: float, seed: int) -> NDArray[np.float32]:
    """Brightness of a wall or floor of equal slabs."""
    shade = 0.9 + 0.2 * noise(seed, rows, across).astype(np.float32)
    at = np.arange(size) / size
    row = (at * rows).astype(int)
    column = at[None] * across + (0.5 * (row % 2)[:, None] if bond else 0)
    gray = shade[row[:, None], column.astype(int) % across]
    edge_y, edge_x = (at * rows % 1)[:, None], column % 1
    wide_x, wide_y = across / size * 1.5, rows / size * 1.5
    gray = np.where((edge_x < wide_x) | (edge_y < wide_y), joint, gray)
    return np.asarray(
        gray * (0.9 + 0.2 * smooth_noise(seed + 1, size, 4, 5)) + 0.06 * noise(seed + 2, size, size), np.float32
    )


def paving() -> Picture:
    """2 m a side."""
    return rgba(_slabs(256, 6, 6, True, 0.72, 21), (168, 162, 154))


def cobbles() -> Picture:
    return rgba(_slabs(256, 16, 16, True, 0.62, 24), (140, 134, 128))


def curb() -> Picture:
    return rgba(_slabs(64, 1, 2, False, 0.7, 27), (172, 170, 166))


def grass() -> Picture:
    """3 m a side."""
    size = 256
    blades = cv2.GaussianBlur(noise(31, size, size).astype(np.float32), (1, 7), 0)
    gray = 0.55 + 0.5 * blades + 0.35 * smooth_noise(32, size, 4, 5)
    out = rgba(gray, (96, 118, 58))
    dry = smooth_noise(33, size, 3, 4)[..., None]
    out[..., :3] = np.clip(out[..., :3] * (1 + (dry > 0.55) * (dry - 0.55) * np.array([2.2, 0.9, 0.6])), 0, 255)
    return out


def soil() -> Picture:
    gray = 0.6 + 0.35 * smooth_noise(35, 256, 8, 5) + 0.2 * noise(36, 256, 256)
    return rgba(gray, (120, 100, 76))


def paint() -> Picture:
    """Road paint, worn."""
    worn = 0.68 * smooth_noise(41, 256, 8, 5) + 0.32 * noise(42, 256, 256)
    gray = 1.0 - 0.5 * np.clip((worn - 0.58) * 5, 0, 1) - 0.08 * noise(43, 256, 256)
    return rgba(gray, (226, 226, 220))


def patch() -> Picture:
    """Mended asphalt, a manhole's iron."""
    gray = 0.85 + 0.2 * noise(44, 128, 128) + 0.1 * smooth_noise(45, 128, 4, 4)
    return rgba(gray, (84, 84, 86))


def manhole() -> Picture:
    size = 128
    out = asphalt()[:size, :size].copy()
    cv2.circle(out, (64, 64), 60, (96, 94, 92, 255), -1, cv2.LINE_AA)
    cv2.circle(out, (64, 64), 60, (52, 52, 52, 255), 3, cv2.LINE_AA)
    for at in range(24, 112, 12):
        for other in range(24, 112, 12):
            if (at - 64) ** 2 + (other - 64) ** 2 < 44**2:
                cv2.rectangle(out, (at, other), (at + 5, other + 5), (64, 63, 62, 255), -1)
    return out


def leaves() -> Picture:
    """A cluster of leaves: a lobed outline, few holes, light above and dark below."""
    size = 256
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    angle = np.arctan2(rows - 128, columns - 128)
    radius = np.hypot(rows - 128, columns - 128) / 128
    rough = smooth_noise(51, size, 8, 4)
    edge = 0.72 + 0.1 * np.sin(5 * angle + 1) + 0.06 * np.sin(9 * angle) + 0.5 * (rough - 0.5)
    inside = (radius < edge) & ((rough > 0.24) | (radius < 0.35))
    out = np.zeros((size, size, 4), np.uint8)
    throw = Dice(52)
    base = np.zeros((size, size), np.float32)
    base[:] = 0.34
    for step in range(2600):
        x, y = throw.between(0, size), throw.between(0, size)
        tone = 0.30 + 0.5 * step / 2600 * throw.between(0.5, 1.0) + 0.22 * (1 - y / size)
        axes = (int(throw.between(3, 8)), int(throw.between(2, 4)))
        cv2.ellipse(base, (int(x), int(y)), axes, throw.between(0, 180), 0, 360, tone, -1, cv2.LINE_AA)
    out[..., :3] = np.clip(base[..., None] * np.array([190, 232, 110], np.float32), 0, 255)
    out[..., 3] = cv2.GaussianBlur(inside.astype(np.float32), (3, 3), 0) * 255
    return out


def hedge() -> Picture:
    out = leaves()
    size = len(out)
    full = np.where(out[..., 3:] > 0, out[..., :3], np.roll(out[..., :3], size // 2, 1))
    out[..., :3] = np.clip(full * (0.75 + 0.5 * smooth_noise(55, size, 6, 4))[..., None], 0, 255)
    out[..., 3] = 255
    return out


def treeline() -> Picture:
    """Far trees: crowns side by side, sky above them."""
    size = 256
    at = np.arange(size)
    top = np.full(size, 200.0)
    throw = Dice(57)
    for _ in range(26):
        middle, wide, tall = throw.between(0, size), throw.between(9, 26), throw.between(60, 190)
        gap = np.abs((at - middle + size / 2) % size - size / 2) / wide
        top = np.minimum(top, size - tall * np.sqrt(np.clip(1 - gap * gap, 0, 1)))
    rows = np.arange(size)[:, None]
    gray = 0.5 + 0.5 * smooth_noise(58, size, 12, 4) - 0.15 * rows / size
    return rgba(gray, (98, 112, 76), (rows > top[None]).astype(np.float32))


def bark() -> Picture:
    gray = cv2.GaussianBlur(noise(61, 128, 128).astype(np.float32), (1, 9), 0)
    return rgba(0.4 + 0.75 * gray + 0.25 * smooth_noise(62, 128, 4, 4), (122, 104, 86))


def clouds() -> Picture:
    """Red: how dense; green: how light."""
    size = 512
    shape = smooth_noise(71, size, 3, 7, 0.55)
    shape = np.clip((shape - 0.22) / 0.56, 0, 1)
    light = np.clip(0.5 + 4 * (shape - np.roll(shape, 7, (0, 1))) + 0.3 * (smooth_noise(72, size, 4, 6) - 0.5), 0, 1)
    out = np.full((size, size, 4), 255, np.uint8)
    out[..., 0], out[..., 1] = shape * 255, light * 255
    return out


PAINTERS: dict[str, Callable[[], Picture]] = {
    "plain": plain, "asphalt": asphalt, "paving": paving, "cobbles": cobbles, "curb": curb, "grass": grass,
    "soil": soil, "paint": paint, "patch": patch, "manhole": manhole, "leaves": leaves, "hedge": hedge,
    "treeline": treeline, "bark": bark, "clouds": clouds,
}  # fmt: skip
