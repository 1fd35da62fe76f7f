"""One video stream of a medium: connect, seek exactly, read, and say what it announces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from segcam.errors import SegcamError, SourceError
from segcam.frame import Gpu
from segcam.sources.decode import Decoder, Tally, fraction, pictures, video_stream
from segcam.sources.diagnose import no_video_stream, quoted
from segcam.sources.medium import Medium
from segcam.sources.nvdec import Nvdec, UnfitError, refusal
from segcam.sources.twin import Twin

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

# Demuxers may land behind the asked time (MPEG-TS has no index); how much further back to try, then from the start.
_SEEK_BACK_S: tuple[int | None, ...] = (0, 4, 30, None)
# Above this a "rate" is a clock of the container (90 kHz, 12.8 kHz), not frames per second.
_HIGHEST_RATE_HZ = 1000


class StreamReader:
    """Holds at most one open container. ``tally`` is about the latest reading. Used by one thread."""

    def __init__(
        self,
        medium: Medium,
        stopped: Callable[[], bool],
        warn_once: Callable[[str], None],
        nvdec: Nvdec | None = None,
    ) -> None:
        self._medium = medium
        self._stopped = stopped
        self._warn_once = warn_once
        self._container: InputContainer | None = None
        self._stream: VideoStream | None = None
        self._decoder: Decoder | None = None
        self._on_gpu = False
        self._held: Gpu | None = None
        self.tally = Tally()
        self.live = bool(medium.live)
        self.nvdec = nvdec or Nvdec("cpu", None, medium.name, warn_once)

    def connect(self, threads: int, *, on_cpu: bool = False) -> None:
        """Opens the medium anew, at its beginning, to be decoded by whom ``nvdec`` says. Raises SegcamError."""
        import av

        self.close()
        try:
            self._container = container = self._open(on_cpu)
        except SegcamError:
            raise
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._medium.explain(error) from None
        stream = video_stream(container)
        if stream is None:
            raise no_video_stream(self._medium.name, [str(each.type) for each in container.streams])
        if stream.codec_context is None:
            raise SourceError(
                f"{self._medium.name}: this FFmpeg has no decoder for its video stream",
                f"Convert it first, for example with: ffmpeg -i {quoted(self._medium.name)} -c:v libx264 out.mp4",
            )
        self._decoder = self._choose(stream.codec_context)
        if self._on_gpu and not self.nvdec.active:
            return self.connect(threads)
        if self._medium.live is None:
            self.live = container.duration is None and stream.duration is None
        # Frame threads hold back a frame each, which live pictures should not have to wait for, and cost a sixth more
        # time (H.264 at 2048x1024): worth it where cores are to spare beside the network's, or where somebody asks.
        # NVDEC decodes frame by frame whatever threads there are.
        few = len(os.sched_getaffinity(0)) <= 2
        alone = self._on_gpu or (threads < 2 and (self.live or (threads == 0 and few)))
        stream.codec_context.thread_type = "SLICE" if alone else "AUTO"
        stream.codec_context.thread_count = 1 if self._on_gpu else threads
        self._stream = stream

    def _open(self, on_cpu: bool) -> InputContainer:
        import av

        nvdec = self.nvdec
        if nvdec.active and not on_cpu:
            nvdec.check()
        if on_cpu or not nvdec.active:
            return self._medium.open()
        if nvdec.gpu is not None:
            nvdec.gpu.enter()
            self._held = nvdec.gpu
        try:
            with nvdec.context():
                container = self._medium.open(nvdec.accelerator())
        except (av.FFmpegError, OSError, ValueError) as error:
            # Which of the two it was, the medium or the GPU (without a driver it's PermissionError), shows here.
            plain = self._medium.open()
            try:
                nvdec.give_up(refusal(error))
            except BaseException:
                plain.close()
                raise
            return plain
        self._on_gpu = True
        return container

    def _choose(self, plain: VideoCodecContext) -> Decoder:
        """The stream's decoder, or on a GPU another one in its stead where that one knows no NVDEC."""
        import av

        if not self._on_gpu or plain.is_hwaccel:
            return plain
        try:
            twin = Twin.of(plain, self.nvdec)
            if twin is not None:
                return twin
            reason = f"the decoder of its codec ({plain.codec.name}) knows nothing of NVDEC"
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = refusal(error)
        self.nvdec.give_up(reason)
        return plain

    def close(self) -> None:
        container, self._container, self._stream, self._on_gpu = self._container, None, None, False
        self._decoder = None
        if container is not None:
            container.close()
        # The decoder itself goes with the last reference to its container.
        del container
        held, self._held = self._held, None
        if held is not None:
            held.leave()

    @property
    def decoder(self) -> str:
        """Name of the decoder, and who else decodes."""
        assert self._decoder is not None
        return self._decoder.name + (", NVDEC" if self._on_gpu else "")

    @property
    def stream(self) -> VideoStream:
        assert self._stream is not None
        return self._stream

    @property
    def base_s(self) -> Fraction:
        """Seconds in a tick."""
        return fraction(self.stream.time_base) or Fraction(1, 90_000)

    @property
    def zero(self) -> int:
        """The tick at which the stream begins."""
        return self.stream.start_time or 0

    @property
    def rate_hz(self) -> Fraction | None:
        """Mean rate, None if the container says nothing believable."""
        for candidate in (self.stream.average_rate, self.stream.guessed_rate):
            rate = fraction(candidate)
            if rate and 0 < rate <= _HIGHEST_RATE_HZ:
                return rate
        return None

    @property
    def step(self) -> int:
        """Mean distance of two frames in ticks, at least 1."""
        return max(1, round(1 / ((self.rate_hz or Fraction(25)) * self.base_s)))

    @property
    def duration_s(self) -> Fraction | None:
        assert self._container is not None
        if self.stream.duration:
            return self.stream.duration * self.base_s
        return Fraction(self._container.duration, 1_000_000) if self._container.duration else None

    def announced_frames(self) -> int | None:
        """Frames of the whole stream, counted or from duration and rate, as far as the container says."""
        if self.stream.frames > 0:
            if self._has_full_index:
                return sum(not entry.is_discard for entry in self.stream.index_entries) or self.stream.frames
            return self.stream.frames
        duration_s, rate = self.duration_s, self.rate_hz
        return max(1, round(duration_s * rate)) if duration_s and rate else None

    def announced_packets(self, from_the_start: bool) -> int:
        """Packets that there must be from the first one of this reading on; 0 when the container has no exact count."""
        if self.live or self.stream.frames <= 0:
            return 0
        if not self._has_full_index:
            return self.stream.frames if from_the_start else 0
        first = self.tally.first_dts
        if first is None or from_the_start:
            return len(self.stream.index_entries)
        return sum(entry.timestamp >= first for entry in self.stream.index_entries)

    @property
    def _has_full_index(self) -> bool:
        """MP4's index lists every packet that will come (edit lists applied), which ``stream.frames`` does not."""
        assert self._container is not None
        return "mov" in self._container.format.name and len(self.stream.index_entries) > 0

    def read(self, target: Fraction | None, threads: int) -> Iterator[tuple[VideoFrame, int]]:
        """Pictures with their ticks, from some picture at or before ``target`` (ticks) on, or from the start.

        Call ``connect`` before. The first picture lies behind the target only if there is none before it. Where seeking
        lands too late or is not possible, everything is read from the beginning. Where NVDEC turns out not to take the
        stream, the CPU begins again, and gives what was not given yet.
        """
        item: tuple[VideoFrame, int] | None = None
        try:
            for item in self._attempts(target, threads):
                yield item
            if self._on_gpu and item is None and self.tally.packets and not self._stopped():
                raise UnfitError(f"it gave no picture of {self.tally.packets} packets")
            return
        except UnfitError as unfit:
            reason = str(unfit)
        # Not inside the handler: the exception keeps the picture, and that keeps the decoder, in a context that nobody
        # holds from here on.
        given = None if item is None or self.live else item[1]
        item = None
        self.nvdec.give_up(reason)
        self.connect(threads)
        for item in self._attempts(target, threads):
            if given is None or item[1] > given:
                yield item

    def _attempts(self, target: Fraction | None, threads: int) -> Iterator[tuple[VideoFrame, int]]:
        import av

        for attempt, back_s in enumerate(_SEEK_BACK_S if target is not None else (None,)):
            if attempt:
                self.connect(threads)
            self.tally, settled = Tally(), back_s is None
            if target is not None and back_s is not None:
                assert self._container is not None
                try:
                    self._container.seek(int(target - back_s / self.base_s), stream=self.stream)
                except av.FFmpegError:
                    continue
            for picture, pts in self._timed():
                if not settled and target is not None and pts > target + 1:
                    break
                settled = True
                yield picture, pts
            if settled or self._stopped():
                return

    def _timed(self) -> Iterator[tuple[VideoFrame, int]]:
        import av

        assert self._container is not None and self._decoder is not None
        step = self.step
        pts = self.zero - step
        try:
            decoder = self._decoder
            for picture in pictures(self._container, self.stream, decoder, self.tally, self._stopped, self._on_gpu):
                if self._on_gpu:
                    self.nvdec.check_first(picture, decoder)
                if picture.pts is None:
                    self._warn_once("frames without a time: they are spaced by the stream's mean rate")
                    pts += step
                else:
                    pts = picture.pts
                yield picture, pts
        except (av.FFmpegError, OSError) as error:
            if self._stopped():
                return
            if self._on_gpu and isinstance(error, MemoryError):
                raise self.nvdec.out_of_memory() from None
            raise self._medium.explain(error) from None
