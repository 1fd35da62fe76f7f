"""The committed PTX: made from these sources, loadable by old drivers, without contractions, local memory or spills."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_shim import HostKernels

from segcam.errors import CudaError
from segcam.geometry import AxisMap, fit, nearest, taps
from segcam.kernels.cuda import ptx
from segcam.kernels.cuda.picture import DevicePicture, PictureKind
from segcam.kernels.cuda.postprocess import Grid, PostprocessPlan
from segcam.kernels.cuda.preprocess import PreprocessPlan

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import build_ptx

#: Volta, Turing, Ampere (two), Ada, Hopper.
ARCHITECTURES = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_89", "sm_90")
#: Blackwell, for which only newer assemblers make code.
NEWER = ("sm_100", "sm_120")
ASSEMBLER = ("nvidia-cuda-nvcc-cu12", "12.0.140")


@pytest.fixture(params=ptx.KERNEL_FILES)
def name(request: pytest.FixtureRequest) -> ptx.KernelFile:
    made: ptx.KernelFile = request.param
    return made


def entries(text: str) -> dict[str, list[int]]:
    """Bytes of the parameters of each kernel."""
    return {
        kernel: [int(bits) // 8 for bits in re.findall(r"\.param \.[usfb](\d+)", parameters)]
        for kernel, parameters in re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", text)
    }


def test_it_says_which_sources_it_is_from(name: ptx.KernelFile) -> None:
    first = ptx.read_ptx(name).decode().splitlines()[0]
    assert first == ptx.SOURCE_LINE + ptx.source_hash(name), "stale: run python scripts/build_ptx.py"


def test_building_it_again_gives_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    code = build_ptx.main(["--check"])
    said = capsys.readouterr()
    if code == 2:
        pytest.skip(f"NVRTC is not here: {said.err.strip()}")
    assert code == 0, said.out


def test_stale_ptx_is_seen_and_made_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    for path in build_ptx.FOLDER.glob("*.cu*"):
        shutil.copy(path, folder)
    monkeypatch.setattr(build_ptx, "FOLDER", folder)
    monkeypatch.setattr(build_ptx, "ROOT", tmp_path)
    monkeypatch.setattr(build_ptx, "KERNEL_FILES", ("preprocess",))
    if build_ptx.main([]) == 2:
        pytest.skip(f"NVRTC is not here: {capsys.readouterr().err.strip()}")
    assert build_ptx.main(["--check"]) == 0
    source = folder / "preprocess.cu"
    source.write_text(source.read_text(encoding="utf-8").replace("value > 0.0f", "value > 1.0f"), encoding="utf-8")
    capsys.readouterr()
    assert build_ptx.main(["--check"]) == 1
    assert re.search(r"preprocess.ptx: \d+ bytes, stale", capsys.readouterr().out)


def test_any_driver_from_cuda_12_0_takes_it(name: ptx.KernelFile) -> None:
    text = ptx.read_ptx(name).decode()
    assert re.findall(r"^\.version (.*)$", text, re.MULTILINE) == ["8.0"]
    assert re.findall(r"^\.target (.*)$", text, re.MULTILINE) == ["sm_70"]
    assert len(text) < 1 << 20


def test_nothing_is_contracted_flushed_or_kept_in_local_memory(name: ptx.KernelFile) -> None:
    """An operation with .rn is never fused with another, by no driver's compiler."""
    text = ptx.read_ptx(name).decode()
    arithmetic = re.findall(r"\b((?:add|sub|mul|mad|fma|div)\.[a-z.]*f32)\b", text)
    assert len(arithmetic) > 50
    assert set(arithmetic) <= {"add.rn.f32", "sub.rn.f32", "mul.rn.f32"}
    assert ".ftz" not in text
    assert ".local" not in text


