"""Where a video's bytes come from; files here, addresses and cameras in modules of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from segcam.errors import SegcamError
from segcam.sources.diagnose import animated_webp, missing_file, unreadable_video

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel
    from av.container import InputContainer


class Medium(Protocol):
    """``name`` may be shown (it holds no password); ``live`` None means live if the stream has no duration.
    ``encoded`` media hold a video stream, which ``open`` gives to the decoder of ``hwaccel``.

    ``open`` raises what PyAV raises, or a SegcamError; ``explain`` turns the former into the latter.
    """

    name: str
    live: bool | None
    encoded: bool

    def open(self, hwaccel: HWAccel | None = None) -> InputContainer: ...

    def explain(self, error: Exception) -> SegcamError: ...


class FileMedium:
    """A file on disk."""

    live: bool | None = False
    encoded = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def open(self, hwaccel: HWAccel | None = None) -> InputContainer:
        import av

        with self.path.open("rb") as file:
            head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WEBP":
            raise animated_webp(self.path)
        return av.open(str(self.path), "r", hwaccel=hwaccel)

    def explain(self, error: Exception) -> SegcamError:
        if not self.path.exists():
            return missing_file(self.path)
        return unreadable_video(self.path, getattr(error, "strerror", None) or type(error).__name__)
