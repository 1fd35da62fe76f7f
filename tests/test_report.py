from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcam import report
from segcam.bench import combined, network_rate
from segcam.engines.base import EngineInfo
from segcam.errors import SinkError
from segcam.metrics import Metrics, Series, Summary

ENGINE = EngineInfo(
    model="tiny.onnx",
    runtime="OpenVINO",
    version="1.2",
    device="CPU, a chip",
    precision="bf16",
    threads=2,
    requests=3,
    input_shape=(1, 3, 64, 128),
    output_shape=(1, 16, 32, 3),
    output_layout="NHWC",
    head="Resize",
    spec="beside",
)
SOURCE = {"description": "clip.mp4 (h264)", "width": 640, "height": 360, "rate_hz": 25.0, "live": False}
RUN = {"outputs": ["out.mp4", "null"], "queue": "lossless", "warmup": 2, "alpha": 0.5, "load_s": 1.0}


def measured(stages: dict[str, float], interval_s: float = 0.1, frames: int = 12) -> Metrics:
    now = [0.0]
    metrics = Metrics(2, lambda: now[0])
    for index in range(frames):
        now[0] += interval_s
        for name, value_ms in stages.items():
            metrics.record(name, index, value_ms)
        metrics.finish_frame()
    return metrics


def summary(value_ms: float) -> Summary:
    series = Series()
    series.add(value_ms)
    return series.summary()


def network(rate_hz: float) -> report.NetworkRate:
    return report.NetworkRate(rate_hz, 100, summary(3e3 / rate_hz))


STAGES = {"latency": 60.0, "write video": 4.0, "decode": 3.0, "postprocess": 2.0, "preprocess": 1.0, "inference": 50.0}


def test_network_only_and_end_to_end_stand_apart() -> None:
    made = report.build(ENGINE, SOURCE, RUN, measured(STAGES), network(20.0))
    assert made["network_only_hz"] == 20.0
    assert made["end_to_end_hz"] == pytest.approx(10.0)
    assert made["end_to_end_share"] == 0.5
    page = report.text(made)
    assert "network only     20.00 frames/s   (100 inferences)" in page
    assert "end to end       10.00 frames/s   (12 frames, 50% of network only)" in page


def test_a_run_that_did_not_measure_the_network_claims_nothing_about_it() -> None:
    made = report.build(ENGINE, SOURCE, RUN, measured(STAGES))
    assert not {"network_only_hz", "end_to_end_share", "bound"} & set(made)
    page = report.text(made).split("The first")[0]
    assert "network only" not in page
    assert "bound by" not in page


def test_stages_come_in_the_order_of_the_work_with_all_their_figures() -> None:
    made = report.build(ENGINE, SOURCE, RUN, measured(STAGES), network(20.0))
    order = ["decode", "preprocess", "inference", "postprocess", "write video", "latency"]
    assert list(made["stages_ms"]) == order
    assert made["stages_ms"]["decode"] == {
        "count": 10, "mean": 3.0, "p50": 3.0, "p90": 3.0, "p95": 3.0, "p99": 3.0, "maximum": 3.0,
    }  # fmt: skip
    lines = report.text(made).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("stage (ms)"))
    assert lines[head].split()[2:] == ["mean", "p50", "p90", "p95", "p99", "max"]
    assert [line.rsplit(None, 6)[0] for line in lines[head + 1 : head + 7]] == order


def test_drops_environment_engine_and_glossary_are_on_the_page() -> None:
    metrics = measured(STAGES)
    metrics.drop("segmenter busy", 4)
    metrics.drop("output busy: write video", 1)
    page = report.text(report.build(ENGINE, SOURCE, RUN, metrics, network(20.0)))
    for words in (
        "dropped              5   (4 segmenter busy; 1 output busy: write video)",
        "tiny.onnx 1x3x64x128 on OpenVINO 1.2 (CPU, a chip), bf16, 3 in flight, head cut (Resize)",
        "clip.mp4 (h264), 640x360",
        "out.mp4, null; queue lossless",
        "cores, load",
        "Python 3.",
        "The first 2 frames are not counted.",
    ):
        assert words in page
    for term in report.GLOSSARY:
        assert f"{term}: " in page


