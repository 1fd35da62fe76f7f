"""Frames of every pixel format, with or without a pitch, and read-only as a decoder's are; the GPU's kernels compiled
for the host."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from cuda_shim import HostKernels, library, need_compiler
from numpy.typing import NDArray

from segcam.frame import ColorMatrix, Frame, PixelFormat

MakeFrame = Callable[..., Frame]


def _pitched(array: NDArray[np.uint8], pad: int) -> NDArray[np.uint8]:
    """The same picture in rows that lie ``pad`` samples further apart, and that must not be written to."""
    height, width = array.shape[:2]
    wide = np.full((height, width + pad, *array.shape[2:]), 173, np.uint8)
    wide[:, :width] = array
    view = wide[:, :width]
    view.flags.writeable = False
    return view


@pytest.fixture(scope="session")
def make_frame() -> MakeFrame:
    """``make_frame(height, width, format, seed=0, pad=0, matrix="bt709", full_range=False, planes=None)``."""

    def make(
        height: int,
        width: int,
        format: PixelFormat,
        seed: int = 0,
        pad: int = 0,
        matrix: ColorMatrix = "bt709",
        full_range: bool = False,
        planes: tuple[NDArray[np.uint8], ...] | None = None,
    ) -> Frame:
        random = np.random.default_rng(seed)
        half = (height + 1) // 2, (width + 1) // 2
        shapes: dict[str, list[tuple[int, ...]]] = {
            "i420": [(height, width), half, half],
            "nv12": [(height, width), (*half, 2)],
            "bgr24": [(height, width, 3)],
        }
        made = planes or tuple(random.integers(0, 256, shape, np.uint8) for shape in shapes[format])
        return Frame(
            0, 0, Fraction(1, 25), 0.0, "test", width, height, format,
            tuple(_pitched(plane, pad) for plane in made), matrix, full_range,
        )  # fmt: skip

    return make


@pytest.fixture(scope="session")
def kernels() -> HostKernels:
    """With sanitizers where the environment asks for them."""
    need_compiler()
    return HostKernels(library(sanitize=bool(os.environ.get("SEGCAM_SANITIZED_KERNELS"))))
