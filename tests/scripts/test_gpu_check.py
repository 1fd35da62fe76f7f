"""gpu_check: without a GPU every part says why; on the stand-in GPU all that can run there runs, and finds faults."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import standin_ort_cuda
from cuda_shim import HostKernels, library, need_compiler
from cuda_shim.on_machine import put_kernels_on
from standin_cuda import Machine, install

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import gpu_check  # noqa: E402
from gpucheck.base import Absent, Context, Finding, collect  # noqa: E402
from gpucheck.page import exit_code, page  # noqa: E402
from gpucheck.timing import per_run_ms  # noqa: E402
from segcam.frame import DevicePlanes  # noqa: E402
from segcam.kernels.cuda.driver import open_driver  # noqa: E402
from segcam.sources import factory, nvdec  # noqa: E402

Check = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Exit code and findings of some parts, in this process."""

    def run(*only: str, more: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
        report = tmp_path / "report.json"
        arguments = ["--json", str(report), "--quick", "--in-process", "--size", "64x128", "--runs", "4", *more]
        code = gpu_check.main([*arguments, "--only", *only])
        document = json.loads(report.read_text("utf-8"))
        assert document["complete"]
        return code, document["findings"]

    return run


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A GPU whose kernels compute; nothing of it is left over."""
    need_compiler()
    machine = install(monkeypatch)
    put_kernels_on(machine, HostKernels(library()))
    yield machine
    assert not any(machine.leftovers().values()), machine.leftovers()


def states(findings: list[dict[str, Any]]) -> dict[str, str]:
    return {finding["name"]: finding["state"] for finding in findings}


def test_one_command_without_a_gpu(tmp_path: Path) -> None:
    """As a person runs it, in processes: through to the end, each part saying why not, and the exit code, too."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, SCRIPTS / "gpu_check.py", "--json", "sub/report.json", "--quick"],
        cwd=tmp_path, capture_output=True, text=True, env=environment, check=False, timeout=300,
    )  # fmt: skip
    document = json.loads((tmp_path / "sub" / "report.json").read_text("utf-8"))
    if done.returncode != 3:
        pytest.skip("this machine has a GPU")
    assert document["complete"] and set(document["seconds"]) == set(gpu_check.PARTS)
    findings = document["findings"]
    assert {finding["part"] for finding in findings} == set(gpu_check.PARTS)
    for finding in findings:
        assert finding["part"] == "machine" or finding["state"] == "absent", finding
        assert finding["words"] and "Traceback" not in finding["words"]
    assert "Nothing could run on a GPU here." in done.stdout
    assert done.stdout.count("| absent |") == sum(finding["state"] == "absent" for finding in findings)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["report.json"]


@pytest.mark.parametrize("part", ["drivers", "ptx", "kernels"])
def test_both_libraries_on_the_stand_in(machine: Machine, check: Check, part: str) -> None:
    code, findings = check(part)
    assert code == 0 and {finding["state"] for finding in findings} <= {"ok", "timed", "absent"}, findings
    assert {name.split(":")[0] for name in states(findings)} == {"pycuda", "cuda-python"}
    if part == "kernels":
        assert all(finding["figures"]["launches"] > 30 for finding in findings) and len(findings) == 4
    if part == "drivers":
        assert states(findings)["cuda-python: graphs"] == "ok" and states(findings)["pycuda: graphs"] == "absent"


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
        "recorded scores: equal to the CPU's": "ok",
        "recorded scores: rate": "ok",
        "recorded scores: graph against plain": "ok",
    }
    assert findings[0]["figures"] == {"share": 1.0, "levels": findings[0]["figures"]["levels"]}


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
    assert found["tensorrt fp16 dilated: graph against plain"] == "ok"


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
    monkeypatch.setattr(nvdec, "has_library", lambda name: False)
    code, findings = check("nvdec")
    found = states(findings)
    assert found.pop("NVENC") == "absent" and len(found) == 2
    assert set(found.values()) == {"failed" if wrong else "ok"} and code == bool(wrong), findings
    assert all(finding["figures"]["frames"] == 8 for finding in findings[:2])


