"""The whole frame on the GPU, through the real PyAV, FFmpeg and cuda-python, or PyCUDA, over a driver, an NVDEC and an
NVENC in C: what segcam writes is what the NumPy references make of the pictures that the processor decodes.

What the stand-ins cannot show: that all of these agree on contexts, streams, addresses, pitches and times, while their
threads work at the same time. The kernels are the package's own, compiled for the host and launched by their PTX's
names with the parameters that the driver gets.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import driver_in_c
import numpy as np
import nvdec_in_c
import pytest

from segcam.sinks import device_pictures

#: Of the clips: neither is a multiple of a macroblock's 16, NVENC's smallest is 145x49, NVDEC's for H.265 144x144.
WIDTH, HEIGHT = 178, 150

PROGRAM = """
import sys
import gpu_runs_in_c as runs

runs.install()
clip, pixels, decode, matrix = sys.argv[1:5]
code = runs.run("--source", clip, "--decode", decode, "--encode", "nvenc", "-o", "a.mkv", "-o", "labels:maps/",
                *sys.argv[5:])
assert code == 0, code
runs.check(clip, "a.mkv", "maps", matrix, pixels)
"""

#: One that may end early: how, and how many pictures there are to see then.
ENDED = """
import os, signal, sys
import gpu_runs_in_c as runs
from segcam.sinks.video import VideoSink

runs.install()
write, written = VideoSink.write, []

def interrupted(self, segmentation):
    write(self, segmentation)
    written.append(segmentation.frame.index)
    if len(written) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGINT)

VideoSink.write = interrupted
code = runs.run("--source", sys.argv[1], "--decode", "nvdec", "--encode", "nvenc", "-o", "a.mkv", *sys.argv[3:])
pictures = sum(1 for _ in runs.decoded("a.mkv", "nv12")) if os.path.exists("a.mkv") else 0
print(code, len(written), pictures)
"""

Run = Callable[..., tuple[list[str], str]]

pytestmark = [
    pytest.mark.skipif(bool(device_pictures.why_not()), reason=device_pictures.why_not() or "-"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the libraries in C are Linux's"),
]


def clip(path: Path, codec: str = "libx264", pixels: str = "yuv420p", count: int = 14) -> Path:
    """Colours that go over into each other, and move."""
    options = {"preset": "ultrafast"} | ({"x265-params": "log-level=none"} if codec == "libx265" else {})
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for number in range(count):
            waves = [np.sin((x + 9 * number) / 17), np.sin((y - 5 * number) / 13), np.sin((x + y + 7 * number) / 23)]
            picture = np.stack([(128 + 100 * wave).astype(np.uint8) for wave in waves], -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driver_in_c.build(tmp_path_factory.mktemp("gpu"), "libnvcuvid.c", "libnvidia_encode.c")


@pytest.fixture
def run(libraries: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a program over them with the clip's own pictures in NVDEC; returns what they noted, and what it said.
    Nothing may have been refused, unless the GPU is ``dying``, and in the end all is gone."""

    def run_(
        clip: Path, *arguments: str, program: str = PROGRAM, dying: str = "", **libraries_of: Any
    ) -> tuple[list[str], str]:
        log, pictures = tmp_path / "log", tmp_path / "pictures"
        nvdec_in_c.record(clip, pictures)
        monkeypatch.chdir(tmp_path)
        env = driver_in_c.environment(libraries, log, kernels=True, **libraries_of)
        env |= {"NVDEC_PICTURES": str(pictures)} | ({"CUDA_IN_C_DIES_AT": dying} if dying else {})
        done = driver_in_c.run(libraries, program, clip, *arguments, log=log, env=env)
        lines = log.read_text().splitlines()
        driver_in_c.need_nvenc_13(lines)
        assert done.returncode == 0, done.stderr
        assert dying or not driver_in_c.faults(lines)
        assert lines[-1] == "unloaded: 0 bytes allocated, 0 contexts, primary retained 0"
        assert "Exception ignored" not in done.stderr and "Traceback" not in done.stderr, done.stderr
        return lines, done.stderr + done.stdout

    return run_


@pytest.mark.parametrize(
    ("codec", "pixels", "decode"),
    [
        ("libx264", "nv12", "nvdec"),
        ("libx265", "p010", "nvdec"),
        ("libx264", "nv12", "cpu"),
        ("libx265", "rounded", "cpu"),
    ],
)
def test_pictures_stay_on_the_gpu(run: Run, tmp_path: Path, codec: str, pixels: str, decode: str) -> None:
    source = clip(tmp_path / "clip.mp4", codec, "yuv420p" if pixels == "nv12" else "yuv420p10le")
    lines, said = run(source, pixels, decode, "bt601")
    assert "warning" not in said and "from the GPU's memory" in said, said
    # One is decoded when the source is opened.
    assert sum(line.startswith("NVDEC map") for line in lines) == (15 if decode == "nvdec" else 0)
    encoded = [line for line in lines if re.match(r"nvenc encode \d+ at \d+ from device memory", line)]
    # And one with the first picture, before the file is begun.
    assert len(encoded) == 14 + 1
    # Each slot's first frame runs in parts, and then every eighth.
    assert lines.count("launch graph") == 14 - 3 and lines.count("capture mode 1") == 3


def test_pictures_that_are_looked_at_come_down(run: Run, tmp_path: Path) -> None:
    """And go up again, by FFmpeg."""
    lines, said = run(clip(tmp_path / "clip.mp4"), "nv12", "nvdec", "bt601", "-o", "looked/")
    assert "warning" not in said and "from the GPU's memory" not in said and len(list(Path("looked").iterdir())) == 14
    assert not any("from device memory" in line for line in lines) and lines.count("launch graph") == 11


@pytest.mark.parametrize("beside", ["", "13.*"])
def test_through_pycuda(run: Run, tmp_path: Path, beside: str) -> None:
    lines, said = run(clip(tmp_path / "clip.mp4"), "nv12", "nvdec", "bt601", cuda=beside, pycuda=True)
    assert "from the GPU's memory" in said and bool(lines.count("launch graph")) == bool(beside)


def test_ctrl_c_finishes_what_was_read(run: Run, tmp_path: Path) -> None:
    _, said = run(clip(tmp_path / "clip.mp4"), "7", "--loop", "9", program=ENDED)
    code, written, pictures = map(int, said.splitlines()[-1].split())
    assert code == 130 and 7 <= written == pictures < 9 * 14


@pytest.mark.parametrize("piece", [25, 61, 90, 150])
def test_a_gpu_that_dies_ends_the_run(run: Run, tmp_path: Path, piece: int) -> None:
    """While kernels are prepared, in the first frame, and later: with a sentence, and what was written is there."""
    _, said = run(clip(tmp_path / "clip.mp4"), "0", program=ENDED, dying=str(piece))
    code, written, pictures = map(int, said.splitlines()[-1].split())
    assert code == 1 and "segcam: error: " in said and written - 1 <= pictures <= written < 14
