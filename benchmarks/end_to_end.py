"""A whole clip, end to end: Segcam against its own network and against a plain loop, in turn in one run.

    python benchmarks/end_to_end.py --engine model.onnx --source street.mp4 [--rounds 3] [--loops 2] [--json FILE]

Each round measures, one after the other: the network as exported (what any OpenVINO program gets from the file: same
precision, throughput hint, all requests in flight); the network only, as Segcam runs it; Segcam with ``null`` output
(class map and counts, nothing painted); Segcam with H.264 output; and the loop that one writes first: OpenCV read,
resize and normalise, ONNX Runtime, NumPy argmax, nearest enlargement, palette, ``addWeighted``, OpenCV write (mp4v).
Ratios are taken within a round; the medians of the rounds count.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from statistics import median
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import openvino as ov

from segcam import report
from segcam.bench import network_rate
from segcam.metrics import Metrics
from segcam.pipeline import Pipeline
from segcam.session import Network
from segcam.settings import Settings
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.factory import SinkOptions, make_sink
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source


def segcam_rate(network: Network, source_name: str, output: str, loops: int) -> float:
    """Frames per second from the source to the closed output, the first five frames left out."""
    source = make_source(source_name, SourceOptions(loops=loops))
    info = source.open()
    stats, metrics = RunStats(), Metrics(warmup=5)
    sink = make_sink(output, SinkOptions(), network.controls, print)
    sink.open(StreamInfo("", info.width, info.height, info.rate_hz, info.frames, False, network.classes), stats)
    segmenter = network.segmenter(overlay=sink.needs_overlay)
    Pipeline(source, segmenter, [sink], network.controls, stats, metrics).run()
    return metrics.rate_hz


def exported_rate(network: Network, seconds: float = 5.0) -> float:
    """Inferences per second of the ONNX file as it is, in the precision that Segcam chose."""
    core = ov.Core()
    hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[network.engine.info.precision]
    compiled = core.compile_model(
        network.settings.engine, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": hint}
    )
    requests = ov.AsyncInferQueue(compiled, network.engine.info.requests)
    feed = np.zeros(tuple(compiled.inputs[0].shape), np.float32)
    for _ in range(2 * len(requests)):
        requests.start_async([feed], share_inputs=True)
    requests.wait_all()
    begun, runs = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        requests.start_async([feed], share_inputs=True)
        runs += 1
    requests.wait_all()
    return runs / (time.perf_counter() - begun)


def plain_rate(network: Network, source_name: str, output: str, loops: int) -> float:
    """The same work in a loop of library calls; fp32, as ONNX Runtime computes on a CPU."""
    spec, (height, width) = network.engine.spec.input, network.engine.info.input_hw
    session = ort.InferenceSession(network.settings.engine, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    mean = np.array(spec.mean, np.float32)
    scale = np.float32(1) / np.array(spec.std, np.float32)
    palette = np.ascontiguousarray(network.classes.colors_rgb()[:, ::-1])
    writer, frames, begun = None, 0, 0.0
    for _ in range(loops):
        capture = cv2.VideoCapture(source_name)
        while True:
            good, bgr = capture.read()
            if not good:
                break
            picture = bgr if spec.color == "BGR" else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            fed = (cv2.resize(picture, (width, height)).astype(np.float32) - mean) * scale
            scores = session.run(None, {name: fed.transpose(2, 0, 1)[None]})[0][0]
            labels = scores.argmax(0).astype(np.uint8)
            labels = cv2.resize(labels, bgr.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            overlay = cv2.addWeighted(bgr, 0.5, palette[labels], 0.5, 0.0)
            if writer is None:
                writer = cv2.VideoWriter(output, cv2.VideoWriter.fourcc(*"mp4v"), 25.0, bgr.shape[1::-1])
            writer.write(overlay)
            frames += 1
            if frames == 5:
                begun = time.perf_counter()
        capture.release()
    assert writer is not None
    writer.release()
    return (frames - 5) / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument("--json", default="")
    given = parser.parse_args()

    network = Network.load(Settings(engine=given.engine), print, lambda line: None)
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.rounds):
            exported = exported_rate(network)
            before = network_rate(network.engine, seconds=5).rate_hz
            null = segcam_rate(network, given.source, "null", given.loops)
            h264 = segcam_rate(network, given.source, os.path.join(folder, "ours.mp4"), given.loops)
            after = network_rate(network.engine, seconds=5).rate_hz
            plain = plain_rate(network, given.source, os.path.join(folder, "plain.mp4"), 1)
            network_only = 2 / (1 / before + 1 / after)
            rounds.append(
                {
                    "network_as_exported": exported,
                    "network_only": network_only,
                    "segcam_null": null,
                    "segcam_h264": h264,
                    "plain_loop": plain,
                }
            )
            print({key: round(value, 2) for key, value in rounds[-1].items()}, file=sys.stderr)

    def ratio(side: str, other: str) -> float:
        return round(median(r[side] / r[other] for r in rounds), 3)

    result: dict[str, Any] = {
        "command": "python benchmarks/end_to_end.py --engine {engine} --source {source}",
        "engine": os.path.basename(given.engine),
        "source": os.path.basename(given.source),
        "environment": report.environment(),
        "runtime": network.engine.info.line(),
        "rounds": given.rounds,
        "median_hz": {key: round(median(r[key] for r in rounds), 2) for key in rounds[0]},
        "null_share_of_network_only": ratio("segcam_null", "network_only"),
        "h264_share_of_network_only": ratio("segcam_h264", "network_only"),
        "null_share_of_network_as_exported": ratio("segcam_null", "network_as_exported"),
        "h264_share_of_network_as_exported": ratio("segcam_h264", "network_as_exported"),
        "h264_against_plain_loop": ratio("segcam_h264", "plain_loop"),
        "all_rounds_hz": [{key: round(value, 2) for key, value in r.items()} for r in rounds],
    }
    for path in filter(None, ("-", given.json)):
        report.write_json(result, path)


if __name__ == "__main__":
    main()
