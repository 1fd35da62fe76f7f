"""Video files: H.264 in MP4, MOV or Matroska, with the source's own times and colours, playable at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from segcam.errors import MissingDependencyError, SinkError, let_go
from segcam.frame import Frame, Gpu, Segmentation
from segcam.sinks import device_pictures
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.device_pictures import DevicePictures
from segcam.sinks.encoder import Encode, Encoder, device_problem, nvenc_problem
from segcam.sinks.files import OutputFile, check_writable, write_error
from segcam.sinks.staging import COLOR_CODES, Staging

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}

_FROM_HOST = "pictures come down from the GPU and go up again to NVENC"

#: A frame is on disk at most this long (plus the encoder's few frames) after it was written.
_FRAGMENT_S = 0.5
#: The encoder keeps one frame for each thread; more than this delays frames and takes cores from the network.
_MAX_THREADS = 4
#: MP4 counts ticks in 32 bits; FFmpeg refuses finer time bases.
_FINEST_TICKS = 10**9
#: A file that is not larger has no picture in it yet.
_HEADER_BYTES = 1000


class VideoSink:
    """The overlay of each frame as H.264 4:2:0 in ``path`` (.mp4, .mov or .mkv).

    Times: pts and time base pass through, variable rates too. MP4 and MOV keep them exactly, Matroska rounds them to
    its 1 ms. A time that doesn't grow is moved to one tick after the last one; negative times are shifted so that the
    file starts at 0. Both are told through ``warn``.

    Colours: matrix and range are copied from the first frame; ``bgr24`` becomes limited-range BT.709.

    Sizes: odd ones are rounded up to even ones, frames of another size are scaled to the first one's; both are told.

    Encoder: ``encode`` "auto" is NVENC if ``gpu``, the network's, is given; where it cannot it is x264, and why is
    told, while "nvenc" is a SinkError there. NVENC takes pictures in that GPU's memory from where they are.

    The file plays at any moment up to the last half second, whatever ends the process. MP4 and MOV are fragmented while
    they grow and get an ordinary index from ``close``.
    """

    runs_in_main_thread = False
    needs_overlay = True
    needs_labels = False

    def __init__(
        self,
        path: Path,
        warn: Callable[[str], None],
        *,
        crf: int = 23,
        preset: str = "superfast",
        threads: int = 0,
        encode: Encode = "auto",
        gpu: Gpu | None = None,
    ) -> None:
        self.path = path
        self._warn = warn
        self._encoder = Encoder("libx264", crf, preset)
        self._encode_by, self._gpu, self._threads = encode, gpu, threads
        self._rate_hz: Fraction | None = None
        self._file: OutputFile | None = None
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._staging: Staging | None = None
        self._pictures: DevicePictures | None = None
        self._time_base = Fraction(1, 25)
        self._shift = 0
        self._last_pts: int | None = None
        self._frames = 0
        self._nudged = 0
        self._scaled = 0

    def open(self, info: StreamInfo, stats: RunStats) -> None:
        """Check that the file could be written; nothing is touched before the first frame. Raises SinkError."""
        try:
            import av  # noqa: F401  a missing package should stop the run here, not at its first frame
        except ImportError as error:
            raise MissingDependencyError(f"writing video needs PyAV ({error})", "Install it: pip install av") from None
        if self.path.is_dir():
            raise SinkError(f"{self.path} is a folder", "Give a file name, for example out.mp4")
        check_writable(self.path)
        self._rate_hz = info.rate_hz
        if self._encode_by == "nvenc" or (self._encode_by == "auto" and self._gpu is not None):
            self._use_nvenc((info.width + info.width % 2, info.height + info.height % 2))

    def _use_nvenc(self, size: tuple[int, int]) -> None:
        number = 0 if self._gpu is None else self._gpu.device.index
        wanted = Encoder("h264_nvenc", self._encoder.crf, self._encoder.preset, number)
        problem = nvenc_problem(wanted, size)
        if problem is None:
            self._encoder = wanted
            if self._gpu is not None and (why := device_pictures.why_not()):
                self._warn(f"{self.path}: {_FROM_HOST}: {why}")
        elif self._encode_by == "nvenc":
            raise SinkError(f"{self.path}: NVENC cannot encode it: {problem}", "Let x264 encode: --encode x264.")
        else:
            self._warn(f"{self.path}: encoded by x264, because NVENC cannot: {problem}")

    @property
    def takes_device_overlays(self) -> bool:
        """Whether overlays had better be in the GPU's memory; known once it is open."""
        return self._encoder.on_gpu and self._gpu is not None and not device_pictures.why_not()

    def write(self, segmentation: Segmentation) -> None:
        frame = segmentation.overlay
        if frame is None:
            raise SinkError(f"frame {segmentation.frame.index} has no overlay to write to {self.path}")
        self._raise_if_broken()
        from av.error import FFmpegError

        try:
            if self._staging is None:
                self._start(frame)
            self._encode(frame)
        except (FFmpegError, ValueError) as error:
            # Whoever keeps it for longer than the GPU's context would keep pictures there.
            let_go(error)
            raise write_error(self.path, error, self._kept()) from error

    def close(self) -> None:
        container, self._container = self._container, None
        if container is None:
            # It may have ended between the first picture's look at the GPU and the file's first byte.
            self._let_go()
            if self._file is not None:
                self._file.close()
            return
        from av.error import FFmpegError

        output = self._file
        assert output is not None
        broken_before = output.error is not None
        try:
            try:
                if not broken_before and self._frames:
                    self._mux(container, self._codec().encode(None))
            finally:
                container.close()
                self._let_go()
            if not broken_before:
                self._raise_if_broken()
                output.mark_good()
        except (FFmpegError, ValueError) as error:
            # Whoever keeps it for longer than the GPU's context would keep pictures there.
            let_go(error)
            raise write_error(self.path, error, self._kept()) from error
        finally:
            output.close()
        if self._nudged:
            self._warn(f"{self.path}: {self._nudged} frames had times that didn't grow and were moved by a tick each")

    @property
    def description(self) -> str:
        if not self._frames:
            return f"{self.path}: no frames, nothing written"
        assert self._staging is not None
        width, height = self._staging.even_size
        size = f", {self._file.good_bytes / 1e6:.1f} MB" if self._file is not None and self._container is None else ""
        where = " from the GPU's memory" if self._on_device else ""
        return f"{self.path}: {self._frames} frames, {width}x{height}, {self._encoder.words}{where}{size}"

    def _start(self, frame: Frame) -> None:
        import av

        staging = Staging(frame)
        if staging.even_size != staging.size:
            self._warn(
                f"{self.path}: {frame.width}x{frame.height} is written as {staging.even_size[0]}x{staging.even_size[1]}"
                ", because H.264 needs even sizes; the last column or row is there twice"
            )
        if frame.device is not None and self._gpu is not None and self._encoder.on_gpu:
            self._use_device(frame, self._gpu)
        self._time_base = frame.time_base
        if frame.time_base.denominator > _FINEST_TICKS:
            self._time_base = Fraction(1, 10**6)
        self._file = OutputFile(self.path)
        muxer = _MUXERS[self.path.suffix.lower()]
        container = av.open(self._file, "w", format=muxer, options=self._muxer_options(muxer))
        self._container = container
        rate = self._rate_hz or Fraction(25)
        options = self._encoder.options(rate, centred_chroma=staging.centred_chroma)
        stream = container.add_stream(self._encoder.codec, rate=rate, options=options)
        stream.width, stream.height = staging.even_size
        stream.pix_fmt = "cuda" if self._on_device else staging.pix_fmt
        codec = stream.codec_context
        codec.time_base = stream.time_base = self._time_base
        if not self._encoder.on_gpu:
            codec.thread_count = self._threads or min(_MAX_THREADS, os.cpu_count() or 1)
        codec.color_primaries, codec.color_trc, codec.colorspace = COLOR_CODES[staging.matrix]
        codec.color_range = 2 if staging.full_range else 1
        self._stream = stream
        self._staging = staging

    def _muxer_options(self, muxer: str) -> dict[str, str]:
        flush = {"flush_packets": "1"}  # what is muxed lies on the disk
        if muxer == "matroska":
            return {**flush, "cluster_time_limit": str(int(_FRAGMENT_S * 1000))}
        ticks_hz = self._time_base.denominator
        while ticks_hz < 10_000:
            ticks_hz *= 2
        return {
            **flush,
            # An index that is not there until the end would lose everything with the process. delay_moov: the header
            # waits for the first fragment, because only then the time of the first frame is known.
            "movflags": "hybrid_fragmented+delay_moov",
            "frag_duration": str(int(_FRAGMENT_S * 1e6)),
            # The edit list that holds the first frame's time counts in movie ticks; 1 ms by default.
            "movie_timescale": str(ticks_hz),
            "video_track_timescale": str(ticks_hz),
        }

    def _encode(self, frame: Frame) -> None:
        from av.video.frame import PictureType

        assert self._staging is not None and self._container is not None
        if not self._staging.fits(frame):
            if not self._scaled:
                width, height = self._staging.size
                self._warn(
                    f"{self.path}: the picture's size changed to {frame.width}x{frame.height} at frame {frame.index}; "
                    f"it is scaled to the first frame's {width}x{height}"
                )
            self._scaled += 1
        picture = self._picture(frame, self._staging)
        picture.pts = self._next_pts(frame)
        picture.time_base = self._time_base
        picture.pict_type = PictureType.NONE
        self._mux(self._container, self._codec().encode(picture))
        self._frames += 1

    def _use_device(self, frame: Frame, gpu: Gpu) -> None:
        """NVENC is to take pictures from the GPU's memory, if it takes this first one."""
        pictures = DevicePictures(gpu)
        problem = device_problem(self._encoder, lambda: pictures.picture(frame))
        if problem is None:
            self._pictures = pictures
        else:
            pictures.close()
            self._warn(f"{self.path}: {_FROM_HOST}: {problem}")

    @property
    def _on_device(self) -> bool:
        return self._pictures is not None

    def _let_go(self) -> None:
        """End the encoder's session, which lives as long as its stream, before the GPU's context may end."""
        self._stream = None
        if self._pictures is not None:
            self._pictures.close()

    def _picture(self, frame: Frame, staging: Staging) -> VideoFrame:
        if frame.device is None:
            return staging.picture(frame)
        if self._pictures is not None and staging.is_like_the_first(frame):
            return self._pictures.picture(frame)
        return staging.picture(frame.to_host())

    def _next_pts(self, frame: Frame) -> int:
        pts = frame.pts if frame.time_base == self._time_base else round(frame.pts * frame.time_base / self._time_base)
        if self._last_pts is None and pts < 0:
            self._shift = -pts
            self._warn(f"{self.path}: times start at {frame.time_s:.3f} s and are shifted to start at 0")
        pts += self._shift
        if self._last_pts is not None and pts <= self._last_pts:
            if not self._nudged:
                self._warn(
                    f"{self.path}: frame {frame.index} at {frame.time_s:.3f} s is not later than the one before; "
                    "such frames follow one tick after"
                )
            self._nudged += 1
            pts = self._last_pts + 1
        self._last_pts = pts
        return pts

    def _codec(self) -> VideoCodecContext:
        assert self._stream is not None
        return self._stream.codec_context

    def _mux(self, container: OutputContainer, packets: list[Packet[VideoStream]]) -> None:
        assert self._file is not None
        for packet in packets:
            container.mux(packet)
            self._raise_if_broken()
            self._file.mark_good()

    def _raise_if_broken(self) -> None:
        if self._file is not None and self._file.error is not None:
            raise write_error(self.path, self._file.error, self._kept()) from self._file.error

    def _kept(self) -> str:
        plays = self._file is not None and self._file.good_bytes > _HEADER_BYTES
        return "What was written before can be played." if plays else ""
