"""Inputs made on the spot: small videos through PyAV, and the shared test data where it lies beside the repository."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from standin_nvdec import gpu, machine, nvdec  # noqa: F401  # fixtures are found by being here

from segcam.errors import SegcamError
from segcam.frame import Frame
from segcam.sources.base import Source

Maker = Callable[..., Path]


def counted_luma(number: int, height: int, width: int) -> np.ndarray:
    """A luma plane that tells its number: flat 16 + 8 * number over a gradient of one level a row."""
    rows = np.arange(height)[:, None] % 8
    return np.broadcast_to(16 + 8 * number + rows, (height, width)).astype(np.uint8)


@pytest.fixture
def make_video(tmp_path: Path) -> Maker:
    """Writes a video; frames are (Y, U, V) planes or, for other formats, tuples of that format's planes."""

    def write(
        name: str,
        frames: int | Sequence[Sequence[np.ndarray]] = 12,
        *,
        size: tuple[int, int] = (64, 48),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        pts: Sequence[int] | None = None,
        rate: int = 25,
        time_base: Fraction | None = None,
        options: dict[str, str] | None = None,
        color: tuple[int, int] | None = None,
        audio_first: bool = False,
    ) -> Path:
        width, height = size
        if isinstance(frames, int):
            chroma = np.full((-(-height // 2), -(-width // 2)), 128, np.uint8)
            frames = [(counted_luma(n, height, width), chroma, chroma) for n in range(frames)]
        path = tmp_path / name
        lossless = {"libx264": {"qp": "0", "preset": "ultrafast"}}.get(codec, {})
        with av.open(str(path), "w") as container:
            if audio_first:
                sound: Any = container.add_stream("aac", rate=8000)
            stream: Any = container.add_stream(codec, rate=rate, options={**lossless, **(options or {})})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            if time_base:
                stream.codec_context.time_base = time_base
            if color:
                stream.codec_context.colorspace, stream.codec_context.color_range = color
            if audio_first:
                noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                noise.sample_rate = 8000
                noise.pts = 0
                container.mux(sound.encode(noise))
            for number, planes in enumerate(frames):
                frame = to_av(planes, width, height, pix_fmt)
                frame.pts = pts[number] if pts else number
                frame.time_base = time_base or Fraction(1, rate)
                if color:
                    frame.colorspace, frame.color_range = color
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if audio_first:
                container.mux(sound.encode(None))
        return path

    return write


def to_av(planes: Sequence[np.ndarray], width: int, height: int, pix_fmt: str) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.ascontiguousarray(values).view(np.uint8).reshape(values.shape[0], -1)
        target = np.frombuffer(memoryview(plane), np.uint8).reshape(values.shape[0], plane.line_size)
        target[:, : rows.shape[1]] = rows
    return frame


@pytest.fixture
def as_av_frame() -> Callable[..., av.VideoFrame]:
    return to_av


@pytest.fixture
def read_all() -> Callable[..., list[Frame]]:
    """Opens, reads up to ``limit`` frames, closes; what ``read`` raises at the end goes into ``errors`` if given."""

    def read(source: Source, limit: int = 1000, errors: list[SegcamError] | None = None) -> list[Frame]:
        frames: list[Frame] = []
        source.open()
        try:
            while len(frames) < limit and (frame := source.read()) is not None:
                frames.append(frame)
        except SegcamError as error:
            if errors is None:
                raise
            errors.append(error)
        finally:
            source.close()
        return frames

    return read


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real inputs; skips where it is not there."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared test data (../shared/data beside the repository) is not here")
    return folder
