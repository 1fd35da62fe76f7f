"""The kernels' tests once more, in a process where AddressSanitizer and UndefinedBehaviorSanitizer watch them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_shim import compiler, library, need_compiler

HERE = Path(__file__).resolve().parent

OVERRUN = """
import sys
from cuda_shim import HostKernels, library
from cuda_shim.memory import HostPicture, Memory
from segcam.geometry import fit
from segcam.kernels.cuda.picture import BLOCK, PictureKind
from segcam.kernels.cuda.preprocess import PreprocessPlan

kind = PictureKind("nv12", 16, 32)
plan = PreprocessPlan(kind, fit((16, 32), (16, 32)), (16, 32), (0, 0, 0), (1, 1, 1), rgb=True)
picture, tables = HostPicture(kind, (0, 0), (0, 0)), Memory.of(plan.tables.data)
out = Memory(plan.nbytes - int(sys.argv[1]))
HostKernels(library(sanitize=True)).launch(
    plan.kernel, plan.grid, BLOCK, plan.arguments(tables.address, picture.device, out.address)
)
print("done")
"""


@pytest.fixture(scope="module")
def environment(repository: Path) -> dict[str, str]:
    """Python with the sanitizers' runtime, which has to be loaded before everything else."""
    need_compiler()
    runtimes = []
    for name in ("libasan.so", "libubsan.so"):
        said = subprocess.run([str(compiler()), f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        runtime = Path(said.stdout.strip())
        if not runtime.is_absolute():
            pytest.skip(f"{compiler()} has no {name}: apt install libasan8 libubsan1, or the version of the compiler")
        runtimes.append(str(runtime.resolve()))
    library(sanitize=True)
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "SEGCAM_SANITIZED_KERNELS": "1",
        "PYTHONPATH": os.pathsep.join([str(repository / "app"), str(repository / "tests" / "support")]),
    }


@pytest.mark.parametrize("missing", [0, 1])
def test_a_byte_too_few_is_seen(environment: dict[str, str], missing: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OVERRUN, str(missing)], env=environment, capture_output=True, text=True, check=False
    )
    if missing:
        assert done.returncode != 0 and "AddressSanitizer: heap-buffer-overflow" in done.stderr, done.stderr
    else:
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_preprocess_kernel.py", "test_postprocess_kernel.py"])
def test_the_kernels_are_clean(environment: dict[str, str], repository: Path, file: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / file]
    done = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "skipped" not in done.stdout
