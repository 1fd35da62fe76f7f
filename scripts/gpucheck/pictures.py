"""Pictures and scores for kernels: random ones, and such as streets and networks give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.kernels.cuda.driver import DeviceMemory, Driver, Stream
from segcam.kernels.cuda.picture import DevicePicture, PictureKind
from segcam.segmenters.cuda_work import Planes

KINDS = ("nv12", "i420", "bgr24", "p010", "i420p10")


@dataclass(eq=False)
class Picture:
    """Random samples of a kind: ``block`` as it lies in memory, ``planes`` shaped as in ``frame.Frame``."""

    layout: Planes
    block: NDArray[np.uint8]

    @classmethod
    def random(cls, kind: PictureKind, seed: int, *, gap: int = 0) -> Picture:
        """``gap`` more bytes lie between rows, which makes pitches that no wide access fits."""
        unit = kind.sample_bytes * 2
        pitches = tuple(length + gap * unit for _, length in kind.rows) if gap else None
        layout = Planes(kind, 0, pitches)
        random = np.random.default_rng(seed)
        made = cls(layout, np.full(layout.end, 0x5A, np.uint8))
        for rows in layout.rows(made.block):
            if kind.bits == 8:
                rows[:] = random.integers(0, 256, rows.shape, np.uint8)
            else:
                samples = random.integers(0, 1024, (rows.shape[0], rows.shape[1] // 2), np.uint16)
                rows[:] = (samples << (6 if kind.format == "p010" else 0)).astype("<u2").view(np.uint8)
        return made

    @property
    def planes(self) -> tuple[NDArray[Any], ...]:
        kind = self.layout.kind
        dtype = np.uint16 if kind.bits > 8 else np.uint8
        planes = [np.ascontiguousarray(rows).view(dtype) for rows in self.layout.rows(self.block)]
        if kind.format == "bgr24":
            return (planes[0].reshape(kind.height, kind.width, 3),)
        if len(planes) == 2:
            planes[1] = planes[1].reshape(planes[1].shape[0], -1, 2)
        return tuple(planes)

    def upload(self, driver: Driver, stream: Stream) -> tuple[DeviceMemory, DevicePicture]:
        memory = driver.allocate(self.block.nbytes)
        driver.upload(memory.address, self.block, stream)
        return memory, self.layout.at(memory.address)


def blobs(classes: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """(classes, height, width) scores as of a street: large areas of one class, neighbours alike at most points."""
    random = np.random.default_rng(seed)
    coarse = random.standard_normal((classes, -(-height // 16) + 1, -(-width // 16) + 1)).astype(np.float32) * 4
    y, x = np.arange(height) / 16, np.arange(width) / 16
    fy, fx = (y % 1).astype(np.float32)[:, None], (x % 1).astype(np.float32)
    iy, ix = y.astype(int)[:, None], x.astype(int)
    made = np.empty((classes, height, width), np.float32)
    for k, c in enumerate(coarse):
        made[k] = (c[iy, ix] * (1 - fx) + c[iy, ix + 1] * fx) * (1 - fy)
        made[k] += (c[iy + 1, ix] * (1 - fx) + c[iy + 1, ix + 1] * fx) * fy
    return made


def odd(classes: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise with ties, infinities and what is no number: every pixel is decided by itself."""
    random = np.random.default_rng(seed)
    made = np.asarray(np.round(random.standard_normal((classes, height, width)) * 4) / 4, np.float32)
    wild = random.random(made.shape) < 0.05
    made[wild] = random.choice(np.array([np.nan, np.inf, -np.inf, 6e4, -6e4, 0.0], np.float32), int(wild.sum()))
    return made
