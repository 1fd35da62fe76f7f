"""From a decoder's picture to a Frame's planes: views where possible, else the smallest conversion that is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segcam.frame import ColorMatrix, DevicePlanes, PixelFormat, Plane, default_matrix

if TYPE_CHECKING:
    from av import VideoFrame

    #: Planes, and the frame whose memory they are views of (None: they are arrays of their own).
    _Planes = tuple[tuple[Plane, ...], VideoFrame | None]

# libswscale/swscale.h. AREA takes the mean of the samples that a chroma sample stands for; the default filter
# (bicubic) is up to 60 levels away from it on fine detail. PyAV 17 has no names for the rounding flags.
_SWS_AREA = 0x20
_SWS_ACCURATE_RND = 0x40000
_SWS_FULL_CHROMA_INPUT = 0x4000
_SCALE = _SWS_AREA | _SWS_ACCURATE_RND | _SWS_FULL_CHROMA_INPUT

_AS_I420 = ("yuv420p", "yuvj420p", "yuva420p")
_LIMITED, _FULL = 1, 2  # AVColorRange
# AVColorSpace: 1 BT.709; 4 FCC, 5 BT.470BG and 6 SMPTE 170M are BT.601 or within a hair of it; 9 and 10 BT.2020.
_MATRICES: dict[int, ColorMatrix] = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}


@dataclass(frozen=True)
class Picture:
    """Planes as ``segcam.frame.Frame`` wants them, upright, with what keeps their memory alive; or where on a GPU."""

    format: PixelFormat
    planes: tuple[Plane, ...]
    width: int
    height: int
    matrix: ColorMatrix
    full_range: bool
    owner: object
    device: DevicePlanes | None = None


def declared_colors(frame: VideoFrame) -> tuple[ColorMatrix, bool]:
    """Matrix, and whether samples have the full range, as the stream says; else as is usual."""
    full = frame.color_range == _FULL or frame.format.name.startswith("yuvj")
    return _MATRICES.get(int(frame.colorspace)) or default_matrix(frame.height), full


def to_picture(frame: VideoFrame) -> Picture:
    """Planes of a decoded frame; its display rotation is applied.

    4:2:0 of 8 bits and NV12 are views of the decoder's memory. Other YUV becomes i420 of the same matrix and range,
    rounded to nearest. Gray becomes i420 with neutral chroma: unlike a step through BGR, that keeps limited-range gray
    exact. RGB and palettes become bgr24; alpha is ignored. Raises ValueError for a format that swscale cannot convert.
    """
    kind = frame.format.name
    matrix, full = declared_colors(frame)
    width, height = frame.width, frame.height
    planes: tuple[Plane, ...]
    form: PixelFormat
    owner: VideoFrame | None = frame
    if kind in _AS_I420:
        form, planes = "i420", _views_420(frame)
    elif kind == "nv12":
        form, planes = "nv12", _views_nv12(frame)
    elif len(frame.format.components) <= 2 and not frame.format.has_palette:
        form, (planes, owner) = "i420", _gray_420(frame, full)
    elif frame.format.is_rgb or frame.format.has_palette or kind.startswith(("bayer", "xyz")):
        form, (planes, owner) = "bgr24", _bgr(frame)
    else:
        form, (planes, owner) = "i420", _yuv_420(frame, full)
    turns = (-round(frame.rotation / 90)) % 4
    if turns:
        planes = tuple(_turn(plane, turns, *_extent(form, n, width, height)) for n, plane in enumerate(planes))
        width, height, owner = (width, height, None) if turns == 2 else (height, width, None)
    for plane in planes:
        plane.flags.writeable = False
    return Picture(form, planes, width, height, matrix, full, owner)


def _convert(frame: VideoFrame, kind: str, full: bool) -> VideoFrame:
    """Through swscale, range and matrix kept."""
    span, space = _FULL if full else _LIMITED, int(frame.colorspace)
    try:
        return frame.reformat(
            format=kind,
            interpolation=_SCALE,
            src_color_range=span,
            dst_color_range=span,
            src_colorspace=space if space in _MATRICES else None,
            dst_colorspace=space if space in _MATRICES else None,
        )
    except (ValueError, OSError) as error:
        raise ValueError(f"pixel format {frame.format.name} cannot be converted to {kind} ({error})") from None


def _bits(frame: VideoFrame) -> int:
    return max(component.bits for component in frame.format.components)


def _eight_bits(samples: NDArray[np.generic], bits: int, full: bool) -> Plane:
    """Samples of ``bits`` bits (or means of such) to 8, rounded to nearest.

    Limited range is a shift (16 is 64 in ten bits), full range maps the highest value to 255. swscale dithers here and
    ends up to 1.7 levels away.
    """
    import cv2

    scale = 255 / ((1 << bits) - 1) if full else 1 / (1 << (bits - 8))
    eight: Plane = np.asarray(cv2.convertScaleAbs(np.ascontiguousarray(samples), alpha=scale), np.uint8)
    return eight.reshape(samples.shape)


def _bgr(frame: VideoFrame) -> _Planes:
    width, height = frame.width, frame.height
    if _bits(frame) <= 8:
        owner = _convert(frame, "bgr24", True)
        return (_rows(owner, 0, width * 3, height).reshape(height, width, 3),), owner
    deep = _rows(_convert(frame, "bgr48le", True), 0, width * 6, height).view("<u2")
    return (_eight_bits(deep, 16, True).reshape(height, width, 3),), None


def _gray_420(frame: VideoFrame, full: bool) -> _Planes:
    width, height, bits = frame.width, frame.height, _bits(frame)
    owner: VideoFrame | None
    if bits <= 8:
        owner = frame if frame.format.name == "gray" else _convert(frame, "gray", full)
        luma = _rows(owner, 0, width, height)
    else:
        layout = f"gray{bits}le" if bits in (10, 12) else "gray16le"
        deep = frame if frame.format.name == layout else _convert(frame, layout, full)
        luma, owner = _eight_bits(_rows(deep, 0, width * 2, height).view("<u2"), _bits(deep), full), None
    chroma = np.full((_half(height), _half(width)), 128, np.uint8)
    return (luma, chroma, chroma.copy()), owner


def _yuv_420(frame: VideoFrame, full: bool) -> _Planes:
    width, height, bits = frame.width, frame.height, _bits(frame)
    luma, chroma = frame.format.components[:2]
    wide, tall = chroma.width == luma.width, chroma.height == luma.height
    quarter = not wide and chroma.width < _half(luma.width)
    # swscale spreads 53 chroma samples evenly over 27 places; two belong to one, and the last stands alone.
    odd = (wide and width % 2) or (tall and height % 2)
    if bits <= 8 and (quarter or not odd):
        owner = _convert(frame, "yuv420p", full)
        return _views_420(owner), owner
    layout = f"yuv{444 if wide and tall else 422 if tall else 440 if wide else 420}p"
    if bits > 8:
        layout += f"{bits if bits in (10, 12) else 16}le"
    if layout == "yuv440p16le":  # which does not exist
        layout = "yuv444p16le"
        wide = tall = True
    planar = frame if frame.format.name == layout else _convert(frame, layout, full)
    depth, sample = _bits(planar), np.dtype("<u2" if bits > 8 else "u1")
    across, down = width if wide else _half(width), height if tall else _half(height)
    planes = [
        _rows(planar, n, columns * sample.itemsize, rows).view(sample)
        for n, columns, rows in ((0, width, height), (1, across, down), (2, across, down))
    ]
    means = (planes[0], *(_box_mean(plane, wide, tall) if wide or tall else plane for plane in planes[1:]))
    return tuple(_eight_bits(plane, depth, full) for plane in means), None


def _box_mean(plane: NDArray[np.generic], wide: bool, tall: bool) -> NDArray[np.float32]:
    """Mean of 2, or 2x2, samples; the last one stands alone at an odd edge."""
    total: NDArray[np.float32] = plane.astype(np.float32)
    for axis, halve in ((1, wide), (0, tall)):
        if halve:
            last = [(0, 0), (0, 0)]
            last[axis] = (0, total.shape[axis] % 2)
            padded = np.pad(total, last, mode="edge")
            even, uneven = (padded[:, ::2], padded[:, 1::2]) if axis else (padded[::2], padded[1::2])
            total = (even + uneven) * np.float32(0.5)
    return total


def _half(length: int) -> int:
    return -(-length // 2)


def _rows(frame: VideoFrame, index: int, row_bytes: int, rows: int) -> Plane:
    """(rows, row_bytes) view of one plane, without the decoder's padding."""
    plane = frame.planes[index]
    pitch = abs(plane.line_size)
    view = np.frombuffer(memoryview(plane), np.uint8, pitch * rows).reshape(rows, pitch)[:, :row_bytes]
    # A negative pitch says that the last line lies first in memory.
    return np.ascontiguousarray(view[::-1]) if plane.line_size < 0 else view


