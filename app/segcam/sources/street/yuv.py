"""RGB to the planes of a frame."""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from segcam.frame import LUMA_WEIGHTS
from segcam.sources.made import Planes

_RGB_IN = types.Array(types.uint8, 3, "C", readonly=True)
_OUT = types.Array(types.uint8, 2, "C")
_KR, _KB = LUMA_WEIGHTS["bt709"]
_KG = 1 - _KR - _KB
#: 2 ** 16 times the luma and chroma weights of limited range.
_Y = tuple(round(65536 * 219 / 255 * k) for k in (_KR, _KG, _KB))
_U = tuple(round(65536 * 224 / 255 * k) for k in (-_KR / (2 - 2 * _KB), -_KG / (2 - 2 * _KB), 0.5))
_V = tuple(round(65536 * 224 / 255 * k) for k in (0.5, -_KG / (2 - 2 * _KR), -_KB / (2 - 2 * _KR)))


@njit([types.void(_RGB_IN, _OUT, _OUT, _OUT)], nogil=True, cache=True)
def _convert(rgb: NDArray[np.uint8], luma: NDArray[np.uint8], cb: NDArray[np.uint8], cr: NDArray[np.uint8]) -> None:
    height, width = luma.shape
    for row in range(height):
        for column in range(width):
            red, green, blue = rgb[row, column, 0], rgb[row, column, 1], rgb[row, column, 2]
            luma[row, column] = (16 * 65536 + 32768 + _Y[0] * red + _Y[1] * green + _Y[2] * blue) >> 16
    for row in range(cb.shape[0]):
        top, bottom = 2 * row, min(2 * row + 1, height - 1)
        for column in range(cb.shape[1]):
            left, right = 2 * column, min(2 * column + 1, width - 1)
            red = green = blue = 0
            for y in (top, bottom):
                for x in (left, right):
                    red, green, blue = red + rgb[y, x, 0], green + rgb[y, x, 1], blue + rgb[y, x, 2]
            # Four samples: 2 ** 18 for 1.
            cb[row, column] = (128 * 262144 + 131072 + _U[0] * red + _U[1] * green + _U[2] * blue) >> 18
            cr[row, column] = (128 * 262144 + 131072 + _V[0] * red + _V[1] * green + _V[2] * blue) >> 18


def to_i420(rgb: NDArray[np.uint8]) -> Planes:
    """(H, W, 3) uint8 as I420, BT.709, limited range; a chroma sample is the mean of the pixels that it stands for."""
    height, width = rgb.shape[:2]
    half = (-(-height // 2), -(-width // 2))
    planes = (np.empty((height, width), np.uint8), np.empty(half, np.uint8), np.empty(half, np.uint8))
    _convert(np.ascontiguousarray(rgb), *planes)
    return planes
