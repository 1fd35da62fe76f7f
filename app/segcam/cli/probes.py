"""What ``segcam doctor`` looks for in installed packages. Each probe runs in a process of its own.

A library built for another machine can end the process that imports it (an illegal instruction, an abort), and two of
them can disturb each other: a process for each turns that into one row of the table.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "missing", "optional"]


@dataclass
class Check:
    """One row: ``missing`` keeps the CPU path from working, ``optional`` is lacking and not needed for it."""

    name: str
    state: State
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Package:
    """A Python package: its import name, its name for pip, what reads more of it than its version."""

    title: str
    module: str
    pip: str
    needed: bool
    look: Callable[[Any], list[Check]] | None = None
    "Any: the imported module; the packages have no types in common."


def python() -> str:
    """The interpreter as a person would type it."""
    path = Path(sys.executable)
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def pip_install(*names: str) -> str:
    quoted = (f'"{name}"' if set(name) & set("<>[=") else name for name in names)
    return f"{python()} -m pip install {' '.join(quoted)}"


def version_of(module: Any, pip: str) -> str:
    """The version that the module states, else the one that it was installed as."""
    stated = getattr(module, "__version__", None)
    if isinstance(stated, str) and stated:
        return stated
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(pip)
    return "version unknown"


def _openvino(module: Any) -> list[Check]:
    core = module.Core()
    devices = []
    for device in core.available_devices:
        name = str(core.get_property(device, "FULL_DEVICE_NAME")).strip()
        abilities = ", ".join(core.get_property(device, "OPTIMIZATION_CAPABILITIES"))
        devices.append(f"{device}: {name} [{abilities}]")
    return [Check("OpenVINO devices", "ok" if devices else "missing", "; ".join(devices) or "none")]


def _onnxruntime(module: Any) -> list[Check]:
    return [Check("ONNX Runtime providers", "ok", ", ".join(module.get_available_providers()))]


def _numba(module: Any) -> list[Check]:
    kernels = Path(__file__).resolve().parents[1] / "kernels"
    chosen = module.config.CACHE_DIR
    user_wide = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # The order in which Numba itself looks for a place.
    places = [Path(chosen)] if chosen else [kernels, user_wide]
    for place in places:
        nearest = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
        if os.access(nearest, os.W_OK):
            return [Check("Numba cache", "ok", f"{place} can be written")]
    return [
        Check(
            "Numba cache",
            "optional",
            f"none of {', '.join(map(str, places))} can be written: kernels are compiled anew at each start",
            'export NUMBA_CACHE_DIR="${TMPDIR:-/tmp}/segcam-numba"',
        )
    ]


def _av(module: Any) -> list[Check]:
    def has(codec: str, mode: str) -> bool:
        with contextlib.suppress(Exception):
            module.Codec(codec, mode)
            return True
        return False

    versions = ", ".join(
        f"{name} {'.'.join(map(str, module.library_versions[name]))}"
        for name in ("libavcodec", "libavformat")
        if name in module.library_versions
    )
    stated = getattr(module, "ffmpeg_version_info", "")
    wheel = f"{python()} -m pip install --force-reinstall --only-binary av av"
    checks = [Check("FFmpeg", "ok", f"{stated} ({versions})" if stated else versions)]
    for codec, needed in (("h264", True), ("hevc", False), ("vp9", False), ("av1", False)):
        there = has(codec, "r")
        state: State = "ok" if there else "missing" if needed else "optional"
        checks.append(
            Check(f"{codec} decoder", state, "yes" if there else "not in this FFmpeg", "" if there else wheel)
        )
    there = has("libx264", "w")
    checks.append(
        Check(
            "libx264 encoder",
            "ok" if there else "missing",
            "yes" if there else "not in this FFmpeg",
            "" if there else wheel,
        )
    )
    return checks + _gpu_video()


def _gpu_video() -> list[Check]:
    """Whether videos can be decoded and encoded on the GPU; nothing where there is no driver, hence no GPU to use."""
    from segcam.sinks import device_pictures
    from segcam.sinks.encoder import Encoder, nvenc_problem
    from segcam.sources import nvdec

    if not nvdec.has_library("libcuda.so.1"):
        return []
    missing = nvdec.why_not()
    if missing is None:
        decoder = Check("NVDEC", "ok", "yes")
    else:
        decoder = Check("NVDEC", "optional", missing[0], f"{missing[1]}. Until then the CPU decodes.")
    problem = nvenc_problem(Encoder("h264_nvenc", 23, "superfast"), (2048, 1024))
    if problem:
        return [decoder, Check("NVENC", "optional", problem, "None needed: x264 encodes.")]
    why = device_pictures.why_not()
    return [decoder, Check("NVENC", "ok", f"from host memory only: {why}" if why else "yes, from the GPU's memory too")]


def _cv2(module: Any) -> list[Check]:
    info = module.getBuildInformation()
    line = next((line for line in info.splitlines() if line.strip().startswith("GUI:")), "")
    backend = line.partition(":")[2].strip()
    if backend and backend != "NONE":
        return [Check("OpenCV window backend", "ok", backend)]
    fix = f"{python()} -m pip uninstall -y opencv-python-headless && {_reinstall(PACKAGES['OpenCV'])}"
    return [Check("OpenCV window backend", "optional", "none: this OpenCV cannot open windows", fix)]


def _pycuda(module: Any) -> list[Check]:
    return [_opens("PyCUDA", "pycuda")]


def _cuda_bindings(module: Any) -> list[Check]:
    return [_opens("cuda-bindings", "cuda-python")]


def _opens(title: str, kind: Literal["pycuda", "cuda-python"]) -> Check:
    """Whether Segcam gets at the GPU through one of the two libraries."""
    from segcam.errors import SegcamError
    from segcam.kernels.cuda.driver import open_driver

    try:
        driver = open_driver(kind)
        with driver.current():
            free, total = driver.memory()
        driver.close()
    except SegcamError as error:
        return Check(f"{title} works", "optional", error.message, error.hint)
    found = f"opens {driver.device.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return Check(f"{title} works", "ok", found)


PACKAGES: dict[str, Package] = {
    package.title: package
    for package in (
        Package("NumPy", "numpy", "numpy", True),
        Package("OpenVINO", "openvino", "openvino", True, _openvino),
        Package("ONNX Runtime", "onnxruntime", "onnxruntime", True, _onnxruntime),
        Package("onnx", "onnx", "onnx", True),
        Package("Numba", "numba", "numba", True, _numba),
        Package("PyAV", "av", "av", True, _av),
        Package("OpenCV", "cv2", "opencv-python", True, _cv2),
        Package("rich", "rich", "rich", True),
        Package("jsonschema", "jsonschema", "jsonschema", True),
        Package("TensorRT", "tensorrt", "tensorrt", False),
        Package("PyCUDA", "pycuda.driver", "pycuda", False, _pycuda),
        Package("cuda-bindings", "cuda.bindings", "cuda-bindings", False, _cuda_bindings),
    )
}


def look(title: str) -> list[Check]:
    """The rows of one package. Whatever goes wrong inside it becomes a row; nothing is raised."""
    package = PACKAGES[title]
    lacking: State = "missing" if package.needed else "optional"
    try:
        module = import_module(package.module)
        checks = [Check(title, "ok", version_of(module, package.pip))]
    except ModuleNotFoundError as error:
        if error.name and package.module.startswith(error.name):
            return [Check(title, lacking, "not installed", pip_install(package.pip))]
        return [_broken(package, lacking, error)]
    except BaseException as error:  # an import may raise anything, SystemExit too
        return [_broken(package, lacking, error)]
    try:
        return checks + (package.look(module) if package.look else [])
    except BaseException as error:
        return [*checks, Check(f"{title} works", lacking, _short(error), _reinstall(package))]


def _broken(package: Package, state: State, error: BaseException) -> Check:
    text = _short(error)
    if "libGL" in text or "libgthread" in text:
        return Check(package.title, state, text, "sudo apt-get install -y libgl1 libglib2.0-0")
    if "libcuda" in text:
        return Check(package.title, state, text, "Install the NVIDIA driver; in a container, run it with --gpus all.")
    return Check(package.title, state, f"cannot be imported: {text}", _reinstall(package))


def _reinstall(package: Package) -> str:
    return f"{python()} -m pip install --force-reinstall {package.pip}"


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return text if len(text) <= 160 else f"{text[:157]}..."


def child(title: str) -> None:
    """In a process of its own: prints the rows of ``look`` as the last line of stdout."""
    print("\n" + json.dumps([asdict(check) for check in look(title)]), flush=True)
    # No library's clean-up at exit may spoil an answer that is already given.
    os._exit(0)
