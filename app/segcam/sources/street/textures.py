"""Every texture, painted once in a process: the same for all streets, which tint them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from segcam.sources.street import facades, grounds, plates

Picture = NDArray[np.uint8]

#: Painter of each texture: a function without arguments to (S, S, 4) uint8 RGBA, S a power of two. Alpha is coverage
#: for cut-outs, else the share of the tint (``mesh.CUTOUT``).
_PAINTERS = {**grounds.PAINTERS, **facades.PAINTERS, **plates.PAINTERS}

NAMES = tuple(_PAINTERS)
#: Number of each texture by its name.
TEXTURE = {name: number for number, name in enumerate(NAMES)}


class Bank(NamedTuple):
    """``texels``: every mip level of every texture, RGBA, one after the other. ``table`` (textures, 12) int32: log2 of
    the side, then where each level begins."""

    texels: NDArray[np.uint8]
    table: NDArray[np.int32]


@lru_cache(1)
def bank() -> Bank:
    texels: list[Picture] = []
    table = np.zeros((len(NAMES), 12), np.int32)
    at = 0
    for number, painter in enumerate(_PAINTERS.values()):
        picture = painter()
        size = len(picture)
        if picture.shape != (size, size, 4) or size & (size - 1):
            raise ValueError(f"texture {NAMES[number]} is {picture.shape}, not square with a power of two")
        table[number, 0] = size.bit_length() - 1
        for level in range(size.bit_length()):
            table[number, 1 + level] = at
            texels.append(picture.reshape(-1))
            at += picture.size
            if len(picture) > 1:
                half = len(picture) // 2
                smaller = cv2.resize(picture, (half, half), interpolation=cv2.INTER_AREA)
                picture = np.asarray(smaller, np.uint8).reshape(half, half, 4)
    return Bank(np.concatenate(texels), table)
