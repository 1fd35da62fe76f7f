"""The sink that compares a drive with the truth."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from segcam.classes import CITYSCAPES
from segcam.demo.score import ScoreSink
from segcam.errors import SinkError
from segcam.frame import Frame, Segmentation
from segcam.sinks.base import RunStats, Sink, StreamInfo

HEIGHT, WIDTH = 32, 64


def result(number: int, labels: np.ndarray) -> Segmentation:
    luma, chroma = np.full((HEIGHT, WIDTH), 90, np.uint8), np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)
    frame = Frame(number, number, Fraction(1, 20), 0.0, "street:", WIDTH, HEIGHT, "i420", (luma, chroma, chroma))
    overlay = frame.with_planes((luma + 60, chroma, chroma))
    counts = np.bincount(labels.ravel(), minlength=19)
    return Segmentation(frame, labels, overlay, counts, CITYSCAPES)


@pytest.fixture
def sink() -> ScoreSink:
    made = ScoreSink([1], 32)
    made.open(StreamInfo("street:", WIDTH, HEIGHT, Fraction(20), 2, False, CITYSCAPES, "net.onnx: 64x32"), RunStats())
    return made


def test_counts_and_keeps_what_was_chosen(sink: ScoreSink) -> None:
    assert isinstance(sink, Sink) and sink.description == "no frames, no scores"
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    truth[16:] = 1
    said = truth.copy()
    said[:, 48:] = 0
    for number, labels in ((0, truth), (1, said)):
        sink.expect(number, truth)
        sink.write(result(number, labels))
    scores = sink.result.scores
    # Of both frames: road 2048 pixels, 256 more are called so; sidewalk 2048, of which 256 are not.
    assert scores.iou[0] == pytest.approx(2048 / 2304) and scores.iou[1] == pytest.approx(1792 / 2048)
    assert sink.result.sides == ("labels", "net.onnx")
    assert sink.description == f"scores: mIoU {scores.miou:.3f}, 93.8% of the pixels right"
    (shown,) = sink.shown
    assert (shown.number, shown.time_s, shown.right) == (1, 0.05, 0.875)
    assert shown.picture.shape == shown.overlay.shape == (16, 32, 3)
    assert shown.overlay.mean() > shown.picture.mean() + 40
    assert np.array_equal(shown.truth, np.repeat([[0], [1]], 8, 0).repeat(32, 1))


def test_frames_may_be_told_ahead(sink: ScoreSink) -> None:
    truths = [np.full((HEIGHT, WIDTH), number, np.uint8) for number in range(3)]
    for number, truth in enumerate(truths):
        sink.expect(number, truth)
    for number, truth in enumerate(truths):
        sink.write(result(number, truth))
    assert sink.result.scores.miou == 1 and sink.result.scores.pixels == 3 * HEIGHT * WIDTH


def test_a_frame_that_nobody_told_of_is_an_error(sink: ScoreSink) -> None:
    sink.expect(1, np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(SinkError, match="frame 0 came without its true classes"):
        sink.write(result(0, np.zeros((HEIGHT, WIDTH), np.uint8)))
