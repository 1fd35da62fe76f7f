"""The GPU's kernels on the host: their source compiled as C++ with a shim, launched as cuLaunchKernel would.

``HostKernels`` takes a kernel's name, its grid and the arguments that a launcher made, with host addresses in them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER.parents[2] / "app" / "segcam" / "kernels" / "cuda"

#: Warnings are faults here. No contraction: a product and a sum are two roundings, as in the PTX.
FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-type-limits"]
FLAGS += ["-ffp-contract=off", "-fPIC", "-shared"]
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def need_compiler() -> None:
    """Skips the test where there is none."""
    if compiler() is None:
        pytest.skip("the kernels are compiled for the host, and there is no C++ compiler: apt install g++, or set CXX")


@functools.cache
def library(sanitize: bool = False) -> Path:
    """The shared library, compiled once for the same sources, flags and compiler. Needs ``compiler()``."""
    command = [str(compiler()), *FLAGS, *(SANITIZE if sanitize else []), f"-I{FOLDER}", f"-I{SOURCES}"]
    digest = hashlib.sha256(" ".join(command).encode())
    digest.update(subprocess.run([command[0], "--version"], capture_output=True, check=True).stdout)
    files = [*SOURCES.glob("*.cu"), *SOURCES.glob("*.cuh"), *FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")]
    for path in sorted(files):
        digest.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"segcam-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / f"{digest.hexdigest()}.so"
    if not built.exists():
        partial = folder / f"{digest.hexdigest()}.{os.getpid()}"
        done = subprocess.run(
            [*command, FOLDER / "kernels.cpp", "-o", partial], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        partial.rename(built)
    return built


class HostKernels:
    """``backwards`` runs blocks and threads in falling order."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self.half_to_float = self._library.shim_half_to_float
        self.half_to_float.argtypes, self.half_to_float.restype = [ctypes.c_ushort], ctypes.c_float
        self.float_to_half = self._library.shim_float_to_half
        self.float_to_half.argtypes, self.float_to_half.restype = [ctypes.c_float], ctypes.c_ushort

    def sizes(self, name: str) -> list[int]:
        """Bytes of each of a kernel's parameters."""
        function = getattr(self._library, f"{name}_sizes")
        function.restype = ctypes.POINTER(ctypes.c_int)
        sizes: list[int] = []
        for size in function():
            if size == 0:
                return sizes
            sizes.append(size)
        raise AssertionError

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic | int],
        *,
        backwards: bool = False,
    ) -> None:
        """As ``Driver.launch``: NumPy scalars of the parameters' very types, plain ints for addresses."""
        self.launch_bytes(
            name,
            grid,
            block,
            [value.tobytes() if isinstance(value, np.generic) else np.uint64(value).tobytes() for value in arguments],
            backwards=backwards,
        )

    def launch_bytes(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[bytes],
        *,
        backwards: bool = False,
    ) -> None:
        assert [len(value) for value in arguments] == self.sizes(name)
        assert grid[2] == 1 and block == (256, 1, 1)
        held = [ctypes.create_string_buffer(value, len(value)) for value in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        getattr(self._library, name)(
            ctypes.c_uint(grid[0]), ctypes.c_uint(grid[1]), ctypes.c_uint(block[0]), ctypes.c_int(backwards), pointers
        )
