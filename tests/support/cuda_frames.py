"""Frames for segmenters, in host memory and on a stand-in GPU, and the comparison of two segmenters' results."""

from __future__ import annotations

import dataclasses
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segcam.controls import Controls
from segcam.engines.base import EngineOptions
from segcam.engines.factory import make_engine
from segcam.frame import DevicePlanes, Frame, PixelFormat, Segmentation
from segcam.segmenters.base import Segmenter
from segcam.segmenters.cpu import CpuSegmenter
from segcam.segmenters.reading import count_classes


def picture(
    index: int = 0, size: tuple[int, int] = (24, 40), format: PixelFormat = "i420", fields: int = 8, pad: int = 0
) -> Frame:
    """Fields of random colours, in planes whose rows lie ``pad`` samples further apart."""
    random = np.random.default_rng(index)
    height, width = size
    planes = []
    for plane, unit in _shapes(format, size):
        coarse = random.integers(0, 256, (-(-plane[0] * unit // fields), -(-plane[1] * unit // fields), *plane[2:]))
        wide = np.zeros((plane[0], plane[1] + pad, *plane[2:]), np.uint8)
        rows, cols = np.arange(plane[0]) * unit // fields, np.arange(plane[1]) * unit // fields
        wide[:, : plane[1]] = coarse[rows][:, cols]
        wide.flags.writeable = False
        planes.append(wide[:, : plane[1]])
    return Frame(index, index, Fraction(1, 25), 0.0, "t", width, height, format, tuple(planes), "bt601", True)


def _shapes(format: PixelFormat, size: tuple[int, int]) -> list[tuple[tuple[int, ...], int]]:
    (height, width), half = size, ((size[0] + 1) // 2, (size[1] + 1) // 2)
    if format == "bgr24":
        return [((height, width, 3), 1)]
    if format == "nv12":
        return [((height, width), 1), ((*half, 2), 2)]
    return [((height, width), 1), (half, 2), (half, 2)]


def run(segmenter: Segmenter, frames: list[Frame]) -> list[Segmentation]:
    """As many in flight as may be; what comes out is copied and given back."""
    found: list[Segmentation] = []
    for frame in frames:
        if segmenter.pending == segmenter.depth:
            found.append(segmenter.collect())
        segmenter.submit(frame)
    while segmenter.pending:
        found.append(segmenter.collect())
    assert [one.frame.index for one in found] == [frame.index for frame in frames]
    return found


def on_cpu(path: Path, frames: list[Frame], controls: Controls | None = None, **arguments: Any) -> list[Segmentation]:
    engine = make_engine(str(path), EngineOptions(precision="fp32", threads=1), print, "onnxruntime")
    engine.activate()
    classes = engine.spec.class_table(count_classes(engine))
    found = run(CpuSegmenter(engine, classes, controls or Controls(0.5, classes.visible("")), **arguments), frames)
    engine.close()
    return found


def the_same(found: list[Segmentation], wanted: list[Segmentation], differing: float = 1e-4) -> None:
    """Class maps on all but a share of the pixels, and overlays within a level where these agree."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        agree: NDArray[np.bool_] = one.labels == other.labels
        assert agree.mean() >= 1 - differing, (one.frame.index, agree.mean())
        if agree.all():
            np.testing.assert_array_equal(one.counts, other.counts)
        assert (one.overlay is None) == (other.overlay is None)
        if one.overlay is None or other.overlay is None:
            continue
        assert one.overlay.format == other.overlay.format
        if agree.all():
            for mine, theirs in zip(one.overlay.planes, other.overlay.planes, strict=True):
                assert np.abs(mine.astype(int) - theirs).max() <= 1


def watch_downloads(monkeypatch: pytest.MonkeyPatch, machine: Any) -> list[tuple[int, bool]]:
    """Bytes of each copy from the GPU from now on, and whether it goes to pinned memory."""
    moved: list[tuple[int, bool]] = []
    download = machine.download

    def watched(host: memoryview, pinned: bool, address: int, stream: int) -> None:
        moved.append((host.nbytes, pinned))
        download(host, pinned, address, stream)

    monkeypatch.setattr(machine, "download", watched)
    return moved


class Surface:
    """A decoder's picture in device memory, which the decoder's own work on the default stream fills some time later.

    When ``owner`` of its frame is gone, it holds another picture. ``pad`` bytes lie between rows.
    """

    def __init__(self, driver: Any, machine: Any, picture: Frame, pad: int = 24, ten_bits: bool = False) -> None:
        assert picture.format == "nv12"
        self._machine, self.planes = machine, picture.planes
        samples = [plane.reshape(plane.shape[0], -1) for plane in picture.planes]
        if ten_bits:
            samples = [(plane.astype("<u2") << 8).view(np.uint8) for plane in samples]
        self.pitches = tuple(-(-(plane.shape[1] + pad) // 4) * 4 for plane in samples)
        with driver.current():
            # Nothing lies behind the last sample.
            sizes = [(p.shape[0] - 1) * pitch + p.shape[1] for p, pitch in zip(samples, self.pitches, strict=True)]
            self.memory = [driver.allocate(nbytes) for nbytes in sizes]
            self.places = [(memory.address, memory.nbytes) for memory in self.memory]
            machine.enqueue(0, lambda: self._fill(samples), "decode")
        self.downloads = 0
        gone = Owner()
        weakref.finalize(gone, self._reuse)
        on = DevicePlanes(
            "p010" if ten_bits else "nv12",
            (self.places[0][0], self.places[1][0]),
            (self.pitches[0], self.pitches[1]),
            0,
            self._download,
        )
        self.frame: Frame | None = dataclasses.replace(picture, planes=(), device=on, owner=gone)

    def take(self) -> Frame:
        """The frame, which nobody but the caller then holds."""
        frame, self.frame = self.frame, None
        assert frame is not None
        return frame

    def _fill(self, samples: list[NDArray[np.uint8]]) -> None:
        for place, rows, pitch in zip(self.places, samples, self.pitches, strict=True):
            block = np.frombuffer(self._machine.bytes_at(*place), np.uint8)
            for row, values in enumerate(rows):
                block[row * pitch : row * pitch + values.size] = values

    def _reuse(self) -> None:
        # The decoder is quick: this picture is there, and the next one on it as well.
        self._machine.run(0)
        for memory in self.memory:
            if not memory.closed:
                self._machine.bytes_at(memory.address, memory.nbytes)[:] = bytes([77]) * memory.nbytes

    def _download(self) -> tuple[PixelFormat, tuple[NDArray[np.uint8], ...]]:
        self.downloads += 1
        return "nv12", self.planes

    def close(self) -> None:
        for memory in self.memory:
            memory.close()


class Owner:
    """What keeps a surface."""
