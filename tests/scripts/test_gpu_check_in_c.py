"""gpu_check as one runs it, over a GPU's libraries in C and the real cuda-python, PyCUDA, PyAV and FFmpeg: what would
meet a real driver first has met one that refuses what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import driver_in_c
import nvdec_in_c
import pytest
from real_bindings import tensorrt_bindings

from segcam.sinks import device_pictures

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from gpucheck import media  # noqa: E402
from gpucheck.base import Context  # noqa: E402

#: The least that NVDEC takes of H.265, and NVENC of H.264.
SIZE = (144, 160)
KERNELS = ("preprocess", "postprocess")
LIBRARY = ("copies", "threads", "memory")
PIPELINE = "recorded scores: equal to the CPU's"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the libraries in C are Linux's")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driver_in_c.build(tmp_path_factory.mktemp("gpu"), "libnvcuvid.c", "libnvidia_encode.c")


def start(folder: Path, env: dict[str, str], *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[Any]]:
    """What became of gpu_check, and its findings."""
    report = folder / "gpu_check.json"
    options = ["--quick", "--size", "x".join(map(str, SIZE)), "--runs", "4", "--json", str(report)]
    command = [sys.executable, SCRIPTS / "gpu_check.py", *options, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    return done, json.loads(report.read_text("utf-8"))["findings"]


def run(libraries: Path, folder: Path, *arguments: str, **libraries_of: Any) -> tuple[dict[str, str], list[str], str]:
    """The findings' states by part and name, the libraries' notes, and what was printed. Nothing may fail."""
    log, pictures = folder / "log", folder / "pictures"
    if "--only" not in arguments:
        context = Context("nvdec", 0, SIZE, True, 4, folder)
        for codec, pixels in media.CLIPS:
            # The very clips that it makes, which the decoder in C cannot decode by itself.
            nvdec_in_c.record(media._clip(context, codec, pixels), pictures)
    env = driver_in_c.environment(libraries, log, kernels=True, **libraries_of)
    done, findings = start(folder, {**env, "NVDEC_PICTURES": str(pictures)}, *arguments)
    lines = log.read_text().splitlines()
    driver_in_c.need_nvenc_13(lines)
    failed = [finding for finding in findings if finding["state"] == "failed"]
    assert done.returncode == 0 and not failed and not done.stderr, (failed, done.stderr)
    assert not driver_in_c.faults(lines)
    ends = {line for line in lines if line.startswith("unloaded")}
    assert ends == {"unloaded: 0 bytes allocated, 0 contexts, primary retained 0"}
    return {f"{one['part']} {one['name']}": one["state"] for one in findings}, lines, done.stdout


@pytest.mark.skipif(bool(device_pictures.why_not()), reason=device_pictures.why_not() or "-")
def test_everything_that_can_run_holds(libraries: Path, tmp_path: Path) -> None:
    states, lines, said = run(libraries, tmp_path, "--skip", "resources", "sanitizer", "ort", "tensorrt")
    name = "cuda-python"
    wanted = [f"drivers {name}: {what}" for what in (*LIBRARY, "graphs")]
    wanted += [f"{part} {name}: {kernel}" for part in ("ptx", "kernels") for kernel in KERNELS]
    wanted += [f"pipeline {PIPELINE}", *(f"nvdec NVDEC {codec[3:]} {pixels}" for codec, pixels in media.CLIPS)]
    wanted += ["nvenc NVENC from host memory", "nvenc NVENC from the GPU's memory"]
    assert {name: states.get(name) for name in wanted} == dict.fromkeys(wanted, "ok")
    assert states["pipeline recorded scores: graph against plain"] == "timed"
    assert sum(name.startswith("bandwidth ") for name in states) == 13
    assert "| kernels equal their NumPy references | held |" in said and lines.count("launch graph") > 20


@pytest.mark.parametrize("version", ["12.8.0", "12.9.*"])
def test_cuda_python_of_cuda_12(libraries: Path, tmp_path: Path, version: str) -> None:
    states, lines, _ = run(libraries, tmp_path, "--only", "drivers", "ptx", "kernels", "pipeline", cuda=version)
    assert states[f"pipeline {PIPELINE}"] == states["kernels cuda-python: postprocess"] == "ok"
    assert states["drivers cuda-python: graphs"] == "ok" and lines.count("launch graph") > 3


@pytest.mark.parametrize("beside", ["", "13.*"])
def test_pycuda(libraries: Path, tmp_path: Path, beside: str) -> None:
    """Alone, and with the graphs of cuda-python beside it."""
    parts = ("drivers", "ptx", "kernels", "pipeline")
    states, lines, _ = run(libraries, tmp_path, "--only", *parts, cuda=beside, pycuda=True)
    wanted = [f"drivers pycuda: {what}" for what in LIBRARY]
    wanted += [f"{part} pycuda: {kernel}" for part in ("ptx", "kernels") for kernel in KERNELS]
    wanted += [f"pipeline {PIPELINE}"]
    assert {name: states.get(name) for name in wanted} == dict.fromkeys(wanted, "ok")
    assert states["drivers pycuda: graphs"] == ("ok" if beside else "absent")
    assert bool(lines.count("launch graph")) == bool(beside)


def test_why_no_plan_was_built_is_found(libraries: Path, tmp_path: Path) -> None:
    """The real bindings without TensorRT's libraries behind them: their builder does not start."""
    env = driver_in_c.environment(libraries, tmp_path / "log", kernels=True)
    env["PYTHONPATH"] = os.pathsep.join([str(tensorrt_bindings("11.4.0.106")), env["PYTHONPATH"]])
    done, findings = start(tmp_path, env, "--only", "tensorrt")
    assert done.returncode == 1 and [finding["state"] for finding in findings] == ["failed"] * 4
    for finding in findings:
        assert finding["words"].startswith("segcam build: TensorRT could not start its builder"), finding
        assert finding["words"] in done.stdout and "; " in finding["words"]
