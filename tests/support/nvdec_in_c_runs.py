"""Programs over the real PyAV, with NVDEC in C where the driver's would be, and fixtures that run them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import driver_in_c
import pytest
from nvdec_in_c import make_video

#: What every program begins with.
START = """
import gc, sys, threading
from segcam.errors import SourceError
from segcam.kernels.cuda.driver import open_driver
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source
from nvdec_in_c import check, check_host, current_context, on_device, seeds

path = sys.argv[1]
said = []

def open_(**options):
    source = make_source(path, SourceOptions(**options), said.append)
    info = source.open()
    return source, info

def read_all(**options):
    source, info = open_(**options)
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    source.close()
    return frames, info

def times(frames):
    return [(f.index, f.pts, f.time_base, f.width, f.height, f.matrix, f.full_range) for f in frames]
"""

#: Part of a program that lets the CPU take over, with ``kept`` what was read or raised: the GPU's decoder is gone then.
LET_GO = """
import os
from pathlib import Path
notes = Path(os.environ["CUDA_IN_C_LOG"]).read_text().splitlines()
assert sum(line.startswith("NVDEC create") for line in notes) == notes.count("NVDEC destroy") == 1, notes
assert sum(line.startswith("allocate") for line in notes) == notes.count("free") > 1, notes
gpu.close()
assert gpu.released
if decode == "auto":
    assert source.read() is not None
    source.close()
"""

Run = Callable[..., list[str]]


def reading(bits: int, decoder: str = "", *, loops: int = 1) -> str:
    """A program that reads all of a video on the CPU and on NVDEC, 20 pictures a loop, and holds them to the end."""
    return f"""
plain, _ = read_all(loops={loops})
gpu = open_driver("cuda-python")
frames, info = read_all(gpu=gpu, loops={loops})
assert info.description.endswith({f"{decoder}, NVDEC)"!r}) and not said, (info, said)
assert times(frames) == times(plain) and len(frames) == {20 * loops}
for frame, seed in zip(frames, seeds(path) * {loops}, strict=True):
    assert frame.device.format == {("nv12" if bits == 8 else "p010")!r} and frame.device.gpu == 0
    check(gpu, frame, seed, {bits})
    check_host(frame, seed, {bits})
gpu.close()
assert not gpu.released
del frame
frames.clear()
gc.collect()
assert gpu.released
"""


def selecting(options: dict[str, Any]) -> str:
    """A program that reads 25 pictures, 25 a second, by these ``SourceOptions``, on the CPU and on NVDEC."""
    first, every, loops = options.get("start_s", 0) * 25, options.get("every", 1), options.get("loops", 1) or 9
    numbers = [number for number in range(25) if number >= first][::every] * loops
    return f"""
plain, _ = read_all(**{options})
gpu = open_driver("cuda-python")
frames, _ = read_all(gpu=gpu, **{options})
assert times(frames) == times(plain) and len(frames) >= 5 and not said, said
expected = seeds(path)
for frame, number in zip(frames, {numbers}, strict={options.get("frames") is None}):
    check(gpu, frame, expected[number])
del frame
frames.clear()
gpu.close()
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a driver and its video library."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the libraries in C have the names and the calling convention of Linux")
    if not hasattr(av.VideoFrame, "sw_format"):
        pytest.skip(f"PyAV {av.__version__} cannot keep pictures on the GPU, 18 and newer can")
    return driver_in_c.build(tmp_path_factory.mktemp("driver"), "libnvcuvid.c")


@pytest.fixture
def run(libraries: Path, tmp_path: Path) -> Run:
    """Runs a program over them and returns the lines that they noted. Nothing may have been refused (``refused``), and
    in the end all memory, contexts and decoders must be gone (``all_gone``)."""

    def run_(program: str, *arguments: object, refused: bool = False, all_gone: bool = True, **env: str) -> list[str]:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        done = driver_in_c.run(libraries, START + program, *arguments, log=log, env=env)
        assert done.returncode == 0, done.stderr
        lines = log.read_text().splitlines()
        assert refused or not [line for line in lines if "REFUSED" in line or "NO DEVICE MEMORY" in line]
        # What was not freed before its context went was freed too late, or not at all.
        assert not [line for line in lines if "gone with its context" in line]
        if not all_gone:
            return lines
        assert lines[-1] == "unloaded: 0 bytes allocated, 0 contexts, primary retained 0"
        starts = ("NVDEC map ", "NVDEC create ")
        for start, end in zip(starts, ("NVDEC unmap", "NVDEC destroy"), strict=True):
            assert sum(line.startswith(start) for line in lines) == lines.count(end)
        return lines

    return run_


def write(path: Path, codec: str, *arguments: Any, **more: Any) -> Path:
    """``make_video``; skips where PyAV has no such encoder."""
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    make_video(path, codec, *arguments, **more)
    return path
