"""The kernels, launched for real, against the NumPy references: all formats, types and odd sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from gpucheck.base import Absent, Context, Finding, gpu
from gpucheck.pictures import KINDS, Picture, blobs, odd

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import Driver, Kind, Module, Stream

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZES = ((1, 1), (2, 3), (34, 140), (97, 131), (270, 480))
QUICK = ((1, 1), (35, 141))


def check(context: Context) -> Iterator[Finding]:
    kinds: tuple[Kind, ...] = ("cuda-python", "pycuda")
    whole = True
    for kind in kinds:
        try:
            with gpu(context, kind) as driver:
                # The second library launches the same code: a few sizes show that its arguments arrive.
                yield from _with(context, driver, QUICK if context.quick or not whole else SIZES)
                whole = False
        except Absent as absent:
            yield context.absent(kind, str(absent))


def _with(context: Context, driver: Driver, sizes: tuple[tuple[int, int], ...]) -> Iterator[Finding]:
    from segcam.kernels.cuda.ptx import read_ptx

    stream = driver.stream()
    for name, run in (("preprocess", _preprocess), ("postprocess", _postprocess)):
        module = driver.load_module(read_ptx(name))  # type: ignore[arg-type]  # both are names of files
        done, wrong = 0, []
        largest = [*sizes, context.size] if sizes is SIZES else sizes
        for size in largest:
            for words, good in run(driver, module, stream, size, full=size in sizes):
                done += 1
                if not good:
                    wrong.append(words)
        module.close()
        said = f"{done} launches equal the reference" if not wrong else f"{len(wrong)} of {done} differ: {wrong[:4]}"
        yield context.found(f"{driver.name}: {name}", not wrong, said, launches=done, wrong=wrong)
    stream.close()


def _preprocess(
    driver: Driver, module: Module, stream: Stream, size: tuple[int, int], full: bool
) -> Iterator[tuple[str, bool]]:
    from segcam.geometry import fit
    from segcam.kernels.cuda import reference
    from segcam.kernels.cuda.picture import PictureKind
    from segcam.kernels.cuda.preprocess import Preprocess, PreprocessPlan

    cases: list[tuple[str, Any, Any, Any, int]] = [("nv12", "float16", "NCHW", "stretch", 0)]
    if full:
        cases = [
            (format, dtype, layout, resize, gap)
            for number, format in enumerate(KINDS)
            for dtype, layout in (("float16", "NCHW"), ("float32", "NCHW"), ("uint8", "NHWC"), ("float16", "NHWC"))
            for resize, gap in (
                (("stretch", 0), ("letterbox", 1)) if number % 2 else (("letterbox", 0), ("stretch", 1))
            )
        ]
    input_hw = (64, 132) if full else size
    for number, (format, dtype, layout, resize, gap) in enumerate(cases):
        kind = PictureKind(format, *size, "bt601" if number % 3 == 0 else "bt709", number % 2 == 0)  # type: ignore[arg-type]
        picture = Picture.random(kind, number, gap=gap)
        placement = fit(size, input_hw, resize)
        plain = dtype == "uint8"
        mean, std = ((0.0,) * 3, (1.0,) * 3) if plain else (MEAN, STD)
        plan = PreprocessPlan(kind, placement, input_hw, mean, std, rgb=number % 2 == 0, dtype=dtype, layout=layout)
        with ExitStack() as held:
            memory, on_device = picture.upload(driver, stream)
            held.callback(memory.close)
            out = driver.allocate(plan.nbytes)
            held.callback(out.close)
            launcher = Preprocess(driver, module, plan, stream)
            held.callback(launcher.close)
            launcher.launch(on_device, out.address, stream)
            shape = (3, *input_hw) if layout == "NCHW" else (*input_hw, 3)
            got = np.empty(shape, dtype)
            driver.download(got, out.address, stream)
            stream.synchronize()
        want = reference.preprocess(kind, picture.planes, placement, input_hw, mean, std, rgb=number % 2 == 0)
        found = (got if layout == "NCHW" else got.transpose(2, 0, 1)).astype(np.float64)
        allowed = 0.5 + 2e-4 if plain else 2e-5 + np.abs(want) * (2.0**-11 if dtype == "float16" else 0.0)
        yield f"{kind} {dtype} {layout} {resize}", bool((np.abs(found - want) <= allowed).all())


def _postprocess(
    driver: Driver, module: Module, stream: Stream, size: tuple[int, int], full: bool
) -> Iterator[tuple[str, bool]]:
    cases: list[tuple[str, str, int, str, bool]] = [
        ("float16", formats, 19, "blobs", False) for formats in ("nv12", "p010 to nv12")
    ]
    if full:
        cases = [
            (dtype, formats, classes, scores, last)
            for dtype in ("float32", "float16", "bfloat16")
            for formats, classes in (
                ("nv12", 19), ("i420", 7), ("bgr24", 19),
                ("i420 to nv12", 19), ("p010 to nv12", 19), ("i420p10 to nv12", 7),
            )
            for scores, last in (("blobs", False), ("odd", True), ("odd", False))
        ]  # fmt: skip
        cases += [(dtype, "nv12", 1, "ids", False) for dtype in ("int8", "uint8", "int32", "int64")]
    for number, case in enumerate(cases):
        yield f"{size} {case}", _one_postprocess(driver, module, stream, size, case, number, 1 if full else 2)


def _one_postprocess(
    driver: Driver, module: Module, stream: Stream, size: tuple[int, int], case: Any, seed: int, stride: int
) -> bool:
    from segcam.geometry import nearest, resize_axis, taps
    from segcam.kernels.cuda import reference
    from segcam.kernels.cuda.picture import PictureKind
    from segcam.kernels.cuda.postprocess import COUNTS_BYTES, Grid, Postprocess, PostprocessPlan, color_table

    dtype, formats, classes, scores, last = case
    coarse = tuple(max(1, n // (stride * (2 + 3 * (seed % 3)))) for n in size)
    random = np.random.default_rng(seed)
    if scores == "ids":
        laid = meant = random.integers(0, 100, coarse).astype(dtype)
        grid = Grid.nchw(dtype, 1, *coarse)
        y, x = (nearest(n, m, resize_axis(n, m)) for n, m in zip(size, coarse, strict=True))
        plan = PostprocessPlan(grid, y, x)
    else:
        made = (blobs if scores == "blobs" else odd)(classes, *coarse, seed)
        if dtype == "bfloat16":
            laid = (made.view(np.uint32) >> 16).astype(np.uint16)
            meant = (laid.astype(np.uint32) << 16).view(np.float32)
        else:
            with np.errstate(over="ignore"):
                laid = made.astype(dtype)
            meant = laid.astype(np.float32)
        if last:
            laid = np.ascontiguousarray(laid.transpose(1, 2, 0))
        grid = Grid.nhwc(dtype, classes, *coarse) if last else Grid.nchw(dtype, classes, *coarse)
        mode = "align_corners" if seed % 4 == 3 else "half_pixel"
        y, x = (taps(n, m, resize_axis(n, m, mode)) for n, m in zip(size, coarse, strict=True))  # type: ignore[arg-type]
        plan = PostprocessPlan(grid, y, x)
    kinds = [PictureKind(format, *size, "bt709", seed // 2 % 2 == 0) for format in formats.split(" to ")]
    kind, painted_kind = kinds[0], kinds[-1]
    source = Picture.random(kind, seed, gap=seed % 2)
    target = Picture.random(painted_kind, seed, gap=seed % 2)
    target.block[:] = 0x5A
    colors = random.integers(0, 256, (256, 3), np.uint8)
    table = color_table(kind.colors, colors, np.where(np.arange(256) % 5 == 0, 0.0, 0.6), mask_only=seed % 3 == 2)
    with ExitStack() as held:
        memory, on_device = source.upload(driver, stream)
        painted, on_painted = target.upload(driver, stream)
        labels, counts = driver.allocate(size[0] * size[1]), driver.allocate(COUNTS_BYTES)
        fed, held_colors = driver.allocate(laid.nbytes), driver.allocate(table.nbytes)
        launcher = Postprocess(driver, module, plan, stream)
        for thing in (memory, painted, labels, counts, fed, held_colors, launcher):
            held.callback(thing.close)
        driver.upload(fed.address, laid, stream)
        driver.upload(held_colors.address, table, stream)
        driver.fill(counts.address, 0, COUNTS_BYTES, stream)
        launcher.launch(
            fed.address, stream, labels=labels.address, counts=counts.address, colors=held_colors.address,
            source=on_device, overlay=on_painted,
        )  # fmt: skip
        got, got_counts = np.empty(size, np.uint8), np.empty(256, np.uint32)
        driver.download(got, labels.address, stream)
        driver.download(got_counts, counts.address, stream)
        driver.download(target.block, painted.address, stream)
        stream.synchronize()
    want, want_counts = reference.class_map(meant, y, x)
    overlay = reference.overlay(kind, source.planes, want, table, painted_kind)
    same = all(np.array_equal(a, b) for a, b in zip(target.planes, overlay, strict=True))
    return same and np.array_equal(got, want) and np.array_equal(got_counts, want_counts)
