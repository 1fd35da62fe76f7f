"""Frame to network input, and frame to BGR, against the plain NumPy form and against OpenCV."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segcam.frame import ColorMatrix, Frame, PixelFormat
from segcam.geometry import AxisMap, ResizePolicy, fit
from segcam.kernels.cpu.color import yuv_to_bgr
from segcam.kernels.cpu.preprocess import Preprocessor
from segcam.kernels.reference import preprocess, rgb_float
from segcam.kernels.reference import yuv_to_bgr as reference_bgr

MakeFrame = Callable[..., Frame]
FORMATS = st.sampled_from(["i420", "nv12", "bgr24"])
MATRICES = st.sampled_from(["bt601", "bt709", "bt2020"])
SIZES = st.sampled_from([1, 2, 3, 5, 16, 17, 33, 64, 101])
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def run(
    frame: Frame, hw: tuple[int, int], policy: ResizePolicy = "stretch", *, rgb: bool = True,
    mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD,
) -> NDArray[np.float32]:  # fmt: skip
    out = np.full((1, 3, *hw), 7e7, np.float32)
    Preprocessor(frame, fit((frame.height, frame.width), hw, policy), mean, std, rgb=rgb)(frame, out)
    return out[0]


def wanted(frame: Frame, hw: tuple[int, int], *, rgb: bool = True) -> NDArray[np.float64]:
    placement = fit((frame.height, frame.width), hw)
    return preprocess(frame, *hw, placement.y, placement.x, np.array(MEAN), np.array(STD), rgb=rgb)


@settings(max_examples=250)
@given(
    FORMATS, SIZES, SIZES, SIZES, SIZES, st.sampled_from([0, 3, 64]), MATRICES, st.booleans(), st.booleans(),
    st.integers(0, 2**31),
)  # fmt: skip
def test_equals_the_reference(
    make_frame: MakeFrame, format: PixelFormat, height: int, width: int, to_h: int, to_w: int, pad: int,
    matrix: ColorMatrix, full_range: bool, rgb: bool, seed: int,
) -> None:  # fmt: skip
    frame = make_frame(height, width, format, seed, pad, matrix, full_range)
    got, want = run(frame, (to_h, to_w), rgb=rgb), wanted(frame, (to_h, to_w), rgb=rgb)
    assert np.abs(got - want).max() <= 1e-4 * (255 / min(STD))


@pytest.mark.parametrize("format", ["i420", "nv12"])
@pytest.mark.parametrize("full_range", [False, True])
def test_half_size_equals_the_reference(make_frame: MakeFrame, format: PixelFormat, full_range: bool) -> None:
    """The commonest case, 2048x1024 to 1024x512, has a way of its own."""
    frame = make_frame(96, 128, format, 2, 5, full_range=full_range)
    assert np.abs(run(frame, (48, 64)) - wanted(frame, (48, 64))).max() <= 1e-4 * (255 / min(STD))
    assert np.abs(run(frame, (31, 64)) - wanted(frame, (31, 64))).max() <= 1e-4 * (255 / min(STD))


@settings(max_examples=80)
@given(SIZES, SIZES, SIZES, SIZES, st.integers(0, 2**31))
def test_bgr_equals_opencvs_linear_resize_in_float(
    make_frame: MakeFrame, height: int, width: int, to_h: int, to_w: int, seed: int
) -> None:
    frame = make_frame(height, width, "bgr24", seed)
    resized = cv2.resize(frame.planes[0].astype(np.float32), (to_w, to_h), interpolation=cv2.INTER_LINEAR).reshape(
        to_h, to_w, 3
    )
    got = run(frame, (to_h, to_w), rgb=False, mean=(0, 0, 0), std=(1, 1, 1))
    assert np.abs(got.transpose(1, 2, 0) - resized).max() <= 0.02


def test_channels_are_fed_in_the_order_asked(make_frame: MakeFrame) -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 2] = 200  # red, last in BGR
    frame = make_frame(4, 6, "bgr24", planes=(picture,))
    plain = {"mean": (10.0, 20.0, 30.0), "std": (2.0, 4.0, 5.0)}
    assert run(frame, (4, 6), rgb=True, **plain)[:, 0, 0].tolist() == pytest.approx([95, -5, -6])  # type: ignore[arg-type]
    assert run(frame, (4, 6), rgb=False, **plain)[:, 0, 0].tolist() == pytest.approx([-5, -5, 34])  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["i420", "nv12", "bgr24"])
@pytest.mark.parametrize(
    ("frame_hw", "input_hw"),
    [((60, 80), (64, 64)), ((80, 60), (64, 64)), ((33, 64), (40, 64)), ((9, 16), (10, 16)), ((7, 3), (64, 5))],
)
def test_letterbox(
    make_frame: MakeFrame, format: PixelFormat, frame_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    """The picture whole and centred, everything else 0 after normalisation, whatever the buffer held before."""
    frame = make_frame(*frame_hw, format, 9)
    placement = fit(frame_hw, input_hw, "letterbox")
    height, width = placement.bottom - placement.top, placement.right - placement.left
    got = run(frame, input_hw, "letterbox")
    inside = got[:, placement.top : placement.bottom, placement.left : placement.right]
    np.testing.assert_allclose(inside, wanted(frame, (height, width)), atol=1e-3)
    outside = got.copy()
    outside[:, placement.top : placement.bottom, placement.left : placement.right] = 0
    assert not outside.any()
    assert abs(placement.top - (input_hw[0] - placement.bottom)) <= 1
    assert abs(placement.left - (input_hw[1] - placement.right)) <= 1
    assert width * frame_hw[0] == pytest.approx(height * frame_hw[1], rel=0.5 / min(height, width) + 1e-9)


def test_letterbox_follows_the_picture_not_the_padding(make_frame: MakeFrame) -> None:
    """Scores of the network's pixel (top + i) belong to the frame's row that was put there."""
    placement = fit((60, 80), (64, 64), "letterbox")
    assert (placement.top, placement.bottom, placement.left, placement.right) == (8, 56, 0, 64)
    assert placement.y.scale * 8 + placement.y.offset == pytest.approx(0.5 * 60 / 48 - 0.5)
    back = placement.y.inverse()
    assert back.scale * 59 + back.offset == pytest.approx(55.5 - 0.5 * 48 / 60)


def test_a_plane_of_each_decoder_layout_gives_the_same_input(make_frame: MakeFrame) -> None:
    i420 = make_frame(37, 53, "i420", 11, 9)
    y, u, v = i420.planes
    nv12 = make_frame(37, 53, "nv12", planes=(np.array(y), np.stack([u, v], axis=-1)), pad=2)
    uneven = Frame(**{**vars(i420), "planes": (y, np.ascontiguousarray(u), v)})
    for other in (nv12, uneven):
        np.testing.assert_array_equal(run(i420, (20, 20)), run(other, (20, 20)))
        np.testing.assert_array_equal(yuv_to_bgr(i420), yuv_to_bgr(other))


@settings(max_examples=120)
@given(
    st.sampled_from(["i420", "nv12"]), SIZES, SIZES, st.sampled_from([0, 3, 64]), MATRICES, st.booleans(),
    st.integers(0, 2**31),
)  # fmt: skip
def test_bgr_equals_the_reference(
    make_frame: MakeFrame, format: PixelFormat, height: int, width: int, pad: int, matrix: ColorMatrix,
    full_range: bool, seed: int,
) -> None:  # fmt: skip
    frame = make_frame(height, width, format, seed, pad, matrix, full_range)
    got, want = yuv_to_bgr(frame), reference_bgr(frame)
    assert got.shape == want.shape == (height, width, 3)
    exact = np.clip(rgb_float(frame)[..., ::-1], 0, 255)
    # Where float32 rounds the other way, the real value is a half but for 1e-4.
    differ = got != want
    assert (np.abs(exact - got)[differ] < 0.5 + 1e-4).all()
    assert (np.abs(exact - got) < 0.5 + 1e-4).all()


@pytest.mark.parametrize(
    ("matrix", "full_range", "yuv", "rgb"),
    [
        ("bt601", False, (81, 90, 240), (255, 0, 0)),
        ("bt601", False, (145, 54, 34), (0, 255, 0)),
        ("bt601", True, (76, 85, 255), (255, 0, 0)),
        ("bt709", False, (63, 102, 240), (255, 0, 0)),
        ("bt709", False, (173, 42, 26), (0, 255, 0)),
        ("bt709", False, (16, 128, 128), (0, 0, 0)),
        ("bt709", False, (235, 128, 128), (255, 255, 255)),
        ("bt2020", False, (74, 97, 240), (255, 0, 0)),
    ],
)
def test_known_colours(
    make_frame: MakeFrame, matrix: ColorMatrix, full_range: bool, yuv: tuple[int, int, int], rgb: tuple[int, int, int]
) -> None:
    """Colour bars as the standards list them in 8 bits."""
    planes = tuple(np.full(s, v, np.uint8) for s, v in zip(((2, 2), (1, 1), (1, 1)), yuv, strict=True))
    frame = make_frame(2, 2, "i420", planes=planes, matrix=matrix, full_range=full_range)
    assert np.abs(frame.bgr()[0, 0, ::-1].astype(int) - rgb).max() <= 2


def test_an_axis_map_that_goes_nowhere_is_exact(make_frame: MakeFrame) -> None:
    """At the network's own size a BGR picture passes untouched."""
    frame = make_frame(23, 29, "bgr24", 8)
    got = run(frame, (23, 29), rgb=False, mean=(0, 0, 0), std=(1, 1, 1))
    np.testing.assert_array_equal(got.transpose(1, 2, 0), frame.planes[0])
    assert fit((23, 29), (23, 29)).y == AxisMap()
