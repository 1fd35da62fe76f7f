"""Short videos in which every sample counts, and the pictures of a video file."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from standin_nvdec import busy


def clip(path: Path, size: tuple[int, int] = (96, 64), count: int = 10) -> Path:
    """H.264 without loss, 25 pictures a second of (width, height)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for planes in busy(size, count):
            made = np.concatenate([plane.reshape(-1) for plane in planes]).reshape(size[1] * 3 // 2, size[0])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(made, format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    """Each as ``av`` has them in one array: (3/2 H, W)."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
