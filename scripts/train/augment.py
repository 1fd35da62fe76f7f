"""Crops and their disturbance: what makes a network trained on drawn streets care less how they were drawn.

Pictures are RGB (H, W, 3) uint8, labels (H, W) uint8 train ids, 255 ignored. Everything is a function of the generator
that it is given.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

IGNORED = 255
#: Height in pixels at which the network of the demo sees a whole picture: scale 1.
WHOLE = 512
#: Labels are looked at this far apart where a class is sought.
_COARSE = 16


def crop(
    rgb: Pixels, labels: Pixels, size: tuple[int, int], scales: tuple[float, float], random: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """A piece of ``size`` (height, width), mirrored half of the time, enlarged by a factor between ``scales`` (evenly
    in its logarithm) relative to a picture of height WHOLE, and by more where the picture would not fill it.

    Half of the pieces are placed on a class drawn from those in the picture, whatever its share.
    """
    height, width = labels.shape
    fitting = max(size[0] / height, size[1] / width)
    scale = float(np.exp(random.uniform(*np.log(scales))))
    zoom = max(scale * WHOLE / height, fitting)
    tall, wide = (int(np.clip(round(side / zoom), 1, most)) for side, most in zip(size, labels.shape, strict=True))
    middle = _somewhere(labels, random)
    top, left = (
        int(np.clip(at - random.uniform(0, extent), 0, most - extent))
        for at, extent, most in zip(middle, (tall, wide), labels.shape, strict=True)
    )
    # Bilinear is what the network's input will be made with; far below half the size it would skip pixels.
    how = cv2.INTER_AREA if zoom < 0.45 else cv2.INTER_LINEAR
    picture = cv2.resize(rgb[top : top + tall, left : left + wide], size[::-1], interpolation=how)
    classes = cv2.resize(
        labels[top : top + tall, left : left + wide], size[::-1], interpolation=cv2.INTER_NEAREST_EXACT
    )
    if random.random() < 0.5:
        return np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(classes[:, ::-1])
    return picture, classes


def _somewhere(labels: Pixels, random: np.random.Generator) -> tuple[float, float]:
    if random.random() < 0.5:
        coarse = labels[::_COARSE, ::_COARSE]
        present = np.setdiff1d(coarse, [IGNORED])
        if present.size:
            rows, columns = np.nonzero(coarse == random.choice(present))
            one = random.integers(len(rows))
            return float(rows[one] * _COARSE), float(columns[one] * _COARSE)
    return float(random.uniform(0, labels.shape[0])), float(random.uniform(0, labels.shape[1]))


def disturb(rgb: Pixels, random: np.random.Generator) -> Pixels:
    """Another camera, light and codec: colours, then blur or sharpening, noise and JPEG, each some of the time."""
    out = _colours(rgb, random)
    if random.random() < 0.3:
        out = _blur(out, random)
    if random.random() < 0.3:
        out = _noise(out, float(random.uniform(1, 12)), random)
    if random.random() < 0.3:
        out = _jpeg(out, int(random.integers(30, 95)))
    return out


def _colours(rgb: Pixels, random: np.random.Generator) -> Pixels:
    """Hue and saturation by a matrix, then white balance, contrast, brightness and gamma by one table a channel."""
    saturation, turn = random.uniform(0.5, 1.4), random.normal(0, 0.1)
    gray = np.full((3, 3), 1 / 3)
    # A turn about the gray axis (Rodrigues' formula), of what is not gray alone.
    axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    colour = (np.eye(3) - gray) * np.cos(turn) + axis * np.sin(turn)
    out = cv2.transform(rgb, gray + saturation * colour)
    levels = np.arange(256)[:, None] / 255
    balance = np.exp(random.normal(0, 0.06, 3))
    contrast, brightness, gamma = random.uniform(0.7, 1.25), random.normal(0, 0.05), np.exp(random.normal(0, 0.2))
    table = np.clip((levels * balance - 0.5) * contrast + 0.5 + brightness, 0, 1) ** gamma
    return np.asarray(cv2.LUT(out, (table * 255).round().astype(np.uint8)[None]), np.uint8)


def _blur(rgb: Pixels, random: np.random.Generator) -> Pixels:
    soft = cv2.GaussianBlur(rgb, (0, 0), float(random.uniform(0.4, 1.6)))
    if random.random() < 0.3:
        return np.asarray(cv2.addWeighted(rgb, 1.7, soft, -0.7, 0), np.uint8)
    return np.asarray(soft, np.uint8)


def _noise(rgb: Pixels, sigma: float, random: np.random.Generator) -> Pixels:
    """Normal noise, of one colour half of the time, from a seeded field that OpenCV makes ten times as fast."""
    height, width, channels = rgb.shape
    field = np.empty((height, width * (1 if random.random() < 0.5 else channels)), np.int16)
    cv2.setRNGSeed(int(random.integers(1 << 31)))
    cv2.randn(field, 0.0, sigma)
    field = field.reshape(height, width, -1)
    if field.shape[2] == 1:
        field = cv2.merge([field] * channels)
    return np.asarray(cv2.add(rgb, field, dtype=cv2.CV_8U), np.uint8)


def _jpeg(rgb: Pixels, quality: int) -> Pixels:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not encode a JPEG picture")
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)
