"""What the CUDA segmenter does with one kind of frame: the kernels' launchers, and where everything lies in memory.

A slot has two blocks, each in pinned memory and at a device address, in which the same things lie at the same places:

* up: the table of class colours, then the picture's planes;
* down: the pixel counts, then the class map, then the overlay's planes, as far as they are asked for. Overlays that
  stay on the GPU are copied from there to a surface of their own, and have no part in the pinned memory.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.engines.device import DeviceEngine, quietly
from segcam.errors import CudaError
from segcam.frame import DevicePlanes, Frame, PixelFormat, Plane
from segcam.geometry import fit
from segcam.kernels.cuda.driver import Driver, Stream
from segcam.kernels.cuda.picture import DevicePicture, PictureKind
from segcam.kernels.cuda.postprocess import COUNTS_BYTES, Grid, Postprocess, PostprocessPlan
from segcam.kernels.cuda.preprocess import Preprocess, PreprocessPlan
from segcam.kernels.cuda.ptx import read_ptx
from segcam.segmenters.reading import (
    LabelSize,
    class_map_axes,
    class_map_hw,
    grid_hw,
    id_points,
    score_channels,
    score_taps,
)
from segcam.segmenters.surfaces import Surface

#: (256, 4) int32.
COLORS_BYTES = 4096
#: Rows begin at multiples of this, so that kernels read and write whole words, and blocks at multiples of the other.
_ROW, _BLOCK = 64, 256
#: Rows of overlays that stay begin at multiples of a block, so that chroma lies directly behind luma, as NVENC has it.
_RESIDENT_ROW = _BLOCK

_SCORES = ("float32", "float16", "bfloat16")
#: What the kernel takes ids for, by the engine's word.
_IDS = {"bool": "uint8", "uint8": "uint8", "int8": "int8", "int32": "int32", "int64": "int64"}


def up(n: int, unit: int) -> int:
    """The next multiple of ``unit``."""
    return -(-n // unit) * unit


def unsupported(engine: DeviceEngine[Any]) -> str:
    """Why the kernels cannot feed or read an active engine, "" where they can."""
    fed, read, kind = engine.input_dtype, engine.output_dtype, engine.spec.output.kind
    if fed not in ("float32", "float16", "uint8"):
        return f"the network takes {fed}"
    if read not in (_SCORES if kind == "logits" else _IDS):
        return f"the network's {'scores' if kind == 'logits' else 'labels'} are {read}"
    return ""


class Kernels:
    """The package's kernels, compiled for a GPU by its driver, which takes a while the first time. Raises CudaError."""

    def __init__(self, driver: Driver) -> None:
        self._held = ExitStack()
        with driver.current(), ExitStack() as made:
            self.preprocess = driver.load_module(read_ptx("preprocess"))
            made.callback(quietly, self.preprocess.close)
            self.postprocess = driver.load_module(read_ptx("postprocess"))
            made.callback(quietly, self.postprocess.close)
            self._held = made.pop_all()

    def close(self) -> None:
        self._held.close()


