"""Which library is taken, and what is said where there is none, no driver, no GPU, or a driver too old."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from real_bindings import cuda_bindings
from standin_cuda import Machine, install

from segcam.errors import CudaError, MissingDependencyError
from segcam.kernels.cuda import api
from segcam.kernels.cuda.driver import open_driver


@pytest.mark.parametrize(
    ("installed", "taken"),
    [(("pycuda", "cuda-python"), "pycuda"), (("pycuda",), "pycuda"), (("cuda-python",), "cuda-python")],
)
def test_auto_takes_pycuda_where_it_is(monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], taken: str) -> None:
    install(monkeypatch, installed)
    driver = open_driver()
    assert driver.name == taken
    driver.close()


@pytest.mark.parametrize("kind", ["auto", "pycuda", "cuda-python"])
def test_nothing_installed(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    install(monkeypatch, ())
    with pytest.raises(MissingDependencyError, match=r"not installed|neither is installed") as caught:
        open_driver(kind)
    assert "pip install cuda-bindings" in caught.value.hint and "cuda-bindings<13" in caught.value.hint


def test_an_unknown_library(machine: Machine) -> None:
    with pytest.raises(CudaError, match="'cupy' is no CUDA library"):
        open_driver("cupy")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["auto", "pycuda", "cuda-python"])
def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    install(monkeypatch, devices=0)
    with pytest.raises(CudaError, match=r"starting CUDA: .*CUDA_ERROR_NO_DEVICE") as caught:
        open_driver(kind)
    assert "nvidia-smi" in caught.value.hint and "--gpus all" in caught.value.hint


def test_a_gpu_by_number(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    machine = install(monkeypatch, devices=2)
    driver = open_driver(kind, 1)
    assert driver.device.index == 1
    with driver.current():
        assert machine.stack[-1].device == 1
    driver.close()
    for number in (2, -1):
        with pytest.raises(CudaError, match=f"GPU {number}: .*there are 2, numbered from 0") as caught:
            open_driver(kind, number)
        assert "nvidia-smi -L" in caught.value.hint
    assert not any(machine.leftovers().values())


def test_libcuda_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("cuda-python",)).installed = False
    with pytest.raises(CudaError, match=r"no NVIDIA driver here \(libcuda.so.1: Failed to dlopen") as caught:
        open_driver()
    assert caught.value.hint == api.NO_DRIVER_HINT and caught.value.name == ""


BROKEN = {
    "libcuda.so.1: cannot open shared object file: No such file or directory": "PyCUDA finds no NVIDIA driver",
    "/x/_driver.so: undefined symbol: cuCtxCreate_v4": "built for a newer CUDA than this machine's driver",
    "libboost.so: wrong ELF class": "PyCUDA cannot be loaded",
}


def break_pycuda(monkeypatch: pytest.MonkeyPatch, folder: Path, error: str) -> None:
    """A PyCUDA in ``folder`` whose import raises."""
    package = folder / "pycuda"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "driver.py").write_text(f"raise {error}\n")
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_a_pycuda_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, error: str) -> None:
    machine = install(monkeypatch, ("cuda-python",))
    break_pycuda(monkeypatch, tmp_path, f"{error}({text!r})")
    with pytest.raises(CudaError, match=BROKEN[text]) as caught:
        open_driver("pycuda")
    assert caught.value.hint
    said: list[str] = []
    driver = open_driver(warn=said.append)
    assert driver.name == "cuda-python"
    assert len(said) == 1 and BROKEN[text] in said[0] and said[0].endswith("using cuda-python")
    driver.close()
    with pytest.warns(RuntimeWarning, match="using cuda-python"):
        open_driver().close()
    assert not any(machine.leftovers().values())


def test_a_pycuda_that_does_not_load_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, ())
    break_pycuda(monkeypatch, tmp_path, "ImportError('libcuda.so.1: cannot open shared object file')")
    with pytest.raises(CudaError, match="PyCUDA finds no NVIDIA driver"):
        open_driver()


def test_bindings_for_a_newer_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = install(monkeypatch, ("cuda-python",), driver_version=(12, 4))
    with pytest.raises(
        CudaError, match=r"cuda-bindings 13\.5\.0 need a driver for CUDA 13; this one .* 12\.4"
    ) as caught:
        open_driver()
    assert "cuda-bindings<13" in caught.value.hint
    assert machine.contexts[0].retained == 0
    # PyCUDA is built for the machine's own CUDA.
    install(monkeypatch, ("pycuda",), driver_version=(12, 4))
    driver = open_driver()
    assert driver.device.driver_version == (12, 4)
    driver.close()


def test_a_function_that_the_driver_lacks(machine: Machine) -> None:
    driver = open_driver("cuda-python")
    machine.lacking.add("cuEventElapsedTime")
    with driver.current():
        one, stream = driver.event(), driver.stream()
        one.record(stream)
        stream.synchronize()
        with pytest.raises(CudaError, match=r"timing: the driver \(up to CUDA 13\.0\) lacks .*cuEventElapsedTime"):
            one.ms_since(one)
    driver.close()


@pytest.mark.parametrize("code", ["CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "CUDA_ERROR_UNKNOWN"])
def test_a_driver_in_a_bad_state(machine: Machine, kind: Any, code: str) -> None:
    machine.fail("cuInit", error=code)
    with pytest.raises(CudaError) as caught:
        open_driver(kind)
    assert caught.value.name == code and api.DESCRIPTIONS[code] in caught.value.message
    assert "nvidia-smi" in caught.value.hint


def test_every_hint_belongs_to_a_described_error() -> None:
    """PyCUDA tells descriptions only, so an error without one could never get its hint."""
    assert api._HINTS.keys() <= api.DESCRIPTIONS.keys()
    assert len(set(api.DESCRIPTIONS.values())) == len(api.DESCRIPTIONS)


ASK = """
import sys
from segcam.errors import CudaError
from segcam.kernels.cuda.driver import open_driver
try:
    open_driver("cuda-python")
except CudaError as error:
    print("CudaError", error.message)
    print(error.hint)
else:
    print("opened")
"""


@pytest.mark.parametrize("version", ["12.8.0", "12.9.*", "13.*"])
def test_the_real_bindings_on_a_machine_without_a_driver(repository: Path, version: str) -> None:
    folder = cuda_bindings(version)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={"PYTHONPATH": f"{repository / 'app'}:{folder}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.stdout.strip() == "opened":
        pytest.skip("this machine has a driver and a GPU")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CudaError there is no NVIDIA driver here (libcuda.so.1: "), done.stdout
    assert "nvidia-smi" in done.stdout
