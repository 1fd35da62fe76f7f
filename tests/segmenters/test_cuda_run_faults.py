"""Whole runs on a stand-in GPU that go wrong in mid-stream: a line says why, files play, nothing is left, they end."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import standin_nvdec
import standin_nvenc
from cuda_shim import compiler
from lossless import clip, pictures
from plans import plan_of
from standin_cuda import Refused

from segcam.cli.main import main
from segcam.sinks import device_pictures

Brightest = Callable[..., Path]

pytestmark = [
    pytest.mark.tensorrt("11.4.0.106"),
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler: apt install g++, or name one in CXX"),
]

#: More than a second, so that there are whole fragments to be kept.
FRAMES = 32
LOSSLESS = ("--encode", "x264", "--crf", "0")
#: Where pictures are decoded and encoded: both by the processor, one of them, neither.
WAYS = {"host": ("--decode", "cpu", *LOSSLESS), "up": ("--decode", "cpu"), "down": LOSSLESS, "stay": ()}


def as_ffmpegs(call: Callable[..., Any]) -> Callable[..., Any]:
    """Calls of the driver that fail are AVERROR_EXTERNAL where FFmpeg makes them."""

    def called(*arguments: Any, **more: Any) -> Any:
        try:
            return call(*arguments, **more)
        except Refused:
            raise av.error.ExternalError(542398533, "Generic error in an external library") from None

    return called


@pytest.fixture(params=["pycuda", "cuda-python"])
def gpu(
    request: pytest.FixtureRequest, tensorrt_face: Any, brightest: Brightest, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> SimpleNamespace:  # fmt: skip
    """``run(way)`` writes out.mp4 and gives exit code and what was said; ``whole``: its pictures if all goes well."""
    if request.param == "cuda-python":
        for module in ("pycuda", "pycuda.driver"):
            monkeypatch.setitem(sys.modules, module, None)
    plan = plan_of(tensorrt_face.trt, brightest())
    video = clip(tmp_path / "clip.mp4", count=FRAMES)
    nvdec = standin_nvdec.install(monkeypatch, tensorrt_face.machine)
    nvenc = standin_nvenc.install(monkeypatch, tensorrt_face.machine)
    for owner, name in ((standin_nvdec._Codec, "decode"), (standin_nvdec.CudaPicture, "reformat")):
        monkeypatch.setattr(owner, name, as_ffmpegs(getattr(owner, name)))
    monkeypatch.chdir(tmp_path)

    def run(way: str) -> tuple[int, str]:
        Path("out.mp4").unlink(missing_ok=True)
        before = set(threading.enumerate())
        code = main(["--engine", str(plan), "--source", str(video), "-o", "out.mp4", "--requests", "3", *WAYS[way]])
        assert set(threading.enumerate()) <= before
        said = capsys.readouterr().err
        assert "Traceback" not in said and said.count("segcam: error:") == (code == 1)
        return code, said

    assert run("host")[0] == 0
    whole = pictures(Path("out.mp4"))
    assert len(whole) == FRAMES
    tensorrt_face.machine.counts.clear()
    return SimpleNamespace(nvdec=nvdec, nvenc=nvenc, run=run, machine=tensorrt_face.machine, whole=whole)


def written(gpu: SimpleNamespace, plays: bool = True) -> int:
    """How many pictures are in the file: the first ones, as in a whole one. Nothing else is left of the run."""
    found = pictures(Path("out.mp4")) if plays and Path("out.mp4").exists() else []
    for mine, other in zip(found, gpu.whole, strict=False):
        np.testing.assert_array_equal(mine, other)
    gc.collect()
    leftovers = gpu.machine.leftovers()
    # What the stand-in for FFmpeg's decoder had goes with the context.
    del leftovers["lost"]
    assert not any(leftovers.values()), leftovers
    assert not device_pictures._lent and not gpu.nvdec.alive
    return len(found)


@pytest.mark.parametrize(
    ("call", "at", "ways", "good"),
    [
        ("cuMemcpyDtoHAsync", 3, {*WAYS}, 2),
        # Two for each of the first frames, which run in parts; from the fourth on they run as graphs.
        ("cuLaunchKernel", 6, {*WAYS}, 2),
        ("cuGraphLaunch", 6, {*WAYS}, 8),
        ("cuEventSynchronize", 7, {*WAYS}, 6),
        # Five stages of a frame in parts, one of a graph.
        ("cuEventElapsedTime", 3 * 5 + 5, {*WAYS}, 7),
        # Two planes that come from the decoder, one copy for the encoder.
        ("cuMemcpyDtoDAsync", 12, {"up"}, 11),
        ("cuMemcpyDtoDAsync", 12, {"down"}, 5),
        ("cuMemcpyDtoDAsync", 12, {"stay"}, 3),
        ("cuStreamWaitEvent", 6, {"down", "stay"}, 5),
    ],
)
def test_a_call_that_fails_ends_the_run(gpu: SimpleNamespace, call: str, at: int, ways: set[str], good: int) -> None:
    """What came before the frame that failed is written, all of it."""
    for way in sorted(ways):
        gpu.machine.fail(call, at)
        code, said = gpu.run(way)
        assert code == 1 and "CUDA_ERROR_UNKNOWN" in said
        assert written(gpu) == good


# PyCUDA says so of each thing that it cannot give back.
@pytest.mark.filterwarnings("ignore:a clean-up operation failed")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("call", "at"),
    [("cuLaunchKernel", 6), ("cuGraphLaunch", 6), ("cuEventSynchronize", 7), ("cuMemcpyDtoHAsync", 3)],
)
def test_a_gpu_that_dies(gpu: SimpleNamespace, way: str, call: str, at: int) -> None:
    """From then on nothing works, in no thread, giving things back neither; decoder or encoder may say it first."""
    gpu.machine.die(call, at)
    code, said = gpu.run(way)
    assert code == 1 and ("CUDA_ERROR_ILLEGAL_ADDRESS" in said or "Generic error in an external library" in said)
    assert written(gpu) <= 8


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_a_capture_that_fails_costs_no_frame(gpu: SimpleNamespace, call: str, way: str) -> None:
    gpu.machine.fail(call, 2)
    code, said = gpu.run(way)
    assert code == 0 and said.count("segcam: warning: frames run without a CUDA graph") == 1
    assert written(gpu) == FRAMES


@pytest.mark.parametrize("way", ["host", "stay"])
@pytest.mark.parametrize("call", ["cuMemAlloc", "cuMemHostAlloc"])
def test_memory_that_runs_out(gpu: SimpleNamespace, call: str, way: str) -> None:
    """For the network, a slot's blocks, the launchers' tables, or overlays."""
    assert gpu.run(way)[0] == 0
    most = gpu.machine.counts[call]
    assert most >= 3 * 2
    ended = []
    for at in range(1, most + 1, 2):
        gpu.machine.fail(call, at, "CUDA_ERROR_OUT_OF_MEMORY", times=1000)
        code, said = gpu.run(way)
        gpu.machine.heal()
        # How many overlays there are at a time is a matter of speed.
        assert (code, "CUDA_ERROR_OUT_OF_MEMORY" in said) in ((1, True), (0, False))
        assert (written(gpu) == FRAMES) == (code == 0)
        ended.append(code)
    assert ended[:3] == [1] * 3


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c(gpu: SimpleNamespace, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been read is still written, and counted."""
    called, seen = gpu.machine.called, []

    def interrupted(name: str, *arguments: Any) -> None:
        called(name, *arguments)
        seen.extend([name] * (name == "cuGraphLaunch"))
        if len(seen) == 5:
            seen.append("")
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(gpu.machine, "called", interrupted)
    code, said = gpu.run(way)
    count = written(gpu)
    assert code == 130 and f"interrupted after {count} frames" in said and count >= 8


