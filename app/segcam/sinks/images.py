"""Images: overlays, class colours or label ids, as a folder, a numbered pattern or one still."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segcam.errors import SinkError
from segcam.frame import Segmentation
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.files import check_writable, make_folder, write_error
from segcam.writing import whole_file

Picture = Literal["overlay", "colors", "labels"]
#: ``folder``: files named after the frames; ``pattern``: a name with %d; ``still``: one file, one frame.
Layout = Literal["folder", "pattern", "still"]

_NUMBER = re.compile(r"%(0\d+)?d")


def is_pattern(name: str) -> bool:
    """Whether a file name holds exactly one frame number such as %05d or %d."""
    return len(_NUMBER.findall(name)) == 1


class ImageSink:
    """One image for each frame: the overlay, the class colours (void and unknown ids in black), or the label ids.

    Label ids are PNG with one 8-bit channel holding ``Segmentation.labels``. In a folder, a frame that has a name gives
    its stem to the file (a.jpg becomes a.png), others their index (000012.png); a stem that comes again gets the index
    appended (a_000012.png). Folders are made with the first frame. Each image is complete or absent.
    """

    runs_in_main_thread = False

    def __init__(self, path: Path, picture: Picture, layout: Layout, suffix: str, jpeg_quality: int = 95) -> None:
        self.path = path
        self.picture, self.layout, self.suffix = picture, layout, suffix
        self.needs_overlay = picture == "overlay"
        self.needs_labels = picture != "overlay"
        self._jpeg_quality = jpeg_quality
        self._stems: set[str] = set()
        self._palette: NDArray[np.uint8] | None = None
        self._images = 0

    def open(self, info: StreamInfo, stats: RunStats) -> None:
        """Raises SinkError if the images could not be written."""
        if self.layout == "still" and self.path.is_dir():
            raise SinkError(f"{self.path} is a folder", f"Write {self.path}/ to fill it with images.")
        if self.layout == "folder" and self.path.is_file():
            raise SinkError(f"{self.path} is a file, not a folder", "Choose another folder name.")
        check_writable(self.path)
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(info.classes)] = info.classes.colors_rgb()[:, ::-1]
        palette[[index for index in info.classes.void if index < 256]] = 0
        self._palette = palette

    def write(self, segmentation: Segmentation) -> None:
        if self.layout == "still" and self._images:
            raise SinkError(
                f"{self.path} holds one picture, but the source gives more than one frame",
                f"Write a folder ({self.path.with_suffix('')}/), a pattern ({self.path.stem}_%05d{self.path.suffix}) "
                "or a video (out.mp4), or take one frame with --frames 1.",
            )
        path = self._next_path(segmentation)
        data = self._encoded(segmentation)
        make_folder(path.absolute().parent)
        try:
            # Waiting for the disk at every frame would cost more than the network does.
            with whole_file(path, sync=False) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise write_error(path, error, f"{self._images} images before it are complete.") from error
        self._images += 1

    def close(self) -> None:
        self._stems.clear()

    @property
    def description(self) -> str:
        if not self._images:
            return f"{self.path}: no frames, nothing written"
        what = {"overlay": "overlay", "colors": "class colour", "labels": "label id"}[self.picture]
        return f"{self.path}: {self._images} {what} image{'s' if self._images > 1 else ''} ({self.suffix[1:]})"

    def _next_path(self, segmentation: Segmentation) -> Path:
        frame = segmentation.frame
        if self.layout == "still":
            return self.path
        if self.layout == "pattern":
            number = _NUMBER.sub(lambda found: found.group() % frame.index, self.path.name)
            return self.path.with_name(number)
        stem = Path(frame.name).stem if frame.name else f"{frame.index:06d}"
        # File systems of macOS and Windows take A.png and a.png for the same file.
        if stem.casefold() in self._stems:
            stem = f"{stem}_{frame.index:06d}"
        self._stems.add(stem.casefold())
        return self.path / f"{stem}{self.suffix}"

    def _encoded(self, segmentation: Segmentation) -> bytes:
        import cv2

        options: list[int] = []
        if self.suffix in (".jpg", ".jpeg"):
            options = [cv2.IMWRITE_JPEG_QUALITY, self._jpeg_quality]
        try:
            done, data = cv2.imencode(self.suffix, self._pixels(segmentation), options)
        except cv2.error as error:
            raise SinkError(
                f"frame {segmentation.frame.index} cannot be written as {self.suffix[1:]}: {error}"
            ) from error
        if not done:
            raise SinkError(f"frame {segmentation.frame.index} cannot be written as {self.suffix[1:]}")
        return data.tobytes()

    def _pixels(self, segmentation: Segmentation) -> NDArray[np.uint8]:
        if self.picture == "labels":
            return segmentation.labels
        if self.picture == "colors":
            assert self._palette is not None
            return self._palette[segmentation.labels]
        if segmentation.overlay is None:
            raise SinkError(f"frame {segmentation.frame.index} has no overlay to write to {self.path}")
        return segmentation.overlay.bgr()