@pytest.mark.parametrize(
    ("stages", "rate_hz", "words"),
    [
        ({}, 20.0, "the network: 50.0 ms a frame"),
        ({"decode": 70.0}, 20.0, "the source (decode): 70.0 ms a frame"),
        ({"preprocess": 40.0, "postprocess": 30.0}, 20.0, "the segmenter thread (preprocess and postprocess): 70.0"),
        ({"write video": 80.0}, 20.0, "the output (write video): 80.0 ms a frame"),
        # Three inferences run at once, each takes 3 x 10 ms: it is the throughput that counts.
        ({"inference": 30.0, "decode": 12.0}, 100.0, "the source (decode): 12.0 ms a frame"),
    ],
)
def test_what_bounds_is_what_is_busy_longest(stages: dict[str, float], rate_hz: float, words: str) -> None:
    assert report.build(ENGINE, SOURCE, RUN, measured(stages), network(rate_hz))["bound"].startswith(words)


GPU = {"upload": 0.4, "preprocess": 0.1, "inference": 2.0, "postprocess": 0.2, "download": 0.3, "host": 0.5}


@pytest.mark.parametrize(
    ("stages", "enqueue_ms", "words"),
    [
        ({}, 0.1, "the GPU (preprocess, network, postprocess): 1.3 ms a frame"),
        ({"upload": 3.0}, 0.1, "copies to the GPU (upload): 3.0 ms a frame (--decode nvdec"),
        ({"download": 3.0}, 0.1, "copies from the GPU (download): 3.0 ms a frame (--encode nvenc, or --output null"),
        ({"decode": 5.0}, 0.1, "the source (decode): 5.0 ms a frame (--decode nvdec decodes on the GPU"),
        # The thread that queues copies as well.
        ({"host": 2.9}, 2.5, "queueing the network's work, and copying (host): 2.9 ms a frame (a CUDA graph queues"),
        ({"host": 2.9}, 0.9, "the segmenter thread (host: copying"),
        # As a graph it is queued by one call, and the network's own rate is the graph's.
        ({"host": 2.9, "gpu": 2.0}, 2.5, "the segmenter thread (host: copying"),
        ({"gpu": 2.0}, 2.5, "the GPU (preprocess, network, postprocess): 1.1 ms a frame"),
        ({"write video": 8.0}, 0.1, "the output (write video): 8.0 ms a frame (--output null shows"),
        (
            {"host": 4.0},
            0.1,
            "the segmenter thread (host: copying into and out of pinned memory, and queueing): 4.0 ms",
        ),
    ],
)
def test_what_bounds_on_a_gpu(stages: dict[str, float], enqueue_ms: float, words: str) -> None:
    rate = report.NetworkRate(1000.0, 100, summary(1.0), enqueue_ms, 1200.0)
    made = report.build(ENGINE, SOURCE, RUN, measured({**GPU, **stages}), rate)
    assert made["bound"].startswith(words)
    assert (made["network_only_enqueue_ms"], made["network_only_graph_hz"]) == (enqueue_ms, 1200.0)
    assert "with a graph   1200.00 frames/s" in report.text(made)
    assert list(made["stages_ms"])[-1] in ("host", "write video")
    assert made["end_to_end_share"] == pytest.approx(10 / (1200 if "gpu" in stages else 1000), abs=1e-3)


def test_a_short_run_that_was_all_graphs_was_on_a_gpu() -> None:
    made = report.build(
        ENGINE, SOURCE, RUN, measured({"gpu": 2.0, "host": 3.0}), report.NetworkRate(900.0, 9, summary(1))
    )
    assert made["bound"].startswith("the segmenter thread (host: ")


