"""gpu_check: without a GPU every part says why; on the stand-in GPU all that can run there runs, and finds faults."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import standin_nvenc
import standin_ort_cuda
from cuda_shim import HostKernels, library, need_compiler
from cuda_shim.on_machine import put_kernels_on
from standin_cuda import Machine, install

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import gpu_check  # noqa: E402
from gpucheck.base import Absent, Context, Finding, collect  # noqa: E402
from gpucheck.timing import per_run_ms  # noqa: E402
from segcam.frame import DevicePlanes  # noqa: E402
from segcam.kernels.cuda.driver import open_driver  # noqa: E402
from segcam.sinks import device_pictures, encoder  # noqa: E402
from segcam.sources import factory, nvdec  # noqa: E402

Check = Callable[..., tuple[int, list[dict[str, Any]]]]


def states(findings: list[dict[str, Any]]) -> dict[str, str]:
    return {finding["name"]: finding["state"] for finding in findings}


def test_one_command_without_a_gpu(tmp_path: Path) -> None:
    """As a person runs it, in processes: through to the end, each part saying why not, and the exit code, too."""
    if nvdec.has_library("libcuda.so.1"):
        pytest.skip("this machine has a GPU")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, SCRIPTS / "gpu_check.py", "--quick"],
        cwd=tmp_path, capture_output=True, text=True, env=environment, check=False, timeout=300,
    )  # fmt: skip
    document = json.loads((tmp_path / "gpu_check.json").read_text("utf-8"))
    assert done.returncode == 3, done.stdout
    assert document["complete"] and set(document["parts"]) == set(gpu_check.PARTS)
    findings = document["findings"]
    assert {finding["part"] for finding in findings} == set(gpu_check.PARTS)
    for finding in findings:
        assert finding["part"] in ("machine", "resources") or finding["state"] == "absent", finding
        assert finding["words"] and "Traceback" not in finding["words"]
    assert "Nothing could run on a GPU here." in done.stdout and document["exit_code"] == 3
    assert done.stdout.count("| absent |") == sum(finding["state"] == "absent" for finding in findings)
    for target, outcome in document["targets"].items():
        assert target == "resources" or (outcome["state"] == "not measured" and outcome["why"]), outcome
        assert f"| {outcome['words']} | {outcome['state']} |" in done.stdout
    assert document["machine"]["host"]["cores"] and document["versions"]["numpy"] and not document["machine"]["gpu"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["gpu_check.json"]


@pytest.mark.parametrize("part", ["drivers", "ptx", "kernels"])
def test_both_libraries_on_the_stand_in(machine: Machine, check: Check, part: str) -> None:
    code, findings = check(part)
    assert code == 0 and {finding["state"] for finding in findings} <= {"ok", "timed", "absent"}, findings
    assert {name.split(":")[0] for name in states(findings)} == {"pycuda", "cuda-python"}
    if part == "kernels":
        assert all(finding["figures"]["launches"] > 30 for finding in findings) and len(findings) == 4
    if part == "drivers":
        # PyCUDA's are cuda-python's.
        assert states(findings)["cuda-python: graphs"] == states(findings)["pycuda: graphs"] == "ok"


def test_pycuda_alone_has_no_graphs(machine: Machine, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cuda"]:
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    code, findings = check("drivers")
    found = states(findings)
    assert code == 0 and found["cuda-python"] == found["pycuda: graphs"] == "absent" and found["pycuda: copies"] == "ok"


def test_bandwidth_measures_every_kernel(machine: Machine, check: Check) -> None:
    """The stand-in's clock says nothing: what counts is that all of it ran and has its figures."""
    code, findings = check("bandwidth")
    assert code == 0 and len(findings) == 13
    for finding in findings[1:]:
        assert {"us", "needed_us", "ratio", "megabytes", "same_size_copy_us"} <= set(finding["figures"])
        assert "trace" not in finding["figures"] and finding["figures"]["ratio"] > 0