class Planes:
    """Where the planes of a picture lie in a block, from byte ``at`` on. ``pitches`` None: as kernels like them."""

    def __init__(self, kind: PictureKind, at: int, pitches: tuple[int, ...] | None = None) -> None:
        self.kind = kind
        self.pitches = pitches or tuple(up(length, _ROW) for _, length in kind.rows)
        offsets, end = [], at
        for (rows, _), pitch in zip(kind.rows, self.pitches, strict=True):
            offsets.append(end)
            end += up(rows * pitch, _BLOCK)
        self.offsets, self.end = tuple(offsets), end

    def at(self, address: int) -> DevicePicture:
        """In the block at a device address."""
        return DevicePicture(self.kind, tuple(address + offset for offset in self.offsets), self.pitches)

    def rows(self, block: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """(rows, bytes of a row) views of each plane."""
        return [
            block[offset : offset + rows * pitch].reshape(rows, pitch)[:, :length]
            for (rows, length), pitch, offset in zip(self.kind.rows, self.pitches, self.offsets, strict=True)
        ]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the planes of a ``Frame`` of 8 bits."""
        if self.kind.format == "bgr24":
            return ((self.kind.height, self.kind.width, 3),)
        if self.kind.format == "nv12":
            (luma, chroma) = self.kind.rows
            return luma, (chroma[0], chroma[1] // 2, 2)
        return self.kind.rows


def overlay_of(kind: PictureKind, resident: bool) -> PictureKind:
    """What overlays of such pictures are: the same, but of 8 bits; where they stay on the GPU, NV12, as NVENC takes."""
    if kind.format == "bgr24" or (kind.format == "i420" and not resident):
        return kind
    return replace(kind, format="nv12")


def must_come_down(frame: Frame) -> str:
    """Why the overlay of such a frame cannot stay on the GPU for NVENC; "" where it can."""
    if frame.format == "bgr24":
        return "pictures are BGR"
    if frame.width % 2 or frame.height % 2:
        return f"H.264 has no odd sizes ({frame.width}x{frame.height})"
    return ""


def kind_of(frame: Frame) -> tuple[PictureKind, tuple[int, ...] | None]:
    """What pictures are like, and their pitches on the device where they lie there: frames of which both are equal
    are treated alike."""
    if frame.device is not None:
        kind = PictureKind(frame.device.format, frame.height, frame.width, frame.matrix, frame.full_range)
        return kind, frame.device.pitches
    if frame.format == "bgr24":
        return PictureKind("bgr24", frame.height, frame.width), None
    return PictureKind(frame.format, frame.height, frame.width, frame.matrix, frame.full_range), None


class Work:
    """For frames of one kind through one network. Made once inside ``driver.current()``; ``close`` it when no launch of
    it is running any more. ``labels`` and ``overlay`` say what is to come down besides the counts; a ``resident``
    overlay is made and does not.
    """

    def __init__(
        self,
        engine: DeviceEngine[Any],
        kernels: Kernels,
        kind: PictureKind,
        pitches: tuple[int, ...] | None,
        *,
        labels: bool,
        overlay: bool,
        resident: bool,
        label_size: LabelSize,
        stream: Stream,
    ) -> None:
        self._engine, self._driver = engine, engine.driver
        info, fed = engine.info, engine.spec.input
        self.kind, self.on_device = kind, pitches is not None
        self.source = Planes(kind, COLORS_BYTES, pitches)
        self.frame_bytes = self.source.end
        #: What is uploaded of a frame: pictures that are on the device only need their colours.
        self.up_bytes = COLORS_BYTES if self.on_device else self.frame_bytes
        frame_hw, self._grid_hw = (kind.height, kind.width), grid_hw(
            info.output_shape, engine.spec.output.kind, info.output_layout
        )  # fmt: skip
        placement = fit(frame_hw, info.input_hw, fed.resize)
        self.labels_hw = class_map_hw(label_size, frame_hw, info.input_hw)
        axes = class_map_axes(
            self.labels_hw, label_size, frame_hw, placement, info.input_hw, self._grid_hw, engine.spec.output
        )
        end = up(COUNTS_BYTES, _BLOCK)
        self._labels_at, self._labels_pitch = (end if labels else 0), up(self.labels_hw[1], _ROW)
        if labels:
            end += up(self.labels_hw[0] * self._labels_pitch, _BLOCK)
        #: An overlay needs a class map of the frame's size.
        self.overlay: Planes | None = None
        self.down_bytes = self.made_bytes = end
        if overlay and self.labels_hw == frame_hw:
            pitch = up(kind.width, _RESIDENT_ROW)
            self.overlay = Planes(overlay_of(kind, resident), end, (pitch, pitch) if resident else None)
            self.made_bytes = self.overlay.end
        #: Whether overlays stay on the GPU.
        self.resident = resident and self.overlay is not None
        if not self.resident:
            self.down_bytes = self.made_bytes
        with ExitStack() as made:
            self._preprocess = Preprocess(
                self._driver,
                kernels.preprocess,
                PreprocessPlan(
                    kind, placement, info.input_hw, fed.mean, fed.std, rgb=fed.color == "RGB", dtype=fed.dtype,
                    layout=fed.layout,
                ),
                stream,
            )  # fmt: skip
            made.callback(quietly, self._preprocess.close)
            self._postprocess = Postprocess(self._driver, kernels.postprocess, self._plan(axes), stream)
            made.callback(quietly, self._postprocess.close)
            # Their tables are on the way on this stream; launches will come on others.
            stream.synchronize()
            self._held = made.pop_all()

    def _plan(self, axes: Any) -> PostprocessPlan:
        engine, (height, width), hw = self._engine, self._grid_hw, self.labels_hw
        word: Any = engine.output_dtype
        if engine.spec.output.kind == "labels":
            return PostprocessPlan(Grid.nchw(_IDS[word], 1, height, width), *id_points(hw, (height, width), axes))  # type: ignore[arg-type]
        shape = Grid.nhwc if engine.info.output_layout == "NHWC" else Grid.nchw
        return PostprocessPlan(
            shape(word, score_channels(engine.info), height, width), *score_taps(hw, (height, width), axes)
        )

    def preprocess(self, up_block: int, fed: int, down_block: int, stream: Stream) -> None:
        """Queue making the network's input at ``fed`` of the picture in the up block, and clearing the down block's
        counts."""
        self._preprocess.launch(self.source.at(up_block), fed, stream, cleared=down_block)

    def postprocess(self, read: int, up_block: int, down_block: int, stream: Stream) -> None:
        """Queue filling the down block from the network's output at ``read``."""
        painted = self.overlay
        self._postprocess.launch(
            read,
            stream,
            labels=down_block + self._labels_at if self._labels_at else 0,
            labels_pitch=self._labels_pitch if self._labels_at else 0,
            counts=down_block,
            colors=up_block if painted else 0,
            source=self.source.at(up_block) if painted else None,
            overlay=painted.at(down_block) if painted else None,
        )

    def copy_in(self, frame: Frame, block: int, stream: Stream) -> None:
        """Queue copying a picture that is on the device into the up block, which frees the decoder's surface early and
        leaves every launch with the same addresses."""
        if frame.device is None:
            raise CudaError(f"frame {frame.index} is not on the GPU")
        placed = self.source
        for (rows, length), pitch, offset, address in zip(
            self.kind.rows, placed.pitches, placed.offsets, frame.device.addresses, strict=True
        ):
            # The last row's padding may not be there.
            self._driver.copy(block + offset, address, (rows - 1) * pitch + length, stream)

    def copy_out(self, block: int, surface: int, stream: Stream) -> None:
        """Queue copying a resident overlay out of the down block to a surface of ``overlay_bytes``."""
        assert self.overlay is not None
        self._driver.copy(surface, block + self.overlay.offsets[0], self.overlay_bytes, stream)

    @property
    def overlay_bytes(self) -> int:
        assert self.overlay is not None
        return self.overlay.end - self.overlay.offsets[0]

    def overlay_on(self, surface: Surface, frame: Frame) -> Frame:
        """The frame of a resident overlay that lies in ``surface``."""
        laid = self.overlay
        assert laid is not None
        first = laid.offsets[0]
        y, uv = (surface.address + offset - first for offset in laid.offsets)

        def download() -> tuple[PixelFormat, tuple[Plane, ...]]:
            block = surface.download(self.overlay_bytes)
            at_start = Planes(laid.kind, 0, laid.pitches)
            return "nv12", tuple(
                rows.reshape(shape) for rows, shape in zip(at_start.rows(block), laid.shapes, strict=True)
            )

        planes = DevicePlanes("nv12", (y, uv), (laid.pitches[0], laid.pitches[1]), self._driver.device.index, download)
        return replace(frame, format="nv12", planes=(), device=planes, owner=surface)

    def stage(self, frame: Frame, block: NDArray[np.uint8]) -> None:
        """Copy a picture in host memory into the pinned up block."""
        for rows, plane in zip(self.source.rows(block), frame.planes, strict=True):
            np.copyto(rows, plane.reshape(rows.shape))

    def counts(self, block: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Pixels of each id, (256,), out of the pinned down block."""
        return block[:COUNTS_BYTES].view(np.uint32).astype(np.int64)

    @property
    def has_labels(self) -> bool:
        return self._labels_at > 0

    def read_labels(self, block: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """The class map out of the pinned down block into ``out``, (H, W)."""
        height, width = self.labels_hw
        area = block[self._labels_at : self._labels_at + height * self._labels_pitch]
        np.copyto(out, area.reshape(height, self._labels_pitch)[:, :width])

    def read_overlay(self, block: NDArray[np.uint8], out: tuple[NDArray[np.uint8], ...]) -> None:
        """The overlay's planes out of the pinned down block into ``out``, C-contiguous, of ``overlay.shapes``."""
        assert self.overlay is not None
        for rows, plane in zip(self.overlay.rows(block), out, strict=True):
            np.copyto(plane.reshape(rows.shape), rows)

    def close(self) -> None:
        self._held.close()
