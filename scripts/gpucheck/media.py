"""NVDEC: pictures decoded on the GPU, against the same ones decoded by the processor, and how fast. NVENC: pictures
from host memory and from the GPU's, decoded again and compared with what went in."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpucheck.base import Absent, Context, Finding, gpu

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segcam.frame import Frame
    from segcam.kernels.cuda.driver import Driver, Stream

#: Encoders and pixel formats of what is decoded.
CLIPS = (
    ("libx264", "yuv420p"),
    ("libx265", "yuv420p10le"),
    ("libsvtav1", "yuv420p"),
    ("libsvtav1", "yuv420p10le"),
)
#: Mean levels that a picture may differ by where NVENC has no lossless mode.
_LOSSY = 4.0


def nvdec(context: Context) -> Iterator[Finding]:
    from segcam.errors import SourceError
    from segcam.sources.nvdec import why_not

    missing = why_not()
    if missing:
        raise Absent(missing[0])
    with gpu(context) as driver:
        for codec, pixels in CLIPS:
            name = f"NVDEC {codec[3:]} {pixels}"
            try:
                yield _decoded(context, driver, _clip(context, codec, pixels), name)
            except SourceError as error:
                # Every NVDEC takes H.264; 10 bits came with Pascal, AV1 with Ampere.
                if codec == "libx264":
                    yield context.found(name, False, error.message)
                else:
                    yield context.absent(name, error.message)


def _clip(context: Context, codec: str, pixels: str) -> Path:
    import av

    height, width = (n // 2 * 2 for n in context.size)
    path = context.work / f"{codec}-{pixels}.mp4"
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 16 + 1, width // 16 + 60, 3), np.uint8)
    options = {"preset": "12" if codec == "libsvtav1" else "ultrafast"}
    if codec == "libx265":
        options["x265-params"] = "log-level=none"
    # Its own switch for the page that it prints.
    os.environ.setdefault("SVT_LOG", "1")
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
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
    good = (one is None) == (other is None) and count > 0 and far <= (0 if "10le" not in name else 2)
    rate_hz = count / max(took_s, 1e-9)
    words = f"{count} pictures, at most {far} levels from the CPU's, {rate_hz:.0f} frames/s read"
    return context.found(name, good, words, frames=count, levels=far, rate_hz=round(rate_hz, 1), said=said)


def nvenc(context: Context) -> Iterator[Finding]:
    from segcam.sinks import device_pictures
    from segcam.sinks.encoder import Encoder, nvenc_problem
    from segcam.sources.nvdec import has_library

    height, width = (max(160, n // 2 * 2) for n in context.size)
    with gpu(context) as driver, ExitStack() as held:
        if not has_library("libnvidia-encode.so.1"):
            raise Absent("the driver has no libnvidia-encode.so.1")
        # Without loss what went in must come out; a GPU may have no such mode.
        problems = {
            crf: nvenc_problem(Encoder("h264_nvenc", crf, "superfast", context.device), (width, height))
            for crf in (0, 18)
        }
        crf = next((crf for crf, problem in problems.items() if problem is None), None)
        if crf is None:
            raise Absent(f"NVENC: {problems[18]}")
        random = np.random.default_rng(0)
        coarse = random.integers(16, 236, (height * 3 // 2 // 8 + 1, width // 8 + 60), np.uint8)
        pictures = [
            coarse[:, n : n + width // 8 + 1].repeat(8, 0).repeat(8, 1)[: height * 3 // 2, :width].copy()
            for n in range(6 if context.quick else 50)
        ]
        frames = [_on_host(number, picture) for number, picture in enumerate(pictures)]
        yield _encoded(context, driver, "from host memory", frames, crf, pictures)
        why_not = device_pictures.why_not()
        if why_not:
            yield context.absent("NVENC from the GPU's memory", why_not)
            return
        stream = driver.stream()
        held.callback(stream.close)
        frames = [_on_gpu(driver, stream, held, n, picture) for n, picture in enumerate(pictures)]
        stream.synchronize()
        yield _encoded(context, driver, "from the GPU's memory", frames, crf, pictures)


def _on_host(number: int, picture: NDArray[np.uint8]) -> Frame:
    """``picture`` is NV12: (H * 3 / 2, W)."""
    from segcam.frame import Frame

    width, height = picture.shape[1], picture.shape[0] * 2 // 3
    planes = (picture[:height], picture[height:].reshape(height // 2, width // 2, 2))
    return Frame(number, number, Fraction(1, 25), 0.0, "made", width, height, "nv12", planes)


def _on_gpu(driver: Driver, stream: Stream, held: ExitStack, number: int, picture: NDArray[np.uint8]) -> Frame:
    """As NVENC reads it: chroma directly behind luma, rows at a pitch that is wider than they are."""
    from dataclasses import replace

    from segcam.frame import DevicePlanes

    host = _on_host(number, picture)
    pitch = -(-host.width // 256) * 256
    padded = np.zeros((picture.shape[0], pitch), np.uint8)
    padded[:, : host.width] = picture
    memory = driver.allocate(padded.nbytes)
    held.callback(memory.close)
    driver.upload(memory.address, padded, stream)
    addresses = (memory.address, memory.address + pitch * host.height)

    def download() -> Any:
        return "nv12", host.planes

    device = DevicePlanes("nv12", addresses, (pitch, pitch), driver.device.index, download)
    return replace(host, planes=(), device=device, owner=memory)


def _encoded(
    context: Context, driver: Driver, where: str, frames: list[Frame], crf: int, pictures: list[NDArray[np.uint8]]
) -> Finding:
    import av

    from segcam.classes import CITYSCAPES
    from segcam.frame import Segmentation
    from segcam.sinks.base import RunStats, StreamInfo
    from segcam.sinks.video import VideoSink

    path, said = context.work / f"{where.replace(' ', '_')}.mkv", list[str]()
    first = frames[0]
    sink = VideoSink(path, said.append, crf=crf, encode="nvenc", gpu=driver)
    sink.open(StreamInfo("made", first.width, first.height, Fraction(25), len(frames), False, CITYSCAPES), RunStats())
    begun = time.perf_counter()
    try:
        for frame in frames:
            sink.write(Segmentation(frame, np.empty((0, 0), np.uint8), frame, np.zeros(19, np.int64), CITYSCAPES))
    finally:
        sink.close()
    rate_hz = len(frames) / (time.perf_counter() - begun)
    with av.open(str(path)) as container:
        back = [frame.to_ndarray(format="nv12") for frame in container.decode(video=0)]
    count = len(back)
    differences = [np.abs(one.astype(np.int16) - other) for one, other in zip(back, pictures, strict=False)]
    mean = max((float(difference.mean()) for difference in differences), default=0.0)
    # It says what it did: pictures that were taken down first would be right as well.
    there = first.device is None or "from the GPU's memory" in sink.description
    good = count == len(frames) and there and (mean == 0 if crf == 0 else mean <= _LOSSY)
    words = f"{count} of {len(frames)} pictures come back, " + (
        "all the same" if mean == 0 else f"at most {mean:.2f} levels away on average"
    )
    words += f" ({'lossless' if crf == 0 else f'quality {crf}'}), {rate_hz:.0f} frames/s"
    if not there:
        words += f"; but from host memory: {'; '.join(said)}"
    return context.found(
        f"NVENC {where}", good, words, frames=count, levels=round(mean, 3), rate_hz=round(rate_hz, 1), said=said
    )
