"""Anything that FFmpeg reads, from a file, a camera or an address, as frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from segcam.errors import SourceError, SourceTruncatedError, let_go
from segcam.frame import Frame
from segcam.sources.base import SourceInfo, SourceOptions, Warn
from segcam.sources.diagnose import quoted
from segcam.sources.medium import Medium
from segcam.sources.nvdec import Nvdec
from segcam.sources.reader import StreamReader
from segcam.sources.select import announced_frames, check_options, given_rate, refuse_looping, refuse_seeking

if TYPE_CHECKING:
    from av import VideoFrame


class VideoSource:
    """Decoded frames of a medium's video stream: planes as the decoder made them, times as the container has them.

    ``open`` decodes the first frame, so that a file without one is refused before anything else starts. Damaged
    packets are left out with a warning; a file that ends before what it announces gives all it has and then raises
    SourceTruncatedError. Frames are numbered by delivery from 0, on through all loops; times go on likewise.
    """

    def __init__(self, medium: Medium, options: SourceOptions, warn: Warn) -> None:
        check_options(options)
        self._medium = medium
        self._options = options
        self._warn = warn
        self._stop = threading.Event()
        nvdec = Nvdec(options.decode if medium.encoded else "cpu", options.gpu, medium.name, self._warn_once)
        self._reader = StreamReader(medium, self._stop.is_set, self._warn_once, nvdec)
        self._frames: Generator[Frame, None, None] | None = None
        self._primed: Frame | None = None
        self._asked_at_s = 0.0
        self._tail_is_sound = False
        self._warned: set[str] = set()

    def open(self) -> SourceInfo:
        try:
            return self._open()
        except BaseException as error:
            let_go(error)
            self.close()
            raise

    def read(self) -> Frame | None:
        if self._frames is None or self._stop.is_set():
            return None
        if self._primed is not None:
            frame, self._primed = self._primed, None
            return frame
        self._asked_at_s = time.perf_counter()
        try:
            return next(self._frames, None)
        except BaseException as error:
            let_go(error)
            raise

    def interrupt(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._stop.set()
        if self._frames is not None:
            self._frames.close()
        self._frames = self._primed = None
        self._reader.close()

    def _open(self) -> SourceInfo:
        self._asked_at_s = time.perf_counter()
        reader, options = self._reader, self._options
        reader.connect(options.threads)
        if reader.live:
            refuse_seeking(options, self._medium.name)
            refuse_looping(options, self._medium.name)
        start_s, duration_s, rate = Fraction(options.start_s), reader.duration_s, reader.rate_hz
        if start_s and duration_s is not None and start_s >= duration_s:
            raise self._behind_the_end(f"it lasts {float(duration_s):.2f} s")
        frames = None if reader.live else reader.announced_frames()
        if frames is not None and start_s:
            frames = max(1, frames - round(start_s * rate)) if rate else None
        self._frames = self._produce()
        self._primed = next(self._frames, None)
        if self._primed is None:
            raise SourceError(f"{self._medium.name}: stopped before its first frame")
        return SourceInfo(
            description=f"{self._medium.name} ({reader.decoder})",
            width=self._primed.width,
            height=self._primed.height,
            rate_hz=given_rate(rate, options),
            frames=announced_frames(frames, options),
            live=reader.live,
            encoded=self._medium.encoded,
        )

    def _produce(self) -> Generator[Frame, None, None]:
        """All frames that ``read`` gives, over all rounds."""
        options, reader, given, played, offset = self._options, self._reader, 0, 0, 0
        while True:
            first = end = 0
            base_s, step = reader.base_s, reader.step
            position = 0
            for picture, pts in self._round():
                ready_s = time.perf_counter()
                if position == 0:
                    first = end = pts
                end = max(end, pts + (int(picture.duration or 0) or step))
                if picture.is_corrupt:
                    self._warn_once("some pictures are damaged and shown as far as they could be decoded")
                if position % options.every == 0:
                    yield self._frame(picture, given, pts + offset, base_s, ready_s)
                    given += 1
                    if given == options.frames:
                        return
                # The reader may leave the GPU's context before it gives the next one; enumerate would keep it.
                del picture
                position += 1  # noqa: SIM113
            offset += end - first
            played += 1
            if self._stop.is_set() or played == options.loops:
                return
            reader.connect(options.threads)

    def _frame(self, picture: VideoFrame, index: int, pts: int, base_s: Fraction, ready_s: float) -> Frame:
        try:
            shown = self._reader.nvdec.picture(picture)
        except ValueError as error:
            raise SourceError(
                f"{self._medium.name}: {error}",
                f"Convert it first: ffmpeg -i {quoted(self._medium.name)} -pix_fmt yuv420p out.mp4",
            ) from None
        return Frame(
            index=index,
            pts=pts,
            time_base=base_s,
            captured_at_s=ready_s,
            source_id=self._medium.name,
            width=shown.width,
            height=shown.height,
            format=shown.format,
            planes=shown.planes,
            matrix=shown.matrix,
            full_range=shown.full_range,
            decode_ms=(time.perf_counter() - self._asked_at_s) * 1000,
            owner=shown.owner,
            device=shown.device,
        )

    def _round(self) -> Iterator[tuple[VideoFrame, int]]:
        """Pictures from --start to the end, once, with their ticks; then an error if they were not all there were."""
        reader, options = self._reader, self._options
        base_s, zero = reader.base_s, reader.zero
        begin = zero + Fraction(options.start_s) / base_s - Fraction(1, 2) if options.start_s else None
        last: int | None = None
        given = 0
        for picture, pts in reader.read(begin, options.threads):
            last = pts
            if begin is None or pts >= begin:
                given += 1
                yield picture, pts
            del picture
        if self._stop.is_set():
            return
        tally, announced = reader.tally, reader.announced_packets(not options.start_s)
        damaged, ends_damaged, decoded = tally.damaged, tally.damaged_in_a_row > 0, tally.pictures
        damaged_at = tally.first_damage_pts
        doubtful = (tally.unaccounted or ends_damaged) and options.threads != 1 and not self._tail_is_sound
        if doubtful and last is not None and not reader.live:
            # At the end, decoders with threads hold many packets; PyAV gives only what lies before the first bad one.
            known, found = last, 0
            reader.connect(1, on_cpu=True)
            for picture, pts in reader.read(Fraction(known + 1), 1):
                if pts > known and (begin is None or pts >= begin):
                    found += 1
                    yield picture, pts
            damaged, damaged_at = max(damaged, reader.tally.damaged), damaged_at or reader.tally.first_damage_pts
            ends_damaged = reader.tally.damaged_in_a_row > 0
            self._tail_is_sound = not found
            given, decoded = given + found, decoded + found
        if damaged:
            at = "" if damaged_at is None else f", the first near {_seconds(damaged_at - zero, base_s)}"
            self._warn_once(f"{damaged} damaged packet{' was' if damaged == 1 else 's were'} left out{at}")
        if not given:
            raise self._nothing(tally.packets, None if last is None else _seconds(last - zero, base_s))
        if announced and (tally.packets < announced or tally.demux_failed or ends_damaged):
            part = "from there on" if options.start_s else "in all"
            raise SourceTruncatedError(
                f"{self._medium.name}: the file announces {announced} frames {part}, only {decoded} could be read: "
                "incomplete or damaged",
                "Copy or record it again; what was read is good.",
            )

    def _nothing(self, packets: int, last_at: str | None) -> SourceError:
        name = self._medium.name
        if last_at is not None:
            return self._behind_the_end(f"its last frame is at {last_at}")
        if packets == 0:
            return SourceError(f"{name}: a video stream without a single frame", "Copy or record it again.")
        return SourceError(
            f"{name}: none of its {packets} video packets can be decoded: damaged or encrypted",
            f"See what is in it with: ffprobe -hide_banner {quoted(name)}",
        )

    def _behind_the_end(self, length: str) -> SourceError:
        return SourceError(
            f"{self._medium.name}: --start {self._options.start_s:g} s is behind the end ({length})",
            "Give an earlier --start.",
        )

    def _warn_once(self, what: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._warn(f"{self._medium.name}: {what}")


def _seconds(ticks: int, base_s: Fraction) -> str:
    return f"{float(ticks * base_s):.2f} s"
