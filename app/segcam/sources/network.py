"""RTSP, HTTP and the other addresses that FFmpeg opens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from segcam.errors import SegcamError, SourceError
from segcam.sources.base import Source, SourceOptions, Warn
from segcam.sources.detached import DetachedSource
from segcam.sources.diagnose import quoted
from segcam.sources.select import refuse_looping, refuse_seeking
from segcam.sources.urls import redact_url, url_scheme
from segcam.sources.video import VideoSource

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer

#: Seconds to wait for a connection, and for each packet after that.
OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 10.0

_ALWAYS_LIVE = ("rtsp", "rtsps", "udp", "srt", "tcp")


class UrlMedium:
    """An address. HTTP is live when the stream has no duration, the others always are."""

    encoded = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._scheme = url_scheme(url)
        self.name = redact_url(url)
        self.live: bool | None = True if self._scheme in _ALWAYS_LIVE else None

    def open(self, hwaccel: HWAccel | None = None) -> InputContainer:
        import av

        options: dict[str, str] = {}
        if self._scheme in ("rtsp", "rtsps"):
            # RTP over UDP loses packets in silence on most networks; TCP is asked for first, UDP still allowed.
            options["rtsp_flags"] = "prefer_tcp"
        began_s = time.monotonic()
        try:
            timeout = (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
            return av.open(self._url, "r", options=options, timeout=timeout, hwaccel=hwaccel)
        except av.FFmpegError:
            # A handshake that was broken off by the time-out fails with whatever it then made of half an answer.
            if time.monotonic() - began_s < OPEN_TIMEOUT_S:
                raise
            raise TimeoutError from None

    def explain(self, error: Exception) -> SegcamError:
        """PyAV's own message holds the address with its password, so only the kind of error is used."""
        import av

        again = f"Try it with: ffprobe -hide_banner {quoted(self.name)}"
        if isinstance(error, ConnectionRefusedError):
            return SourceError(
                f"{self.name}: connection refused: nothing listens at that address and port",
                "Check host and port, and that the camera or server is running.",
            )
        if isinstance(error, (av.error.ExitError, TimeoutError)):
            return SourceError(
                f"{self.name}: no answer within {OPEN_TIMEOUT_S:g} s", f"Check the network and the address. {again}"
            )
        if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
            return SourceError(
                f"{self.name}: the server refuses access ({error.strerror})",
                f"Give name and password in the address: {self._scheme}://NAME:PASSWORD@HOST/PATH",
            )
        if isinstance(error, av.error.HTTPNotFoundError):
            return SourceError(f"{self.name}: the server has nothing at that path (404)", "Check the path.")
        reason = redact_url(getattr(error, "strerror", None) or type(error).__name__)
        return SourceError(f"{self.name}: cannot be read ({reason})", again)


def url_source(url: str, options: SourceOptions, warn: Warn) -> Source:
    """A source for a network address. Raises UsageError for options that a live stream cannot follow."""
    medium = UrlMedium(url)
    if medium.live:
        refuse_seeking(options, medium.name)
        refuse_looping(options, medium.name)
    return DetachedSource(VideoSource(medium, options, warn))