def test_why_there_is_no_graph_is_said() -> None:
    rate = report.NetworkRate(1000.0, 100, summary(1.0), 2.5, no_graph="the library has none")
    made = report.build(ENGINE, SOURCE, RUN, measured({**GPU, "host": 2.9}), rate)
    assert made["network_only_no_graph"] == "the library has none" and "network_only_graph_hz" not in made
    assert "one call; here there is none: the library has none)" in made["bound"]
    assert "with a graph      none: the library has none" in report.text(made)
    later = dataclasses.replace(rate, no_graph="")
    assert combined(rate, later).no_graph == combined(later, rate).no_graph == "the library has none"


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_a_run_too_short_to_measure_is_a_report_all_the_same(frames: int) -> None:
    made = report.build(ENGINE, SOURCE, RUN, measured(STAGES, frames=frames), network(20.0))
    assert (made["frames"], made["end_to_end_hz"], made["stages_ms"]) == (frames, 0.0, {})
    assert f"({frames} frames, 0% of network only)" in report.text(made)
    json.dumps(made, allow_nan=False)


def test_json_to_a_file_is_the_whole_report(tmp_path: Path) -> None:
    made = report.build(ENGINE, SOURCE, RUN, measured(STAGES), network(20.0))
    path = tmp_path / "new" / "report.json"
    report.write_json(made, str(path))
    read = json.loads(path.read_text("utf-8"))
    assert read["engine"]["precision"] == "bf16"
    assert read["engine"]["input_shape"] == [1, 3, 64, 128]
    assert set(read) == set(made)
    assert list(path.parent.iterdir()) == [path], "no temporary file is left"


def test_json_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    report.write_json(report.build(ENGINE, SOURCE, RUN, measured(STAGES)), "-")
    assert json.loads(capsys.readouterr().out)["frames"] == 12


def test_json_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="report cannot be written to") as raised:
        report.write_json({}, str(tmp_path / "file" / "report.json"))
    assert "--json" in raised.value.hint


def test_two_measurements_count_by_their_inferences() -> None:
    both = combined(report.NetworkRate(100.0, 100, summary(1.0)), report.NetworkRate(50.0, 100, summary(2.0)))
    assert both.rate_hz == pytest.approx(200 / 3)
    assert both.runs == 200
    assert both.inference_ms.mean == 2.0


class CountingEngine:
    """Refuses what a real engine refuses: starting a busy slot, waiting for an idle one."""

    def __init__(self, requests: int) -> None:
        self.info = dataclasses.replace(ENGINE, requests=requests)
        self.inputs = [np.zeros((1, 3, 2, 2), np.float32) for _ in range(requests)]
        self.busy: set[int] = set()
        self.most = 0
        self.waited = 0

    def input(self, slot: int) -> Any:
        assert slot not in self.busy
        return self.inputs[slot]

    def start(self, slot: int) -> None:
        assert slot not in self.busy
        self.busy.add(slot)
        self.most = max(self.most, len(self.busy))

    def wait(self, slot: int) -> Any:
        self.busy.remove(slot)
        self.waited += 1
        return self.inputs[slot]

    def elapsed_ms(self, slot: int) -> float:
        return 5.0


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_network_rate_keeps_every_request_busy_and_leaves_none(requests: int) -> None:
    engine = CountingEngine(requests)
    for slot in range(requests):
        engine.input(slot)[...] = 1
    found = network_rate(engine, seconds=0.0)  # type: ignore[arg-type]
    assert found.runs == 10
    assert found.inference_ms.count == 10
    assert found.inference_ms.mean == 5.0
    assert engine.most == requests
    assert engine.busy == set()
    assert all((picture == 1).all() for picture in engine.inputs)
    # One round of warm-up, the first of the measurement, what is counted, and what was still in flight.
    assert engine.waited == requests + 1 + 10 + requests
