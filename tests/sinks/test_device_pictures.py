"""Pictures lent to FFmpeg through DLPack: who may read them, for how long, and when they are given back."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from segcam.frame import DevicePlanes, Frame
from segcam.sinks import device_pictures
from segcam.sinks.device_pictures import DeviceBytes, DevicePictures

#: DLPack's number of host memory, where NumPy and PyAV can read what is lent.
CPU = 1
HEIGHT, WIDTH, PITCH = 6, 10, 32


class Owner:
    """What keeps the memory."""


@pytest.fixture
def memory() -> Iterator[np.ndarray]:
    """NV12 as NVENC has it, with something else between rows; at the end nothing may be lent any more."""
    rows = np.random.default_rng(3).integers(0, 256, (HEIGHT * 3 // 2, PITCH), np.uint8)
    yield rows
    gc.collect()
    assert not device_pictures._lent


def lend(memory: np.ndarray, owner: object) -> tuple[DeviceBytes, DeviceBytes]:
    at = memory.ctypes.data
    return (
        DeviceBytes(at, HEIGHT, WIDTH, PITCH, 0, owner, CPU),
        DeviceBytes(at + HEIGHT * PITCH, HEIGHT // 2, WIDTH, PITCH, 0, owner, CPU),
    )


def held(owner: Any) -> bool:
    return any(owner in parts for parts in device_pictures._lent.values())


def test_what_is_lent_is_what_lies_there(memory: np.ndarray) -> None:
    y, uv = (np.from_dlpack(plane) for plane in lend(memory, None))
    np.testing.assert_array_equal(y, memory[:HEIGHT, :WIDTH])
    np.testing.assert_array_equal(uv, memory[HEIGHT:, :WIDTH])
    memory[0, 0] ^= 255
    assert y[0, 0] == memory[0, 0]


def test_a_tensor_keeps_the_memory_until_it_is_gone(memory: np.ndarray) -> None:
    owner = Owner()
    y, uv = (np.from_dlpack(plane) for plane in lend(memory, owner))
    rows = y[2:]
    del y, uv
    assert held(owner)
    boxes = [rows]
    del rows
    thread = threading.Thread(target=boxes.clear)
    thread.start()
    thread.join()
    assert not held(owner)


def test_a_capsule_that_nobody_takes_is_given_back(memory: np.ndarray) -> None:
    owner = Owner()
    capsule = lend(memory, owner)[0].__dlpack__()
    assert held(owner)
    del capsule
    assert not held(owner)


def test_ffmpeg_gives_back_what_it_has_no_use_for_any_more(memory: np.ndarray) -> None:
    owner = Owner()
    picture = av.VideoFrame.from_dlpack(lend(memory, owner), format="nv12")
    np.testing.assert_array_equal(picture.to_ndarray(), memory[:, :WIDTH])
    codec = av.CodecContext.create("rawvideo", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = WIDTH, HEIGHT, "nv12", Fraction(1, 25)
    packets = codec.encode(picture)
    assert held(owner)
    del picture
    assert not held(owner)
    assert bytes(packets[0]) == np.ascontiguousarray(memory[:, :WIDTH]).tobytes()


@pytest.mark.parametrize("odd", ["height", "width"])
def test_what_pyav_refuses_is_given_back(memory: np.ndarray, odd: str) -> None:
    owner, at = Owner(), memory.ctypes.data
    height, width = HEIGHT - (odd == "height"), WIDTH - (odd == "width")
    planes = (
        DeviceBytes(at, height, width, PITCH, 0, owner, CPU),
        DeviceBytes(at + HEIGHT * PITCH, 3, WIDTH, PITCH, 0, owner, CPU),
    )
    with pytest.raises(ValueError, match="even"):
        av.VideoFrame.from_dlpack(planes, format="nv12")
    gc.collect()
    assert not held(owner)


# --- frames of a GPU


class Gpu:
    """Number 3; ``users`` hold its context."""

    def __init__(self) -> None:
        self.device, self.users = SimpleNamespace(index=3), 0

    def current(self) -> Any:
        return contextlib.nullcontext()

    def enter(self) -> None:
        self.users += 1

    def leave(self) -> None:
        self.users -= 1


needs_current_context = pytest.mark.skipif(bool(device_pictures.why_not()), reason=device_pictures.why_not())


def frame(planes: DevicePlanes | None) -> Frame:
    return Frame(0, 0, Fraction(1, 25), 0.0, "t", WIDTH, HEIGHT, "nv12", (), device=planes, owner=Owner())


@needs_current_context
@pytest.mark.parametrize(
    "planes",
    [
        None,
        DevicePlanes("nv12", (0x1000, 0x1000 + PITCH * HEIGHT + 256), (PITCH, PITCH), 3, lambda: ("nv12", ())),
        DevicePlanes("p010", (0x1000, 0x1000 + PITCH * HEIGHT), (PITCH, PITCH), 3, lambda: ("nv12", ())),
    ],
)
def test_only_what_nvenc_reads_from_one_address_is_lent(planes: DevicePlanes | None) -> None:
    pictures = DevicePictures(Gpu())
    with pytest.raises(ValueError, match="as NVENC reads it"):
        pictures.picture(frame(planes))
    pictures.close()


@needs_current_context
def test_the_context_is_held_until_close() -> None:
    gpu = Gpu()
    pictures = DevicePictures(gpu)
    assert gpu.users == 1
    pictures.close()
    pictures.close()
    assert gpu.users == 0


@needs_current_context
def test_without_a_driver_nothing_stays_lent() -> None:
    pictures = DevicePictures(Gpu())
    given = frame(DevicePlanes("nv12", (0x1000, 0x1000 + PITCH * HEIGHT), (PITCH, PITCH), 3, lambda: ("nv12", ())))
    with pytest.raises((av.FFmpegError, ValueError)):
        pictures.picture(given)
    pictures.close()
    gc.collect()
    assert not held(given.owner)
