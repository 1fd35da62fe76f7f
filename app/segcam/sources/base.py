"""What every source is: something that is opened, gives frames one by one, and is closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol, runtime_checkable

from segcam.frame import Frame, Gpu

#: Who decodes videos: "auto" is NVDEC, the GPU's decoder, for a network on the GPU where it can be, else the CPU.
Decode = Literal["auto", "nvdec", "cpu"]


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source once it is open.

    ``frames`` is the number of frames that ``read`` will give, as announced and after --start, --frames, --every and
    --loop, or None when nobody knows (live, endless). ``rate_hz`` is the mean rate of what ``read`` gives, None for
    unrelated stills. ``live`` sources go on whether or not anyone reads: old frames may be dropped. ``encoded``
    pictures come from a video stream, which NVDEC might decode.
    """

    description: str
    width: int
    height: int
    rate_hz: Fraction | None
    frames: int | None
    live: bool
    still: bool = False
    encoded: bool = False


@dataclass(frozen=True)
class SourceOptions:
    """What part of a source to give: from ``start_s`` on, every ``every``-th frame, ``frames`` in all (0: no limit),
    ``loops`` times over (0: for ever). ``threads`` decode (0: as many as the decoder likes).

    With ``gpu``, pictures that NVDEC decodes stay in that GPU's memory (``Frame.device``); without, "nvdec" brings them
    down and "auto" is the CPU.
    """

    start_s: float = 0.0
    every: int = 1
    frames: int = 0
    loops: int = 1
    threads: int = 0
    decode: Decode = "auto"
    gpu: Gpu | None = None


@runtime_checkable
class Source(Protocol):
    """One stream of frames. Made cheaply; ``open`` takes resources, ``close`` gives them back (twice is fine).

    ``read`` returns the next frame, or None at the end, and raises SourceError. It is called from one thread.
    ``interrupt`` may be called from any thread and makes a blocked or later ``read`` return None soon.
    """

    def open(self) -> SourceInfo: ...

    def read(self) -> Frame | None: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


Warn = Callable[[str], None]
