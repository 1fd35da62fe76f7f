from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import standin_cuda

from segcam.cli import doctor, machine
from segcam.cli.probes import PACKAGES, Check, look

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for checks in json.loads(done.stdout)["checks"].values() for check in checks}


def fake(folder: Path, name: str, code: str) -> dict[str, str]:
    """A package that stands before the real one on the path; the environment that puts it there."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ["SEGCAM_TEST_APP"]])}


@pytest.fixture(autouse=True)
def _app(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setenv("SEGCAM_TEST_APP", str(repository / "app"))


def test_this_machine_is_ready(run_segcam: Run) -> None:
    """The tests themselves need all that the CPU path needs, so here the answer must be yes."""
    done = run_segcam("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["works"] is True
    found = rows(done)
    import numpy

    assert found["NumPy"] == {"name": "NumPy", "state": "ok", "found": numpy.__version__, "fix": ""}
    for name in ("CPU", "Memory", "OpenVINO devices", "Numba cache", "h264 decoder", "libx264 encoder", "TensorRT"):
        assert name in found
    assert found["OpenVINO devices"]["found"].startswith("CPU: ")
    assert found["Display"]["state"] == "optional"
    for check in found.values():
        assert check["state"] in ("ok", "missing", "optional")
        assert check["found"]


def test_the_plain_table_says_the_same(run_segcam: Run) -> None:
    done = run_segcam("doctor")
    assert done.returncode == 0
    assert "Segcam can run here" in done.stdout.splitlines()[-1]
    assert any(line.split()[:2] == ["ok", "NumPy"] for line in done.stdout.splitlines())
    assert "-> Write a file instead: --output out.mp4" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("raise RuntimeError('not this CPU')", "cannot be imported: RuntimeError: not this CPU"),
        ("import not_there_at_all", "cannot be imported: ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("import os; os.abort()", "ends the process that imports it (SIGABRT)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ends the process that imports it (SIGILL)"),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("import os; os._exit(0)", "gave no answer that can be read"),
    ],
)  # fmt: skip
def test_a_broken_package_is_one_row(run_segcam: Run, tmp_path: Path, code: str, found: str) -> None:
    done = run_segcam("doctor", "--json", env=fake(tmp_path, "numba", code))
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["works"] is False
    row = rows(done)["Numba"]
    assert row["state"] == "missing"
    assert row["found"].startswith(found)
    assert "pip install --force-reinstall numba" in row["fix"]
    assert rows(done)["NumPy"]["state"] == "ok"


def test_a_missing_package_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = doctor.look_apart
    gone = Check("PyAV", "missing", "not installed", "python -m pip install av")
    monkeypatch.setattr(doctor, "look_apart", lambda package: [gone] if package.title == "PyAV" else real(package))
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "-> python -m pip install av" in out
    assert out.splitlines()[-1].startswith("Segcam cannot run yet: PyAV.")


def test_one_runtime_is_enough(run_segcam: Run, tmp_path: Path) -> None:
    environment = fake(tmp_path, "openvino", "raise ImportError('no')")
    done = run_segcam("doctor", "--json", env=environment)
    assert done.returncode == 0
    assert rows(done)["OpenVINO"]["state"] == "optional"
    fake(tmp_path, "onnxruntime", "raise ImportError('no')")
    done = run_segcam("doctor", "--json", env=environment)
    assert done.returncode == 1
    assert rows(done)["OpenVINO"]["state"] == rows(done)["ONNX Runtime"]["state"] == "missing"


def test_a_package_that_hangs_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    (tmp_path / "av.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_TIMEOUT_S", 1.0)
    monkeypatch.chdir(tmp_path)
    (check,) = doctor.look_apart(PACKAGES["PyAV"])
    assert (check.state, check.found) == ("missing", "no answer within 1 s of being imported")


def test_not_installed_is_told_from_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (check,) = look("TensorRT")
    assert (check.state, check.fix != "") == ("optional", True)


@pytest.mark.parametrize(
    ("gpu", "tensorrt", "bindings"),
    [
        (machine.Gpu(cuda=(13, 0), toolkit=True), "pip install tensorrt-cu13", "pip install cuda-bindings"),
        (machine.Gpu(cuda=(12, 4)), "pip install tensorrt-cu12", 'pip install "cuda-bindings<13"'),
        (machine.Gpu(cuda=None), "pip install tensorrt-cu13", "pip install cuda-bindings"),
        (machine.Gpu(cuda=(12, 6), jetson=True), "apt-get install -y nvidia-jetpack", "cuda-bindings<13"),
    ],
)
def test_advice_follows_the_driver(gpu: machine.Gpu, tensorrt: str, bindings: str) -> None:
    checks = [Check(name, "optional", "not installed") for name in ("TensorRT", "cuda-bindings", "PyCUDA")]
    for check in checks:
        doctor._advise(check, gpu)
    assert tensorrt in checks[0].fix
    assert bindings in checks[1].fix
    assert "cuda-bindings does the same job" in checks[2].fix
    assert ("CUDA toolkit" in checks[2].fix) is not gpu.toolkit
    assert all(("NVIDIA GPU only" in check.found) is (gpu.cuda is None and not gpu.jetson) for check in checks)


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_gpu_is_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA Test, 470.42.01, 24564 MiB, 8.9'")
    monkeypatch.setattr(machine, "_ask_driver", lambda: ((11, 4), 1))
    found = {check.name: check for check in machine.gpu().checks}
    assert found["GPU"].found == "NVIDIA Test, 24564 MiB, sm_89"
    assert "too old" in found["Driver"].found
    assert "525" in found["Driver"].fix
    assert found["CUDA"].found == "driver runs CUDA up to 11.4"


def test_a_failing_nvidia_smi_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, "echo 'NVIDIA-SMI has failed, a, b, c'; exit 9")
    monkeypatch.setattr(machine, "_ask_driver", lambda: (None, 0))
    found = {check.name: check for check in machine.gpu().checks}
    assert found["GPU"].state == "optional"
    assert "Driver" not in found


def test_the_verdict_names_the_gpu_only_when_all_of_it_is_there() -> None:
    gpu = [Check("GPU", "ok", "x"), Check("TensorRT", "ok", "11"), Check("cuda-bindings", "ok", "13")]
    works = Check("cuda-bindings works", "ok", "opens x")
    assert "and on the GPU" in doctor._verdict({"gpu": [*gpu, works]}, True)
    assert "and on the GPU" not in doctor._verdict({"gpu": gpu}, True)
    assert "and on the GPU" not in doctor._verdict({"gpu": [*gpu[:1], works]}, True)


@pytest.mark.parametrize(("title", "kind"), [("PyCUDA", "pycuda"), ("cuda-bindings", "cuda-python")])
def test_a_cuda_library_says_whether_it_opens_the_gpu(monkeypatch: pytest.MonkeyPatch, title: str, kind: str) -> None:
    gpu = standin_cuda.install(monkeypatch, (kind,), name="NVIDIA Test")
    package, works = look(title)
    assert (package.state, works.name, works.state) == ("ok", f"{title} works", "ok")
    assert works.found == "opens NVIDIA Test, 8.0 of 8.0 GiB free"
    assert not any(gpu.leftovers().values())
    gpu.fail("cuInit", error="CUDA_ERROR_NO_DEVICE")
    _, works = look(title)
    assert (works.state, "CUDA_ERROR_NO_DEVICE" in works.found, "nvidia-smi" in works.fix) == ("optional", True, True)


def test_video_on_the_gpu_has_rows_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    from segcam.sinks import device_pictures, encoder
    from segcam.sources import nvdec

    libraries = {"libcuda.so.1", "libnvcuvid.so.1"}
    monkeypatch.setattr(nvdec, "has_library", lambda name: name in libraries)
    monkeypatch.setattr(nvdec, "why_not", lambda: ("no video library", "Install it"))
    monkeypatch.setattr(encoder, "nvenc_problem", lambda *_: "this GPU has none")
    found = {check.name: check for check in look("PyAV")}
    assert (found["NVDEC"].state, found["NVDEC"].found) == ("optional", "no video library")
    assert found["NVDEC"].fix == "Install it. Until then the CPU decodes."
    assert (found["NVENC"].state, found["NVENC"].found) == ("optional", "this GPU has none")
    monkeypatch.setattr(nvdec, "why_not", lambda: None)
    monkeypatch.setattr(encoder, "nvenc_problem", lambda *_: None)
    found = {check.name: check for check in look("PyAV")}
    assert found["NVDEC"].state == found["NVENC"].state == "ok"
    for why, words in (("", "from the GPU's memory too"), ("an old PyAV", "from host memory only: an old PyAV")):
        monkeypatch.setattr(device_pictures, "why_not", lambda why=why: why)
        (row,) = (check for check in look("PyAV") if check.name == "NVENC")
        assert row.state == "ok" and words in row.found
    libraries.clear()
    assert not {"NVDEC", "NVENC"} & {check.name for check in look("PyAV")}


def test_the_coloured_table_shows_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    doctor._show_rich({"packages": [Check("[odd] name", "missing", "[red]text[/red]", "pip install 'a[b]'")]})
    out = capsys.readouterr().out
    for words in ("[odd] name", "[red]text[/red]", "pip install 'a[b]'", "missing"):
        assert words in out
