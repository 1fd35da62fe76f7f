"""``segcam bench``: the suite on the processor and on the stand-in GPU, its table, JSON and chart."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import standin_ort_cuda
from cuda_shim import HostKernels, library, need_compiler
from cuda_shim.on_machine import put_kernels_on
from plans import plan_of
from standin_cuda import install

from segcam.bench import device_rate
from segcam.cli.bench import SIZES
from segcam.cli.main import main
from segcam.engines.base import EngineOptions
from segcam.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine
from segcam.errors import CudaError
from segcam.kernels.cuda.driver import open_driver
from segcam.suite import measure as suite
from segcam.suite.chart import _cycle, chart
from segcam.suite.table import columns, engines, rate_words, table

QUICK = ("--seconds", "0", "--frames", "4", "--iterations", "3")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return main(["bench", "--suite", "--networks", "fast_scnn", "--sizes", "64x128", *QUICK, *arguments])


def read(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / "suite.json").read_text())["rows"]
    return rows


def test_the_suite_on_the_processor(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two sizes of one network; one more that cannot be is a row that says why."""
    assert run("--networks", "fast_scnn,fastseg-small", "--sizes", "64x128,96,160", "--precision", "fp32") == 2
    assert run("--networks", "fast_scnn,fastseg-small", "--sizes", "64x128,96x160", "--precision", "fp32") == 0
    out, err = capsys.readouterr()
    rows = read(here)
    assert [(row["network"], row["size"]) for row in rows] == [
        ("fast_scnn", [64, 128]), ("fast_scnn", [96, 160]), ("mobilev3small_f128", [64, 128]),
        ("mobilev3small_f128", [96, 160]),
    ]  # fmt: skip
    for row in rows[:2]:
        assert row["frames"] == 4 and row["network_only_runs"] >= 20 and row["end_to_end_hz"] > 0
        assert row["engine"]["input_shape"] == [1, 3, *row["size"]] and row["engine"]["precision"] == "fp32"
        assert {"preprocess", "inference", "postprocess", "latency"} <= set(row["stages_ms"])
        assert row["parameters"] > 1_000_000 and "drivers" not in row and "network_only_graph_hz" not in row
    assert all("at least 385x385" in row["problem"] for row in rows[2:])
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
    assert f"| fast_scnn | 64x128 | {rows[0]['gflops']:.1f} | {rate_words(rows[0]['network_only_hz'])} | " in lines[2]
    assert "not measured: fastseg networks take" in lines[4]
    assert "fast_scnn at 64x128 ..." in err and "wrote suite.png and suite.json" in err
    picture = cv2.imread(str(here / "suite.png"))
    assert picture.shape[1] == 1100
    assert sorted(path.name for path in here.iterdir()) == ["suite.json", "suite.png"]


def test_nothing_measured_is_no_success(here: Path) -> None:
    assert run("--networks", "fastseg-small") == 1
    assert "problem" in read(here)[0]


def test_json_to_stdout_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", "-", "--chart", "other.PNG") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"][0]["network"] == "fast_scnn" and "| fast_scnn |" in err
    assert [path.name for path in here.iterdir()] == ["other.PNG"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--networks", "fast_scn"), "fast_scnn"),
        (("--networks", " , "), "names none"),
        (("--sizes", "64"), "'64' is no size"),
        (("--sizes", ","), "names none"),
        (("--chart", "a.jpg"), "a.png"),
        (("--frames", "0"), "expected 1 or more"),
        (("--engine", "x.onnx"), "--networks and --sizes"),
        (("--size", "64,128"), "--networks and --sizes"),
        (("--suit",), "--suite"),
    ],
)
def test_wrong_usage(here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str) -> None:
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err
    assert not list(here.iterdir())


