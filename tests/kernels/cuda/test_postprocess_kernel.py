"""postprocess.cu on the host: labels, counts and overlay are the reference's, bit for bit, whatever the scores are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from av import VideoFrame
from cuda_shim import HostKernels
from cuda_shim.memory import HostPicture, Memory, Rows
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odd_scores import SCORE_KINDS, make_scores

from segcam.geometry import AxisMap, Taps, Upsample, nearest, resize_axis, taps
from segcam.kernels.cpu.labels import LabelMapper
from segcam.kernels.cuda import reference
from segcam.kernels.cuda.picture import BLOCK, DevicePicture, PictureKind, overlay_kinds
from segcam.kernels.cuda.postprocess import COUNTS_BYTES, Grid, PostprocessPlan, color_table
from segcam.sources.planes import to_picture

GRID_SIZES = st.sampled_from([1, 2, 3, 5, 8, 13, 17])
#: 1, odd, prime, more than a thread's and a tile's share.
SIZES = st.sampled_from([1, 2, 3, 4, 5, 15, 16, 17, 31, 64, 127, 133, 141])
CLASSES = st.one_of(st.just(19), st.integers(1, 40), st.just(255))
MODES = st.sampled_from(["half_pixel", "align_corners", "asymmetric"])
#: What takes its own way through the kernel is no draw of Hypothesis', which leaves some of few choices out.
DTYPES = ["float32", "float16", "bfloat16"]
PADS = st.tuples(*[st.sampled_from([0, 1, 4, 9])] * 3)
OFFSETS = st.tuples(*[st.sampled_from([0, 0, 1, 4])] * 3)
SEEDS = st.integers(0, 2**31)


def rounded(scores: NDArray[np.float32], dtype: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """The scores as they lie in memory in this dtype, and the numbers that they are."""
    if dtype == "bfloat16":
        bits = (np.ascontiguousarray(scores).view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        laid = scores.astype(dtype)
    return laid, laid.astype(np.float32)


def run(
    kernels: HostKernels, plan: PostprocessPlan, scores: NDArray[Any], *, pitch: int = 0, backwards: bool = False,
    table: NDArray[np.int32] | None = None, source: HostPicture | None = None, target: HostPicture | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:  # fmt: skip
    """(H, W) labels and (256,) counts; the overlay goes into ``target``."""
    held, tables, counts = Memory.of(scores), Memory.of(plan.tables.data), Memory(COUNTS_BYTES)
    counts.bytes[:] = 0
    labels = Rows(plan.height, plan.width, pitch)
    colors = Memory.of(table) if table is not None else None
    arguments = plan.arguments(
        tables.address, held.address, labels=labels.address, labels_pitch=labels.pitch, counts=counts.address,
        colors=colors.address if colors else 0, source=source and source.device, overlay=target and target.device,
    )  # fmt: skip
    kernels.launch(plan.kernel, plan.grid, BLOCK, arguments, backwards=backwards)
    assert labels.padding_is_untouched()
    return labels.array.copy(), counts.view(np.uint32, (256,)).astype(np.int64)


def check_scores(
    kernels: HostKernels, scores: NDArray[np.float32], y: Taps, x: Taps, dtype: Any, channels_last: bool,
    pitch: int, backwards: bool,
) -> None:  # fmt: skip
    laid, meant = rounded(scores, dtype)
    if channels_last:
        grid = Grid.nhwc(dtype, *scores.shape, padded=scores.shape[0] + pitch % 3)
        padded = np.zeros((*scores.shape[1:], grid.point_stride), laid.dtype)
        padded[..., : scores.shape[0]] = laid.transpose(1, 2, 0)
        laid = padded
    else:
        grid = Grid.nchw(dtype, *scores.shape)
    got = run(kernels, PostprocessPlan(grid, y, x), laid, pitch=pitch, backwards=backwards)
    for array, want in zip(got, reference.class_map(meant, y, x), strict=True):
        np.testing.assert_array_equal(array, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", SCORE_KINDS)
@settings(max_examples=20)
@given(
    CLASSES, GRID_SIZES, GRID_SIZES, SIZES, SIZES, MODES, st.sampled_from([0, 1, 4]), st.booleans(), SEEDS,
)  # fmt: skip
@example(19, 8, 8, 64, 64, "half_pixel", 0, False, 1)
@example(255, 3, 5, 15, 17, "align_corners", 1, True, 2)
@example(1, 1, 1, 1, 1, "half_pixel", 0, False, 3)
@example(19, 17, 17, 17, 17, "half_pixel", 0, False, 4)
@example(20, 5, 6, 31, 133, "asymmetric", 0, True, 5)
def test_labels_and_counts(
    kernels: HostKernels, dtype: Any, channels_last: bool, kind: str, classes: int, grid_h: int, grid_w: int,
    height: int, width: int, mode: Upsample, pitch: int, backwards: bool, seed: int,
) -> None:  # fmt: skip
    scores = make_scores(kind, classes, grid_h, grid_w, seed)
    y, x = (taps(n, m, resize_axis(n, m, mode)) for n, m in ((height, grid_h), (width, grid_w)))
    check_scores(kernels, scores, y, x, dtype, channels_last, pitch, backwards)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 19, 20])
@settings(max_examples=30)
@given(
    st.sampled_from(SCORE_KINDS), GRID_SIZES, GRID_SIZES, SIZES, SIZES, st.floats(0.01, 5), st.floats(-40, 40),
    st.floats(0.01, 5), st.floats(-40, 40), SEEDS,
)  # fmt: skip
def test_any_affine_sampling(
    kernels: HostKernels, dtype: Any, classes: int, kind: str, grid_h: int, grid_w: int, height: int, width: int,
    scale_y: float, offset_y: float, scale_x: float, offset_x: float, seed: int,
) -> None:  # fmt: skip
    """Letterboxes and crops: far outside the grid, smaller and larger than it."""
    scores = make_scores(kind, classes, grid_h, grid_w, seed)
    y, x = taps(height, grid_h, AxisMap(scale_y, offset_y)), taps(width, grid_w, AxisMap(scale_x, offset_x))
    check_scores(kernels, scores, y, x, dtype, False, 0, False)


@pytest.mark.parametrize("grid_hw", [(40, 300), (33, 131), (17, 128), (20, 140), (64, 64)])
@pytest.mark.parametrize("kind", ["smooth", "noise", "specials"])
def test_grids_finer_than_a_tile_can_hold(kernels: HostKernels, grid_hw: tuple[int, int], kind: str) -> None:
    """Where a tile's part of the grid doesn't fit into shared memory, every pixel is interpolated."""
    scores = make_scores(kind, 19, *grid_hw, 5)
    for height, width in ((16, 128), (20, 150), grid_hw):
        y, x = taps(height, grid_hw[0], resize_axis(height, grid_hw[0])), taps(width, grid_hw[1], AxisMap(0.9, 0.3))
        check_scores(kernels, scores, y, x, "float32", False, 0, False)


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_equals_the_cpu_kernels(kernels: HostKernels, stride: int) -> None:
    """At the strides that networks have, over several tiles."""
    height, width = 64, 384
    scores = make_scores("smooth", 19, height // stride, width // stride, stride)
    y, x = (taps(n, n // stride, resize_axis(n, n // stride)) for n in (height, width))
    want = np.empty((height, width), np.uint8)
    counts = LabelMapper(y, x)(scores, want)
    got, got_counts = run(kernels, PostprocessPlan(Grid.nchw("float32", *scores.shape), y, x), scores)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(got_counts[:19], counts)
    assert got_counts.sum() == height * width and len(np.unique(want)) > 2


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
@settings(max_examples=40)
@given(
    GRID_SIZES, GRID_SIZES, SIZES, SIZES, st.floats(0.05, 4), st.floats(-9, 9), st.booleans(), SEEDS,
)  # fmt: skip
def test_ids(
    kernels: HostKernels, dtype: Any, grid_h: int, grid_w: int, height: int, width: int, scale: float,
    offset: float, backwards: bool, seed: int,
) -> None:  # fmt: skip
    """Ids are taken from the nearest point; a network's own "ignore", whatever its number, is 255."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 128, (grid_h, grid_w)).astype(dtype)
    ends = np.iinfo(dtype)
    odd = random.random(ids.shape) < 0.2
    ids[odd] = random.choice(np.array([ends.min, ends.max, min(255, ends.max), min(256, ends.max)]).astype(dtype), 1)
    y, x = nearest(height, grid_h, AxisMap(scale, offset)), nearest(width, grid_w, resize_axis(width, grid_w))
    plan = PostprocessPlan(Grid.nchw(np.dtype(dtype).name, 1, grid_h, grid_w), y, x)  # type: ignore[arg-type]
    got = run(kernels, plan, ids, backwards=backwards)
    for array, want in zip(got, reference.class_map(ids, y, x), strict=True):
        np.testing.assert_array_equal(array, want)


