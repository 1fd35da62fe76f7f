#!/usr/bin/env python3
"""Makes app/segcam/kernels/cuda/*.ptx from the sources beside them: `python scripts/build_ptx.py`.

With NVRTC 12.0 for compute_70, so that every driver from CUDA 12.0 on takes the PTX, for every GPU from Volta on.
NVRTC needs neither a GPU nor a toolkit: its wheel is fetched from the package index into a cache, once. The same
sources give the same bytes. `--check` writes nothing and says (exit code 1) which files are stale.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "app"))

from segcam.kernels.cuda.ptx import HEADERS, KERNEL_FILES, SOURCE_LINE, KernelFile, source_hash  # noqa: E402

FOLDER = ROOT / "app" / "segcam" / "kernels" / "cuda"
NVRTC = ("nvidia-cuda-nvrtc-cu12", "12.0.140")
#: No contraction of a product and a sum into one rounding: results equal the NumPy references bit for bit.
OPTIONS = ["--gpu-architecture=compute_70", "--std=c++17", "--fmad=false"]


class Missing(Exception):
    """NVRTC is not here and cannot be fetched."""


def cached_wheel(package: str, version: str) -> Path:
    """The unpacked wheel of this very version, fetched if it isn't there yet. Raises Missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segcam-build"
    target = cache / f"{package}-{version}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as partial:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", partial, f"{package}=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"{package} {version} cannot be fetched: {done.stderr.strip()}")
        (wheel,) = Path(partial).glob("*.whl")
        unpacked = Path(partial) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        try:
            unpacked.rename(target)
        except OSError:
            # Somebody else was faster.
            if not target.is_dir():
                raise
    return target


def load_nvrtc() -> ctypes.CDLL:
    """Raises Missing."""
    folder = cached_wheel(*NVRTC)
    (path,) = folder.glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
    return ctypes.CDLL(str(path))


def compile_ptx(nvrtc: ctypes.CDLL, name: KernelFile) -> str:
    """PTX of one source. SystemExit with the compiler's log where it doesn't compile."""
    source = (FOLDER / f"{name}.cu").read_bytes()
    names = (ctypes.c_char_p * len(HEADERS))(*(file.encode() for file in HEADERS))
    headers = (ctypes.c_char_p * len(HEADERS))(*((FOLDER / file).read_bytes() for file in HEADERS))
    program = ctypes.c_void_p()
    created = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source, f"{name}.cu".encode(), len(HEADERS), headers, names
    )
    _expect(nvrtc, created)
    options = [option.encode() for option in OPTIONS]
    code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = _text(nvrtc, program, "ProgramLog")
    if code or "warning" in log:
        raise SystemExit(f"{name}.cu:\n{log}")
    ptx = _text(nvrtc, program, "PTX")
    _expect(nvrtc, nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    made = f"// Made by scripts/build_ptx.py with NVRTC {NVRTC[1]}: {' '.join(OPTIONS)}\n"
    return f"{SOURCE_LINE}{source_hash(name)}\n{made}{ptx.strip()}\n"


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    _expect(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _expect(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return text.value.decode()


def _expect(nvrtc: ctypes.CDLL, code: int) -> None:
    if code:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise SystemExit(f"NVRTC: {nvrtc.nvrtcGetErrorString(code).decode()}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing: is the committed PTX fresh?")
    check = parser.parse_args(arguments).check
    try:
        nvrtc = load_nvrtc()
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    stale = 0
    for name in KERNEL_FILES:
        path = FOLDER / f"{name}.ptx"
        ptx = compile_ptx(nvrtc, name)
        fresh = path.exists() and path.read_text(encoding="utf-8") == ptx
        stale += not fresh
        if not check:
            path.write_text(ptx, encoding="utf-8", newline="\n")
        print(f"{path.relative_to(ROOT)}: {len(ptx)} bytes, {'fresh' if fresh else 'stale' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
