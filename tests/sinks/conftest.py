"""Frames, segmentations and readers for the tests of sinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from segcam.classes import CITYSCAPES
from segcam.controls import Controls
from segcam.frame import ColorMatrix, Frame, PixelFormat, Segmentation
from segcam.sinks.base import StreamInfo


def _smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    ramp = np.add.outer(np.arange(height), np.arange(width)) + rng.integers(0, 200)
    return (16 + (ramp + rng.integers(0, 9, (height, width))) % 220).astype(np.uint8)


@dataclass(frozen=True)
class Maker:
    """Makes frames whose pixels depend on ``index`` alone."""

    width: int = 64
    height: int = 48
    format: PixelFormat = "i420"
    time_base: Fraction = Fraction(1, 25)
    matrix: ColorMatrix = "bt709"
    full_range: bool = False

    def frame(self, index: int, pts: int | None = None, name: str = "") -> Frame:
        rng = np.random.default_rng(index)
        w, h = self.width, self.height
        half_w, half_h = (w + 1) // 2, (h + 1) // 2
        # Rows lie further apart than their length, as decoders have them.
        luma = np.zeros((h, w + 13), np.uint8)[:, :w]
        luma[...] = _smooth(rng, h, w)
        if self.format == "i420":
            planes = (luma, _smooth(rng, half_h, half_w), _smooth(rng, half_h, half_w))
        elif self.format == "nv12":
            planes = (luma, np.stack([_smooth(rng, half_h, half_w), _smooth(rng, half_h, half_w)], 2))
        else:
            planes = (np.stack([_smooth(rng, h, w) for _ in range(3)], 2),)
        return Frame(
            index, index if pts is None else pts, self.time_base, 0.0, "test", w, h, self.format, planes,
            self.matrix, self.full_range, name,
        )  # fmt: skip

    def segmentation(self, index: int, pts: int | None = None, name: str = "") -> Segmentation:
        frame = self.frame(index, pts, name)
        labels = np.random.default_rng(index).integers(0, 19, (frame.height, frame.width)).astype(np.uint8)
        counts = np.bincount(labels.ravel(), minlength=19).astype(np.int64)
        return Segmentation(frame, labels, frame, counts, CITYSCAPES, {"inference": 12.5})


@dataclass(frozen=True)
class Decoded:
    """A video as read back: times in seconds, planes (Y, U, V) of each frame, and what the file says of itself."""

    times_s: list[Fraction]
    planes: list[list[np.ndarray]]
    size: tuple[int, int]
    announced_frames: int
    duration_s: float
    colors: tuple[int, int, int, int]


def _read(path: Path) -> Decoded:
    import av

    times, planes = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for picture in container.decode(stream):
            assert picture.pts is not None and picture.time_base is not None
            assert picture.format.name in ("yuv420p", "yuvj420p")
            times.append(picture.pts * picture.time_base)
            planes.append(
                [
                    np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width].copy()
                    for p in picture.planes
                ]
            )
        codec = stream.codec_context
        return Decoded(
            times, planes, (codec.width, codec.height), stream.frames, (container.duration or 0) / 1e6,
            (int(codec.color_primaries), int(codec.color_trc), int(codec.colorspace), int(codec.color_range)),
        )  # fmt: skip


@pytest.fixture
def maker() -> type[Maker]:
    return Maker


@pytest.fixture
def read_video() -> Callable[[Path], Decoded]:
    return _read


@pytest.fixture
def info() -> StreamInfo:
    return StreamInfo("test", 64, 48, Fraction(25), None, False, CITYSCAPES)


@pytest.fixture
def controls() -> Controls:
    return Controls(0.5, np.ones(19, np.bool_))


@pytest.fixture
def warnings_list() -> list[str]:
    return []
