"""Videos decoded on the GPU: pictures that stay there, and who decodes where it cannot be."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standin_cuda import Machine
from standin_nvdec import StandinNvdec, busy

from segcam.frame import Frame
from segcam.kernels.cuda.driver import Driver
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source

Maker = Callable[..., Path]
ReadAll = Callable[..., list[Frame]]


def on_device(frame: Frame, machine: Machine) -> tuple[np.ndarray, np.ndarray]:
    """The samples of a frame's two planes as they lie in device memory now: Y (H, W), UV (h, w, 2)."""
    assert frame.device is not None
    h, w = -(-frame.height // 2), -(-frame.width // 2)
    dtype = np.dtype("u1" if frame.device.format == "nv12" else "<u2")
    planes = []
    for address, pitch, rows, samples in zip(
        frame.device.addresses, frame.device.pitches, (frame.height, h), (frame.width, 2 * w), strict=True
    ):
        data = np.frombuffer(machine.bytes_at(address, pitch * rows), np.uint8).reshape(rows, pitch)
        planes.append(data[:, : samples * dtype.itemsize].copy().view(dtype))
    return planes[0], planes[1].reshape(h, w, 2)


def as_nv12(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    planes = frame.planes
    return planes[0], planes[1] if frame.format == "nv12" else np.stack(planes[1:], axis=-1)


def options(gpu: Driver, **more: Any) -> SourceOptions:
    return SourceOptions(gpu=gpu, **more)


@pytest.mark.parametrize("size", [(64, 48), (54, 38), (2, 2)])
def test_pictures_stay_on_the_gpu(
    make_video: Maker, read_all: ReadAll, gpu: Driver, machine: Machine, nvdec: StandinNvdec, size: tuple[int, int]
) -> None:
    path = make_video("a.mkv", busy(size, 4), size=size, codec="ffv1", color=(5, 2))
    plain, got = read_all(make_source(str(path))), read_all(make_source(str(path), options(gpu)))
    assert nvdec.opened == 1 and len(got) == len(plain) == 4
    machine.run()
    for mine, other in zip(got, plain, strict=True):
        assert mine.device is not None and mine.planes == () and other.device is None
        assert (mine.format, mine.device.format, mine.device.gpu) == ("nv12", "nv12", 0)
        for name in ("index", "pts", "time_base", "width", "height", "matrix", "full_range", "source_id"):
            assert getattr(mine, name) == getattr(other, name), name
        for a, b in zip(on_device(mine, machine), as_nv12(other), strict=True):
            assert np.array_equal(a, b)
        assert mine.device.pitches[0] > mine.width


def test_they_come_down_where_somebody_asks(
    make_video: Maker, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec
) -> None:
    path = make_video("a.mkv", busy((64, 48), 2), codec="ffv1")
    plain, got = read_all(make_source(str(path))), read_all(make_source(str(path), options(gpu)))
    for mine, other in zip(got, plain, strict=True):
        down = mine.to_host()
        assert down.device is None and down.to_host() is down
        assert (down.index, down.pts, down.matrix) == (other.index, other.pts, other.matrix)
        for a, b in zip(as_nv12(down), as_nv12(other), strict=True):
            assert np.array_equal(a, b)
        assert np.array_equal(mine.bgr(), other.bgr())
        # An overlay of a frame on the GPU is in host memory if it is made of host planes.
        assert mine.with_planes(down.planes).device is None


def test_ten_bits_stay_ten(
    make_video: Maker, read_all: ReadAll, gpu: Driver, machine: Machine, nvdec: StandinNvdec
) -> None:
    rng = np.random.default_rng(3)
    planes = [rng.integers(64, 940, shape).astype("<u2") for shape in ((48, 64), (24, 32), (24, 32))]
    path = make_video("a.mkv", [planes], codec="ffv1", pix_fmt="yuv420p10le")
    nvdec.sw_format = "p010le"
    (frame,) = read_all(make_source(str(path), options(gpu)))
    machine.run()
    assert frame.device is not None and (frame.format, frame.device.format) == ("nv12", "p010")
    luma, chroma = on_device(frame, machine)
    assert np.array_equal(luma >> 6, planes[0])
    assert np.array_equal(chroma >> 6, np.stack(planes[1:], axis=-1))
    (plain,) = read_all(make_source(str(path)))
    assert np.array_equal(frame.bgr(), plain.bgr())


def test_a_picture_is_there_once_the_default_stream_is(
    make_video: Maker, read_all: ReadAll, gpu: Driver, machine: Machine, nvdec: StandinNvdec
) -> None:
    """What a segmenter does: its stream waits for an event on the default stream, not the host."""
    path = make_video("a.mkv", busy((64, 48), 1), codec="ffv1")
    (frame,) = read_all(make_source(str(path), options(gpu)))
    (plain,) = read_all(make_source(str(path)))
    assert not np.array_equal(on_device(frame, machine)[0], plain.planes[0])  # it is not there yet
    assert frame.device is not None
    with gpu.current():
        stream, event = gpu.stream(), gpu.event(timing=False)
        row = np.zeros(frame.width, np.uint8)
        event.record(None)
        stream.wait(event)
        gpu.download(row, frame.device.addresses[0], stream)
        stream.synchronize()
    assert np.array_equal(row, plain.planes[0][0])


def test_a_picture_is_held_with_its_frame_and_no_longer(
    make_video: Maker, gpu: Driver, machine: Machine, nvdec: StandinNvdec
) -> None:
    path = make_video("a.mkv", busy((64, 48), 8), codec="ffv1")
    source = make_source(str(path), options(gpu, threads=1))
    source.open()
    first = source.read()
    assert first is not None
    machine.run()
    before = on_device(first, machine)
    rest = [source.read() for _ in range(4)]
    machine.run()
    assert all(np.array_equal(a, b) for a, b in zip(before, on_device(first, machine), strict=True))
    held = len(nvdec.alive)
    address = first.device.addresses[0] if first.device else 0
    del first
    gc.collect()
    assert len(nvdec.alive) == held - 1
    later = source.read()
    assert later is not None and later.device is not None and later.device.addresses[0] == address
    source.close()
    del rest, later
    gc.collect()
    assert not nvdec.alive


def test_the_context_lasts_as_long_as_its_pictures(
    make_video: Maker, read_all: ReadAll, gpu: Driver, machine: Machine, nvdec: StandinNvdec
) -> None:
    path = make_video("a.mkv", 3, codec="ffv1")
    frames = read_all(make_source(str(path), options(gpu)))
    gpu.close()
    assert not gpu.released
    assert frames[-1].bgr().shape == (48, 64, 3)
    frames.clear()
    gc.collect()
    assert gpu.released


@pytest.mark.parametrize(
    "more",
    [
        {"loops": 3},
        {"start_s": 0.2},
        {"start_s": 0.2, "every": 3, "loops": 2},
        {"frames": 5, "loops": 0},
        {"every": 5},
    ],
)
@pytest.mark.parametrize("pts", [None, [0, 3, 4, 5, 9, 10, 11, 20, 21, 22, 23, 24]])
def test_selection_is_that_of_the_cpu(
    make_video: Maker, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec, more: dict[str, Any], pts: list[int] | None
) -> None:
    path = make_video("a.mp4", 12, pts=pts, options={"g": "4"})
    plain = read_all(make_source(str(path), SourceOptions(**more)))
    nvdec.opened = 0
    source = make_source(str(path), options(gpu, **more))
    got = read_all(source)
    assert [(f.index, f.pts, f.time_base) for f in got] == [(f.index, f.pts, f.time_base) for f in plain]
    assert all(np.array_equal(a.bgr(), b.bgr()) for a, b in zip(got, plain, strict=True))
    assert all(frame.device is not None for frame in got) and nvdec.opened >= 1


def test_what_is_known_of_the_source_names_nvdec(make_video: Maker, gpu: Driver, nvdec: StandinNvdec) -> None:
    path = make_video("a.mp4", 3)
    for given, ending in ((options(gpu), "(h264, NVDEC)"), (options(gpu, decode="cpu"), "(h264)")):
        source = make_source(str(path), given)
        info = source.open()
        source.close()
        assert info.description.endswith(ending) and info.encoded and info.frames == 3
    assert nvdec.opened == 1


def test_a_change_of_size_is_another_frame(
    make_video: Maker, read_all: ReadAll, gpu: Driver, machine: Machine, nvdec: StandinNvdec, tmp_path: Path
) -> None:
    path = tmp_path / "sizes.ts"
    pieces = [
        make_video(f"{n}.ts", busy(size, 3), size=size, options={"g": "1"})
        for n, size in enumerate([(64, 48), (96, 64)])
    ]
    path.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    got = read_all(make_source(str(path), options(gpu)))
    assert {(frame.width, frame.height) for frame in got} == {(64, 48), (96, 64)}
    machine.run()
    for frame in got:
        assert on_device(frame, machine)[0].shape == (frame.height, frame.width)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("broken/06_resolution_change.ts", True),
        ("broken/14_variable_frame_rate.mp4", True),
        ("broken/16_hevc_10bit.mp4", True),
        ("broken/18_display_matrix_rotate90.mp4", False),
        ("broken/07b_odd_853x481_vp9_yuv420.webm", False),
        ("video/derived_camvid_val_first_half_480x360_15fps_51f.mp4", True),
    ],
)
def test_real_clips_are_the_same_on_the_gpu(
    shared: Path, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec, name: str, kept: bool
) -> None:
    """Frames, times and colours; ``kept``: whether their pictures stay there."""
    said: list[str] = []
    if "10bit" in name:
        nvdec.sw_format = "p010le"
    if "rotate" in name:
        nvdec.rotation = 90
    plain = read_all(make_source(str(shared / name)), limit=20)
    got = read_all(make_source(str(shared / name), options(gpu), said.append), limit=20)
    assert len(said) == (not kept) and len(got) == len(plain)
    for mine, other in zip(got, plain, strict=True):
        assert (mine.device is not None) == kept
        assert (mine.pts, mine.time_base, mine.width, mine.height) == (
            other.pts, other.time_base, other.width, other.height
        )  # fmt: skip
        assert (mine.matrix, mine.full_range) == (other.matrix, other.full_range)
        down = mine.to_host()
        assert np.array_equal(down.planes[0], other.planes[0])
