"""From packets to pictures: every one that a decoder can give, with the damage on the way counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# A demuxer that says "invalid data" often goes on with the next packet; one that only says that never ends.
_DEMUX_ATTEMPTS = 8


class Decoder(Protocol):
    """What decodes a stream: PyAV's codec context of it, or another in its stead. Sizes are those to be shown."""

    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    def decode(self, packet: Packet[VideoStream] | None = None) -> list[VideoFrame]: ...


@dataclass
class Tally:
    """What one reading of a stream came across."""

    packets: int = 0
    hidden: int = 0
    pictures: int = 0
    damaged: int = 0
    damaged_in_a_row: int = 0
    first_dts: int | None = None
    first_damage_pts: int | None = None
    flush_failed: bool = False
    demux_failed: bool = False

    @property
    def unaccounted(self) -> bool:
        """Whether packets went in that led neither to a picture nor to an error."""
        return self.flush_failed or self.pictures + self.damaged < self.packets - self.hidden


def fraction(value: Any) -> Fraction | None:
    """A rate or time base as a Fraction, None for unknown (None, 0, x/0). PyAV 19 has a rational type of its own."""
    if value is None or not value.denominator or not value.numerator:
        return None
    return Fraction(value.numerator, value.denominator)


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream that is not a cover picture, wherever it stands among the others."""
    for stream in container.streams.video:
        if not int(stream.disposition) & 0x400:  # AV_DISPOSITION_ATTACHED_PIC
            return stream
    return None


def pictures(
    container: InputContainer,
    stream: VideoStream,
    decoder: Decoder,
    tally: Tally,
    stopped: Callable[[], bool],
    on_gpu: bool = False,
) -> Iterator[VideoFrame]:
    """Decoded pictures in order of presentation, until the end or until ``stopped()``.

    Packets that cannot be decoded are left out and counted in ``tally``. Errors of the input itself (a lost
    connection, a time-out) are raised as PyAV raises them, and where pictures go to a GPU, its memory being full: on
    the CPU, packets that ask for too much are damaged.
    """
    import av

    failures = 0
    # Threads report an error several packets late; the oldest packet inside is about where it is.
    inside: deque[int | None] = deque(maxlen=64)
    while True:
        try:
            for packet in container.demux(stream):
                if stopped():
                    return
                # PyAV ends with an empty packet, which would drain the decoder; AVI has empty ones in between, too.
                if packet.size == 0:
                    if packet.dts is not None:
                        tally.packets += 1
                        tally.hidden += 1
                    continue
                failures = 0
                tally.packets += 1
                tally.hidden += packet.is_discard
                if tally.first_dts is None:
                    tally.first_dts = packet.dts
                inside.append(packet.pts)
                try:
                    frames = decoder.decode(packet)
                except av.FFmpegError as error:
                    if on_gpu and isinstance(error, MemoryError):
                        raise
                    tally.damaged += 1
                    tally.damaged_in_a_row += 1
                    at = inside.popleft()
                    if tally.first_damage_pts is None:
                        tally.first_damage_pts = at
                    continue
                if frames:
                    tally.damaged_in_a_row = 0
                for frame in frames:
                    tally.pictures += 1
                    if inside:
                        inside.popleft()
                    yield frame
            break
        except av.InvalidDataError:
            failures += 1
            if failures == _DEMUX_ATTEMPTS:
                tally.demux_failed = True
                break
    try:
        late = decoder.decode(None)
    except av.EOFError:
        return
    except av.FFmpegError as error:
        if on_gpu and isinstance(error, MemoryError):
            raise
        tally.flush_failed = True
        return
    for frame in late:
        tally.pictures += 1
        yield frame
