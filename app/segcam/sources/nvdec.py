"""NVDEC, the video decoder of NVIDIA's GPUs, through FFmpeg: whether it can be had, and pictures that stay there.

Facts about FFmpeg that this stands on, read in its source (8.1; hwcontext_cuda.c, nvdec.c):

* ``primary_ctx`` is refused where the context is active already with other flags than FFmpeg's own, as it is once
  PyCUDA or TensorRT came first. ``current_ctx`` takes the context that is current while the container is opened, ours,
  without a reference of its own: readers and pictures hold one (``Gpu.enter``).
* Pictures are copied out of the decoder into memory that is allocated as needed: any number may be held.
* All its work is on the context's default stream.
* Pictures have even sizes and are cut at the right and the bottom only: where a stream shows less, they have a rim that
  the CPU's have not (VP9 of odd sizes; H.264 and HEVC cropped at the left or the top).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from segcam.errors import SourceError
from segcam.frame import DevicePlanes, Gpu, PixelFormat, Plane
from segcam.sources.base import Decode
from segcam.sources.decode import Decoder
from segcam.sources.planes import Picture, declared_colors, to_picture

if TYPE_CHECKING:
    from av import VideoFrame
    from av.codec.hwaccel import HWAccel

#: FFmpeg's names of what NVDEC gives for 4:2:0, and ours. Twelve bits are P016 in FFmpeg 8, P012 in 9: both have more
#: bits below the ten that are looked at.
_FORMATS: dict[str, Any] = {"nv12": "nv12", "p010le": "p010", "p012le": "p010", "p016le": "p010"}

_CPU = "or let the CPU decode: --decode cpu"


class UnfitError(Exception):
    """A picture, mostly the first, shows that this stream is none for NVDEC; says why."""


class Nvdec:
    """What ``--decode`` asks for one medium, and what came of it: ``active`` is whether NVDEC is to decode it.

    With "nvdec" a refusal is a SourceError, with "auto" a line for ``warn_once``.
    """

    def __init__(self, asked: Decode, gpu: Gpu | None, name: str, warn_once: Callable[[str], None]) -> None:
        self.gpu = gpu
        self._asked, self._name, self._warn_once = asked, name, warn_once
        self.active = asked == "nvdec" or (asked == "auto" and gpu is not None)
        self._checked = self._proven = False

    def check(self) -> None:
        """Gives up where this machine cannot. To be called once it is known that the medium is a video."""
        if self.active and not self._checked:
            self._checked = True
            missing = why_not()
            if missing is not None:
                self.give_up(*missing)

    def give_up(self, reason: str, hint: str = "") -> None:
        """From now on the CPU decodes. Raises SourceError if NVDEC was asked for by name."""
        self.active = False
        if self._asked == "nvdec":
            advice = f"{hint}, {_CPU}." if hint else f"{_CPU[3].upper()}{_CPU[4:]}."
            raise SourceError(f"{self._name}: NVDEC cannot decode it: {reason}", advice)
        self._warn_once(f"decoded on the CPU, because NVDEC cannot: {reason}")

    def accelerator(self) -> HWAccel:
        from av.codec.hwaccel import HWAccel

        if self.gpu is None:
            return HWAccel("cuda")
        options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
        return HWAccel("cuda", device=str(self.gpu.device.index), is_hw_owned=True, options=options)

    def context(self) -> AbstractContextManager[None]:
        """Inside it a container is opened with ``accelerator``."""
        return nullcontext() if self.gpu is None else self.gpu.current()

    def check_first(self, picture: VideoFrame, codec: Decoder) -> None:
        """Raises UnfitError for a stream's first picture that says that all should be decoded on the CPU.

        ``codec`` is the decoder that it came out of, which knows the size that is to be shown.
        """
        if not self.active or self._proven:
            return
        came_from = picture.format.name if self.gpu is None else "cuda"
        if picture.format.name != came_from or (self.gpu is None and came_from not in _FORMATS):
            raise UnfitError(not_taken(picture.format.name, picture))
        why = rim(picture, codec) or (_host_only(picture) if self.gpu is not None else "")
        if why:
            raise UnfitError(why)
        self._proven = True

    def out_of_memory(self) -> UnfitError | SourceError:
        """What to raise where the GPU has no memory for another picture: the CPU may decode if it is the first."""
        if not self._proven:
            return UnfitError("the GPU's memory is full")
        return SourceError(f"{self._name}: the GPU's memory is full", "Let the CPU decode: --decode cpu.")

    def picture(self, frame: VideoFrame) -> Picture:
        """Planes of a decoded frame where they are, on the GPU or in host memory; on the GPU if kernels can read it.

        Raises ValueError as ``to_picture`` does.
        """
        if frame.format.name != "cuda" or self.gpu is None:
            if self.gpu is not None and self.active and self._proven:
                self._warn_once(f"some pictures are decoded on the CPU, the first of {frame.width}x{frame.height}")
            return to_picture(frame)
        why = _host_only(frame)
        if why:
            self._warn_once(f"some pictures are brought down from the GPU: {why}")
            return to_picture(_in_host_memory(frame))
        surface = _Surface(frame, self.gpu)
        first, second = frame.planes
        planes = DevicePlanes(
            _FORMATS[_software_format(frame)],
            (int(first.buffer_ptr), int(second.buffer_ptr)),
            (first.line_size, second.line_size),
            self.gpu.device.index,
            surface.download,
        )
        matrix, full = declared_colors(frame)
        return Picture("nv12", (), frame.width, frame.height, matrix, full, surface, planes)


class _Surface:
    """Holds a picture on the GPU, and the context that it lies in, until nobody refers to it any more."""

    def __init__(self, frame: VideoFrame, gpu: Gpu) -> None:
        self._frame: VideoFrame | None = None
        gpu.enter()
        self._frame, self._gpu = frame, gpu

    def download(self) -> tuple[PixelFormat, tuple[Plane, ...]]:
        assert self._frame is not None
        picture = to_picture(_in_host_memory(self._frame))
        # The views keep the host copy by themselves.
        return picture.format, picture.planes

    def __del__(self) -> None:
        if self._frame is not None:
            # The frame first: FFmpeg frees or reuses its memory in this context.
            self._frame = None
            self._gpu.leave()


def why_not() -> tuple[str, str] | None:
    """Why NVDEC cannot be had on this machine, and what to do about it (no full stop); None where it can be tried."""
    import av
    from av.codec.hwaccel import hwdevices_available

    if not hasattr(av.VideoFrame, "sw_format"):
        return (
            f"PyAV {av.__version__} cannot keep pictures on the GPU, 18 and newer can",
            "Install it (Python 3.11 or newer): pip install 'av>=18'",
        )
    if "cuda" not in hwdevices_available():
        return "this PyAV was built without it", "Install PyAV's own wheel: pip install --force-reinstall av"
    if sys.platform == "linux":
        if not has_library("libcuda.so.1"):
            return (
                "there is no NVIDIA driver here",
                "Install the driver (nvidia-smi shows it; a container needs --gpus all)",
            )
        if not has_library("libnvcuvid.so.1"):
            return (
                "the driver's video library (libnvcuvid.so.1) is not here",
                "Install it with the driver (a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility,video)",
            )
    return None


def has_library(name: str) -> bool:
    """Whether the dynamic linker finds it."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def refusal(error: Exception) -> str:
    """What FFmpeg said instead of making its CUDA device."""
    return f"FFmpeg cannot use the GPU ({getattr(error, 'strerror', None) or error})"


