"""The overlay: byte for byte the reference's fixed point, and by eye the float RGB blend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segcam.frame import ColorMatrix, Frame, PixelFormat
from segcam.kernels.cpu.blend import OverlayPainter
from segcam.kernels.reference import (
    blend_chroma,
    blend_plane,
    blend_tables,
    rgb_float,
    rgb_to_yuv_matrix,
    yuv_to_rgb_matrix,
)

MakeFrame = Callable[..., Frame]
FORMATS: list[PixelFormat] = ["i420", "nv12", "bgr24"]
SIZES = st.sampled_from([1, 2, 3, 5, 16, 31, 32, 33, 63, 64, 65, 97])


def class_map(height: int, width: int, classes: int, seed: int, blocky: bool) -> NDArray[np.uint8]:
    """Ids, mostly in long runs when ``blocky``, with a few beyond the table and 255."""
    random = np.random.default_rng(seed)
    if blocky:
        coarse = random.integers(0, classes, (height // 24 + 1, width // 24 + 1))
        labels = coarse.repeat(24, axis=0).repeat(24, axis=1)[:height, :width].astype(np.uint8)
    else:
        labels = random.integers(0, classes, (height, width)).astype(np.uint8)
    labels[random.random((height, width)) < 0.01] = 255
    return labels


def expected(
    frame: Frame, labels: NDArray[np.uint8], colors: NDArray[np.uint8], alpha: NDArray[np.float64]
) -> list[NDArray[np.uint8]]:
    if frame.format == "bgr24":
        keep, add = blend_tables(colors[:, ::-1].astype(float), alpha)
        return [np.stack([blend_plane(frame.planes[0][..., c], labels, keep, add[:, c]) for c in range(3)], axis=-1)]
    matrix, offset = rgb_to_yuv_matrix(frame.matrix, frame.full_range)
    keep, add = blend_tables(colors @ matrix.T + offset, alpha)
    luma = blend_plane(frame.planes[0], labels, keep, add[:, 0])
    if frame.format == "i420":
        return [luma, *(blend_chroma(frame.planes[i], labels, keep, add[:, i]) for i in (1, 2))]
    uv = [blend_chroma(np.ascontiguousarray(frame.planes[1][..., i]), labels, keep, add[:, i + 1]) for i in (0, 1)]
    return [luma, np.stack(uv, axis=-1)]


def paint(painter: OverlayPainter, frame: Frame, labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    before = [plane.copy() for plane in frame.planes]
    out = tuple(np.full(plane.shape, 77, np.uint8) for plane in frame.planes)
    painter(frame, labels, out)
    for plane, old in zip(frame.planes, before, strict=True):
        np.testing.assert_array_equal(plane, old)
    return out


def tables(classes: int, seed: int, alpha: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Colours and opacity of 256 ids: a third of the classes hidden, all ids beyond the table clear."""
    random = np.random.default_rng(seed)
    colors = np.zeros((256, 3), np.uint8)
    # The corners of the colour cube are where 8 bits are tightest.
    colors[:classes] = np.where(random.random((classes, 1)) < 0.5, random.integers(0, 2, (classes, 3)) * 255, 0)
    colors[classes // 2 : classes] = random.integers(0, 256, (classes - classes // 2, 3))
    opacity = np.zeros(256)
    opacity[:classes] = alpha * (random.random(classes) < 0.7)
    return colors, opacity


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=120)
@given(
    SIZES, SIZES, st.sampled_from([0, 1, 7, 64]), st.sampled_from(["bt601", "bt709", "bt2020"]), st.booleans(),
    st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1)), st.integers(1, 255), st.booleans(),
    st.integers(0, 2**31),
)  # fmt: skip
def test_equals_the_reference(
    make_frame: MakeFrame, format: PixelFormat, height: int, width: int, pad: int, matrix: ColorMatrix,
    full_range: bool, alpha: float, classes: int, blocky: bool, seed: int,
) -> None:  # fmt: skip
    frame = make_frame(height, width, format, seed, pad, matrix, full_range)
    labels = class_map(height, width, classes, seed, blocky)
    colors, opacity = tables(classes, seed, alpha)
    got = paint(OverlayPainter(frame, colors, opacity), frame, labels)
    for plane, want in zip(got, expected(frame, labels, colors, opacity), strict=True):
        np.testing.assert_array_equal(plane, want)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (35, 67)])
