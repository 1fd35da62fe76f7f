"""From a Frame to the picture an encoder takes: even size, one format, one set of colours for the whole file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segcam.frame import ColorMatrix, Frame, Plane

if TYPE_CHECKING:
    from av import VideoFrame

#: Codes of ITU-T H.273 (tables 2, 3 and 4): primaries, transfer characteristics, matrix.
COLOR_CODES: dict[ColorMatrix, tuple[int, int, int]] = {"bt601": (6, 6, 6), "bt709": (1, 1, 1), "bt2020": (9, 14, 9)}

#: swscale's own numbers (SWS_CS_*) for the same matrices.
_SWS_MATRIX: dict[ColorMatrix, int] = {"bt601": 5, "bt709": 1, "bt2020": 9}

#: SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP, as numbers because PyAV 17 names only the first. Without the others
#: swscale truncates instead of rounding (half a level too dark) and drops every other column of chroma.
_SWS_QUALITY = 0x20 | 0x40000 | 0x4000

_AV_FORMATS = {"i420": "yuv420p", "nv12": "nv12", "bgr24": "bgr24"}


class Staging:
    """Makes encoder pictures of the first frame's size, pixel format and colours out of any frames.

    Width and height are rounded up to even ones, because H.264 4:2:0 has no odd sizes: the last column or row is
    there twice. BGR becomes limited-range BT.709. One picture is used again and again: x264 copies its input
    before ``encode`` returns.
    """

    def __init__(self, first: Frame) -> None:
        from av import VideoFrame
        from av.video.reformatter import VideoReformatter

        self.matrix: ColorMatrix = "bt709" if first.format == "bgr24" else first.matrix
        self.full_range = first.format != "bgr24" and first.full_range
        self.size = (first.width, first.height)
        self.even_size = (first.width + first.width % 2, first.height + first.height % 2)
        # x264 works on NV12 inside and takes it as it is.
        self.pix_fmt = "nv12" if first.format == "nv12" else "yuv420p"
        self.centred_chroma = first.format == "bgr24"
        self._picture = VideoFrame(*self.even_size, self.pix_fmt)
        self._reformatter = VideoReformatter()

    def fits(self, frame: Frame) -> bool:
        """Whether ``frame`` has the first one's size."""
        return (frame.width, frame.height) == self.size

    def is_like_the_first(self, frame: Frame) -> bool:
        """Whether ``frame`` has the first one's size, pixel format and colours."""
        same_colors = frame.matrix == self.matrix and frame.full_range == self.full_range
        same_format = frame.format != "bgr24" and _AV_FORMATS[frame.format] == self.pix_fmt
        return same_format and self.fits(frame) and same_colors

    def picture(self, frame: Frame) -> VideoFrame:
        """``frame``, in host memory, as the encoder wants it; valid until the next call."""
        if self.is_like_the_first(frame):
            _copy(frame, self._picture)
            return self._picture
        from av import VideoFrame

        width, height = frame.width + frame.width % 2, frame.height + frame.height % 2
        source = VideoFrame(width, height, _AV_FORMATS[frame.format])
        _copy(frame, source)
        is_bgr = frame.format == "bgr24"
        return self._reformatter.reformat(
            source,
            *self.even_size,
            self.pix_fmt,
            src_colorspace=None if is_bgr else _SWS_MATRIX[frame.matrix],
            dst_colorspace=_SWS_MATRIX[self.matrix],
            src_color_range=2 if is_bgr or frame.full_range else 1,
            dst_color_range=2 if self.full_range else 1,
            interpolation=_SWS_QUALITY,
        )


def _copy(frame: Frame, target: VideoFrame) -> None:
    for source, plane in zip(frame.planes, target.planes, strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        _copy_plane(source, rows, plane.width, plane.height)


def _copy_plane(source: Plane, rows: NDArray[np.uint8], width: int, height: int) -> None:
    """Copy (h, w) or (h, w, channels) into the first ``height`` of ``rows``, repeating the last column and row."""
    channels = source.shape[2] if source.ndim == 3 else 1
    h, row_bytes = source.shape[0], source.shape[1] * channels
    rows[:h, :row_bytes] = source.reshape(h, row_bytes)
    if width > source.shape[1]:
        rows[:h, row_bytes : row_bytes + channels] = rows[:h, row_bytes - channels : row_bytes]
    if height > h:
        rows[h:height] = rows[h - 1]
