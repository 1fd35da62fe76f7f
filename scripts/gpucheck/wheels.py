"""Packages that come along as wheels, for a machine without a network: unpacked into a folder that goes away."""

from __future__ import annotations

import platform
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpucheck.base import Finding

#: What each part needs, by the packages' names, in wheels for the machine's own Python. What that has already need not
#: be carried.
CARRIED = {
    "drivers, ptx, kernels, bandwidth, pipeline": "numpy, cuda-bindings (cuda-pathfinder) of the driver's major "
    "version",
    "the same through PyCUDA": "pycuda (pytools, platformdirs, siphash24, typing-extensions, mako, markupsafe): it has "
    "no wheels, 'pip wheel pycuda' beside a CUDA toolkit of the same major version makes them",
    "nvdec, besides": "av 18.1 or newer, numba (llvmlite), opencv-python-headless",
    "nvenc, besides": "av 18.1 or newer",
    "ort, besides": "onnx (protobuf, ml-dtypes, typing-extensions), jsonschema (attrs, referencing, rpds-py, "
    "jsonschema-specifications), onnxruntime-gpu 1.27 or newer for CUDA 13 (flatbuffers, packaging); CUDA's libraries "
    "and cuDNN are those of PyTorch's packages where these are installed, else nvidia-cudnn-cu13, nvidia-cublas, "
    "nvidia-cuda-nvrtc, nvidia-cuda-runtime, nvidia-cufft, nvidia-curand, nvidia-nvjitlink",
    "tensorrt, besides": "what ort needs (plain onnxruntime will do), onnxsim, numba (llvmlite), "
    "opencv-python-headless, tensorrt-cu13 (tensorrt-cu13-bindings, tensorrt-cu13-libs)",
    "pipeline, ort and tensorrt are faster with": "numba (llvmlite), else the NumPy references stand in for the "
    "processor's kernels",
}

HELP = """\
wheels to carry to a machine without a network (in brackets what they need themselves):
{list}

  Download them for the machine's Python, e.g.
    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 -d wheels av
  A wheel may come in pieces, for instance where a transfer has a limit:
    split -d -b 50M onnxruntime_gpu-X.whl onnxruntime_gpu-X.whl.
  makes X.whl.00, X.whl.01 and so on. They are joined, in whichever of the folders given they are: keep the pieces of
  earlier transfers in a folder of their own outside the checkout and name both, --wheels wheels ../earlier
"""

#: Packages of which another is the better one.
_SAME = {"onnxruntime": "onnxruntime-gpu", "opencv-python": "opencv-python-headless"}

_PIECE = re.compile(r"(?P<wheel>.+\.whl)\.(?P<number>\d+)")


def help_text() -> str:
    import textwrap

    wrapper = textwrap.TextWrapper(
        118, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    )
    lines = [line for what, names in CARRIED.items() for line in wrapper.wrap(f"{what}: {names}")]
    return HELP.format(list="\n".join(lines))


@dataclass(frozen=True)
class Carried:
    """A wheel: one file, or the ``pieces`` of it in order."""

    name: str
    pieces: tuple[Path, ...]


class Broken(Exception):
    """A wheel that cannot be used; says why."""


def find(folders: Sequence[Path]) -> list[Carried]:
    """The wheels in some folders, each name once (the first folder's counts), pieces put together."""
    whole: dict[str, Path] = {}
    pieces: dict[str, dict[int, Path]] = {}
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if path.suffix == ".whl":
            whole.setdefault(path.name, path)
        elif match := _PIECE.fullmatch(path.name):
            pieces.setdefault(match["wheel"], {}).setdefault(int(match["number"]), path)
    found = [Carried(name, (path,)) for name, path in whole.items()]
    found += [Carried(n, tuple(p[i] for i in sorted(p))) for n, p in pieces.items() if n not in whole]
    return sorted(found, key=lambda carried: carried.name)


def unpack(folders: Sequence[Path], target: Path) -> Iterator[Finding]:
    """Every wheel that fits this Python, side by side, as an installation would lay them out."""
    target.mkdir(parents=True, exist_ok=True)
    good: dict[str, str] = {}
    found = find(folders)
    packages = {_key(carried.name) for carried in found}
    for carried in found:
        package, version = carried.name.split("-")[:2]
        key = _key(carried.name)
        try:
            if key in good:
                raise Broken(f"not used: {package} {good[key]} is there as well")
            if key in _SAME and (rival := _SAME[key]) in packages:
                raise Broken(f"not used: {rival} is there as well, and both are imported under one name")
            _check_fit(carried.name)
            _unpack(carried, target)
        except Broken as broken:
            yield Finding("wheels", carried.name, "failed", str(broken))
        else:
            good[key] = version
    words = ", ".join(f"{name} {version}" for name, version in good.items()) or "none that fits"
    yield Finding("wheels", "unpacked", "timed", words, dict(good))


def _key(wheel: str) -> str:
    return re.sub(r"[-_.]+", "-", wheel.partition("-")[0]).lower()


def _unpack(carried: Carried, target: Path) -> None:
    path = carried.pieces[0]
    if path.suffix != ".whl":
        numbers = [int(piece.name.rpartition(".")[2]) for piece in carried.pieces]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
            raise Broken(f"of its pieces only {', '.join(map(str, numbers))} are there")
        path = target.parent / carried.name
        with path.open("wb") as joined:
            for piece in carried.pieces:
                joined.write(piece.read_bytes())
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(target)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise Broken(f"cannot be read, or its last piece is missing ({error})") from None
    finally:
        if path is not carried.pieces[0]:
            path.unlink()
    _merge_data(target)


def _merge_data(target: Path) -> None:
    """NAME.data/purelib and platlib belong beside the others; its scripts and headers are for installations."""
    for folder in [*target.glob("*.data/purelib"), *target.glob("*.data/platlib")]:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)


def _check_fit(name: str) -> None:
    """Raises Broken for a wheel of another Python or machine (the tags are those of PEP 425)."""
    parts = name.removesuffix(".whl").split("-")
    if len(parts) < 5:
        raise Broken("its name is none of a wheel: NAME-VERSION-PYTHON-ABI-PLATFORM.whl")
    python, abi, machine = parts[-3:]
    here = sys.version_info[:2]
    own = f"cp{here[0]}{here[1]}"
    older = [int(tag[3:]) <= here[1] for tag in python.split(".") if re.fullmatch(r"cp3\d+", tag)]
    if not ({"py3", own} & set(python.split(".")) or ("abi3" in abi.split(".") and any(older))):
        raise Broken(f"made for {python}, and this is Python {here[0]}.{here[1]}")
    if own in python.split(".") and "t" in abi.removeprefix(own):
        raise Broken(f"made for a Python without its lock ({abi})")
    if machine != "any" and not machine.endswith(platform.machine()):
        raise Broken(f"made for {machine}, and this is {platform.machine()}")
