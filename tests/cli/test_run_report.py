from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
PATTERN = "test:size=128x64,frames=40"


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's own rate over the fewest inferences instead of four seconds, twice."""
    from segcam import bench

    whole = bench.network_rate
    monkeypatch.setattr(bench, "network_rate", lambda engine, *more, **named: whole(engine, seconds=0.0))


def test_benchmark_in_a_process_of_its_own_prints_the_report(
    run_segcam: Callable[..., subprocess.CompletedProcess[str]], model: Path, tmp_path: Path
) -> None:
    done = run_segcam("-e", model, "-s", PATTERN, "--benchmark", "--json", "r.json")
    assert done.returncode == 0
    page = done.stdout
    for words in (
        "machine     ", "engine      tiny.onnx", "source      test:", "outputs     null; queue lossless",
        "network only  ", "end to end  ", "dropped              0", "bound by      ", "stage (ms)",
        "mean", "p50", "p90", "p95", "p99", "max",
        "decode ", "preprocess ", "inference ", "postprocess ", "write null ", "latency ",
        "The first 5 frames are not counted.", "network only: frames per second",
    ):  # fmt: skip
        assert words in page, words
    made = json.loads((tmp_path / "r.json").read_text())
    assert made["frames"] == 40
    assert made["network_only_runs"] >= 10
    assert made["network_only_hz"] > 0
    assert made["end_to_end_hz"] > 0
    assert made["stages_ms"]["inference"]["count"] == 35, "40 frames, 5 of them warm-up"
    assert made["engine"]["runtime"] == "OpenVINO"
    assert made["engine"]["precision"] in ("fp32", "bf16", "fp16")
    assert made["engine"]["requests"] >= 1
    assert made["run"]["warmup"] == 5
    assert {"cpu", "cores", "python", "segcam"} <= set(made["environment"])
    assert "measuring the network by itself" in done.stderr


@pytest.mark.parametrize("arguments", [("--json", "-"), ("--benchmark", "--json", "-")])
def test_json_to_stdout_is_all_there_is(segcam_here: Run, brief: None, arguments: tuple[str, ...]) -> None:
    done = segcam_here("-s", PATTERN, "-o", "null", *arguments)
    assert done.returncode == 0
    made = json.loads(done.stdout)
    assert made["frames"] == 40
    assert made["engine"]["precision"] == "fp32"
    assert ("network_only_hz" in made) == ("--benchmark" in arguments)
    assert ("end to end" in done.stderr) == ("--benchmark" in arguments), "the page goes where JSON does not"


def test_without_either_flag_stdout_stays_empty(segcam_here: Run) -> None:
    done = segcam_here("-s", PATTERN, "-o", "null")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("frames", "arguments", "warmup", "counted"),
    [(40, ("--warmup", "12"), 12, 28), (4, (), 2, 2), (1, (), 0, 1), (40, ("--warmup", "0"), 0, 40)],
)
def test_warm_up_is_left_out_and_said_as_it_was(
    segcam_here: Run, brief: None, frames: int, arguments: tuple[str, ...], warmup: int, counted: int
) -> None:
    """A clip shorter than the warm-up gives it up as far as needed, and the report says so."""
    done = segcam_here("-s", f"test:size=128x64,frames={frames}", "--benchmark", "--json", "r.json", *arguments)
    assert done.returncode == 0
    made = json.loads(Path("r.json").read_text())
    assert made["run"]["warmup"] == warmup
    assert f"The first {warmup} frames are not counted." in done.stdout
    assert {row["count"] for row in made["stages_ms"].values()} == {counted}


def test_outputs_of_one_kind_have_a_row_each(segcam_here: Run) -> None:
    done = segcam_here("-s", PATTERN, "-o", "a/", "-o", "labels:b", "-o", "null", "--json", "r.json")
    assert done.returncode == 0
    stages = json.loads(Path("r.json").read_text())["stages_ms"]
    rows = {name: row["count"] for name, row in stages.items() if name.startswith("write")}
    assert rows == {"write image": 35, "write image 2": 35, "write null": 35}


def test_a_report_that_cannot_be_written_is_refused_before_the_run(segcam_here: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = segcam_here("-s", PATTERN, "-o", "out.mp4", "--json", "file/r.json")
    assert done.returncode == 1
    assert "file is not a folder" in done.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_benchmark_with_an_output_measures_that_output(segcam_here: Run, brief: None) -> None:
    done = segcam_here("-s", PATTERN, "-o", "out.mp4", "--benchmark")
    assert done.returncode == 0
    assert "write video" in done.stdout
    assert "outputs     out.mp4" in done.stdout
