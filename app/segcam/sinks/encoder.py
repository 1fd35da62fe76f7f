"""Who makes H.264 of pictures: x264 on the processor, or NVENC, the encoder of NVIDIA's GPUs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from segcam.errors import SegcamError, let_go

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.codeccontext import VideoCodecContext

#: "auto" is NVENC where the network is on a GPU that has it, else x264.
Encode = Literal["auto", "nvenc", "x264"]

#: Each key frame costs size; without them players can't jump.
_KEY_FRAME_S = 2

#: Frames inside NVENC at once: the next is there when one is done. With none, each call waits for its own.
_NVENC_DELAY = 2

#: NVENC's presets by x264's: p1 is the fastest, p7 the best.
_NVENC_PRESETS = {
    "ultrafast": "p1",
    "superfast": "p1",
    "veryfast": "p2",
    "faster": "p3",
    "fast": "p3",
    "medium": "p4",
    "slow": "p5",
    "slower": "p6",
    "veryslow": "p7",
    "placebo": "p7",
}


@dataclass(frozen=True)
class Encoder:
    """FFmpeg's encoder ``codec`` with its settings. ``crf`` is 0 (lossless) to 51 (worst) for both: x264's constant
    rate factor, NVENC's constant quality. ``gpu`` is the number of NVENC's GPU."""

    codec: Literal["libx264", "h264_nvenc"]
    crf: int
    preset: str
    gpu: int = 0

    @property
    def on_gpu(self) -> bool:
        return self.codec == "h264_nvenc"

    @property
    def words(self) -> str:
        if self.on_gpu:
            return f"H.264 NVENC {_NVENC_PRESETS[self.preset]} quality {self.crf}"
        return f"H.264 {self.preset} crf {self.crf}"

    def options(self, rate: Fraction, *, centred_chroma: bool = False) -> dict[str, str]:
        """FFmpeg's options for a stream of that mean rate."""
        key_frames = {
            # B-frames would be written out of order, so that every time needs an offset and every frame waits for a
            # later one.
            "bf": "0",
            "g": str(min(250, max(1, round(rate * _KEY_FRAME_S)))),
        }
        if not self.on_gpu:
            # x264 prints a page of statistics otherwise; its errors come as exceptions.
            more = "log=0" + (":chromaloc=1" if centred_chroma else "")
            return {"preset": self.preset, "crf": str(self.crf), **key_frames, "x264-params": more}
        options = {
            "preset": _NVENC_PRESETS[self.preset], "gpu": str(self.gpu), "delay": str(_NVENC_DELAY), **key_frames
        }  # fmt: skip
        if self.crf == 0:
            # A quality of 0 means "automatic" to NVENC.
            return {**options, "tune": "lossless", "rc": "constqp", "qp": "0"}
        # Without a bit rate of 0 the default one (2 Mbit/s) would cap the quality.
        return {**options, "rc": "vbr", "cq": str(self.crf), "b": "0"}


def nvenc_problem(encoder: Encoder, size: tuple[int, int]) -> str | None:
    """Why NVENC cannot encode pictures of ``size`` (width, height; even); None if it can. Tried out: it is opened."""
    import av
    from av.codec.codec import UnknownCodecError

    try:
        _context(encoder, size, "nv12").open()
    except UnknownCodecError:
        return "this PyAV was built without it"
    except (av.FFmpegError, ValueError) as error:
        if getattr(error, "errno", None) == errno.EPERM:
            return "NVIDIA's driver, or its encoder library, is not here"
        if getattr(error, "errno", None) == errno.ENOSYS:
            return f"NVIDIA's driver is too old for the NVENC of PyAV {av.__version__} (for 18 it must be 570 or newer)"
        return (
            f"this GPU has none for {size[0]}x{size[1]} (data-centre GPUs have none at all; FFmpeg says: "
            f"{_reason(error)})"
        )
    return None


def device_problem(encoder: Encoder, picture: Callable[[], VideoFrame]) -> str | None:
    """Why NVENC cannot encode what ``picture`` gives from the GPU's memory; None if it can.

    Tried out with an encoder of its own, which is gone afterwards: a file's can't be changed once it has failed.
    """
    import av

    try:
        _try_out(encoder, picture())
    except (av.FFmpegError, ValueError, TypeError, NotImplementedError, SegcamError) as error:
        # Whoever keeps it would keep the picture.
        let_go(error)
        return f"it does not take them from there (FFmpeg says: {_reason(error)})"
    return None


def _try_out(encoder: Encoder, picture: VideoFrame) -> None:
    context = _context(encoder, (picture.width, picture.height), "cuda")
    picture.pts, picture.time_base = 0, context.time_base
    context.encode(picture)
    context.encode(None)


def _context(encoder: Encoder, size: tuple[int, int], pix_fmt: str) -> VideoCodecContext:
    from av import CodecContext

    context = CodecContext.create(encoder.codec, "w")
    context.width, context.height = size
    context.pix_fmt = pix_fmt
    context.time_base = Fraction(1, 25)
    context.options = encoder.options(Fraction(25))
    return context


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
