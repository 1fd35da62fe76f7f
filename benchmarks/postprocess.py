"""From scores to overlay: Segcam's kernels against the plain way, both sides in turn in one run.

    python benchmarks/postprocess.py --engine model.onnx --source street.mp4 [--rounds 15] [--json FILE]

The scores are those of the network on the source's first frame. The plain ways interpolate the scores to frame size
with OpenVINO (its Interpolate on all cores), then name the best class with NumPy or with OpenVINO (TopK), look colours
up and blend with OpenCV. Segcam's side runs on one core. Both start from the same scores in host memory and end with
labels and an overlay at frame size; the plain overlay is BGR, ours is the frame's own YUV, and the plain way's
conversion of the frame to BGR is not counted against it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from segcam import report
from segcam.geometry import resize_axis, taps
from segcam.kernels.cpu.blend import OverlayPainter
from segcam.kernels.cpu.labels import LabelMapper
from segcam.segmenters.cpu import scores_3d
from segcam.session import Network
from segcam.settings import Settings
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source


def enlarger(shape: tuple[int, ...], height: int, width: int, *, best: bool) -> ov.CompiledModel:
    """Scores -> half-pixel linear enlargement [-> index of the best class], compiled for the CPU in fp32."""
    scores = ops.parameter(list(shape), np.float32)
    result: Any = ops.interpolate(
        scores, np.array([height, width], np.int64), "linear_onnx", "sizes", axes=np.array([2, 3], np.int64)
    )
    if best:
        result = ops.topk(result, np.int64(1), 1, "max", "value").output(1)
    model = ov.Model([result], [scores], "enlarge")
    return ov.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", default="")
    given = parser.parse_args()

    network = Network.load(Settings(engine=given.engine, precision="fp32"), print, print)
    source = make_source(given.source, SourceOptions(frames=1))
    source.open()
    frame = source.read()
    assert frame is not None
    segmenter = network.segmenter()
    segmenter.submit(frame)
    segmenter.collect()
    scores = scores_3d(network.engine.wait(0)).copy()
    last = network.engine.info.output_layout == "NHWC"
    scores_nchw = scores.transpose(2, 0, 1)[None].copy() if last else scores[None]
    height, width = frame.height, frame.width
    bgr = frame.bgr()
    palette = np.ascontiguousarray(network.classes.colors_rgb()[:, ::-1])
    labels_out: list[NDArray[Any]] = []

    enlarge = enlarger(scores_nchw.shape, height, width, best=False).create_infer_request()
    name = enlarger(scores_nchw.shape, height, width, best=True).create_infer_request()

    def finish(labels: NDArray[Any]) -> None:
        labels_out[:] = [labels]
        cv2.addWeighted(bgr, 0.5, palette[labels], 0.5, 0.0)

    def with_numpy() -> None:
        enlarge.infer([scores_nchw], share_inputs=True, share_outputs=True)
        finish(enlarge.get_output_tensor().data[0].argmax(0))

    def with_topk() -> None:
        name.infer([scores_nchw], share_inputs=True, share_outputs=True)
        finish(name.get_output_tensor().data[0, 0])

    labels = np.empty((height, width), np.uint8)
    overlay = tuple(np.empty_like(plane) for plane in frame.planes)
    grid = scores.shape[:2] if last else scores.shape[1:]
    rows, cols = (taps(n, points, resize_axis(n, points)) for n, points in zip((height, width), grid, strict=True))
    mapper = LabelMapper(rows, cols, channels_last=last)
    colors, alpha = np.zeros((256, 3), np.uint8), np.zeros(256)
    colors[: len(network.classes)], alpha[: len(network.classes)] = network.classes.colors_rgb(), 0.5
    painter = OverlayPainter(frame, colors, alpha)

    def ours() -> None:
        mapper(scores, labels)
        painter(frame, labels, overlay)

    sides: dict[str, Callable[[], None]] = {
        "OpenVINO Interpolate, NumPy argmax, palette, OpenCV blend": with_numpy,
        "OpenVINO Interpolate and TopK, palette, OpenCV blend": with_topk,
        "Segcam": ours,
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    for round_number in range(given.rounds + 2):
        for side, work in sides.items():
            begun = time.perf_counter()
            work()
            if round_number >= 2:
                times[side].append((time.perf_counter() - begun) * 1e3)
    with_numpy()
    ours()
    differing = int((labels_out[0] != labels).sum())
    ms = {side: round(median(values), 3) for side, values in times.items()}
    ratios = {
        side: round(median(a / b for a, b in zip(times[side], times["Segcam"], strict=True)), 2)
        for side in sides
        if side != "Segcam"
    }
    result = {
        "command": "python benchmarks/postprocess.py --engine {engine} --source {source}",
        "environment": report.environment(),
        "scores": list(scores.shape),
        "frame": [height, width],
        "undecided_cells": round(mapper.undecided_cells(), 4),
        "rounds": given.rounds,
        "median_ms": ms,
        "times_slower_than_segcam": ratios,
        "labels_that_differ_from_the_plain_way": differing,
    }
    for path in filter(None, ("-", given.json)):
        report.write_json(result, path)


if __name__ == "__main__":
    main()
