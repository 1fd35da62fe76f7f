"""Registers and spills of every kernel, where NVIDIA's assembler and compiler are: of the package's PTX, and of its
sources. Needs no GPU; with one, the code is made for it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gpucheck.base import Absent, Context, Finding, best_kind, gpu

#: Four blocks of 256 threads fit into the registers of a multiprocessor.
REGISTERS = 64
#: Without a GPU.
_ARCHITECTURE = "sm_90"
_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def check(context: Context) -> Iterator[Finding]:
    from segcam.kernels.cuda import ptx

    compiler, assembler = shutil.which("nvcc"), shutil.which("ptxas") or _beside_nvcc()
    architecture = _architecture(context)
    folder = Path(ptx.__file__).parent
    for name in ptx.KERNEL_FILES:
        count = len(re.findall(r"\.visible \.entry ", ptx.read_ptx(name).decode()))
        if assembler:
            command = [assembler, "-v", f"-arch={architecture}", str(folder / f"{name}.ptx")]
            yield _used(context, f"{name}.ptx, ptxas, {architecture}", command, count)
        else:
            yield context.absent(f"{name}.ptx", "no ptxas on the PATH: it comes with the CUDA toolkit")
        if compiler:
            flags = ["-std=c++17", "-fmad=false", "-Xptxas", "-v", "-cubin", f"-arch={architecture}"]
            command = [compiler, *flags, str(folder / f"{name}.cu")]
            yield _used(context, f"{name}.cu, nvcc, {architecture}", command, count)
        else:
            yield context.absent(f"{name}.cu", "no nvcc on the PATH: it comes with the CUDA toolkit")


def _used(context: Context, name: str, command: list[str], count: int) -> Finding:
    target = context.work / "cubin"
    done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True, check=False, timeout=120)
    said = done.stdout + done.stderr
    if done.returncode:
        words = " ".join(said.split())[-300:]
        # A toolkit older than the GPU or than the PTX, or without a compiler for the host, is no fault of the kernels.
        if re.search(r"Unsupported gpu architecture|not defined for option|Unsupported \.version|host compiler", said):
            return context.absent(name, words)
        return context.found(name, False, f"exit code {done.returncode}: {words}", target="resources")
    kernels = {
        found["name"]: {key: int(found[key]) for key in ("registers", "stack", "stores", "loads")}
        for found in _KERNEL.finditer(said)
    }
    spilled = [one for one, used in kernels.items() if used["stack"] or used["stores"] or used["loads"]]
    most = max(kernels, key=lambda one: kernels[one]["registers"], default="")
    registers = kernels[most]["registers"] if most else 0
    good = len(kernels) == count and not spilled and registers <= REGISTERS
    words = f"{len(kernels)} of {count} kernels, at most {registers} registers ({most}), " + (
        f"spills in {', '.join(spilled)}" if spilled else "no spills"
    )
    return context.found(name, good, words, target="resources", kernels=kernels)


def _beside_nvcc() -> str | None:
    compiler = shutil.which("nvcc")
    # What is on the PATH may be a link.
    return shutil.which("ptxas", path=str(Path(compiler).resolve().parent)) if compiler else None


def _architecture(context: Context) -> str:
    try:
        with gpu(context, best_kind(context)) as driver:
            return "sm_{}{}".format(*driver.device.compute_capability)
    except Absent:
        return _ARCHITECTURE
