"""preprocess.cu on the host: exactly what the CPU's preprocessor makes, from any format, pitch and alignment."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cuda_shim import HostKernels
from cuda_shim.memory import HostPicture, Memory
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segcam.frame import Frame
from segcam.geometry import Fit, ResizePolicy, fit
from segcam.kernels.cpu.preprocess import Preprocessor
from segcam.kernels.cuda import reference
from segcam.kernels.cuda.picture import BLOCK, DevicePicture, PictureKind
from segcam.kernels.cuda.postprocess import COUNTS_BYTES
from segcam.kernels.cuda.preprocess import InputDtype, InputLayout, PreprocessPlan

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
#: For inputs of uint8: the picture itself.
PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

#: What takes its own way through the kernel is no draw of Hypothesis', which leaves some of few choices out.
FORMATS = ["nv12", "i420", "bgr24", "p010", "i420p10"]
DTYPES = ["float32", "float16", "uint8"]
MATRICES = st.sampled_from(["bt601", "bt709", "bt2020"])
#: 1, odd, prime, more than a thread's, a warp's and a block's share.
SIZES = st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17, 31, 33, 64, 101, 132, 150])
PADS = st.tuples(*[st.sampled_from([0, 1, 3, 4, 16])] * 3)
OFFSETS = st.tuples(*[st.sampled_from([0, 0, 1, 2, 4, 8])] * 3)
LAYOUTS = st.sampled_from(["NCHW", "NHWC"])


def run(
    kernels: HostKernels, picture: HostPicture, input_hw: tuple[int, int], placement: Fit, *, rgb: bool = True,
    dtype: InputDtype = "float32", layout: InputLayout = "NCHW", out_offset: int = 0, backwards: bool = False,
) -> NDArray[Any]:  # fmt: skip
    """(3, H, W) of the dtype."""
    mean, std = PLAIN if dtype == "uint8" else (MEAN, STD)
    plan = PreprocessPlan(picture.kind, placement, input_hw, mean, std, rgb=rgb, dtype=dtype, layout=layout)
    tables = Memory.of(plan.tables.data)
    out = Memory(plan.nbytes, out_offset * np.dtype(dtype).itemsize)
    before = picture.arrays()
    # The counts, and what lies to either side of them.
    counts = Memory(3 * COUNTS_BYTES)
    counts.bytes[:] = 7
    cleared = counts.address + COUNTS_BYTES
    arguments = plan.arguments(tables.address, picture.device, out.address, cleared if backwards else 0)
    kernels.launch(plan.kernel, plan.grid, BLOCK, arguments, backwards=backwards)
    assert [set(part.tolist()) for part in np.split(counts.bytes, 3)] == [{7}, {0 if backwards else 7}, {7}]
    for old, new in zip(before, picture.arrays(), strict=True):
        np.testing.assert_array_equal(old, new)
    if layout == "NHWC":
        return np.moveaxis(out.view(dtype, (*input_hw, 3)), -1, 0).copy()
    return out.view(dtype, (3, *input_hw)).copy()


def cpu(picture: HostPicture, input_hw: tuple[int, int], placement: Fit, *, rgb: bool, plain: bool) -> NDArray[Any]:
    """What kernels/cpu makes of an 8-bit picture, in float32."""
    kind = picture.kind
    assert kind.format in ("nv12", "i420", "bgr24")
    frame = Frame(
        0, 0, Fraction(1, 25), 0.0, "test", kind.width, kind.height, kind.format, picture.arrays(), kind.matrix,
        kind.full_range,
    )  # fmt: skip
    out = np.empty((1, 3, *input_hw), np.float32)
    mean, std = PLAIN if plain else (MEAN, STD)
    Preprocessor(frame, placement, mean, std, rgb=rgb)(frame, out)
    return out[0]


def as_dtype(fed: NDArray[np.float32], dtype: InputDtype) -> NDArray[Any]:
    return np.clip(np.rint(fed), 0, 255).astype(np.uint8) if dtype == "uint8" else fed.astype(dtype)


def check(
    kernels: HostKernels, picture: HostPicture, input_hw: tuple[int, int], policy: ResizePolicy, rgb: bool,
    dtype: InputDtype, layout: InputLayout, out_offset: int, backwards: bool,
) -> None:  # fmt: skip
    kind = picture.kind
    placement = fit((kind.height, kind.width), input_hw, policy)
    got = run(
        kernels, picture, input_hw, placement, rgb=rgb, dtype=dtype, layout=layout, out_offset=out_offset,
        backwards=backwards,
    )  # fmt: skip
    plain = dtype == "uint8"
    mean, std = PLAIN if plain else (MEAN, STD)
    real = reference.preprocess(kind, picture.arrays(), placement, input_hw, mean, std, rgb=rgb)
    if kind.bits == 8:
        fed = cpu(picture, input_hw, placement, rgb=rgb, plain=plain)
        np.testing.assert_array_equal(got, as_dtype(fed, dtype))
    half = 2.0**-11 if dtype == "float16" else 0.0
    np.testing.assert_allclose(got, real, rtol=half, atol=0.5 + 2e-4 if plain else 2e-5)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rgb", [True, False])
@settings(max_examples=25)
@given(
    SIZES, SIZES, MATRICES, st.booleans(), st.integers(0, 2**31), PADS, OFFSETS, SIZES, SIZES,
    st.sampled_from(["stretch", "letterbox"]), LAYOUTS, st.sampled_from([0, 0, 1, 2]), st.booleans(),
)  # fmt: skip
@example(1, 1, "bt709", False, 1, (0,) * 3, (0,) * 3, 1, 1, "stretch", "NCHW", 0, False)
@example(64, 132, "bt709", False, 2, (4,) * 3, (0,) * 3, 64, 132, "stretch", "NCHW", 0, False)
@example(33, 150, "bt601", True, 3, (0,) * 3, (0,) * 3, 16, 150, "stretch", "NHWC", 0, True)
@example(48, 100, "bt601", False, 4, (4,) * 3, (4,) * 3, 64, 136, "letterbox", "NCHW", 0, True)
def test_equals_the_cpu(
    kernels: HostKernels, format: Any, dtype: InputDtype, rgb: bool, frame_height: int, frame_width: int, matrix: Any,
    full_range: bool, seed: int, pads: tuple[int, ...], offsets: tuple[int, ...], height: int, width: int,
    policy: ResizePolicy, layout: InputLayout, out_offset: int, backwards: bool,
) -> None:  # fmt: skip
    """Bit for bit in 8 bits, for every dtype; within float32's or half's rounding of the real numbers in 10."""
    kind = PictureKind(format, frame_height, frame_width, matrix, full_range)
    picture = HostPicture(kind, pads, offsets).fill(seed)
    check(kernels, picture, (height, width), policy, rgb, dtype, layout, out_offset, backwards)


@pytest.mark.parametrize("format", ["nv12", "i420", "p010", "i420p10"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@settings(max_examples=25)
@given(
    st.sampled_from([1, 4, 8, 12, 13, 64, 132, 133, 260]), st.sampled_from([2, 9, 32]), st.sampled_from([2, 9, 15, 40]),
    st.sampled_from([0, 0, 1, 4]), st.sampled_from([0, 0, 1, 4]), st.integers(0, 99),
)  # fmt: skip
@example(132, 9, 15, 4, 4, 1)
def test_columns_one_to_one(
    kernels: HostKernels, format: Any, dtype: InputDtype, layout: InputLayout, width: int, height: int,
    input_height: int, pad: int, offset: int, seed: int,
) -> None:  # fmt: skip
    """A picture as wide as the input takes another way through the kernel where its planes are aligned."""
    picture = HostPicture(PictureKind(format, height, width), (pad,) * 3, (offset,) * 3).fill(seed)
    check(kernels, picture, (input_height, width), "stretch", True, dtype, layout, 0, False)


@pytest.mark.parametrize(("fine", "coarse"), [("p010", "nv12"), ("i420p10", "i420")])
def test_ten_bits_that_hold_eight_are_the_same_picture(kernels: HostKernels, fine: Any, coarse: Any) -> None:
    """In limited range 10-bit code values are four times those of 8 bits, exactly."""
    eight = HostPicture(PictureKind(coarse, 35, 67), (1, 1, 1), (0, 0, 0)).fill(4)
    ten = HostPicture(PictureKind(fine, 35, 67), (3, 3, 3), (0, 0, 0))
    for source, target in zip(eight.planes, ten.planes, strict=True):
        samples = source.array.astype("<u2") << (8 if fine == "p010" else 2)
        target.array[:] = np.ascontiguousarray(samples).view(np.uint8)
    for hw in ((35, 67), (20, 90)):
        placement = fit((35, 67), hw)
        np.testing.assert_array_equal(run(kernels, ten, hw, placement), run(kernels, eight, hw, placement))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("full_range", [False, True])
def test_white_and_black(kernels: HostKernels, format: Any, full_range: bool) -> None:
    """The ends of the range as the standards name them are 255 and 0, in any depth."""
    kind = PictureKind(format, 6, 10, "bt709", full_range)
    picture = HostPicture(kind, (0,) * 3, (0,) * 3)
    top = (1 << kind.bits) - 1
    ends = (0, top) if full_range else (16 << kind.bits - 8, 235 << kind.bits - 8)
    for level, luma in zip((0, 255), ends, strict=True):
        for i, plane in enumerate(picture.planes):
            code = level if format == "bgr24" else luma if i == 0 else 1 << kind.bits - 1
            samples = np.full(plane.length // kind.sample_bytes, code << (6 if format == "p010" else 0))
            plane.array[:] = samples.astype("<u2" if kind.bits > 8 else np.uint8).view(np.uint8)
        got = run(kernels, picture, (6, 10), fit((6, 10), (6, 10)), dtype="uint8")
        assert (got == level).all()


def test_the_letterbox_is_the_mean_colour_and_all_is_written(kernels: HostKernels) -> None:
    picture = HostPicture(PictureKind("nv12", 20, 100), (0,) * 3, (0,) * 3).fill(1)
    placement = fit((20, 100), (64, 70), "letterbox")
    got = run(kernels, picture, (64, 70), placement, dtype="float16")
    assert not got[:, : placement.top].any() and not got[:, placement.bottom :].any()
    assert np.isfinite(got).all() and got[:, placement.top : placement.bottom].any()


@pytest.mark.parametrize(
    ("format", "addresses", "pitches", "reason"),
    [
        ("nv12", (0, 4096), (63, 64), "rows have 64 bytes"),
        ("nv12", (0, 4097), (64, 64), "multiples of 2"),
        ("p010", (1, 4096), (128, 128), "multiples of 2"),
        ("p010", (0, 4096), (128, 130), "multiples of 4"),
        ("i420", (0, 4096), (64, 32), "has 3 planes"),
    ],
)
def test_what_no_kernel_can_read_is_refused(
    format: Any, addresses: tuple[int, ...], pitches: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        DevicePicture(PictureKind(format, 32, 64), addresses, pitches)


def test_a_plan_is_for_one_kind_and_an_aligned_input() -> None:
    kind, other = PictureKind("nv12", 32, 64), PictureKind("nv12", 32, 64, full_range=True)
    plan = PreprocessPlan(kind, fit((32, 64), (32, 64)), (32, 64), MEAN, STD, rgb=True)
    assert plan.nbytes == 3 * 32 * 64 * 2
    with pytest.raises(ValueError, match="made for"):
        plan.arguments(0, DevicePicture(other, (0, 4096), (64, 64)), 512)
    with pytest.raises(ValueError, match="not aligned"):
        plan.arguments(0, DevicePicture(kind, (0, 4096), (64, 64)), 513)