@contextmanager
def largest_file(nbytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_that_is_full(gpu: SimpleNamespace, way: str) -> None:
    """While the encoder, which has pictures of its own in flight, writes; the first fragment is half a second."""
    assert gpu.run(way)[0] == 0
    size = Path("out.mp4").stat().st_size
    for share in (0.0, 0.1, 0.6, 0.95):
        with largest_file(int(size * share)):
            code, said = gpu.run(way)
        assert code == 1 and "writing out.mp4 failed" in said
        plays = "What was written before can be played" in said
        assert plays == (share > 0.5)
        assert (written(gpu, plays) >= 12) == plays


@pytest.mark.parametrize("way", ["down", "stay"])
def test_a_decoders_picture_that_goes_too_early(
    gpu: SimpleNamespace, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = standin_nvdec.CudaPicture.__init__, []

    def gone(picture: Any, nvdec: Any, real: Any) -> None:
        make(picture, nvdec, real)
        made.append(None)
        if len(made) == 9:
            with nvdec.current():
                for address, _ in picture._places:
                    nvdec.machine.free(address)
            picture._places.clear()

    monkeypatch.setattr(standin_nvdec.CudaPicture, "__init__", gone)
    code, said = gpu.run(way)
    assert code == 1 and "a copy: the CUDA driver says CUDA_ERROR_INVALID_VALUE" in said
    assert written(gpu) == 8