def test_the_kernels_take_what_the_launchers_give(kernels: HostKernels) -> None:
    """Names and parameters' sizes of every kernel: launcher, PTX and host alike."""
    seen = {}
    for format in ("nv12", "i420", "bgr24", "p010", "i420p10"):
        kind = PictureKind(format, 32, 64)  # type: ignore[arg-type]
        planes = len(kind.rows)
        plan = PreprocessPlan(kind, fit((32, 64), (32, 64)), (32, 64), (0, 0, 0), (1, 1, 1), rgb=True)
        picture = DevicePicture(kind, (4096,) * planes, (256,) * planes)
        seen[plan.kernel] = plan.arguments(0, picture, 0)
    y, x = taps(32, 4, AxisMap()), taps(64, 8, AxisMap())
    for dtype in ("float32", "float16", "bfloat16"):
        for classes in (19, 20):
            scores = PostprocessPlan(Grid.nchw(dtype, classes, 4, 8), y, x)  # type: ignore[arg-type]
            seen[scores.kernel] = scores.arguments(0, 0)
    for dtype in ("int8", "uint8", "int32", "int64"):
        ids = PostprocessPlan(
            Grid.nchw(dtype, 1, 4, 8),  # type: ignore[arg-type]
            nearest(32, 4, AxisMap()),
            nearest(64, 8, AxisMap()),
        )
        seen[ids.kernel] = ids.arguments(0, 0)
    found = {}
    for name in ptx.KERNEL_FILES:
        found.update(entries(ptx.read_ptx(name).decode()))
    given = {
        kernel: [value.nbytes if isinstance(value, np.generic) else 8 for value in arguments]
        for kernel, arguments in seen.items()
    }
    assert found == given
    assert {kernel: kernels.sizes(kernel) for kernel in found} == found


def test_a_missing_file_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ptx.resources, "files", lambda package: tmp_path)
    with pytest.raises(CudaError, match=r"preprocess\.ptx is missing"):
        ptx.read_ptx("preprocess")


def no_spills(log: str, kernels: int) -> None:
    """``log`` is what ptxas -v says. Four blocks of 256 threads fit into the registers of a processor."""
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert spills == [("0", "0", "0")] * kernels, log
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", log)]
    assert len(registers) == kernels
    assert max(registers) <= 64


def assemble(assembler: Path, name: ptx.KernelFile, architecture: str, target: Path) -> None:
    """As a driver does when it loads the PTX."""
    command = [assembler, "-v", f"-arch={architecture}", build_ptx.FOLDER / f"{name}.ptx", "-o", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    no_spills(done.stderr, len(entries(ptx.read_ptx(name).decode())))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_assembles_without_spills(name: ptx.KernelFile, architecture: str, tmp_path: Path) -> None:
    """With the assembler of CUDA 12.0, from the package index."""
    try:
        folder = build_ptx.cached_wheel(*ASSEMBLER)
    except build_ptx.Missing as error:
        pytest.skip(str(error))
    assembler = folder / "nvidia" / "cuda_nvcc" / "bin" / "ptxas"
    assembler.chmod(0o755)
    assemble(assembler, name, architecture, tmp_path / "cubin")


@pytest.fixture(scope="session")
def toolkit() -> tuple[str, list[str]]:
    """nvcc, and what it makes code for."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc in PATH")
    listed = subprocess.run([compiler, "--list-gpu-code"], capture_output=True, text=True, check=False)
    return compiler, listed.stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", NEWER)
def test_newer_assemblers_take_it_without_spills(
    name: ptx.KernelFile, architecture: str, toolkit: tuple[str, list[str]], tmp_path: Path
) -> None:
    compiler, known = toolkit
    if architecture not in known:
        pytest.skip(f"{compiler} makes no code for {architecture}")
    found = subprocess.run(
        [compiler, "--dryrun", "-cubin", "-x", "cu", "-"], capture_output=True, text=True, check=False
    )
    top = re.search(r"^#\$ TOP=(.*)$", found.stderr, re.MULTILINE)
    assert top is not None, found.stderr
    assemble(Path(top[1].strip()) / "bin" / "ptxas", name, architecture, tmp_path / "cubin")


@pytest.mark.slow
def test_it_compiles_as_cuda_without_spills(
    name: ptx.KernelFile, toolkit: tuple[str, list[str]], tmp_path: Path
) -> None:
    """With a toolkit's own compiler, where one is installed, and no warning."""
    compiler, known = toolkit
    flags = ["-std=c++17", "-fmad=false", "-Xptxas", "-v", "-cubin", "-Werror", "all-warnings"]
    flags.append("-arch=sm_90" if "sm_90" in known else "-arch=sm_75")
    done = subprocess.run(
        [compiler, *flags, build_ptx.FOLDER / f"{name}.cu", "-o", tmp_path / "cubin"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    no_spills(done.stdout + done.stderr, len(entries(ptx.read_ptx(name).decode())))
