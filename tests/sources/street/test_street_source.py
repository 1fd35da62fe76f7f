"""``street:`` as a source: what may be written, the frames it gives, the way through the pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcam.errors import SourceError, UsageError
from segcam.frame import Frame
from segcam.sources.base import Source, SourceOptions
from segcam.sources.factory import make_source
from segcam.sources.street import parse_drive, render
from segcam.sources.street.yuv import to_i420
from segcam.sources.synthetic import yuv709


def read(spec: str, options: SourceOptions = SourceOptions()) -> list[Frame]:  # noqa: B008
    source: Source = make_source(spec, options)
    source.open()
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    source.close()
    return frames


def digest(frame: Frame) -> str:
    return hashlib.sha256(b"".join(plane.tobytes() for plane in frame.planes)).hexdigest()


def test_defaults() -> None:
    info = make_source("street:", SourceOptions(frames=2)).open()
    assert (info.width, info.height, info.rate_hz, info.frames, info.live) == (2048, 1024, 25, 2, False)
    assert make_source("street").open().frames is None
    assert parse_drive("", "street:").weather == "auto"


def test_frames_are_the_renderers() -> None:
    frames = read("street:seed=3,weather=rain,size=161x97,rate=10,frames=2")
    assert [frame.pts for frame in frames] == [0, 1] and frames[1].time_s == pytest.approx(0.1)
    assert [plane.shape for plane in frames[0].planes] == [(97, 161), (49, 81), (49, 81)]
    assert (frames[0].format, frames[0].matrix, frames[0].full_range) == ("i420", "bt709", False)
    rgb, _ = render(3, 1, (97, 161), weather="rain", rate=10)
    assert all(np.array_equal(a, b) for a, b in zip(frames[1].planes, to_i420(rgb), strict=True))


def test_the_same_whichever_way_it_is_read() -> None:
    spec = "street:seed=1,size=128x64,rate=10,frames=6"
    straight = [digest(frame) for frame in read(spec)]
    assert len(set(straight)) == 6
    assert [digest(frame) for frame in read(spec, SourceOptions(start_s=0.2, every=2))] == straight[2::2]
    assert [digest(frame) for frame in read(spec, SourceOptions(loops=2))] == straight * 2
    assert [digest(frame) for frame in read(spec, SourceOptions(threads=3))] == straight
    with pytest.raises(SourceError, match="behind the end"):
        make_source(spec, SourceOptions(start_s=0.6)).open()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("street:sed=3", "unknown setting 'sed'.*|Did you mean 'seed'"),
        ("street:weather=rian", "unknown weather 'rian'"),
        ("street:weather=", "no value"),
        ("street:seed=-1", "whole number"),
        ("street:seed=x", "whole number"),
        ("street:size=8x8", "outside"),
        ("street:rate=0", "rate"),
        ("street:frames=1,frames=2", "twice"),
        ("street:live=2", "whole number"),
    ],
)
def test_wrong_settings(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_source(spec)


def test_the_nearest_name_is_offered() -> None:
    for spec, meant in (("street:sed=3", "'seed'"), ("street:weather=overcats", "'overcast'")):
        with pytest.raises(UsageError) as caught:
            make_source(spec)
        assert f"Did you mean {meant}" in caught.value.hint


def test_live_refuses_start_and_loop() -> None:
    for options in (SourceOptions(start_s=1), SourceOptions(loops=2)):
        with pytest.raises(UsageError):
            make_source("street:live=1", options)


@pytest.mark.parametrize("rgb", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (12, 200, 99)])
def test_colours_become_bt709(rgb: tuple[int, int, int]) -> None:
    planes = to_i420(np.full((5, 7, 3), rgb, np.uint8))
    want = yuv709((rgb[0] / 255, rgb[1] / 255, rgb[2] / 255))
    for plane, value in zip(planes, want, strict=True):
        assert np.abs(plane.astype(int) - value).max() <= 1


def test_chroma_is_the_mean_of_its_pixels() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (33, 47, 3), np.uint8)
    _, cb, cr = to_i420(rgb)
    padded = np.pad(rgb, ((0, 1), (0, 1), (0, 0)), mode="edge").astype(float)
    means = padded.reshape(17, 2, 24, 2, 3).mean((1, 3))
    red, green, blue = np.moveaxis(means, -1, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert np.abs(cb - (128 + 224 / 255 * (blue - luma) / 1.8556)).max() < 0.52
    assert np.abs(cr - (128 + 224 / 255 * (red - luma) / 1.5748)).max() < 0.52


def test_through_the_pipeline(brightest: Callable[..., Path], run_segcam: Callable[..., Any], tmp_path: Path) -> None:
    done = run_segcam(
        "--engine", brightest(), "--source", "street:seed=2,size=256x128,frames=3", "--output", tmp_path / "drive.mp4"
    )
    assert done.returncode == 0, done.stderr
    import av

    with av.open(str(tmp_path / "drive.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 3 and frames[0].shape == (128, 256, 3)
    wrong = run_segcam("--engine", brightest(), "--source", "street:wether=rain")
    assert wrong.returncode == 2 and "Did you mean 'weather'" in wrong.stderr and "Traceback" not in wrong.stderr


def test_the_truth_of_each_frame_is_told_before_it_is_given() -> None:
    from segcam.sources.street import StreetSource

    told: dict[int, np.ndarray] = {}
    source = StreetSource("street:seed=4,size=128x64,frames=3", SourceOptions(every=2), truth=told.__setitem__)
    source.open()
    while (frame := source.read()) is not None:
        assert np.array_equal(told.pop(frame.pts), render(4, frame.pts, (64, 128))[1])
    assert told == {}
