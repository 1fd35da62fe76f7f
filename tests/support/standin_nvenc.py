"""NVENC for tests: pictures come from a stand-in GPU's memory or the host's, and x264 encodes them without loss.

``install(monkeypatch, machine)`` puts it behind PyAV. A picture in the GPU's memory is read as late as the encoder's
``delay`` allows, and given back then, in a thread of FFmpeg's own: who uses its memory again too early finds other
bytes in the file. It refuses what FFmpeg and NVENC refuse: a context that is not current, chroma that doesn't lie
directly behind luma, memory that is freed while the encoder, which knows it by its address, is open, other sizes than
the first, pictures on the GPU for an encoder that was opened for the host's. Calls of the driver that fail are FFmpeg's
error, as they are where FFmpeg makes them.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import av.video.frame
import numpy as np
import pytest
from standin_cuda import Machine, Refused

from segcam.sinks import video as video_module

_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))
_USED = b"used_dltensor"
#: AVERROR_EXTERNAL, which FFmpeg returns for any error of the driver.
_EXTERNAL = 542398533


@contextlib.contextmanager
def _in_ffmpeg() -> Iterator[None]:
    try:
        yield
    except Refused:
        raise av.error.ExternalError(_EXTERNAL, "Generic error in an external library") from None


class _DLManagedTensor(ctypes.Structure):
    """As dlpack.h has it."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64), ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ]  # fmt: skip


class _Tensor:
    """A tensor that was taken, as FFmpeg takes it."""

    def __init__(self, lender: Any) -> None:
        capsule = lender.__dlpack__()
        self._at = _pointer(capsule, b"dltensor")
        _rename(capsule, _USED)
        found = _DLManagedTensor.from_address(self._at)
        assert (found.device_type, found.code, found.bits, found.lanes, found.ndim) == (2, 1, 8, 1, 2)
        assert found.strides[1] == 1 and found.byte_offset == 0
        self.address, self.device = int(found.data), int(found.device_id)
        self.rows, self.row_bytes, self.pitch = int(found.shape[0]), int(found.shape[1]), int(found.strides[0])
        self._deleter: Any = found.deleter

    def give_back(self) -> None:
        deleter, self._deleter = self._deleter, None
        if deleter is not None:
            thread = threading.Thread(target=deleter, args=(self._at,))
            thread.start()
            thread.join()

    def __del__(self) -> None:
        # FFmpeg lets go what an encoder that is closed still had.
        self.give_back()


class CudaPicture:
    """A ``VideoFrame`` in the GPU's memory."""

    def __init__(self, nvenc: StandinNvenc, planes: tuple[Any, Any], context: Any) -> None:
        with _in_ffmpeg():
            assert nvenc.machine.require_context().handle == context.handle()
        self.nvenc, self.context = nvenc, context.handle()
        self.y, self.uv = (_Tensor(plane) for plane in planes)
        assert self.y.device == self.uv.device == context.device_id
        self.width, self.height = self.y.row_bytes, self.y.rows
        assert self.width % 2 == 0 == self.height % 2 and (self.uv.rows, self.uv.row_bytes) == (
            self.height // 2,
            self.width,
        )
        self.pts: int | None = None
        self.time_base: Fraction | None = None
        self.pict_type: Any = None
        nvenc.taken += 1

    def read(self) -> av.VideoFrame:
        """What NVENC reads: from one address on, at one pitch."""
        machine, pitch, rows = self.nvenc.machine, self.y.pitch, self.height * 3 // 2
        machine.push(self.context)
        try:
            block = bytes(machine.bytes_at(self.y.address, (rows - 1) * pitch + self.width))
        finally:
            machine.pop()
        lines = np.frombuffer(block + bytes(pitch - self.width), np.uint8).reshape(rows, pitch)[:, : self.width]
        made = av.VideoFrame.from_ndarray(np.ascontiguousarray(lines), format="nv12")
        made.pts, made.time_base = self.pts, self.time_base
        return made

    def give_back(self) -> None:
        for tensor in (self.y, self.uv):
            tensor.give_back()
        self.nvenc.given_back += 1


@dataclass
class StandinNvenc:
    """``sessions`` are the pix_fmts of the encoders that were opened; ``uploaded`` counts pictures that came from the
    host to an encoder for the GPU's. ``fails``: the error of every encoder for pictures in the GPU's memory."""

    machine: Machine
    delay: int = 2
    fails: Exception | None = None
    sessions: list[str] = field(default_factory=list)
    taken: int = 0
    given_back: int = 0
    uploaded: int = 0


