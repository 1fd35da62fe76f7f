"""NVDEC for tests: files are really decoded, on the CPU, and the pictures handed out as FFmpeg hands out a GPU's.

``install(monkeypatch, machine)`` puts it behind ``av.open(..., hwaccel=...)`` and, for AV1, whose decoder there has no
NVDEC, behind ``av.CodecContext.create``. Pictures lie in the memory of
the stand-in CUDA machine, written by queued work on the default stream; what is let go is used again by a later
picture, so that who reads too early or too late finds other bytes. It refuses ``primary_ctx``, which FFmpeg does where
the context is active already, and opening outside the context, to which it holds no reference of its own.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import standin_cuda
from standin_cuda import Machine, Refused

from segcam.kernels.cuda.driver import Driver, open_driver
from segcam.sources import nvdec as real_nvdec

_PITCH = 256


@dataclass
class StandinNvdec:
    """``opened`` counts containers opened with it, ``plain`` the packets that AV1's other decoder was given meanwhile.
    ``refuse``: pictures from that number on come in host memory, as they do where NVDEC cannot take a stream. ``full``:
    from that number on there is no memory for them. ``rotation`` and ``sw_format`` are those of every picture."""

    machine: Machine
    context: int = 0
    opened: int = 0
    plain: int = 0
    refuse: int | None = None
    full: int | None = None
    rotation: int = 0
    sw_format: str = "nv12"
    hwaccel: bool = True
    fails: Exception | None = None
    decodes_nothing: bool = False
    pool: list[tuple[int, int]] = field(default_factory=list)
    alive: weakref.WeakSet[CudaPicture] = field(default_factory=weakref.WeakSet)
    decoded: int = 0
    late: int = 0
    brings_down: bool = False

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """FFmpeg makes the context current by itself, in whichever thread."""
        self.machine.push(self.context)
        try:
            yield
        finally:
            self.machine.pop()

    def memory(self, nbytes: int) -> int:
        """What was let go last is used first."""
        for place in reversed(self.pool):
            if place[1] == nbytes:
                self.pool.remove(place)
                return place[0]
        return self.machine.allocate(nbytes)


class CudaPicture:
    """A ``VideoFrame`` on the GPU, as far as the package looks at it: as in FFmpeg, of even size."""

    def __init__(self, nvdec: StandinNvdec, real: av.VideoFrame) -> None:
        self._real, self._nvdec = real, nvdec
        self.format = SimpleNamespace(name="cuda")
        self.sw_format = SimpleNamespace(name=nvdec.sw_format)
        self.rotation = nvdec.rotation
        self.width, self.height = real.width + real.width % 2, real.height + real.height % 2
        host = self.reformat(nvdec.sw_format)
        self._places: list[tuple[int, int]] = []
        self.planes = []
        with nvdec.current():
            for plane in host.planes:
                pitch = -(-plane.line_size // _PITCH) * _PITCH
                rows = np.zeros((plane.height + plane.height % 2, pitch), np.uint8)
                rows[: plane.height, : plane.line_size] = np.frombuffer(memoryview(plane), np.uint8).reshape(
                    -1, plane.line_size
                )
                address = nvdec.memory(rows.nbytes)
                self._places.append((address, rows.nbytes))
                # Queued work must not keep the picture.
                nvdec.machine.enqueue(0, partial(_write, nvdec.machine, address, rows.tobytes()), "NVDEC")
                self.planes.append(SimpleNamespace(buffer_ptr=address, line_size=pitch))
        nvdec.alive.add(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def reformat(self, format: str) -> av.VideoFrame:
        with self._nvdec.current():
            return self._real.reformat(format=format)

    def __del__(self) -> None:
        try:
            with self._nvdec.current():
                # The decoder's next work may run at once, before anything that is still queued elsewhere.
                for address, nbytes in self._places:
                    _write(self._nvdec.machine, address, bytes([77]) * nbytes)
                self._nvdec.pool += self._places
        except Refused:
            self._nvdec.late += 1


def _brought_down(picture: av.VideoFrame) -> av.VideoFrame:
    width, height = picture.width + picture.width % 2, picture.height + picture.height % 2
    return picture.reformat(width, height, "nv12")


def _write(machine: Machine, address: int, data: bytes) -> None:
    machine.bytes_at(address, len(data))[:] = data


class _Proxy:
    def __init__(self, real: Any, nvdec: StandinNvdec) -> None:
        object.__setattr__(self, "real", real)
        object.__setattr__(self, "nvdec", nvdec)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.real, name, value)


class _Codec(_Proxy):
    @property
    def is_hwaccel(self) -> bool:
        return self.nvdec.hwaccel and self.real.codec.name != "libdav1d"

    def decode(self, packet: Any) -> list[Any]:
        if not self.is_hwaccel:
            self.nvdec.plain += 1
            return list(self.real.decode(packet))
        nvdec: StandinNvdec = self.nvdec
        pictures = [] if nvdec.decodes_nothing else self.real.decode(packet)
        out = []
        for picture in pictures:
            if nvdec.full is not None and nvdec.decoded >= nvdec.full:
                raise av.error.MemoryError(12, "Cannot allocate memory")
            on_gpu = nvdec.hwaccel and (nvdec.refuse is None or nvdec.decoded < nvdec.refuse)
            nvdec.decoded += 1
            if not on_gpu:
                out.append(self.refused(picture))
            else:
                out.append(_brought_down(picture) if nvdec.brings_down else CudaPicture(nvdec, picture))
        return out

    def refused(self, picture: Any) -> Any:
        return picture


class _Av1(_Codec):
    """FFmpeg's own decoder, which decodes nothing by itself and hears nothing of what the container says."""

    @property
    def is_hwaccel(self) -> bool:
        return bool(self.nvdec.hwaccel)

    def decode(self, packet: Any) -> list[Any]:
        pictures = super().decode(packet)
        for picture in pictures:
            picture.colorspace, picture.color_range = 2, 0
        return pictures

    def refused(self, picture: Any) -> Any:
        raise av.error.NotImplementedError(38, "Function not implemented")


