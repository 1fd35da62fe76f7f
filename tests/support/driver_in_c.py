"""The libraries of ``cuda_in_c``, compiled, and Python programs that find them where the GPU driver's would be.

PyAV, cuda-python and PyCUDA load these libraries by name while they run: a process of its own for each program.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import cuda_shim
import pytest
from real_bindings import cuda_bindings

FOLDER = Path(__file__).parent
#: Sources, and the names under which they are loaded. What follows the first one calls it.
LIBRARIES = {
    "libcuda.c": "libcuda.so.1",
    "libnvcuvid.c": "libnvcuvid.so.1",
    "libnvidia_encode.c": "libnvidia-encode.so.1",
}


#: In the notes: what was refused, or was asked of something that is not there, or came too late.
_FAULT = re.compile(r"REFUSED|\bNO |NOT SUPPORTED|ANOTHER|CHANGED|FREED|with (its|their) context")


def faults(notes: list[str]) -> list[str]:
    """Those of the libraries' notes that no run should have."""
    return [note for note in notes if _FAULT.search(note)]


def c_compiler() -> str:
    """Skips where there is none."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler: apt install gcc")
    return compiler


def need_nvenc_13(notes: list[str]) -> None:
    """NVENC in C knows one version of the API; skips where FFmpeg asked it for another."""
    if any("another version of the API" in note for note in notes):
        pytest.skip(f"PyAV {av.__version__} was built for another version of NVENC's API than 13.0")


def build(folder: Path, *sources: str) -> Path:
    """Compiles those (libcuda.c always) into ``folder`` and returns it; skips where there is no C compiler."""
    compiler = c_compiler()
    driver = folder / LIBRARIES["libcuda.c"]
    for source in ("libcuda.c", *sources):
        name = LIBRARIES[source]
        below = [] if source == "libcuda.c" else [str(driver)]
        command = [compiler, "-O1", "-shared", "-fPIC", f"-Wl,-soname,{name}", str(FOLDER / "cuda_in_c" / source)]
        subprocess.run([*command, *below, "-ldl", "-lpthread", "-o", str(folder / name)], check=True, timeout=60)
    return folder


def real_pycuda() -> Path:
    """The folder that this Python imports PyCUDA from; skips where it is not installed."""
    found = importlib.util.find_spec("pycuda")
    if found is None or found.origin is None:
        pytest.skip("PyCUDA is not installed")
    return Path(found.origin).parents[1]


def environment(
    folder: Path, log: Path | str, *, cuda: str = "13.*", pycuda: bool = False, kernels: bool = False
) -> dict[str, str]:
    """For processes over the libraries in ``folder``, with the package and this folder to import from.

    ``log`` gets the libraries' notes. ``cuda`` is the version of cuda-python, "" for none; ``pycuda``: and PyCUDA;
    ``kernels``: launches compute. Skips where what is asked for cannot be had.
    """
    paths = [str(cuda_bindings(cuda))] if cuda else []
    paths += [str(real_pycuda())] if pycuda else []
    made = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*paths, str(FOLDER.parents[1] / "app"), str(FOLDER)]),
        "LD_LIBRARY_PATH": str(folder),
        "CUDA_IN_C_LOG": str(log),
    }
    if kernels:
        cuda_shim.need_compiler()
        made["CUDA_IN_C_KERNELS"] = str(cuda_shim.library())
    return made


def run(
    folder: Path, program: str, *arguments: object, log: Path, env: dict[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs the program in ``environment``, or with ``env`` besides. Warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        env={**environment(folder, log), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