def not_taken(format: str | None, size: VideoFrame | Decoder) -> str:
    """Said where FFmpeg found that the GPU has no decoder for it."""
    return f"this GPU does not take it ({format}, {size.width}x{size.height})"


def rim(picture: VideoFrame, codec: Decoder) -> str:
    """Why a picture is not what is to be shown of the stream; empty where it is."""
    if (picture.width, picture.height) == (codec.width, codec.height):
        return ""
    return (
        f"its pictures come with a rim ({picture.width}x{picture.height}), of which {codec.width}x{codec.height} are "
        "to be shown"
    )


def turned(frame: VideoFrame) -> str:
    """Why a picture must come down; empty where it is upright."""
    if round(frame.rotation / 90) % 4:
        return f"pictures are turned (here by {frame.rotation} degrees) in host memory"
    return ""


def _software_format(frame: VideoFrame) -> str:
    format = frame.sw_format
    return format.name if format is not None else frame.format.name


def _host_only(frame: VideoFrame) -> str:
    """Why a picture on the GPU cannot be used there; empty where it can."""
    format = _software_format(frame)
    return turned(frame) or ("" if format in _FORMATS else f"no kernel reads {format} pictures")


def _in_host_memory(frame: VideoFrame) -> VideoFrame:
    """A copy (waits for the GPU) with the same format, colours and rotation."""
    return frame.reformat(format=_software_format(frame))
