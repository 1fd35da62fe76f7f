"""The real Python bindings of TensorRT and CUDA, fetched from the package index, importable without their libraries.

The wheels of the bindings are about a megabyte each; the gigabytes of libraries that they link to are other packages.
``tensorrt_bindings(version)`` downloads one wheel with pip, unpacks it into the user's cache, and puts an empty shared
object in the place of each library: what the bindings import of it is a function that returns null. Every class,
member, signature and docstring is then the real one, and nothing can be built or run.

Where something for that is lacking (pip, a C compiler, the package index, a wheel for this Python) the test is skipped
with the reason.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NEEDED = 1  # a tag of an ELF file's dynamic section
SECTION_DYNAMIC, SECTION_SYMBOLS = 6, 11
DOOR = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"


class Unavailable(Exception):
    """Why the real bindings can't be had here."""


def cache_folder() -> Path:
    """Where unpacked wheels are kept between runs, for this Python."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "segcam-tests" / f"bindings-py{sys.version_info[0]}{sys.version_info[1]}"


def tensorrt_bindings(version: str) -> Path:
    """A folder that, put on ``PYTHONPATH``, has ``tensorrt`` of this version. Skips where it can't be had."""
    flavour = "cu13" if int(version.split(".", maxsplit=1)[0]) >= 11 else "cu12"
    return _or_skip(f"tensorrt-{flavour}-bindings=={version}", True)


def cuda_bindings(version: str) -> Path:
    """A folder that, put on ``PYTHONPATH``, has ``cuda.bindings`` of this version ("13.*"). Skips likewise."""
    folder = _or_skip(f"cuda-bindings=={version}", False)
    pathfinder = _or_skip("cuda-pathfinder", False)
    if not (folder / "cuda" / "pathfinder").exists():
        shutil.copytree(pathfinder / "cuda" / "pathfinder", folder / "cuda" / "pathfinder", dirs_exist_ok=True)
    return folder


def _or_skip(requirement: str, libraries: bool) -> Path:
    outcome = _unpacked(requirement, libraries)
    if isinstance(outcome, str):
        pytest.skip(f"the real bindings can't be had here: {outcome}")
    return outcome


@functools.cache
def _unpacked(requirement: str, libraries: bool) -> Path | str:
    """The folder, or the reason why there is none; asked once a run."""
    try:
        folder = cache_folder() / requirement.replace("==", "-").replace("*", "x")
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                made = Path(scratch) / "made"
                with zipfile.ZipFile(_downloaded(requirement, Path(scratch))) as wheel:
                    wheel.extractall(made)
                if libraries:
                    _fill_in(made)
                try:
                    made.rename(folder)  # whole or not at all, whoever else is doing the same
                except OSError:
                    if not folder.is_dir():
                        raise
        return folder
    except (Unavailable, OSError, zipfile.BadZipFile) as error:
        return str(error)


def _downloaded(requirement: str, scratch: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise Unavailable("this Python has no pip")
    flags = ["-q", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries=1", "--timeout=20"]
    got = subprocess.run(
        [sys.executable, "-m", "pip", "download", *flags, "-d", str(scratch), requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(scratch.glob("*.whl"))
    if not wheels:
        said = [line for line in got.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel came"]
        raise Unavailable(f"pip download {requirement}: {said[-1]}")
    return wheels[0]


def _fill_in(folder: Path) -> None:
    """Empty libraries beside the bindings, and the door that the ``tensorrt`` distribution is."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("there is no C compiler (cc)")
    package = folder / "tensorrt_bindings"
    binary = next(iter(sorted(package.glob("tensorrt*.so"))), None)
    if binary is None:
        raise Unavailable(f"the wheel has no tensorrt.so: {sorted(path.name for path in package.iterdir())}")
    needed, undefined = linked(binary.read_bytes())
    libraries = [name for name in needed if name.startswith("libnv")]
    source = package / "empty.c"
    endings = ("_INTERNAL", "Registry", "Plugins", "Version")  # of the C functions that TensorRT's libraries export
    own = sorted({name for name in undefined if name.startswith(("create", "get", "init")) and name.endswith(endings)})
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in own), encoding="ascii")
    for library in libraries:
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(package / library), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"cc: {done.stderr.strip()}")
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt" / "__init__.py").write_text(DOOR, encoding="ascii")


def linked(data: bytes) -> tuple[list[str], list[str]]:
    """The libraries that an ELF file (64 bit, little endian) needs, and the symbols that it leaves to them."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise Unavailable("the bindings are not a 64-bit little-endian ELF file")
    start, size, count = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58)
    # name, type, flags, address, offset, size, link, info, alignment, size of an entry
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + index * size) for index in range(count)]

    def text(table: int, offset: int) -> str:
        begin = sections[table][4] + offset
        return data[begin : data.index(b"\0", begin)].decode("ascii", "replace")

    def entries(kind: int, form: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        for section in sections:
            if section[1] == kind:
                for offset in range(section[4], section[4] + section[5], struct.calcsize(form)):
                    yield section[6], struct.unpack_from(form, data, offset)

    needed = [text(table, value) for table, (tag, value) in entries(SECTION_DYNAMIC, "<QQ") if tag == NEEDED]
    # name, info, other, section (0: undefined), value, size
    undefined = [text(table, one[0]) for table, one in entries(SECTION_SYMBOLS, "<IBBHQQ") if one[0] and one[3] == 0]
    return needed, undefined
