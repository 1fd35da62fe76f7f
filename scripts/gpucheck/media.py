"""NVDEC: pictures decoded on the GPU, against the same ones decoded by the processor, and how fast. NVENC: a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpucheck.base import Absent, Context, Finding, gpu

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import Driver


def check(context: Context) -> Iterator[Finding]:
    from segcam.sources.nvdec import has_library, why_not

    missing = why_not()
    if missing:
        raise Absent(missing[0])
    with gpu(context) as driver:
        for codec, pixels in (("libx264", "yuv420p"), ("libx265", "yuv420p10le")):
            clip = _clip(context, codec, pixels)
            yield _decoded(context, driver, clip, f"NVDEC {codec[3:]} {pixels}")
    if not has_library("libnvidia-encode.so.1"):
        yield context.absent("NVENC", "the driver has no libnvidia-encode.so.1")
        return
    yield _encoded(context)


def _clip(context: Context, codec: str, pixels: str) -> Path:
    import av

    height, width = (n // 2 * 2 for n in context.size)
    path = context.work / f"{codec}.mp4"
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 60, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for number in range(8 if context.quick else 100):
            part = coarse[:, number % 60 : number % 60 + width // 16 + 1]
            picture = part.repeat(16, 0).repeat(16, 1)[:height, :width]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        container.mux(stream.encode(None))
    return path


def _decoded(context: Context, driver: Driver, clip: Path, name: str) -> Finding:
    from segcam.sources.base import SourceOptions
    from segcam.sources.factory import make_source

    said: list[str] = []
    on_gpu = make_source(str(clip), SourceOptions(decode="nvdec", gpu=driver), said.append)
    on_cpu = make_source(str(clip), SourceOptions(decode="cpu"), said.append)
    count, far, took_s = 0, 0, 0.0
    try:
        on_gpu.open()
        on_cpu.open()
        while True:
            begun = time.perf_counter()
            one = on_gpu.read()
            took_s += time.perf_counter() - begun
            other = on_cpu.read()
            if one is None or other is None:
                break
            assert one.device is not None, "a picture that is not on the GPU"
            difference = np.abs(one.bgr().astype(np.int16) - other.bgr())
            far, count = max(far, int(difference.max())), count + 1
            del one
    finally:
        on_gpu.close()
        on_cpu.close()
    good = (one is None) == (other is None) and count > 0 and far <= (0 if "10le" not in clip.name else 2)
    words = f"{count} pictures, at most {far} levels from the CPU's, {count / max(took_s, 1e-9):.0f} frames/s read"
    return context.found(name, good, words, frames=count, levels=far, said=said)


def _encoded(context: Context) -> Finding:
    import av

    path = context.work / "nvenc.mp4"
    height, width = (max(160, n // 2 * 2) for n in context.size)
    try:
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("h264_nvenc", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "nv12"
            for shade in range(10):
                picture = np.full((height, width, 3), 20 * shade, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="nv12")))
            container.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        return context.absent(
            "NVENC", f"this GPU or driver does not encode ({error}); data-centre parts have no encoder"
        )
    with av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(video=0))
    return context.found("NVENC", count == 10, f"{count} of 10 pictures come back from an H.264 file", frames=count)