def test_alpha_0_is_the_picture(make_frame: MakeFrame, format: PixelFormat, size: tuple[int, int]) -> None:
    frame = make_frame(*size, format, 3, 5)
    labels = class_map(*size, 19, 0, False)
    colors, opacity = tables(19, 0, 0.0)
    for plane, source in zip(paint(OverlayPainter(frame, colors, opacity), frame, labels), frame.planes, strict=True):
        np.testing.assert_array_equal(plane, source)


@pytest.mark.parametrize("format", FORMATS)
def test_hidden_and_unknown_classes_stay_clear(make_frame: MakeFrame, format: PixelFormat) -> None:
    frame = make_frame(64, 96, format, 3)
    labels = np.full((64, 96), 255, np.uint8)
    labels[:32, :48] = 0
    labels[32:, 48:] = 1
    opacity = np.zeros(256)
    opacity[1] = 1.0
    got = paint(OverlayPainter(frame, np.full((256, 3), 200, np.uint8), opacity), frame, labels)
    for plane, source in zip(got, frame.planes, strict=True):
        rows, cols = plane.shape[0] // 2, plane.shape[1] // 2
        np.testing.assert_array_equal(plane[:rows], source[:rows])
        np.testing.assert_array_equal(plane[rows:, :cols], source[rows:, :cols])
        assert (plane[rows:, cols:] == plane[-1, -1]).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("rgb", [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255), (0, 0, 142)])
@pytest.mark.parametrize("mask_only", [False, True])
def test_full_opacity_is_the_colour(
    make_frame: MakeFrame, format: PixelFormat, full_range: bool, rgb: tuple[int, int, int], mask_only: bool
) -> None:
    """Pure blue and red have chroma 255.5 in full range, half a level beyond 8 bits: it must not wrap to 0."""
    frame = make_frame(34, 70, format, 4, matrix="bt601", full_range=full_range)
    colors = np.zeros((256, 3), np.uint8)
    colors[2] = rgb
    opacity = np.zeros(256)
    opacity[2] = 0.3 if mask_only else 1.0
    planes = paint(OverlayPainter(frame, colors, opacity, mask_only=mask_only), frame, np.full((34, 70), 2, np.uint8))
    shown = rgb_float(frame.with_planes(planes))
    np.testing.assert_allclose(np.clip(shown, 0, 255), np.broadcast_to(np.array(rgb, float), shown.shape), atol=2)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("full_range", [False, True])
def test_mask_only_is_black_elsewhere(make_frame: MakeFrame, format: PixelFormat, full_range: bool) -> None:
    frame = make_frame(40, 64, format, 4, full_range=full_range)
    labels = np.zeros((40, 64), np.uint8)
    labels[:20] = 1
    labels[20:30] = 255
    opacity = np.zeros(256)
    opacity[1] = 0.5
    planes = paint(OverlayPainter(frame, np.full((256, 3), 90, np.uint8), opacity, mask_only=True), frame, labels)
    shown = rgb_float(frame.with_planes(planes))
    np.testing.assert_allclose(shown[:20], 90, atol=2)
    np.testing.assert_allclose(shown[20:], 0, atol=2)


