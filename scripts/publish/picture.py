"""The README's picture: some drives, what the network says, what is true."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import segcam
from segcam.classes import CITYSCAPES
from segcam.demo.score import ScoreSink
from segcam.demo.sheet import contact_sheet
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sources.street import render

#: (seed, second) of each row.
ROWS = ((2_000_013, 2.0), (2_000_028, 2.0), (2_000_025, 2.0))
_MOST_BYTES = 390_000


def readme_picture(model: Path, rows: Sequence[tuple[int, float]] = ROWS, width: int = 480) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, blue first, each panel ``width`` pixels wide."""
    shown = []
    with segcam.Segmenter(model) as network:
        for seed, second in rows:
            sink = ScoreSink([round(second * 25)], width)
            (result,) = network.stream(f"street:seed={seed}", start_s=second, frames=1)
            frame = result.frame
            hw = frame.height, frame.width
            sink.expect(frame.pts, render(seed, frame.pts, hw, rate=25)[1])
            sink.open(StreamInfo("street:", *hw[::-1], None, 1, False, CITYSCAPES, str(model)), RunStats())
            sink.write(result)
            shown += sink.shown
    return contact_sheet(shown, CITYSCAPES)


def as_jpeg(picture: NDArray[np.uint8], most_bytes: int = _MOST_BYTES) -> bytes:
    """The best JPEG of at most so many bytes."""
    import cv2

    for quality in range(92, 20, -4):
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= most_bytes:
            return data
    raise ValueError(f"no JPEG of {picture.shape} has at most {most_bytes} bytes")
