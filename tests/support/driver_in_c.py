"""The libraries of ``cuda_in_c``, compiled, and Python programs that find them where the GPU driver's would be.

PyAV, cuda-python and PyCUDA load these libraries by name while they run: a process of its own for each program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from real_bindings import cuda_bindings

FOLDER = Path(__file__).parent
#: Sources, and the names under which they are loaded. What follows the first one calls it.
LIBRARIES = {
    "libcuda.c": "libcuda.so.1",
    "libnvcuvid.c": "libnvcuvid.so.1",
    "libnvidia_encode.c": "libnvidia-encode.so.1",
}


def build(folder: Path, *sources: str) -> Path:
    """Compiles those (libcuda.c always) into ``folder`` and returns it; skips where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc)")
    driver = folder / LIBRARIES["libcuda.c"]
    for source in ("libcuda.c", *sources):
        name = LIBRARIES[source]
        below = [] if source == "libcuda.c" else [str(driver)]
        command = [compiler, "-O1", "-shared", "-fPIC", f"-Wl,-soname,{name}", str(FOLDER / "cuda_in_c" / source)]
        subprocess.run([*command, *below, "-ldl", "-lpthread", "-o", str(folder / name)], check=True, timeout=60)
    return folder


def run(
    folder: Path, program: str, *arguments: object, log: Path, env: dict[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs the program over the libraries in ``folder``, with the package and this folder to import from.

    ``log`` gets the libraries' notes. Warnings are errors. Skips where cuda-python cannot be had.
    """
    paths = [str(cuda_bindings("13.*")), str(FOLDER.parents[1] / "app"), str(FOLDER)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "LD_LIBRARY_PATH": str(folder),
        "CUDA_IN_C_LOG": str(log),
        **(env or {}),
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
