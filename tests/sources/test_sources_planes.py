"""Conversions of other pixel formats, against plain arithmetic in floating point."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from segcam.sources.factory import make_source
from segcam.sources.planes import _turn, to_picture

YUV = [
    # name, bits, chroma is half as wide, half as high
    ("yuv422p", 8, True, False),
    ("yuv444p", 8, False, False),
    ("yuv440p", 8, False, True),
    ("yuv420p10le", 10, True, True),
    ("yuv422p10le", 10, True, False),
    ("yuv444p10le", 10, False, False),
    ("yuv420p12le", 12, True, True),
    ("yuv444p12le", 12, False, False),
]


def box_mean(plane: np.ndarray, across: int, down: int) -> np.ndarray:
    """Mean of down x across samples, the last ones alone at odd edges."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, -height % down), (0, -width % across)), mode="edge")
    return padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across).mean((1, 3))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (53, 37), (54, 37), (53, 38)])
@pytest.mark.parametrize(("kind", "bits", "half_wide", "half_high"), YUV)
def test_yuv_becomes_420_of_8_bits(as_av_frame, kind, bits, half_wide, half_high, size, full):
    width, height = size
    chroma = (-(-height // 2) if half_high else height, -(-width // 2) if half_wide else width)
    rng = np.random.default_rng(7)
    dtype = np.uint16 if bits > 8 else np.uint8
    planes = [rng.integers(0, 1 << bits, shape, dtype) for shape in ((height, width), chroma, chroma)]
    frame = as_av_frame(planes, width, height, kind)
    frame.colorspace, frame.color_range = 1, 2 if full else 1
    picture = to_picture(frame)
    assert (picture.format, picture.matrix, picture.full_range) == ("i420", "bt709", full)
    # Limited range scales by a power of two (16 is 64 in ten bits), full range maps 1023 to 255.
    scale = 255 / ((1 << bits) - 1) if full else 1 / (1 << (bits - 8))
    across, down = 1 if half_wide else 2, 1 if half_high else 2
    expected = [planes[0] * scale, *(box_mean(plane * scale, across, down) for plane in planes[1:])]
    for mine, want in zip(picture.planes, expected, strict=True):
        assert mine.shape == want.shape and np.abs(mine - want.clip(0, 255)).max() <= 0.501


@pytest.mark.parametrize("kind", ["rgb24", "bgr24", "bgra", "gbrp"])
def test_rgb_becomes_bgr_exactly(as_av_frame, kind):
    rng = np.random.default_rng(2)
    red, green, blue = rng.integers(0, 256, (3, 37, 53), np.uint8)
    stacked = {
        "rgb24": [np.dstack([red, green, blue])],
        "bgr24": [np.dstack([blue, green, red])],
        "bgra": [np.dstack([blue, green, red, rng.integers(0, 256, red.shape, np.uint8)])],
        "gbrp": [green, blue, red],
    }[kind]
    picture = to_picture(as_av_frame(stacked, 53, 37, kind))
    assert picture.format == "bgr24"
    assert np.array_equal(picture.planes[0], np.dstack([blue, green, red]))


def test_rgb_of_16_bits_is_scaled(as_av_frame):
    rng = np.random.default_rng(2)
    deep = rng.integers(0, 65536, (48, 64, 3), np.uint16)
    picture = to_picture(as_av_frame([deep], 64, 48, "rgb48le"))
    assert np.abs(picture.planes[0][..., ::-1] - deep / 257).max() <= 0.501


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_gray_keeps_its_range(as_av_frame, bits, full):
    rng = np.random.default_rng(2)
    gray = rng.integers(0, 1 << bits, (37, 53), np.uint16 if bits > 8 else np.uint8)
    frame = as_av_frame([gray], 53, 37, "gray" if bits == 8 else "gray10le")
    frame.color_range = 2 if full else 1
    picture = to_picture(frame)
    scale = 255 / 1023 if full and bits == 10 else 1 / (1 << (bits - 8))
    assert picture.format == "i420" and picture.full_range is full
    assert np.abs(picture.planes[0] - (gray * scale).clip(0, 255)).max() <= (0 if bits == 8 else 0.501)
    assert (picture.planes[1] == 128).all() and picture.planes[2].shape == (19, 27)


def test_palette_through_a_real_decoder(make_video, read_all, as_av_frame):
    rng = np.random.default_rng(3)
    colors = rng.integers(0, 256, (48, 64, 3), np.uint8) // 128 * 255
    path = make_video("a.png", [(colors,)], codec="png", pix_fmt="rgb24")
    gif = make_video("a.gif", [(colors[..., 0] // 255 * 7,)] * 3, codec="gif", pix_fmt="rgb4_byte")
    assert np.array_equal(read_all(make_source(str(path)))[0].planes[0], colors[..., ::-1])
    got = read_all(make_source(str(gif)))
    assert len(got) == 3 and got[0].format == "bgr24" and len(np.unique(got[0].planes[0].reshape(-1, 3), axis=0)) == 2


def test_bottom_up_rows_are_upright(make_video, read_all):
    image = np.random.default_rng(4).integers(0, 256, (30, 50, 3), np.uint8)
    path = make_video("a.avi", [(image,)], size=(50, 30), codec="rawvideo", pix_fmt="bgr24")
    assert np.array_equal(read_all(make_source(str(path)))[0].planes[0], image)


def test_negative_pitch_is_read_from_the_last_line():
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    chroma = np.full((2, 2), 9, np.uint8)

    class Plane(bytearray):
        line_size = 0

    planes = []
    for values, pitch in ((rows[::-1], -4), (chroma, -2), (chroma, -2)):
        plane = Plane(np.ascontiguousarray(values).tobytes())
        plane.line_size = pitch
        planes.append(plane)
    kind = SimpleNamespace(name="yuv420p", components=[0, 1, 2], is_rgb=False, has_palette=False)
    frame = SimpleNamespace(format=kind, planes=planes, width=4, height=3, color_range=1, colorspace=1, rotation=0)
    picture = to_picture(frame)
    assert np.array_equal(picture.planes[0], rows) and picture.planes[0].strides[0] > 0


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_chroma_of_odd_pictures_stays_under_its_pixels(turns):
    # Every chroma sample names the pixel column or row that it begins at; after the turn each pixel must still find
    # a sample that covers it or its neighbour in the same 2x2 block's row.
    width, height = 7, 5
    columns = np.broadcast_to(np.arange(4, dtype=np.uint8) * 2, (3, 4))
    turned = _turn(columns, turns, width, height, 2)
    pixels = np.rot90(np.broadcast_to(np.arange(width), (height, width)), -turns)
    assert turned.shape == ((4, 3) if turns != 2 else (3, 4))
    for row in range(0, pixels.shape[0], 2):
        for column in range(0, pixels.shape[1], 2):
            assert 0 <= pixels[row, column] - turned[row // 2, column // 2] <= 1
