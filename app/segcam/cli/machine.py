"""What ``segcam doctor`` reads from the operating system: processor, memory, GPU and driver, display, cameras."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segcam import __version__
from segcam.cli.probes import Check, State

#: The kernels are PTX of CUDA 12.0, which drivers of the 525 series and newer load.
_OLDEST_CUDA = (12, 0)
_COMMAND_TIMEOUT_S = 10.0


@dataclass
class Gpu:
    """Rows on the GPU, and what the advice on packages depends on. ``cuda`` is the newest CUDA that the driver runs."""

    checks: list[Check] = field(default_factory=list)
    cuda: tuple[int, int] | None = None
    toolkit: bool = False
    jetson: bool = False


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computer() -> list[Check]:
    """Rows on Python, Segcam, processor and memory."""
    usable, cores = usable_cores(), os.cpu_count() or 1
    words = _cpu_words()
    fast = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if name in words]
    slow: State = "ok" if {"avx2", "asimd"} & set(fast) else "optional"
    bf16 = any("bf16" in name for name in fast)
    shared = "" if usable == cores else f" of {cores}"
    found = f"{_cpu_name()}, {usable}{shared} cores, {' '.join(fast) or 'no vector extensions known to Segcam'}"
    return [
        Check("Python", "ok", f"{platform.python_version()} ({sys.executable})"),
        Check("Segcam", "ok", __version__),
        Check("System", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Check(
            "CPU", slow, found, "" if slow == "ok" else "It runs, but slowly: AVX2 (or Arm NEON) makes the difference."
        ),
        Check("CPU bf16", "ok" if bf16 else "optional", "yes" if bf16 else "no: networks run in fp32"),
        Check("Memory", "ok", _memory()),
        _zoo(),
    ]


def _zoo() -> Check:
    """Whether networks can be kept here by name."""
    from segcam.networks import cache

    try:
        folder = cache.root()
        files = [
            path
            for path in (*folder.glob("checkpoints/*"), *folder.glob("engines/*"))
            if path.suffix not in (".json", ".part", ".tmp")
        ]
        held = f"{len(files)} file{'' if len(files) == 1 else 's'}, {sum(p.stat().st_size for p in files) / 1e6:.1f} MB"
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        if nearest.is_dir() and os.access(nearest, os.W_OK):
            return Check("Models", "ok", f"{folder}: {held} ('segcam models' lists them)")
        found = f"{folder} cannot be written"
    except OSError as error:
        found = str(getattr(error, "message", error))
    fix = f'export {cache.FOLDER_VARIABLE}="${{TMPDIR:-/tmp}}/segcam"'
    return Check("Models", "optional", f"{found}: networks can't be called by name", fix)


def _cpu_lines() -> Iterator[tuple[str, str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        key, _, value = line.partition(":")
        yield key.strip().lower(), value.strip()


def _cpu_words() -> set[str]:
    return set(next((value for key, value in _cpu_lines() if key in ("flags", "features")), "").split())


def _cpu_name() -> str:
    named = next((value for key, value in _cpu_lines() if key == "model name" and value), "")
    return named or _text(Path("/proc/device-tree/model")) or platform.processor() or platform.machine()


def _memory() -> str:
    sizes: dict[str, int] = {}
    for line in _text(Path("/proc/meminfo")).splitlines():
        key, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            sizes[key] = int(number[0])
    if "MemTotal" not in sizes:
        return "unknown"
    free = f", {sizes['MemAvailable'] / 2**20:.1f} GiB free" if "MemAvailable" in sizes else ""
    limit = _text(Path("/sys/fs/cgroup/memory.max"))
    capped = f", this container may use {int(limit) / 2**30:.1f} GiB" if limit.isdigit() else ""
    return f"{sizes['MemTotal'] / 2**20:.1f} GiB{free}{capped}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def gpu() -> Gpu:
    """Rows on GPU, driver and CUDA. Nothing here needs a Python package."""
    result = Gpu(toolkit=shutil.which("nvcc") is not None)
    tegra = _text(Path("/etc/nv_tegra_release")).splitlines()
    result.jetson = bool(tegra)
    names = _nvidia_smi()
    asked, count = _ask_driver()
    result.cuda = asked
    if tegra:
        result.checks.append(Check("Jetson", "ok", f"{_cpu_name()}; {tegra[0].lstrip('# ')}"))
    if names:
        result.checks.append(
            Check("GPU", "ok", "; ".join(f"{row[0]}, {row[2]}, sm_{row[3].replace('.', '')}" for row in names))
        )
        result.checks.append(_driver_check(names[0][1], asked))
    elif count:
        result.checks.append(Check("GPU", "ok", f"{count} found by the driver; nvidia-smi says no more"))
        result.checks.append(_driver_check(_text(Path("/sys/module/nvidia/version")) or "version unknown", asked))
    else:
        why = "libcuda.so.1 is not there" if asked is None else "the driver library is there but finds no GPU"
        fix = (
            "Not needed for the CPU path. With a GPU: install NVIDIA's driver; in a container, run it with --gpus all."
        )
        result.checks.append(Check("GPU", "optional", f"no NVIDIA GPU found ({why})", fix))
    if asked is not None:
        result.checks.append(Check("CUDA", "ok", f"driver runs CUDA up to {asked[0]}.{asked[1]}"))
    nvcc = shutil.which("nvcc")
    result.checks.append(
        Check(
            "CUDA toolkit", "ok" if nvcc else "optional", nvcc or "no nvcc on the PATH (only building PyCUDA needs it)"
        )
    )
    return result


def _driver_check(version: str, cuda: tuple[int, int] | None) -> Check:
    if cuda is not None and cuda < _OLDEST_CUDA:
        return Check("Driver", "optional", f"{version}: too old for Segcam's kernels", "Install driver 525 or newer.")
    return Check("Driver", "ok", version)


def _nvidia_smi() -> list[list[str]]:
    """[name, driver version, memory, compute capability] of each GPU; none when the command is not there or fails."""
    query = "--query-gpu=name,driver_version,memory.total,compute_cap"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True, text=True, errors="replace", timeout=_COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == 4] if done.returncode == 0 else []


_ASK_DRIVER = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
version, count = ctypes.c_int(), ctypes.c_int()
cuda.cuDriverGetVersion(ctypes.byref(version))
if cuda.cuInit(0) == 0:
    cuda.cuDeviceGetCount(ctypes.byref(count))
print(version.value, count.value)
"""


