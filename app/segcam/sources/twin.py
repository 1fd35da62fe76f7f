"""NVDEC for streams whose decoder in FFmpeg is another library, which knows no hardware: AV1's is libdav1d.

FFmpeg has a decoder of its own beside it, which bears the codec's name. Facts about AV1's that this stands on, read in
its source (8.1; av1dec.c), and in PyAV's:

* Without hardware it decodes nothing: each packet is a NotImplementedError.
* It takes the accelerator at the first sequence header and never again, whatever size or depth a later one announces;
  and not at all where the context says "cuda" from the start, as PyAV has it.
* It has no delay: a packet's picture comes with the packet. The size that it shows is its latest frame's, that of its
  pictures the sequence's: frames may be smaller than those that they are predicted from.
* What a container says of its pictures (turned, colours that the sequence header leaves open) is handed to the
  stream's own decoder alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from segcam.sources.nvdec import Nvdec, UnfitError, not_taken, refusal, rim, turned

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.codec import Codec
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_SEQUENCE_HEADER = 1  # OBU_SEQUENCE_HEADER


class Twin:
    """Decodes on NVDEC what ``plain``, a stream's own decoder, decodes on the CPU.

    Each sequence has a decoder of its own, and its first picture is decoded by ``plain`` as well, to see how pictures
    are to be shown. ``decode`` raises UnfitError, at any packet, where ``plain`` has to do it all.
    """

    def __init__(self, plain: VideoCodecContext, codec: Codec, nvdec: Nvdec) -> None:
        """Raises what PyAV does where the GPU cannot be used."""
        self._plain, self._codec, self._nvdec = plain, codec, nvdec
        self._sequence = b""
        self._colors: tuple[int, int] | None = None
        self._fast = self._create()

    @classmethod
    def of(cls, plain: VideoCodecContext, nvdec: Nvdec) -> Twin | None:
        """None where FFmpeg has no other decoder with NVDEC; raises as the constructor does."""
        from av.codec import Codec

        try:
            codec = Codec(plain.codec.canonical_name, "r")
        except ValueError:
            return None
        if codec.name == plain.codec.name:
            return None
        twin = cls(plain, codec, nvdec)
        return twin if twin._fast.is_hwaccel else None

    @property
    def name(self) -> str:
        return self._codec.name

    @property
    def width(self) -> int:
        return self._fast.width

    @property
    def height(self) -> int:
        return self._fast.height

    def decode(self, packet: Packet[VideoStream] | None = None) -> list[VideoFrame]:
        if packet is not None:
            self._follow(sequence_header(memoryview(packet)))
        if self._colors is None:
            self._look(packet)
        try:
            pictures = self._fast.decode(packet)
        except NotImplementedError:
            raise UnfitError(not_taken(self._plain.pix_fmt, self._plain)) from None
        if self._colors is None:
            # What ``plain`` shows nothing of is not shown.
            return []
        for picture in pictures:
            why = rim(picture, self._fast)
            if why:
                raise UnfitError(why)
            picture.colorspace, picture.color_range = self._colors
        return pictures

    def _follow(self, sequence: bytes) -> None:
        import av

        if not sequence or sequence == self._sequence:
            return
        self._sequence = sequence
        if self._fast.is_open:
            self._colors = None
            try:
                self._fast = self._create()
            except (av.FFmpegError, OSError, ValueError) as error:
                raise UnfitError(refusal(error)) from None

    def _look(self, packet: Packet[VideoStream] | None) -> None:
        """How pictures are to be shown. What is damaged for the one decoder is damaged for the other."""
        for picture in self._plain.decode(packet)[:1]:
            why = turned(picture)
            if why:
                raise UnfitError(why)
            self._colors = picture.colorspace, picture.color_range

    def _create(self) -> VideoCodecContext:
        import av

        with self._nvdec.context():
            fast: Any = av.CodecContext.create(self._codec, "r", hwaccel=self._nvdec.accelerator())
        fast.pix_fmt = self._plain.pix_fmt or "yuv420p"
        return cast("VideoCodecContext", fast)


def sequence_header(packet: memoryview) -> bytes:
    """What the first sequence header among its OBUs says, empty without one (AV1 specification, 4.10.5 and 5.3 to 5.5).

    Nothing is asked of what containers have beside packets: libdav1d does not read it either.
    """
    at = 0
    try:
        while at < len(packet):
            head = packet[at]
            at += 2 if head & 4 else 1
            size = len(packet) - at
            if head & 2:
                size = 0
                for shift in range(0, 56, 7):
                    size |= (packet[at] & 127) << shift
                    at += 1
                    if packet[at - 1] < 128:
                        break
            if head >> 3 & 15 == _SEQUENCE_HEADER:
                return bytes(packet[at : at + size])
            at += size
    except IndexError:
        pass
    return b""