class Codec:
    """A codec context of ``h264_nvenc``; ``real`` is one of x264's."""

    def __init__(self, nvenc: StandinNvenc, real: Any) -> None:
        self._nvenc, self._real = nvenc, real
        self._waiting: deque[Any] = deque()
        self._registered: dict[int, int] = {}
        self._size = (0, 0)
        self.pix_fmt = ""
        self._opened = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("pix_fmt", "options") or name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._real, name, value)

    def _open(self, picture: Any) -> None:
        on_gpu = isinstance(picture, CudaPicture)
        assert (self.pix_fmt == "cuda") == on_gpu, f"{picture} for an encoder of {self.pix_fmt}"
        self._nvenc.sessions.append(self.pix_fmt)
        self._opened, self._size = True, (picture.width, picture.height)
        self._real.pix_fmt, self._real.options = "nv12", {"qp": "0", "bf": "0", "preset": "ultrafast"}

    def encode(self, picture: Any = None) -> list[Any]:
        with _in_ffmpeg():
            return self._encode(picture)

    def _encode(self, picture: Any) -> list[Any]:
        out: list[Any] = []
        if picture is not None:
            if self._nvenc.fails is not None and self.pix_fmt == "cuda":
                raise self._nvenc.fails
            if not self._opened:
                self._open(picture)
            assert (picture.width, picture.height) == self._size
            if isinstance(picture, CudaPicture):
                assert self.pix_fmt == "cuda"
                self._registered.setdefault(picture.y.address, picture.y.pitch)
                assert self._registered[picture.y.address] == picture.y.pitch
            else:
                self._nvenc.uploaded += self.pix_fmt == "cuda"
                # FFmpeg has copied it when this returns.
                picture = _copied(picture)
            self._waiting.append(picture)
        while self._waiting and (picture is None or len(self._waiting) > self._nvenc.delay):
            out += self._real.encode(self._next())
        if picture is None and self._opened:
            out += self._real.encode(None)
        self._check_registered()
        return out

    def _next(self) -> av.VideoFrame:
        oldest = self._waiting.popleft()
        if not isinstance(oldest, CudaPicture):
            return oldest
        made = oldest.read()
        oldest.give_back()
        return made

    def _check_registered(self) -> None:
        for address in self._registered:
            self._nvenc.machine.bytes_at(address, 1)


def _copied(picture: av.VideoFrame) -> av.VideoFrame:
    made = av.VideoFrame.from_ndarray(picture.to_ndarray(format="nv12"), format="nv12")
    made.pts, made.time_base = picture.pts, picture.time_base
    return made


class _Stream:
    def __init__(self, nvenc: StandinNvenc, real: Any) -> None:
        object.__setattr__(self, "real", real)
        object.__setattr__(self, "codec_context", Codec(nvenc, real.codec_context))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.codec_context if name == "pix_fmt" else self.real, name, value)


class _Container:
    def __init__(self, nvenc: StandinNvenc, real: Any) -> None:
        self._nvenc, self._real = nvenc, real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        self._real.close()

    def add_stream(self, codec: str, **more: Any) -> Any:
        if codec != "h264_nvenc":
            return self._real.add_stream(codec, **more)
        return _Stream(self._nvenc, self._real.add_stream("libx264", rate=more["rate"]))


def install(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> StandinNvenc:
    """An NVENC on that GPU."""
    nvenc, real_open, real_frame, real_context = StandinNvenc(machine), av.open, av.VideoFrame, av.CodecContext

    class Context:
        def __init__(self, device_id: int = 0, primary_ctx: bool = True, current_ctx: bool = False) -> None:
            assert (primary_ctx, current_ctx) == (False, True)
            self.device_id, self._handle = device_id, 0

        current_ctx = True

        def handle(self) -> int:
            """The context that was current when it was used first."""
            if not self._handle:
                found = machine.require_context()
                assert found.device == self.device_id
                self._handle = found.handle
            return self._handle

    class VideoFrame:
        def __new__(cls, *args: Any) -> Any:
            return real_frame(*args)

        from_ndarray = staticmethod(real_frame.from_ndarray)

        @staticmethod
        def from_dlpack(planes: Any, *, format: str, cuda_context: Context) -> CudaPicture:
            assert format == "nv12"
            return CudaPicture(nvenc, planes, cuda_context)

    def create(codec: str, mode: str) -> Any:
        if codec != "h264_nvenc":
            return real_context.create(codec, mode)
        return Codec(nvenc, real_context.create("libx264", mode))

    def opened(file: Any, mode: str = "r", **more: Any) -> Any:
        container = real_open(file, mode, **more)
        return _Container(nvenc, container) if mode == "w" else container

    monkeypatch.setattr(av, "open", opened)
    monkeypatch.setattr(av, "VideoFrame", VideoFrame)
    monkeypatch.setattr(av, "CodecContext", SimpleNamespace(create=create))
    monkeypatch.setattr(av.video.frame, "CudaContext", Context)
    monkeypatch.setattr(video_module, "nvenc_problem", lambda encoder, size: None)
    return nvenc