def _in_gamut_yuv(
    height: int, width: int, matrix: ColorMatrix, full_range: bool, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """I420 planes whose every pixel, with its nearest chroma, lies inside the RGB cube (and a little further in)."""
    random = np.random.default_rng(seed)
    half = (height + 1) // 2, (width + 1) // 2
    forward, offset = rgb_to_yuv_matrix(matrix, full_range)
    back, back_offset = yuv_to_rgb_matrix(matrix, full_range)
    rgb = random.uniform(40, 215, (*half, 3))
    yuv = np.rint(rgb @ forward.T + offset)
    y = np.rint(yuv[..., 0].repeat(2, 0).repeat(2, 1)[:height, :width] + random.integers(-25, 26, (height, width)))
    for _ in range(40):
        chroma = yuv[..., 1:].repeat(2, 0).repeat(2, 1)[:height, :width]
        seen = np.dstack([y, chroma]) @ back.T + back_offset
        outside = ((seen < 0) | (seen > 255)).any(axis=-1)
        if not outside.any():
            break
        y[outside] += np.where(seen[outside].mean(axis=-1) < 128, 6, -6)
    assert not outside.any()
    u, v = (np.ascontiguousarray(yuv[..., i]).astype(np.uint8) for i in (1, 2))
    return y.astype(np.uint8), u, v


@pytest.mark.parametrize("format", ["i420", "nv12"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.77, 1.0])
def test_within_two_levels_of_a_float_rgb_blend(
    make_frame: MakeFrame, format: PixelFormat, matrix: ColorMatrix, full_range: bool, alpha: float
) -> None:
    """Away from class boundaries, where a chroma sample belongs to one class.

    Rounding Y, U and V by half a level each moves RGB by up to 0.5 * (1.164 + 2.142) levels at worst.
    """
    height, width = 75, 131
    y, u, v = _in_gamut_yuv(height, width, matrix, full_range, 6)
    planes = (y, u, v) if format == "i420" else (y, np.stack([u, v], axis=-1))
    frame = make_frame(height, width, format, matrix=matrix, full_range=full_range, planes=planes, pad=3)
    labels = np.zeros((height, width), np.uint8)
    labels[:, 40:90] = 1
    labels[36:, 20:60] = 2
    colors = np.zeros((256, 3), np.uint8)
    colors[:3] = [(128, 64, 128), (0, 0, 142), (255, 0, 0)]
    opacity = np.zeros(256)
    opacity[:3] = alpha
    shown = rgb_float(frame.with_planes(paint(OverlayPainter(frame, colors, opacity), frame, labels)))
    want = (1 - alpha) * rgb_float(frame) + alpha * colors[labels]
    distance = np.abs(np.clip(shown, 0, 255) - want).max(axis=-1)
    # Boundaries of these classes lie on even rows and columns: every chroma sample is of one class.
    assert distance.max() <= 2.0


def test_chroma_at_a_boundary_is_the_mean_of_four_pixels(make_frame: MakeFrame) -> None:
    grey = tuple(np.full(s, 128, np.uint8) for s in ((2, 2), (1, 1), (1, 1)))
    frame = make_frame(2, 2, "i420", planes=grey, full_range=True, matrix="bt601")
    colors = np.zeros((256, 3), np.uint8)
    colors[1] = (0, 0, 254)
    opacity = np.zeros(256)
    opacity[1] = 1.0
    painter = OverlayPainter(frame, colors, opacity)
    labels = np.array([[0, 1], [0, 0]], np.uint8)
    _, u, _ = paint(painter, frame, labels)
    # U of (0, 0, 254) is 255: one of four pixels.
    assert int(u[0, 0]) == round((3 * 128 + 255) / 4)


def test_pictures_turned_over_or_cut_out_are_taken(make_frame: MakeFrame) -> None:
    """Planes whose rows go upwards or whose samples aren't neighbours are no decoder's, but a program may pass them."""
    base = make_frame(40, 60, "bgr24", 1).planes[0]
    colors, opacity = tables(5, 1, 0.5)
    for view in (base[::-1], base[:, ::-1], base[::2, ::2], base[..., ::-1], base[3:4, 5:6]):
        height, width = view.shape[:2]
        frame = Frame(**{**vars(make_frame(height, width, "bgr24")), "planes": (view,)})
        labels = class_map(height, width, 5, 2, False)
        got = paint(OverlayPainter(frame, colors, opacity), frame, labels)
        np.testing.assert_array_equal(got[0], expected(frame, labels, colors, opacity)[0])
