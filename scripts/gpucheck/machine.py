"""What is there: the GPU, its driver and libraries, packages, tools."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from gpucheck.base import Absent, Context, Finding, gpu

PACKAGES = (
    "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "av", "cuda-bindings", "pycuda", "tensorrt",
    "tensorrt-cu12", "tensorrt-cu13",
)  # fmt: skip
LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1", "libnvinfer.so.10", "libnvinfer.so.11")
TOOLS = ("nvidia-smi", "compute-sanitizer", "nvcc", "nsys", "trtexec", "g++")
_ASKED = "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,pcie.link.gen.max,power.limit"


def check(context: Context) -> Iterator[Finding]:
    from segcam.kernels.cuda.ptx import KERNEL_FILES, SOURCE_LINE, read_ptx, source_hash
    from segcam.report import environment

    env = environment()
    yield context.timed("host", f"{env['cpu']}, {env['cores']} cores, Python {env['python']}", **env)
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    yield context.timed("packages", ", ".join(f"{name} {found}" for name, found in packages.items()), **packages)
    from segcam.sources.nvdec import has_library

    present = [name for name in LIBRARIES if has_library(name)]
    yield context.timed("libraries", ", ".join(present) or "none of NVIDIA's", present=present)
    tools = [name for name in TOOLS if shutil.which(name)]
    yield context.timed("tools", ", ".join(tools) or "none", present=tools)
    for file in KERNEL_FILES:
        fresh = read_ptx(file).decode().startswith(SOURCE_LINE + source_hash(file))
        words = "made of the sources beside it" if fresh else "stale: run scripts/build_ptx.py"
        yield context.found(f"{file}.ptx", fresh, words)
    if "nvidia-smi" in tools:
        command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        said = (done.stdout.strip() or done.stderr.strip()).splitlines()
        yield context.timed("nvidia-smi", " / ".join(said), asked=_ASKED)
    try:
        with gpu(context) as driver:
            info = driver.device
            free, total = driver.memory()
            words = (
                f"{info.name}, compute capability {'.'.join(map(str, info.compute_capability))}, driver for CUDA "
                f"{'.'.join(map(str, info.driver_version))}, {free >> 20} of {total >> 20} MiB free"
            )
            yield context.timed(
                "gpu", words, gpu=info.name, compute_capability=info.compute_capability, cuda=info.driver_version
            )
    except Absent as absent:
        yield context.absent("gpu", str(absent))
