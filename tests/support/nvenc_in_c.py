"""What programs over libnvidia_encode.c write and read: pictures in the memory of a GPU or of the host, and the very
bytes of those that came out, for that encoder loses nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from segcam.classes import CITYSCAPES
from segcam.frame import DevicePlanes, Frame, PixelFormat, Segmentation
from segcam.kernels.cuda.driver import Driver
from segcam.segmenters.surfaces import Surface, Surfaces
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.encoder import Encoder
from segcam.sinks.video import VideoSink

#: NVENC's smallest is 145x49. Neither is a multiple of a macroblock's 16.
SIZE = (150, 54)
#: Rows on the GPU lie further apart than their length.
PITCH = 192

Planes = tuple[np.ndarray[Any, Any], ...]


_LOG = os.open(os.environ["CUDA_IN_C_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(line: str, write: Callable[[int, bytes], int] = os.write, log: int = _LOG) -> None:
    """Among the lines of the libraries in C."""
    write(log, f"{line}\n".encode())


def keep_back(pictures: int) -> None:
    """Encoders that are opened from now on have so many in flight."""
    plain = Encoder.options

    def options(self: Encoder, rate: Fraction, *, centred_chroma: bool = False) -> dict[str, str]:
        return {**plain(self, rate, centred_chroma=centred_chroma), "delay": str(pictures)}

    Encoder.options = options  # type: ignore[method-assign]


def planes(number: int, size: tuple[int, int] = SIZE) -> Planes:
    """Noise: Y (H, W), and U and V at half the size, uint8."""
    (width, height), rng = size, np.random.default_rng(number)
    shapes = [(height, width), *[((height + 1) // 2, (width + 1) // 2)] * 2]
    return tuple(rng.integers(0, 256, shape, np.uint8) for shape in shapes)


def host_frame(number: int, size: tuple[int, int] = SIZE, form: PixelFormat = "nv12") -> Frame:
    y, u, v = planes(number, size)
    given = (y, np.stack([u, v], 2)) if form == "nv12" else (y, u, v)
    return Frame(number, number, Fraction(1, 25), 0.0, "t", *size, form, given)


class OnGpu:
    """Frames in the memory of the driver's GPU, from a pool of surfaces as the segmenter has one.

    ``came_back`` has the numbers of the frames that nobody holds any more, in that order; it is noted too.
    """

    def __init__(self, driver: Driver, size: tuple[int, int] = SIZE, pitch: int = PITCH) -> None:
        self.driver, self.size, self.pitch = driver, size, pitch
        self.pool = Surfaces(driver, pitch * size[1] * 3 // 2)
        self.came_back: list[int] = []

    def frame(self, number: int) -> Frame:
        width, height = self.size
        y, u, v = planes(number, self.size)
        block = np.full((height * 3 // 2, self.pitch), 0xEE, np.uint8)
        block[:height, :width] = y
        block[height:, 0:width:2], block[height:, 1:width:2] = u, v
        with self.driver.current():
            surface = self.pool.take()
            stream = self.driver.stream()
            self.driver.upload(surface.address, block, stream)
            stream.synchronize()
            stream.close()
        note(f"frame {number} at {surface.address:#x}")
        at, pitch, owner = surface.address, self.pitch, Owner(number, surface, self.came_back)
        on = DevicePlanes("nv12", (at, at + pitch * height), (pitch, pitch), 0, lambda: down(owner, self))
        return Frame(number, number, Fraction(1, 25), 0.0, "t", width, height, "nv12", (), owner=owner, device=on)


class Owner:
    """Holds a surface. The interpreter's end may come first: what is needed then are arguments' defaults."""

    def __init__(self, number: int, surface: Surface, came_back: list[int]) -> None:
        self.surface, self._number, self._came_back = surface, number, came_back

    def __del__(self, note: Callable[[str], None] = note) -> None:
        self._came_back.append(self._number)
        note(f"frame {self._number} is back")


def down(owner: Owner, made: OnGpu) -> tuple[PixelFormat, Planes]:
    (width, height), pitch = made.size, made.pitch
    rows = owner.surface.download(pitch * height * 3 // 2).reshape(-1, pitch)[:, :width]
    return "nv12", (rows[:height], rows[height:].reshape(height // 2, width // 2, 2))


def sink(path: Path | str, said: list[str], size: tuple[int, int] = SIZE, **options: Any) -> VideoSink:
    """Open for overlays of that size."""
    made = VideoSink(Path(path), said.append, **options)
    made.open(StreamInfo("t", *size, Fraction(25), None, False, CITYSCAPES), RunStats())
    return made


def write(to: VideoSink, frame: Frame) -> None:
    to.write(Segmentation(frame, np.zeros((0, 0), np.uint8), frame, np.zeros(19, np.int64), CITYSCAPES, {}))


def decoded(path: Path | str) -> dict[int, Planes]:
    """The pictures by their time, in the order of the file."""
    with av.open(str(path)) as container:
        return {
            round(picture.pts * picture.time_base * 25): tuple(  # type: ignore[operator]
                np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width].copy()
                for plane in picture.planes
            )
            for picture in container.decode(video=0)
        }


def check(path: Path | str, numbers: list[int], size: tuple[int, int] = SIZE) -> None:
    """Those frames are in the file, in that order, at those times and with their very bytes."""
    found = decoded(path)
    assert list(found) == numbers, list(found)
    for number, pictures in found.items():
        for mine, wanted in zip(pictures, planes(number, size), strict=True):
            assert np.array_equal(mine, wanted), number
