"""What the network says about a drive whose classes are known, counted frame by frame and partly kept to be shown."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segcam.classes import CITYSCAPES
from segcam.errors import SinkError
from segcam.evaluation.compare import AgainstLabels, Compared
from segcam.evaluation.datasets import Sample
from segcam.frame import Segmentation
from segcam.sinks.base import RunStats, StreamInfo


@dataclass(frozen=True, eq=False)
class Shown:
    """Frame ``number`` at the contact sheet's size, (H, W, 3) uint8, blue first: itself and with the classes over it;
    its true classes (H, W) uint8; ``right``: the share 0..1 of its pixels that the network names rightly."""

    number: int
    time_s: float
    picture: NDArray[np.uint8]
    overlay: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    right: float


class ScoreSink:
    """Compares each frame's class map with the true one, which ``expect`` was told before the frame was given.

    Frames whose numbers are in ``chosen`` are kept in ``shown``, ``width`` pixels wide.
    """

    runs_in_main_thread = False
    needs_overlay = True
    needs_labels = True

    def __init__(self, chosen: Collection[int], width: int) -> None:
        self._chosen, self._width = frozenset(chosen), width
        self._truths: dict[int, NDArray[np.uint8]] = {}
        self._counted: AgainstLabels | None = None
        self._frames = 0
        self.shown: list[Shown] = []

    def expect(self, number: int, labels: NDArray[np.uint8]) -> None:
        """The true classes (H, W) uint8 of the frame with the pts ``number``. Any thread may call."""
        self._truths[number] = labels

    def open(self, info: StreamInfo, stats: RunStats) -> None:
        self._counted = AgainstLabels(info.engine.partition(":")[0], info.classes, CITYSCAPES, {})

    def write(self, segmentation: Segmentation) -> None:
        """Raises SinkError for a frame whose classes nobody told."""
        frame = segmentation.frame
        truth = self._truths.pop(frame.pts, None)
        if truth is None or self._counted is None:
            raise SinkError(f"frame {frame.index} came without its true classes")
        self._counted.add(Sample(f"frame {frame.pts}", frame, truth), truth, segmentation.labels)
        self._frames += 1
        if frame.pts in self._chosen and segmentation.overlay is not None:
            self.shown.append(self._small(segmentation, truth))

    def close(self) -> None:
        self._truths.clear()

    @property
    def result(self) -> Compared:
        """Of all frames so far; at least one must have come."""
        assert self._counted is not None, "not opened"
        return self._counted.result

    @property
    def description(self) -> str:
        if not self._frames:
            return "no frames, no scores"
        scores = self.result.scores
        return f"scores: mIoU {scores.miou:.3f}, {scores.pixel_accuracy:.1%} of the pixels right"

    def _small(self, segmentation: Segmentation, truth: NDArray[np.uint8]) -> Shown:
        import cv2

        frame, overlay = segmentation.frame, segmentation.overlay
        assert overlay is not None
        size = self._width, max(1, round(self._width * frame.height / frame.width))
        picture, painted = (
            np.asarray(cv2.resize(one.bgr(), size, interpolation=cv2.INTER_AREA), np.uint8) for one in (frame, overlay)
        )
        classes = np.asarray(cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
        right = float((truth == segmentation.labels).mean())
        return Shown(frame.pts, frame.time_s, picture, painted, classes, right)