def _views_420(frame: VideoFrame) -> tuple[Plane, ...]:
    across, down = _half(frame.width), _half(frame.height)
    return (_rows(frame, 0, frame.width, frame.height), _rows(frame, 1, across, down), _rows(frame, 2, across, down))


def _views_nv12(frame: VideoFrame) -> tuple[Plane, ...]:
    across, down = _half(frame.width), _half(frame.height)
    pairs = _rows(frame, 1, across * 2, down)
    return _rows(frame, 0, frame.width, frame.height), pairs.reshape(down, across, 2)


def _extent(form: PixelFormat, index: int, width: int, height: int) -> tuple[int, int, int]:
    """Picture size in pixels, and how many of them one sample of that plane spans each way."""
    return width, height, 1 if form == "bgr24" or index == 0 else 2


def _turn(plane: Plane, turns: int, width: int, height: int, span: int) -> Plane:
    """``plane`` turned clockwise by ``turns`` quarters, a contiguous copy.

    A reversed axis of odd length no longer starts at a chroma sample's edge, so that samples are looked up by the
    pixel that they begin at; for even lengths that is plain reversal.
    """
    rows, columns = np.arange(plane.shape[0]), np.arange(plane.shape[1])
    if turns in (1, 2):
        rows = (height - 1 - span * rows) // span
    if turns in (2, 3):
        columns = (width - 1 - span * columns) // span
    turned = plane[rows][:, columns]
    if turns != 2:
        turned = turned.swapaxes(0, 1)
    return np.ascontiguousarray(turned)