def _ask_driver() -> tuple[tuple[int, int] | None, int]:
    """(newest CUDA version, number of GPUs) by the driver library; (None, 0) without one.

    Asked in a process of its own, since a driver in a bad state can hang the one that calls it.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _ASK_DRIVER],
            capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
        version, count = map(int, done.stdout.split())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None, 0
    return (version // 1000, version % 1000 // 10), count


def devices() -> list[Check]:
    """Rows on the display and the cameras."""
    display = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    checks = [
        Check("Display", "ok", display)
        if display
        else Check("Display", "optional", "none, so no window", "Write a file instead: --output out.mp4")
    ]
    cameras = sorted(Path("/dev").glob("video[0-9]*"))
    for camera in cameras:
        name = _text(Path("/sys/class/video4linux") / camera.name / "name") or "unnamed"
        if os.access(camera, os.R_OK | os.W_OK):
            checks.append(Check(f"Camera {camera}", "ok", name))
        else:
            fix = 'sudo usermod -aG video "$USER"   # then log in again'
            checks.append(Check(f"Camera {camera}", "optional", f"{name}: no permission", fix))
    if not cameras:
        checks.append(Check("Cameras", "optional", "no /dev/video*", "Plug one in, or use a file or an rtsp:// URL."))
    return checks
