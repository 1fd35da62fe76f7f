"""What is there: packages, tools, the host, the GPU, its driver and libraries."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from gpucheck.base import Absent, Context, Finding, gpu

PACKAGES = (
    "numpy", "onnx", "jsonschema", "numba", "av", "cuda-bindings", "pycuda", "onnxruntime", "onnxruntime-gpu",
    "openvino", "onnxsim", "torch", "tensorrt", "tensorrt-cu12", "tensorrt-cu13",
)  # fmt: skip
LIBRARIES = ("libcuda.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1", "libnvinfer.so.10", "libnvinfer.so.11")
TOOLS = ("nvidia-smi", "compute-sanitizer", "nvcc", "ptxas", "nsys", "trtexec", "g++")
_ASKED = "name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,pcie.link.gen.max,power.limit"


def check(context: Context) -> Iterator[Finding]:
    # These need nothing but Python.
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    there = ", ".join(f"{name} {found}" for name, found in packages.items() if found)
    missing = ", ".join(name for name, found in packages.items() if not found)
    yield context.timed("packages", f"{there or 'none'}; not there: {missing or 'none'}", **packages)
    tools = [name for name in TOOLS if shutil.which(name)]
    yield context.timed("tools", ", ".join(tools) or "none", present=tools)
    if "nvidia-smi" in tools:
        command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        said = (done.stdout.strip() or done.stderr.strip()).splitlines()
        yield context.timed("nvidia-smi", " / ".join(said), asked=_ASKED, said=said)
    software = {"python": platform.python_version(), "python_build": sys.version}
    try:
        from segcam import __version__
        from segcam.report import environment
    except ImportError as error:
        yield context.timed("software", f"Python {platform.python_version()}", **software)
        raise Absent(str(error)) from None
    software["segcam"] = __version__
    yield context.timed("software", f"Python {platform.python_version()}, segcam {__version__}", **software)
    env = environment()
    yield context.timed("host", f"{env['cpu']}, {env['cores']} cores, {env['system']}", **env)
    from segcam.kernels.cuda.ptx import KERNEL_FILES, SOURCE_LINE, read_ptx, source_hash
    from segcam.sources.nvdec import has_library

    present = [name for name in LIBRARIES if has_library(name)]
    yield context.timed("libraries", ", ".join(present) or "none of NVIDIA's", present=present)
    for file in KERNEL_FILES:
        fresh = read_ptx(file).decode().startswith(SOURCE_LINE + source_hash(file))
        words = "made of the sources beside it" if fresh else "stale: run scripts/build_ptx.py"
        yield context.found(f"{file}.ptx", fresh, words)
    try:
        with gpu(context) as driver:
            info = driver.device
            free, total = driver.memory()
            words = (
                f"{info.name}, compute capability {'.'.join(map(str, info.compute_capability))}, driver for CUDA "
                f"{'.'.join(map(str, info.driver_version))}, {free >> 20} of {total >> 20} MiB free"
            )
            yield context.timed(
                "gpu", words, gpu=info.name, compute_capability=list(info.compute_capability),
                cuda=list(info.driver_version), memory_bytes=total,
            )  # fmt: skip
    except Absent as absent:
        yield context.absent("gpu", str(absent))
