"""How near the kernels come to the memory's speed: the time their bytes need at the rate of a copy on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpucheck.base import Context, Finding, best_kind, gpu
from gpucheck.kernels import MEAN, STD
from gpucheck.pictures import Picture, blobs
from gpucheck.timing import per_run_ms

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import Driver, Stream

#: A kernel may take this many times as long as its bytes.
TARGET = 2.0
#: Together, the pictures that a kernel works on in turn are larger than any GPU's cache.
_SPREAD = 256 << 20


def check(context: Context) -> Iterator[Finding]:
    with gpu(context, best_kind(context)) as driver:
        stream = driver.stream()
        large = (1 << 20) if context.quick else (512 << 20)
        # Bytes read and bytes written both count, as they do for the kernels.
        rate = 2 * large / _copy_ms(context, driver, stream, large, 1)
        words = f"{rate / 1e6:.0f} GB/s read and written, {large >> 20} MiB at a time"
        yield context.timed("device-to-device copy", words, GBps=round(rate / 1e6, 1))
        yield from _preprocess(context, driver, stream, rate)
        yield from _postprocess(context, driver, stream, rate)
        stream.close()


def _copy_ms(context: Context, driver: Driver, stream: Stream, nbytes: int, pairs: int) -> float:
    with ExitStack() as held:
        queue: list[Callable[[], None]] = []
        for _ in range(pairs):
            one, two = driver.allocate(nbytes), driver.allocate(nbytes)
            held.callback(one.close)
            held.callback(two.close)
            queue.append(partial(driver.copy, two.address, one.address, nbytes, stream))
        return per_run_ms(driver, queue, max(context.runs // 4, 4), stream)


def _verdict(
    context: Context, driver: Driver, stream: Stream, kernel: str, name: str, took_ms: float, nbytes: int, rate: float
) -> Finding:
    needed_ms = nbytes / rate
    pairs = _sets(context, nbytes)
    # Short work has a beginning and an end, which a copy of as many bytes has, too.
    copy_ms = _copy_ms(context, driver, stream, max(256, nbytes // 512 * 256), pairs)
    ratio = took_ms / needed_ms
    words = (
        f"{took_ms * 1e3:.1f} us, {ratio:.2f} times what its {nbytes / 1e6:.1f} MB need at the copy's rate "
        f"({needed_ms * 1e3:.1f} us); a copy of as many bytes takes {copy_ms * 1e3:.1f} us"
    )
    figures = {
        "us": round(took_ms * 1e3, 2),
        "needed_us": round(needed_ms * 1e3, 2),
        "ratio": round(ratio, 3),
        "megabytes": round(nbytes / 1e6, 3),
        "same_size_copy_us": round(copy_ms * 1e3, 2),
        "ratio_to_same_size_copy": round(took_ms / copy_ms, 3),
    }
    return context.at_speed(f"{kernel} {name}", ratio <= TARGET, words, target=kernel, **figures)


def _sets(context: Context, nbytes: int) -> int:
    return 2 if context.quick else max(2, min(64, -(-_SPREAD // nbytes)))


def _preprocess(context: Context, driver: Driver, stream: Stream, rate: float) -> Iterator[Finding]:
    from segcam.geometry import fit
    from segcam.kernels.cuda.picture import PictureKind
    from segcam.kernels.cuda.preprocess import Preprocess, PreprocessPlan
    from segcam.kernels.cuda.ptx import read_ptx

    module = driver.load_module(read_ptx("preprocess"))
    height, width = context.size
    cases: list[tuple[Any, Any, tuple[int, int]]] = [
        ("nv12", "float16", context.size),
        ("i420", "float16", context.size),
        ("nv12", "float32", context.size),
        ("p010", "float16", context.size),
        ("bgr24", "float16", context.size),
        ("nv12", "float16", (height // 2, width // 2)),
    ]
    for format, dtype, input_hw in cases:
        kind = PictureKind(format, height, width)
        plan = PreprocessPlan(kind, fit(context.size, input_hw), input_hw, MEAN, STD, rgb=True, dtype=dtype)
        nbytes = sum(rows * length for rows, length in kind.rows) + plan.nbytes
        picture = Picture.random(kind, 1)
        with ExitStack() as held:
            launcher = Preprocess(driver, module, plan, stream)
            held.callback(launcher.close)
            queue: list[Callable[[], None]] = []
            for _ in range(_sets(context, nbytes)):
                memory, on_device = picture.upload(driver, stream)
                out = driver.allocate(plan.nbytes)
                held.callback(memory.close)
                held.callback(out.close)
                queue.append(partial(launcher.launch, on_device, out.address, stream))
            took_ms = per_run_ms(driver, queue, context.runs, stream)
        name = f"{format} {height}x{width} to {dtype} {input_hw[0]}x{input_hw[1]}"
        yield _verdict(context, driver, stream, "preprocess", name, took_ms, nbytes, rate)
    module.close()


def _postprocess(context: Context, driver: Driver, stream: Stream, rate: float) -> Iterator[Finding]:
    from segcam.geometry import resize_axis, taps
    from segcam.kernels.cuda.picture import PictureKind
    from segcam.kernels.cuda.postprocess import COUNTS_BYTES, Grid, Postprocess, PostprocessPlan, color_table
    from segcam.kernels.cuda.ptx import read_ptx

    module = driver.load_module(read_ptx("postprocess"))
    height, width = context.size
    for format, dtype, stride in (
        ("nv12", "float16", 8), ("nv12", "float16", 4), ("nv12", "float16", 2), ("nv12", "float32", 2),
        ("i420", "float16", 8), ("bgr24", "float16", 8),
    ):  # fmt: skip
        coarse = (max(1, height // stride), max(1, width // stride))
        scores = blobs(19, *coarse).astype(dtype)
        y, x = (taps(n, m, resize_axis(n, m)) for n, m in zip(context.size, coarse, strict=True))
        plan = PostprocessPlan(Grid.nchw(dtype, 19, *coarse), y, x)  # type: ignore[arg-type]
        kind = PictureKind(format, height, width)  # type: ignore[arg-type]
        picture_bytes = sum(rows * length for rows, length in kind.rows)
        nbytes = scores.nbytes + 2 * picture_bytes + height * width + COUNTS_BYTES
        random = np.random.default_rng(2)
        table = color_table(kind.colors, random.integers(0, 256, (256, 3), np.uint8), np.full(256, 0.5))
        picture = Picture.random(kind, 1)
        with ExitStack() as held:
            launcher = Postprocess(driver, module, plan, stream)
            held.callback(launcher.close)
            colors = driver.allocate(table.nbytes)
            held.callback(colors.close)
            driver.upload(colors.address, table, stream)
            queue: list[Callable[[], None]] = []
            for _ in range(_sets(context, nbytes)):
                source, on_source = picture.upload(driver, stream)
                target, on_target = picture.upload(driver, stream)
                fed, labels = driver.allocate(scores.nbytes), driver.allocate(height * width)
                counts = driver.allocate(COUNTS_BYTES)
                driver.upload(fed.address, scores, stream)
                for memory in (source, target, fed, labels, counts):
                    held.callback(memory.close)
                queue.append(
                    partial(
                        launcher.launch, fed.address, stream, labels=labels.address, counts=counts.address,
                        colors=colors.address, source=on_source, overlay=on_target,
                    )
                )  # fmt: skip
            took_ms = per_run_ms(driver, queue, context.runs, stream)
        name = f"{dtype} scores at 1/{stride} to labels and {format} overlay"
        yield _verdict(context, driver, stream, "postprocess", name, took_ms, nbytes, rate)
    module.close()
