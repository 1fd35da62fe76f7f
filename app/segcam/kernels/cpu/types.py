"""Numba types of kernel arguments, and the flat view that lets a kernel take any decoder's plane.

Kernels have explicit signatures: they are compiled when their module is first imported, once for a machine, and never
in the middle of a stream. Planes go in flat, with their pitch, since only a contiguous array lets LLVM vectorise.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numpy.typing import NDArray

#: Read-only in the signature means that both writable and read-only arrays are taken.
U8_IN = types.Array(types.uint8, 1, "C", readonly=True)
U8_OUT = types.Array(types.uint8, 1, "C")
F32_IN = types.Array(types.float32, 1, "C", readonly=True)
I32_IN = types.Array(types.int32, 1, "C", readonly=True)
SCORES = types.Array(types.float32, 3, "C")
SCORES_BF16 = types.Array(types.uint16, 3, "C")
MATRIX = types.Array(types.float32, 2, "C", readonly=True)
LABELS_IN = types.Array(types.uint8, 2, "C", readonly=True)
LABELS_OUT = types.Array(types.uint8, 2, "C")
COUNTS = types.Array(types.int64, 1, "C")
TAPS = types.Tuple((I32_IN, I32_IN, F32_IN, F32_IN))


def flat(plane: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """A (H, W) or (H, W, C) plane as one contiguous array, and its pitch in bytes.

    Pixel (y, x, c) is ``[y * pitch + C * x + c]``. A view wherever the rows themselves are contiguous and go downwards;
    else a copy.
    """
    height, row = plane.shape[0], int(np.prod(plane.shape[1:]))
    packed = plane.shape[1:] == (1,) or plane.strides[1:] == ((1,) if plane.ndim == 2 else (plane.shape[2], 1))
    if not packed or plane.strides[0] < row:
        plane = np.ascontiguousarray(plane)
    pitch = plane.strides[0]
    size = (height - 1) * pitch + row
    return np.lib.stride_tricks.as_strided(plane, (size,), (1,), writeable=plane.flags.writeable), pitch
