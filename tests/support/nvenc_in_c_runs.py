"""Programs over the real PyAV, with NVENC in C where the driver's would be, and fixtures that run them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import av
import driver_in_c
import pytest

#: What every program begins with.
START = """
import dataclasses, gc, sys, threading
from segcam.errors import SinkError
from segcam.kernels.cuda.driver import open_driver
from segcam.sinks import device_pictures
from segcam.sinks.encoder import Encoder, nvenc_problem
from nvenc_in_c import SIZE, OnGpu, check, decoded, host_frame, keep_back, note, planes, sink, write

path = sys.argv[1]
said = []
"""

Run = Callable[..., list[str]]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a driver and its encoder library."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the libraries in C have the names and the calling convention of Linux")
    try:
        av.codec.Codec("h264_nvenc", "w")
    except ValueError:
        pytest.skip(f"PyAV {av.__version__} was built without NVENC")
    return driver_in_c.build(tmp_path_factory.mktemp("driver"), "libnvidia_encode.c")


@pytest.fixture
def run(libraries: Path, tmp_path: Path) -> Run:
    """Runs a program over them and returns the lines that they noted. Nothing may have been refused (``refused``),
    changed or freed while it was in use, and in the end all must be gone (``all_gone``)."""

    def run_(
        program: str, *arguments: object, refused: bool = False, all_gone: bool = True, code: int = 0, **env: str
    ) -> list[str]:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        done = driver_in_c.run(libraries, START + program, *arguments, log=log, env=env)
        lines = log.read_text().splitlines() if log.exists() else []
        driver_in_c.need_nvenc_13(lines)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
        assert refused or not [line for line in lines if "REFUSED" in line or "NO DEVICE MEMORY" in line]
        for fault in ("CHANGED", "FREED", "gone with its context", "NO STREAM", "ANOTHER"):
            assert not [line for line in lines if fault in line], fault
        if all_gone:
            # Without cuda-python FFmpeg loads the driver anew for each encoder.
            left = {line for line in lines if line.startswith("unloaded")} | {lines[-1]}
            assert left == {"unloaded: 0 bytes allocated, 0 contexts, primary retained 0"}
            sessions = [line for line in lines if line.startswith("nvenc session")]
            ends = [line for line in lines if line.startswith("nvenc closed")]
            assert len(sessions) == len(ends) and all(
                line.endswith("left: 0 registered, 0 mapped, 0 inputs, 0 outputs") for line in ends
            )
        return lines

    return run_


def after(lines: list[str], what: str) -> list[str]:
    """The lines from the last one on that begins like that."""
    return lines[max(i for i, line in enumerate(lines) if line.startswith(what)) :]