def tables(classes: int, kind: PictureKind, alpha: float, mask_only: bool, seed: int) -> NDArray[np.int32]:
    """Colours from the corners of the cube, where 8 bits are tightest; a third of the classes hidden."""
    random = np.random.default_rng(seed)
    colors = np.zeros((256, 3), np.uint8)
    colors[:classes] = random.choice(np.array([0, 0, 255, 255, 97], np.uint8), (classes, 3))
    opacity = np.zeros(256)
    opacity[:classes] = alpha * (random.random(classes) < 0.7)
    return color_table(kind.colors, colors, opacity, mask_only=mask_only)


#: Formats of source and overlay, and what the source's rows lie at multiples of. At the last, four samples go at once.
OVERLAYS = [
    (source, into, align)
    for source, into, aligns in (
        ("nv12", "nv12", (1, 4)), ("i420", "i420", (1, 4)), ("bgr24", "bgr24", (1, 4)),
        ("i420", "nv12", (1, 4)), ("p010", "nv12", (1, 4, 8)), ("i420p10", "nv12", (1, 4, 8)),
    )
    for align in aligns
]  # fmt: skip


@pytest.mark.parametrize(("format", "into", "align"), OVERLAYS)
@settings(max_examples=60)
@given(
    SIZES, SIZES, st.sampled_from(["bt601", "bt709", "bt2020"]), st.booleans(),
    st.sampled_from(["smooth", "noise", "equal"]), st.sampled_from([1, 7, 19, 255]), GRID_SIZES, GRID_SIZES,
    PADS, OFFSETS, PADS, OFFSETS, st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1)), st.booleans(),
    st.booleans(), SEEDS,
)  # fmt: skip
@example(
    33, 140, "bt601", False, "noise", 19, 5, 8, (4,) * 3, (4,) * 3, (8,) * 3, (0,) * 3, 0.5, False, False, 1
)  # fmt: skip
def test_overlay(
    kernels: HostKernels, format: Any, into: Any, align: int, height: int, width: int, matrix: Any, full_range: bool,
    scores_kind: str, classes: int, grid_h: int, grid_w: int, pads: tuple[int, ...], offsets: tuple[int, ...],
    out_pads: tuple[int, ...], out_offsets: tuple[int, ...], alpha: float, mask_only: bool, backwards: bool,
    seed: int,
) -> None:  # fmt: skip
    kind, painted = (PictureKind(name, height, width, matrix, full_range) for name in (format, into))
    source = HostPicture(kind, pads, offsets, align=align).fill(seed)
    target = HostPicture(painted, out_pads, out_offsets, align=min(align, 4))
    assert align < 4 * kind.sample_bytes or (source.device.wide and target.device.wide)
    scores = make_scores(scores_kind, classes, grid_h, grid_w, seed)
    y, x = taps(kind.height, grid_h, resize_axis(kind.height, grid_h)), taps(kind.width, grid_w, AxisMap(0.3, -2.0))
    plan = PostprocessPlan(Grid.nchw("float32", *scores.shape), y, x)
    table = tables(classes, kind, alpha, mask_only, seed)
    before = source.arrays()
    pitch = -width % min(align, 4)
    labels, counts = run(
        kernels, plan, scores, pitch=pitch, backwards=backwards, table=table, source=source, target=target
    )
    want_labels, want_counts = reference.class_map(scores, y, x)
    np.testing.assert_array_equal(labels, want_labels)
    np.testing.assert_array_equal(counts, want_counts)
    for got, want in zip(target.arrays(), reference.overlay(kind, before, labels, table, painted), strict=True):
        np.testing.assert_array_equal(got, want)
    for old, new in zip(before, source.arrays(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all(plane.padding_is_untouched() for plane in target.planes)


@pytest.mark.parametrize("format", ["p010", "i420p10"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_ten_bits_become_eight_as_on_the_processor(
    kernels: HostKernels, format: Any, full_range: bool, wide: bool
) -> None:
    """Every value of ten bits, in every plane: what isn't painted over is what the sources make of such a picture."""
    kind = PictureKind(format, 64, 64, "bt709", full_range)
    random = np.random.default_rng(4)
    planes = [random.permutation(np.arange(count, dtype=np.uint16) % 1024) for count in (4096, 1024, 1024)]
    planes = [plane.reshape(64 if plane.size == 4096 else 32, -1) for plane in planes]
    frame = VideoFrame(64, 64, "yuv420p10le")
    for whole, plane in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(whole, "<u2").reshape(-1, whole.line_size // 2)
        rows[: plane.shape[0], : plane.shape[1]] = plane
    frame.colorspace, frame.color_range = 1, 2 if full_range else 1
    picture = to_picture(frame)
    assert (picture.format, picture.full_range) == ("i420", full_range)
    laid = planes if format == "i420p10" else [planes[0] << 6, np.stack(planes[1:], axis=-1) << 6]
    source = HostPicture(kind, (0,) * 3 if wide else (1,) * 3, (0,) * 3)
    target = HostPicture(PictureKind("nv12", 64, 64, "bt709", full_range), (0,) * 3, (0,) * 3)
    for rows, plane in zip(source.planes, laid, strict=True):
        rows.array[:] = np.ascontiguousarray(plane, "<u2").reshape(rows.rows, -1).view(np.uint8)
    assert source.device.wide == wide and target.device.wide
    scores = make_scores("smooth", 19, 8, 8, 1)
    plan = PostprocessPlan(Grid.nchw("float32", *scores.shape), *(taps(64, 8, resize_axis(64, 8)),) * 2)
    run(kernels, plan, scores, table=tables(19, kind, 0.0, False, 1), source=source, target=target)
    luma, chroma = target.arrays()
    for got, want in zip((luma, chroma[..., 0], chroma[..., 1]), picture.planes, strict=True):
        np.testing.assert_array_equal(got, want)


def test_what_is_not_asked_for_is_not_written(kernels: HostKernels) -> None:
    """Without labels and counts only the overlay; without an overlay only labels: the rest of memory stays."""
    kind = PictureKind("nv12", 21, 70)
    scores = make_scores("smooth", 19, 6, 9, 1)
    y, x = taps(21, 6, resize_axis(21, 6)), taps(70, 9, resize_axis(70, 9))
    plan = PostprocessPlan(Grid.nchw("float32", *scores.shape), y, x)
    table = tables(19, kind, 0.5, False, 1)
    source, both, alone = (HostPicture(kind, (2, 2, 2), (0, 0, 0)) for _ in range(3))
    source.fill(3)
    labels, _ = run(kernels, plan, scores, table=table, source=source, target=both)
    held, constant, colors = Memory.of(scores), Memory.of(plan.tables.data), Memory.of(table)
    arguments = plan.arguments(
        constant.address, held.address, colors=colors.address, source=source.device, overlay=alone.device
    )
    kernels.launch(plan.kernel, plan.grid, BLOCK, arguments)
    for got, want in zip(alone.arrays(), both.arrays(), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(run(kernels, plan, scores)[0], labels)


def test_counts_are_added_to(kernels: HostKernels) -> None:
    ids = np.full((3, 3), 7, np.uint8)
    plan = PostprocessPlan(Grid.nchw("uint8", 1, 3, 3), nearest(33, 3, AxisMap()), nearest(130, 3, AxisMap()))
    held, constant, counts = Memory.of(ids), Memory.of(plan.tables.data), Memory(COUNTS_BYTES)
    counts.view(np.uint32, (256,))[:] = 5
    for _ in range(2):
        arguments = plan.arguments(constant.address, held.address, counts=counts.address)
        kernels.launch(plan.kernel, plan.grid, BLOCK, arguments)
    want = np.full(256, 5)
    want[7] += 2 * 33 * 130
    np.testing.assert_array_equal(counts.view(np.uint32, (256,)), want)


def test_what_does_not_fit_together_is_refused() -> None:
    y, x = taps(32, 4, resize_axis(32, 4)), taps(64, 8, resize_axis(64, 8))
    with pytest.raises(ValueError, match="1 to 255 classes"):
        PostprocessPlan(Grid.nchw("float16", 256, 4, 8), y, x)
    with pytest.raises(ValueError, match="taps of a grid"):
        PostprocessPlan(Grid.nchw("float16", 19, 8, 4), y, x)
    with pytest.raises(ValueError, match="one axis"):
        PostprocessPlan(Grid.nchw("float16", 19, 4, 8), y, x.first)
    plan = PostprocessPlan(Grid.nchw("float16", 19, 4, 8), y, x)
    kind, small = PictureKind("nv12", 32, 64), PictureKind("nv12", 16, 64)
    picture = DevicePicture(kind, (0, 4096), (64, 64))
    with pytest.raises(ValueError, match="needs its picture"):
        plan.arguments(0, 0, overlay=picture, source=picture)
    with pytest.raises(ValueError, match="cannot be painted"):
        half = DevicePicture(small, (0, 4096), (64, 64))
        plan.arguments(0, 0, overlay=half, source=half, colors=256)


@pytest.mark.parametrize(
    ("format", "units"),
    [("nv12", (4, 4)), ("i420", (4, 2, 2)), ("bgr24", (4,)), ("p010", (8, 8)), ("i420p10", (8, 4, 4))],
)
def test_where_four_samples_go_at_once(format: Any, units: tuple[int, ...]) -> None:
    """Each plane has its unit, in its address and its pitch."""
    kind = PictureKind(format, 4, 16)
    planes = range(len(units))
    assert DevicePicture(kind, units, tuple(64 + unit for unit in units)).wide
    for changed in planes:
        # Half a unit is less than four samples, and still whole samples or pairs of them.
        off = [units[i] // 2 if i == changed else 0 for i in planes]
        assert not DevicePicture(kind, tuple(off), (64,) * len(units)).wide
        assert not DevicePicture(kind, (0,) * len(units), tuple(64 + n for n in off)).wide


def test_kinds_of_source_and_overlay() -> None:
    """Equal ones of 8 bits, and NV12 of any 4:2:0 source; the same size, matrix and range."""
    formats: tuple[Any, ...] = ("nv12", "i420", "bgr24", "p010", "i420p10")
    kinds = [
        PictureKind(format, height, width, matrix, full_range)
        for format in formats
        for height, width, matrix, full_range in (
            (32, 64, "bt709", False), (32, 63, "bt709", False), (31, 64, "bt709", False), (32, 64, "bt601", False),
            (32, 64, "bt709", True),
        )
    ]  # fmt: skip
    into = {"nv12": ["nv12"], "i420": ["i420", "nv12"], "bgr24": ["bgr24"], "p010": ["nv12"], "i420p10": ["nv12"]}
    y, x = taps(32, 4, resize_axis(32, 4)), taps(64, 8, resize_axis(64, 8))
    plan = PostprocessPlan(Grid.nchw("float16", 19, 4, 8), y, x)
    for format in formats:
        source = PictureKind(format, 32, 64)
        assert [kind.format for kind in overlay_kinds(source)] == into[format]
        for kind in kinds:
            pictures = [DevicePicture(k, (0,) * len(k.rows), (256,) * len(k.rows)) for k in (source, kind)]
            if kind.format in into[format] and kind == replace(source, format=kind.format):
                plan.arguments(0, 0, source=pictures[0], overlay=pictures[1], colors=256)
                continue
            with pytest.raises(ValueError, match="is not painted into"):
                plan.arguments(0, 0, source=pictures[0], overlay=pictures[1], colors=256)
            with pytest.raises(ValueError, match="is not painted into"):
                reference.overlay(source, (), np.zeros((32, 64), np.uint8), np.zeros((256, 4), np.int32), kind)