@pytest.mark.parametrize("numba", [True, False])
def test_the_pipeline_equals_the_processor(
    machine: Machine, check: Check, numba: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Numba is not carried along, the references stand in for the processor's kernels."""
    if not numba:
        monkeypatch.setitem(sys.modules, "segcam.segmenters.cpu", None)
    code, findings = check("pipeline")
    assert code == 0, findings
    assert states(findings) == {
        "no network: rate": "timed",
        "recorded scores: equal to the CPU's": "ok",
        "recorded scores: rate": "timed",
        "recorded scores: graph against plain": "timed",
    }
    assert findings[0]["figures"]["rate_hz"] > 0 and findings[0]["figures"]["host_ms"] > 0
    assert findings[1]["figures"] == {"share": 1.0, "levels": findings[1]["figures"]["levels"]}


def test_networks_through_onnxruntime(machine: Machine, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    standin_ort_cuda.install(monkeypatch, machine)
    code, findings = check("ort")
    assert code == 0, findings
    found = states(findings)
    for precision in ("fp32", "fp16"):
        name = f"onnxruntime {precision}"
        assert found[f"{name} dilated: right"] == found[f"{name} dilated: equal to the CPU's"] == "ok"
        assert found[f"{name}: dilated against phases"] == "timed"
    assert found["onnxruntime fp32 dilated: graph against plain"] == "absent"


def test_missing_libraries_are_no_fault(machine: Machine, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime for a GPU whose CUDA libraries are not there: said, by the library's name."""
    standin_ort_cuda.install(monkeypatch, machine).loads = False
    code, findings = check("ort")
    assert code == 3 and states(findings) == {"all": "absent"}
    assert "libonnxruntime_providers_cuda.so" in findings[0]["words"]


@pytest.mark.tensorrt("11.4.0.106")
def test_networks_through_tensorrt(
    tensorrt_face: Any, check: Check, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_compiler()
    put_kernels_on(tensorrt_face.machine, HostKernels(library()))
    code, findings = check("tensorrt")
    assert code == 0, findings
    found = states(findings)
    assert found["tensorrt fp16 dilated: right"] == found["tensorrt fp16 dilated: equal to the CPU's"] == "ok"
    assert found["tensorrt fp16 dilated: graph against plain"] == "timed"
    assert found["tensorrt fp16 phases: network only, graph against plain"] == "timed"


class OnGpu:
    """A source whose pictures are said to lie on the GPU; every fourth has one sample that is ``wrong``."""

    def __init__(self, inner: Any, wrong: int) -> None:
        self._inner, self._wrong = inner, wrong
        self.open, self.close = inner.open, inner.close

    def read(self) -> Any:
        frame = self._inner.read()
        if frame is None:
            return None
        host = frame.to_host()
        planes = tuple(plane.copy() for plane in host.planes)
        if frame.index % 4 == 3:
            planes[0][5, 5] ^= self._wrong
        device = DevicePlanes("nv12", (256, 512), (256, 256), 0, lambda: (host.format, planes))
        return dataclasses.replace(frame, format="nv12", planes=(), device=device)


@pytest.mark.parametrize("wrong", [0, 64])
def test_decoded_pictures_are_compared(
    machine: Machine, check: Check, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    real = factory.make_source

    def make_source(name: str, options: Any, warn: Any) -> Any:
        if options.decode == "cpu":
            return real(name, options, warn)
        assert options.decode == "nvdec" and options.gpu is not None
        return OnGpu(real(name, dataclasses.replace(options, decode="cpu", gpu=None), warn), wrong)

    monkeypatch.setattr(factory, "make_source", make_source)
    monkeypatch.setattr(nvdec, "why_not", lambda: None)
    code, findings = check("nvdec")
    found = states(findings)
    assert len(found) == 4
    assert set(found.values()) == {"failed" if wrong else "ok"} and code == bool(wrong), findings
    assert all(finding["figures"]["frames"] == 8 for finding in findings)


@pytest.fixture
def nvenc(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> standin_nvenc.StandinNvenc:
    monkeypatch.setattr(nvdec, "has_library", lambda name: True)
    monkeypatch.setattr(device_pictures, "why_not", lambda: "")
    monkeypatch.setattr(encoder, "nvenc_problem", lambda wanted, size: None)
    return standin_nvenc.install(monkeypatch, machine)


HOST, DEVICE = "NVENC from host memory", "NVENC from the GPU's memory"


def test_encoded_pictures_come_back(nvenc: standin_nvenc.StandinNvenc, check: Check) -> None:
    code, findings = check("nvenc")
    assert code == 0 and states(findings) == {HOST: "ok", DEVICE: "ok"}, findings
    assert nvenc.taken >= 6 and all("all the same (lossless)" in finding["words"] for finding in findings)


def test_pictures_that_another_encoder_made_are_found(
    nvenc: standin_nvenc.StandinNvenc, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sample of one picture; and pictures that were not taken from where they were meant to."""
    real = standin_nvenc.CudaPicture.read

    def read(picture: standin_nvenc.CudaPicture) -> Any:
        made = real(picture)
        if picture.pts != 3:
            return made
        samples = made.to_ndarray(format="nv12")
        samples[9, 7] ^= 1
        wrong = av.VideoFrame.from_ndarray(samples, format="nv12")
        wrong.pts, wrong.time_base = made.pts, made.time_base
        return wrong

    monkeypatch.setattr(standin_nvenc.CudaPicture, "read", read)
    code, findings = check("nvenc")
    assert code == 1 and states(findings) == {HOST: "ok", DEVICE: "failed"}, findings
    nvenc.fails = ValueError("no such format")
    monkeypatch.setattr(standin_nvenc.CudaPicture, "read", real)
    code, findings = check("nvenc")
    assert code == 1 and "but from host memory" in findings[1]["words"] and "no such format" in findings[1]["words"]


def test_a_gpu_without_an_encoder_is_no_fault(
    nvenc: standin_nvenc.StandinNvenc, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "nvenc_problem", lambda wanted, size: "data-centre GPUs have none at all")
    code, findings = check("nvenc")
    assert code == 3 and states(findings) == {"all": "absent"} and "data-centre" in findings[0]["words"]
    monkeypatch.setattr(nvdec, "has_library", lambda name: False)
    assert "libnvidia-encode.so.1" in check("nvenc")[1][0]["words"]


def test_a_kernel_that_computes_something_else_is_found(machine: Machine, check: Check) -> None:
    """One bit of one byte, in one kernel."""
    real = machine.kernels["postprocess_float16_19"]

    def wrong(on: Machine, grid: Any, block: Any, args: list[bytes]) -> None:
        real(on, grid, block, args)
        labels = int.from_bytes(args[12], "little")
        if labels:
            on.bytes_at(labels, 1)[0] ^= 1

    machine.kernels["postprocess_float16_19"] = wrong
    code, findings = check("kernels")
    assert code == 1
    assert states(findings)["cuda-python: postprocess"] == "FAILED".lower()
    assert states(findings)["cuda-python: preprocess"] == "ok"
    assert any("'float16', 'nv12', 19" in words for words in findings[1]["figures"]["wrong"])


def test_a_call_that_fails_ends_its_part_alone(machine: Machine, check: Check) -> None:
    machine.fail("cuLaunchKernel")
    code, findings = check("kernels", "ptx")
    assert code == 1
    (unexpected,) = [finding for finding in findings if finding["name"] == "unexpected"]
    assert unexpected["part"] == "kernels" and "CudaError" in unexpected["words"] and unexpected["figures"]["trace"]
    assert [finding["state"] for finding in findings if finding["part"] == "ptx"] == ["ok"] * 4


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "12"],
        ["--size", "10x10"],
        ["--only", "nothing"],
        ["--wheels", "."],
        ["--wheels", "none"],
        ["--runs", "1"],
        ["--budget", "0"],
    ],
)
def test_wrong_usage(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(arguments)
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_what_ends_a_part_is_told_from_what_is_missing(tmp_path: Path) -> None:
    context = Context("p", 0, (64, 128), True, 4, tmp_path)

    def part(error: Exception) -> Callable[[Context], Iterator[Finding]]:
        def run(context: Context) -> Iterator[Finding]:
            yield context.found("one", True, "")
            raise error

        return run

    for error, name, state in (
        (Absent("no x"), "the rest", "absent"),
        (ModuleNotFoundError("no y", name="y"), "the rest", "absent"),
        (ImportError("liby.so: cannot open shared object file", name="y.core"), "the rest", "absent"),
        # Ours are there: what they lack is a fault.
        (ModuleNotFoundError("no z", name="segcam.z"), "unexpected", "failed"),
        (ImportError("cannot import name w", name="gpucheck.base"), "unexpected", "failed"),
        (ValueError("z"), "unexpected", "failed"),
        (AssertionError("w"), "unexpected", "failed"),
    ):
        found = collect(part(error), context, lambda finding: None)
        assert [(finding.name, finding.state) for finding in found] == [("one", "ok"), (name, state)]
        assert str(error) in found[1].words


@pytest.mark.parametrize("kind", ["pycuda", "cuda-python"])
def test_timed_work_runs_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    """Once before, then in five rounds; as a graph with cuda-python, behind other work with PyCUDA."""
    machine = install(monkeypatch)
    driver = open_driver(kind)
    with driver.current():
        stream, memory = driver.stream(), driver.allocate(512)
        took = per_run_ms(driver, [lambda: driver.copy(memory.address, memory.address + 256, 256, stream)], 6, stream)
        assert took > 0 and machine.streams.history.count("copy") == 1 + 6 * (6 if driver.has_graphs else 5)
        stream.close()
        memory.close()
    driver.close()
    assert not any(machine.leftovers().values())