@pytest.mark.parametrize(
    ("says", "code", "state"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0, "ok"),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0, "ok"),
        ("========= ERROR SUMMARY: 3 errors", 9, "failed"),
        ("========= ERROR SUMMARY: 3 errors", 0, "failed"),
        ("it did not start", 1, "failed"),
    ],
)
def test_what_the_sanitizer_says_counts(
    machine: Machine, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, code: int, state: str
) -> None:
    program = tmp_path / "bin" / "compute-sanitizer"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    _, findings = check("sanitizer")
    assert states(findings) == dict.fromkeys(["memcheck", "racecheck", "synccheck", "initcheck"], state)
    assert says.removeprefix("========= ").partition(": ")[2] in findings[0]["words"]


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


def test_a_part_that_dies_or_hangs_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its process is another: what it had found before stays."""
    for script, words in (
        ("import os; os._exit(9)", "ended with 9"),
        ("import time; time.sleep(60)", "not done after"),
    ):
        fake = tmp_path / "fake.py"
        fake.write_text(
            "import json, sys\n"
            "report = sys.argv[sys.argv.index('--json') + 1]\n"
            "entry = dict(part='machine', name='a', state='ok', words='b', figures={})\n"
            "open(report, 'w').write(json.dumps({'findings': [entry]}))\n" + script
        )
        monkeypatch.setattr(gpu_check, "__file__", str(fake))
        report = tmp_path / "report.json"
        code = gpu_check.main(["--json", str(report), "--only", "machine", "--patience", "2"])
        findings = json.loads(report.read_text("utf-8"))["findings"]
        assert code == 1 and [finding["name"] for finding in findings] == ["a", "process"]
        assert words in findings[1]["words"] and "Something does not hold." in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["--size", "12"], ["--size", "10x10"], ["--only", "nothing"], ["--wheels", "."], ["--runs", "1"]]
)
def test_wrong_usage(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        gpu_check.main([*(["--json", "x.json"] if arguments else []), *arguments])
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_wheels_are_unpacked_and_seen_by_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "pycuda-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pycuda-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: pycuda\nVersion: 2026.9\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    report = tmp_path / "report.json"
    gpu_check.main(["--json", str(report), "--only", "machine", "--wheels", str(tmp_path / "wheels")])
    found = {entry["name"]: entry for entry in json.loads(report.read_text("utf-8"))["findings"]}
    assert found["packages"]["figures"]["pycuda"] == "2026.9"
    assert capfd.readouterr().out.count("timed  machine    packages:") == 1


def test_what_findings_amount_to(tmp_path: Path) -> None:
    ran, missing = Finding("kernels", "a", "ok", "b|c\nd"), Finding("ptx", "a", "absent", "")
    here, wrong = Finding("machine", "a", "timed", ""), Finding("machine", "a", "failed", "")
    assert exit_code([here, missing]) == 3 and exit_code([here, ran, missing]) == 0 and exit_code([ran, wrong]) == 1
    rows = [line for line in page([ran, missing, wrong]).splitlines() if line.startswith("|")]
    assert rows[2].startswith("| failed |") and {row.count("|") for row in rows} == {5}


def test_what_ends_a_part_is_told_from_what_is_missing(tmp_path: Path) -> None:
    context = Context("p", 0, (64, 128), True, 4, tmp_path)

    def part(error: Exception) -> Callable[[Context], Iterator[Finding]]:
        def run(context: Context) -> Iterator[Finding]:
            yield context.found("one", True, "")
            raise error

        return run

    for error, name, state in (
        (Absent("no x"), "the rest", "absent"),
        (ModuleNotFoundError("no y"), "the rest", "absent"),
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