def test_a_place_that_cannot_be_written_is_said_before_the_work(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").touch()
    assert run("--json", "file/suite.json") == 1 and run("--chart", "file/suite.png") == 1
    assert "at 64x128" not in capsys.readouterr().err


def test_an_interruption_keeps_what_was_measured(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = suite.measure, []

    def measure(*arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(suite, "measure", measure)
    assert run("--sizes", "64x128,96x160") == 130
    assert len(read(here)) == 1 and (here / "suite.png").is_file()
    calls.append(None)
    del calls[:2]
    (here / "suite.json").unlink()
    assert run() == 130 and not (here / "suite.json").exists()


def test_without_suite_it_is_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    from segcam.cli import main as module

    seen: list[list[str]] = []
    monkeypatch.setattr(module, "main", lambda argv: seen.append(argv) or 7)  # type: ignore[func-returns-value]
    from segcam.cli import bench

    assert bench.main(["-e", "x.onnx"]) == 7 and seen == [["--benchmark", "-e", "x.onnx"]]


def test_sizes_are_the_promised_ones() -> None:
    assert SIZES == "1024x2048,512x1024"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tensorrt_face: Any) -> SimpleNamespace:
    """A GPU with TensorRT and ONNX Runtime, whose kernels compute; plans are made at once."""
    need_compiler()
    import segcam.building

    machine = tensorrt_face.machine
    put_kernels_on(machine, HostKernels(library()))
    monkeypatch.setattr(
        segcam.building, "cached_plan", lambda path, options, say, warn: plan_of(tensorrt_face.trt, path, options)
    )
    return SimpleNamespace(machine=machine, ort=standin_ort_cuda.install(monkeypatch, machine))


@pytest.mark.tensorrt("11.4.0.106")
@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime"])
def test_the_suite_on_a_gpu(here: Path, gpu: SimpleNamespace, runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both libraries in turn; graphs where library and runtime have them."""
    assert run("--runtime", runtime, "--device", "cuda:0", "--iterations", "7", "--frames", "40", "--no-rewrite") == 0
    (row,) = read(here)
    assert row["engine"]["device"] == "NVIDIA Stand-in" and row["network_only_runs"] == 14
    assert row["network_only_enqueue_ms"] > 0
    assert set(row["drivers"]) == {"pycuda", "cuda-python"}
    assert all(found["network_only_hz"] > 0 for found in row["drivers"].values())
    for measured, graph, why in (
        *((row["drivers"][name], "graph_hz", "no_graph") for name in ("pycuda", "cuda-python")),
        (row, "network_only_graph_hz", "network_only_no_graph"),
    ):
        assert (graph in measured) != bool(measured.get(why)), measured
    assert ("graph_hz" in row["drivers"]["cuda-python"]) == (runtime == "tensorrt")
    assert {"upload", "preprocess", "inference", "postprocess", "download"} <= set(row["stages_ms"])
    out = capsys.readouterr().out
    assert "NVIDIA Stand-in, 8192 MiB, compute capability 8.9, driver for CUDA " in out and row["gpu"]["index"] == 0
    for name in ("pycuda", "cuda-python"):
        assert f"| network only, {name} | with a graph, {name} |" in out
    if runtime == "onnxruntime":
        assert "cuda-python, no graph: ONNX Runtime's work cannot be captured into one" in out
        assert out.count("| none |") > 0


@pytest.mark.tensorrt("11.4.0.106")
def test_graph_and_plain_where_only_cuda_python_is_there(
    here: Path, gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "pycuda"]:
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    asked, real = [], suite.end_to_end

    def end_to_end(*arguments: Any, graphs: bool = True) -> Any:
        before = gpu.machine.counts["cuGraphLaunch"]
        made = real(*arguments, graphs=graphs)
        asked.append((graphs, gpu.machine.counts["cuGraphLaunch"] > before))
        return made

    monkeypatch.setattr(suite, "end_to_end", end_to_end)
    assert run("--runtime", "tensorrt", "--frames", "20", "--no-rewrite") == 0
    assert asked == [(True, True), (False, False)]
    (row,) = read(here)
    assert row["network_only_graph_hz"] > 0 and row["end_to_end_plain_hz"] > 0
    assert "PyCUDA is not installed" in row["drivers"]["pycuda"]["problem"]
    out = capsys.readouterr().out
    assert "| with a graph | end to end | end to end without graphs |" in out
    assert "pycuda: PyCUDA is not installed" in out


@pytest.mark.tensorrt("11.4.0.106")
def test_one_network_on_a_gpu(here: Path, gpu: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    """``segcam bench`` alone: network only by events, stages by events, and what bounds."""
    import segcam

    segcam.export("net.onnx", "FastSCNN", size=(64, 128), init="random", warn=lambda line: None)
    command = ["bench", "-e", "net.onnx", "-s", "test:size=128x64", "--frames", "6", "--warmup", "1", "--no-rewrite"]
    assert main([*command, "--device", "cuda:0", "--json", "report.json"]) == 0
    made = json.loads((here / "report.json").read_text())
    assert made["network_only_runs"] == 200 and made["network_only_enqueue_ms"] > 0
    assert made["engine"]["runtime"] == "TensorRT" and "upload" in made["stages_ms"] and "bound" in made
    out = capsys.readouterr().out
    assert "network only" in out and "(200 inferences)" in out and "upload, download: copies" in out


def test_rates_on_a_gpu_count_what_ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So many runs between so many events, after the warm-up, and nothing left; what can't be captured is an error."""
    import segcam

    machine = install(monkeypatch)
    face = standin_ort_cuda.install(monkeypatch, machine)
    path = tmp_path / "net.onnx"
    segcam.export(path, "FastSCNN", size=(64, 128), init="random", warn=lambda line: None)
    driver = open_driver("cuda-python")
    engine = OnnxRuntimeCudaEngine(path, EngineOptions(device="cuda", requests=1), pytest.fail, driver)
    engine.activate()
    before = (face.runs, machine.counts["cuEventRecord"], machine.leftovers())
    with driver.current():
        execution = engine.plan.execution(engine.info.input_shape)
        rate = device_rate(execution, driver, "float32", 7)
        execution.close()
        assert (rate.runs, rate.graph_hz) == (7, 0.0) and rate.rate_hz > 0 and rate.inference_ms.count == 7
        assert face.runs - before[0] == 2 + 20 + 7 and machine.counts["cuEventRecord"] - before[1] == 8
        assert machine.leftovers() == before[2] | {"pushed": 1}
        machine.fail("cuGraphInstantiate")
        execution = engine.plan.execution(engine.info.input_shape)
        with pytest.raises(CudaError, match="CUDA_ERROR_UNKNOWN"):
            device_rate(execution, driver, "float32", 7, graph=True)
        execution.close()
    engine.close()
    driver.close()
    assert not any(machine.leftovers().values())


ROW = {"network": "net|work", "size": [64, 128], "gflops": 1.5, "network_only_hz": 50.0, "end_to_end_hz": 25.0}


def test_bars_are_as_long_as_their_figures() -> None:
    """Also with no figure at all, a figure of 0, and a very large one."""
    picture = chart([ROW], "title")
    lengths = [int((picture == color).all(2).sum(1).max()) for color in ((138, 120, 24), (48, 122, 224))]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=3) and lengths[1] > 100
    for hz in (0.0, 1e-3, 1e7):
        assert chart([ROW | {"network_only_hz": hz}], "title").dtype == np.uint8
    assert chart([], "nothing").shape[1] == chart([{"network": "a", "size": [1, 1], "problem": "b"}], "c").shape[1]


def test_a_table_keeps_its_columns_whatever_is_in_it() -> None:
    page = table(
        [ROW, {"network": "b", "size": [1, 2], "problem": "two\nlines | and a bar"}],
        {"cpu": "chip", "cores": 2, "load_1min": 0.5, "segcam": "1", "python": "3"},
    )
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and {line.count("|") for line in lines} == {7}
    assert "net/work" in lines[2] and "two lines / and a bar" in lines[3]


def test_engines_that_differ_in_little_are_one_line() -> None:
    """How many layers stay in fp32 is another number for each network."""
    engine = {"runtime": "R", "version": "1", "device": "D", "precision": "bf16", "first_layers_fp32": 3}
    rows = [ROW | {"engine": engine}, ROW | {"engine": engine | {"first_layers_fp32": 8}}]
    assert engines(rows) == ["engine: R 1 (D), bf16, the first 3 to 8 layers fp32"]
    assert engines(rows[:1]) == ["engine: R 1 (D), bf16, the first 3 layers fp32"]
    other = engine | {"precision": "fp32", "first_layers_fp32": 0}
    assert engines([*rows, ROW | {"engine": other}])[1] == "engine: R 1 (D), fp32"


def test_each_bar_of_a_gpu_has_a_colour_of_its_own() -> None:
    row = ROW | {"network_only_graph_hz": 70.0, "end_to_end_plain_hz": 30.0, "drivers": {"a": {}, "b": {}, "c": {}}}
    names = [title for title, _ in columns([row])]
    assert names == ["network only", "with a graph", "end to end", "end to end without graphs"]
    assert len({color for color in _cycle(len(names))}) == len(names)


def test_a_long_title_ends_inside_the_picture() -> None:
    """Where several runtimes were used."""
    ink = (chart([ROW], "machine; " * 60)[:32] < 100).all(2).any(0)
    assert ink[:1000].sum() > 300 and not ink[-12:].any()