class _Stream(_Proxy):
    @property
    def codec_context(self) -> _Codec:
        return _Codec(self.real.codec_context, self.nvdec)


class Container(_Proxy):
    @property
    def streams(self) -> Any:
        return SimpleNamespace(video=[_Stream(stream, self.nvdec) for stream in self.real.streams.video])

    def demux(self, stream: _Stream) -> Any:
        return self.real.demux(stream.real)

    def seek(self, offset: int, *, stream: _Stream) -> None:
        self.real.seek(offset, stream=stream.real)


def install(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> StandinNvdec:
    """An NVDEC on that GPU."""
    standin, real = StandinNvdec(machine), av.open

    def open_(file: Any, *args: Any, hwaccel: Any = None, **more: Any) -> Any:
        if hwaccel is None:
            return real(file, *args, **more)
        if standin.fails is not None:
            raise type(standin.fails)(*standin.fails.args)
        container = real(file, *args, **more)
        standin.opened += not all(stream.codec_context.name == "libdav1d" for stream in container.streams.video)
        standin.pool.clear()  # every decoder has its own
        standin.brings_down = not hwaccel.is_hw_owned
        if hwaccel.is_hw_owned:
            assert hwaccel.options == {"primary_ctx": "0", "current_ctx": "1"}
            standin.context = machine.require_context().handle
        return Container(container, standin)

    create = av.CodecContext.create

    def create_(codec: Any, mode: str, hwaccel: Any = None) -> Any:
        if hwaccel is None:
            return create(codec, mode)
        assert codec.name == "av1"
        if standin.fails is not None:
            raise type(standin.fails)(*standin.fails.args)
        standin.opened += 1
        standin.brings_down = not hwaccel.is_hw_owned
        if hwaccel.is_hw_owned:
            standin.context = machine.require_context().handle
        context = create("libdav1d", mode)
        context.thread_count = 1
        return _Av1(context, standin)

    monkeypatch.setattr(av, "open", open_)
    monkeypatch.setattr(av, "CodecContext", SimpleNamespace(create=create_))
    monkeypatch.setattr(real_nvdec, "why_not", lambda: None)
    return standin


def busy(size: tuple[int, int], count: int) -> list[tuple[np.ndarray, ...]]:
    """Planes of pictures in which every sample counts, 4:2:0 of 8 bits, (width, height)."""
    rng = np.random.default_rng(7)
    width, height = size
    half = (-(-height // 2), -(-width // 2))
    return [
        tuple(rng.integers(16, 235, shape, np.uint8) for shape in ((height, width), half, half)) for _ in range(count)
    ]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return standin_cuda.install(monkeypatch, ("cuda-python",))


@pytest.fixture
def gpu(machine: Machine) -> Iterator[Driver]:
    driver = open_driver("cuda-python")
    yield driver
    driver.close()
    gc.collect()
    assert driver.released


@pytest.fixture
def nvdec(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> Iterator[StandinNvdec]:
    standin = install(monkeypatch, machine)
    yield standin
    assert standin.late == 0
