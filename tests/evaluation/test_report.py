"""The page and the JSON of a report."""

from __future__ import annotations

import json

import numpy as np

from segcam.engines.base import EngineInfo
from segcam.evaluation.compare import Compared, Odd, PerImage
from segcam.evaluation.report import Report
from segcam.evaluation.scores import Scores

ENGINE = EngineInfo(
    "net.onnx", "OpenVINO", "1", "CPU", "bf16", 2, 3, (1, 3, 24, 40), (1, 3, 24, 40), "NCHW", "", "defaults"
)


def compared(rows: str, matrix: list[list[int]]) -> Compared:
    scores = Scores(("road", "car"), np.array(matrix, np.int64))
    return Compared((rows, "net.onnx"), scores, PerImage(0.9, 0.8, 0.81, 0.85, 0.95), (Odd("a.png", 3, 0.8),))


def test_page() -> None:
    page = Report(
        "CamVid test", 10, 2.0, (ENGINE,), (compared("labels", [[6, 2, 0], [0, 0, 0], [0, 0, 0]]),), None
    ).text()
    for words in (
        "data        CamVid test", "engine      net.onnx: 40x24 on OpenVINO 1 (CPU, bf16, 3 in flight)",
        "pictures    10 in 2.0 s (5.0 per second)", "net.onnx against the labels",
        "mIoU                     0.3750   (2 of 2 classes)", "mIoU, occurring classes  0.7500   (1 classes)",
        "pixel accuracy           0.7500", "mean 0.9000, least 0.8000, 1% 0.8100, 5% 0.8500, half 0.9500",
        "worst pictures           a.png (0.8000)", "void), it is wrong",
    ):  # fmt: skip
        assert words in page, words
    assert "equal pixels" not in page


def test_a_class_nobody_has_is_a_dash() -> None:
    page = Report("d", 1, 1.0, (ENGINE,), (compared("labels", [[8, 0, 0], [0, 0, 0], [0, 0, 0]]),), None).text()
    assert [line.split() for line in page.splitlines() if line.startswith("  car ")] == [
        ["car", "-", "-", "0.00%", "0.00%"]
    ]
    assert "(1 of 2 classes)" in page
    assert "occurring classes" not in page


def test_document() -> None:
    agreement = compared("other.onnx", [[6, 2, 0], [0, 0, 0], [0, 0, 0]])
    report = Report("clip.mp4", 10, 2.0, (ENGINE, ENGINE), (), agreement)
    made = json.loads(json.dumps(report.document(), allow_nan=False))
    assert made["labels"] == []
    assert made["agreement"]["rows"] == "other.onnx"
    assert made["agreement"]["columns"] == "net.onnx"
    assert made["agreement"]["per_image"]["p5"] == 0.85
    assert made["agreement"]["worst"] == [{"name": "a.png", "index": 3, "share": 0.8}]
    assert made["images_per_s"] == 5.0
    assert made["environment"]["cores"] >= 1
    assert report.miou == 0.375
    assert "both networks leave void" in report.text()
