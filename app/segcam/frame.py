"""The words that every stage shares: one picture with its time, and what the network says about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from segcam.classes import ClassTable

PixelFormat = Literal["i420", "nv12", "bgr24"]
ColorMatrix = Literal["bt601", "bt709", "bt2020"]
Plane = NDArray[np.uint8]

#: Luma weights (Kr, Kb) of each matrix: ITU-R BT.601-7 section 2.5, BT.709-6 item 3.2, BT.2020-2 table 4.
LUMA_WEIGHTS: dict[ColorMatrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}


def default_matrix(height: int) -> ColorMatrix:
    """The matrix of a stream that declares none: BT.709 above 576 lines, else BT.601."""
    return "bt709" if height > 576 else "bt601"


class Gpu(Protocol):
    """What decoders and encoders need of the CUDA driver that the segmenter holds (``kernels.cuda.driver.Driver``).

    ``device.index`` is the GPU's number. What uses its context is made inside ``current()``; between ``enter`` and
    ``leave`` the context is not given back.
    """

    @property
    def device(self) -> Any: ...

    def current(self) -> AbstractContextManager[None]: ...

    def enter(self) -> None: ...

    def leave(self) -> None: ...


@dataclass(frozen=True, eq=False)
class DevicePlanes:
    """Where the two planes of a picture lie in the memory of GPU number ``gpu``: Y (H, W) and interleaved UV
    (ceil(H/2), ceil(W/2), 2), as 8 bits (``nv12``) or as the upper 10 of 16, little-endian (``p010``).

    ``addresses`` are in the GPU's primary context, ``pitches`` the bytes from row to row.

    The planes are written by work on the context's default stream that was queued before the frame was handed out: who
    reads them on another stream lets it wait for an event recorded on the default one (``event.record(None)``), in
    whichever thread. They must not be written to, and stay as they are while the frame (its ``owner``) is held: hold
    it until the last read of them is done. ``download`` waits for the picture and copies it to host memory, in 8 bits.
    """

    format: Literal["nv12", "p010"]
    addresses: tuple[int, int]
    pitches: tuple[int, int]
    gpu: int
    download: Callable[[], tuple[PixelFormat, tuple[Plane, ...]]] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source, as the decoder gave it: in host memory, or in a GPU's.

    ``planes`` holds uint8 arrays whose rows are contiguous but may lie further apart than their length
    (the decoder's pitch), and which must not be written to:

    * ``i420``:  Y (H, W), U and V (ceil(H/2), ceil(W/2))
    * ``nv12``:  Y (H, W), interleaved UV (ceil(H/2), ceil(W/2), 2)
    * ``bgr24``: one array (H, W, 3), 0..255, blue first (``matrix`` and ``full_range`` say nothing then)

    A picture on a GPU has ``device``, no ``planes``, and the ``format`` that an overlay of it has: ``nv12``.

    ``pts`` counts ``time_base`` seconds from the stream's own zero; ``captured_at_s`` is
    ``time.perf_counter()`` at the moment the picture was there. ``owner`` keeps the decoder's memory alive.
    """

    index: int
    pts: int
    time_base: Fraction
    captured_at_s: float
    source_id: str
    width: int
    height: int
    format: PixelFormat
    planes: tuple[Plane, ...]
    matrix: ColorMatrix = "bt709"
    full_range: bool = False
    name: str = ""
    decode_ms: float = 0.0
    owner: object = field(default=None, repr=False)
    device: DevicePlanes | None = None

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def with_planes(self, planes: tuple[Plane, ...]) -> Frame:
        """The same frame (index, time, size, colours) around other host planes, of the shapes of its ``format``."""
        return dataclasses.replace(self, planes=planes, owner=None, device=None)

    def to_host(self) -> Frame:
        """This frame in host memory: itself, or for one on a GPU a copy in 8 bits, for which the caller waits."""
        if self.device is None:
            return self
        form, planes = self.device.download()
        return dataclasses.replace(self, format=form, planes=planes, owner=None, device=None)

    def bgr(self) -> NDArray[np.uint8]:
        """The picture as (H, W, 3) uint8, 0..255, blue first. A new array, except for ``bgr24`` frames.

        Converted exactly (float matrix, rounded to nearest), chroma taken from the nearest sample. Comes down from the
        GPU first where it is there.
        """
        if self.device is not None:
            return self.to_host().bgr()
        if self.format == "bgr24":
            return self.planes[0]
        from segcam.kernels.cpu.color import yuv_to_bgr

        return yuv_to_bgr(self)


@dataclass(eq=False)
class Segmentation:
    """What the network says about one frame.

    ``labels`` is (H, W) uint8 at frame size: the index into ``classes`` of each pixel; (0, 0) where nobody asked for
    it and it stayed on the GPU. ``overlay`` is a Frame in the input's own pixel format with the class colours blended
    in, or None when no sink asked for it; on the GPU, in NV12 and complete, where sinks take it from there. ``counts``
    is (classes,) int64, pixels per class. ``timings_ms`` names each stage.
    """

    frame: Frame
    labels: NDArray[np.uint8]
    overlay: Frame | None
    counts: NDArray[np.int64]
    classes: ClassTable
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of the picture of each class, (classes,), summing to 1."""
        shares: NDArray[np.float64] = self.counts / max(1, int(self.counts.sum()))
        return shares
