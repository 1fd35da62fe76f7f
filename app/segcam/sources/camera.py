"""Cameras on this machine, through Linux's Video4Linux2.

FFmpeg's device reader is used rather than OpenCV's: it leaves the camera's YUV as it is (OpenCV gives BGR, a
conversion to be undone later), decodes H.264 and MJPEG streams with the same loop as files, and passes on the
driver's own timestamps.
"""

from __future__ import annotations

import errno
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from segcam.errors import SegcamError, SourceError, UsageError
from segcam.sources.base import Source, SourceInfo, SourceOptions, Warn
from segcam.sources.detached import DetachedSource
from segcam.sources.diagnose import quoted
from segcam.sources.select import refuse_looping, refuse_seeking
from segcam.sources.settings import parse_rate, parse_settings, parse_size
from segcam.sources.video import VideoSource

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer

_SETTINGS = ("size", "fps", "format")


def is_camera(spec: str) -> bool:
    """``0``, ``/dev/video0``, ``camera:...``."""
    return spec.isdecimal() or spec.startswith(("/dev/video", "camera:"))


class CameraMedium:
    """One V4L2 device and what is asked of it: ``camera:0,size=1280x720,fps=30,format=mjpeg``.

    ``format`` is a V4L2 input format as FFmpeg names it (``mjpeg``, ``h264``, ``yuyv422``, ``nv12``, ...). What is
    left out is the driver's choice. Raises UsageError.
    """

    live: bool | None = True
    #: Few cameras send a stream that NVDEC takes, and those that do send little of it.
    encoded = False

    def __init__(self, spec: str) -> None:
        device, _, tail = spec.removeprefix("camera:").partition(",")
        device = device.strip()
        if not device or "=" in device:
            raise UsageError(f"source {spec!r} names no camera", "Write for example camera:0,size=1280x720,fps=30.")
        self.name = f"/dev/video{device}" if device.isdecimal() else device
        settings = parse_settings(tail, _SETTINGS, spec)
        self.size = parse_size(settings["size"], spec, 16, 16384) if "size" in settings else None
        self.rate_hz: Fraction | None = parse_rate(settings["fps"], "fps", spec) if "fps" in settings else None
        self.input_format = settings.get("format", "")

    def device_options(self) -> dict[str, str]:
        """Options of FFmpeg's v4l2 reader."""
        options: dict[str, str] = {}
        if self.size:
            options["video_size"] = f"{self.size[0]}x{self.size[1]}"
        if self.rate_hz:
            options["framerate"] = str(self.rate_hz)
        if self.input_format:
            options["input_format"] = self.input_format
        return options

    def open(self, hwaccel: HWAccel | None = None) -> InputContainer:
        import av

        if not sys.platform.startswith("linux"):
            raise SourceError(
                f"{self.name}: cameras are read through Video4Linux2, which {sys.platform} does not have",
                "Send the camera's picture as a stream and give its address, for example rtsp://127.0.0.1:8554/cam",
            )
        return av.open(self.name, "r", format="v4l2", options=self.device_options())

    def explain(self, error: Exception) -> SegcamError:
        if isinstance(error, SegcamError):
            return error
        code = getattr(error, "errno", None)
        if code == errno.ENOENT:
            there = sorted(str(path) for path in Path("/dev").glob("video*"))
            found = (
                f"cameras here: {', '.join(there)}" if there else "there is no camera on this machine (no /dev/video*)"
            )
            return SourceError(
                f"{self.name}: no such camera; {found}",
                f"Try: --source {there[0]}" if there else "Plug one in, or try without: --source test:",
            )
        if code in (errno.EACCES, errno.EPERM):
            return SourceError(
                f"{self.name}: no permission to use this camera",
                "Join the video group, then log in again: sudo usermod -aG video $USER",
            )
        if code == errno.EBUSY:
            return SourceError(
                f"{self.name}: the camera is in use by another program", f"See which: fuser -v {quoted(self.name)}"
            )
        if code in (errno.ENODEV, errno.ENXIO, errno.EIO):
            return SourceError(f"{self.name}: the camera does not answer or was unplugged", "Plug it in again.")
        if code == errno.ENOTTY:
            return SourceError(f"{self.name}: not a camera", "Give a V4L2 device, for example /dev/video0.")
        asked = ", ".join(f"{key}={value}" for key, value in self.device_options().items()) or "the driver's defaults"
        reason = getattr(error, "strerror", None) or type(error).__name__
        return SourceError(
            f"{self.name}: the camera cannot be used with {asked} ({reason})",
            f"See what it offers: v4l2-ctl --list-formats-ext -d {quoted(self.name)}",
        )


class _CameraSource(VideoSource):
    """Says so when the driver gave another size or rate than asked, as drivers do."""

    def __init__(self, medium: CameraMedium, options: SourceOptions, warn: Warn) -> None:
        super().__init__(medium, options, warn)
        self._camera = medium
        self._every = options.every

    def open(self) -> SourceInfo:
        info = super().open()
        camera = self._camera
        if camera.size and camera.size != (info.width, info.height):
            wanted = f"{camera.size[0]}x{camera.size[1]}"
            self._warn(f"{camera.name}: the camera gives {info.width}x{info.height}, not {wanted} as asked")
        rate = info.rate_hz * self._every if info.rate_hz else None
        if camera.rate_hz and rate and abs(rate - camera.rate_hz) > camera.rate_hz / 50:
            given, asked = f"{float(rate):g}", f"{float(camera.rate_hz):g}"
            self._warn(f"{camera.name}: the camera gives {given} frames per second, not {asked} as asked")
        return info


def camera_source(spec: str, options: SourceOptions, warn: Warn) -> Source:
    """A camera. Raises UsageError for a spec or options that no camera can follow."""
    medium = CameraMedium(spec)
    refuse_seeking(options, medium.name)
    refuse_looping(options, medium.name)
    return DetachedSource(_CameraSource(medium, options, warn))
