"""Pictures in device memory, and the small tables that kernels read beside them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segcam.errors import CudaError
from segcam.frame import ColorMatrix
from segcam.geometry import Taps
from segcam.kernels.cuda.driver import DeviceMemory, Driver, Stream

#: ``frame.PixelFormat`` and the two of 10 bits in 16, little-endian: P010 (interleaved chroma, the upper bits; NVDEC)
#: and planar (the lower bits; FFmpeg's yuv420p10le).
DeviceFormat = Literal["i420", "nv12", "bgr24", "i420p10", "p010"]

#: How every kernel is launched.
BLOCK = (256, 1, 1)

#: One bilinear sample on an axis: the C struct of common.cuh.
TAP = np.dtype([("first", "<i4"), ("second", "<i4"), ("weight_first", "<f4"), ("weight_second", "<f4")])

_ALIGNMENT = 256


@dataclass(frozen=True)
class PictureKind:
    """What a stream of pictures has in common. ``matrix`` and ``full_range`` say nothing of ``bgr24``."""

    format: DeviceFormat
    height: int
    width: int
    matrix: ColorMatrix = "bt709"
    full_range: bool = False

    @property
    def bits(self) -> int:
        return 10 if self.format in ("i420p10", "p010") else 8

    @property
    def sample_bytes(self) -> int:
        return 2 if self.bits > 8 else 1

    @property
    def colors(self) -> tuple[ColorMatrix, bool] | None:
        """Matrix and range, None for BGR."""
        return None if self.format == "bgr24" else (self.matrix, self.full_range)

    @property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """(rows, bytes of a row without padding) of each plane: Y, UV; or Y, U, V; or BGR."""
        sample = self.sample_bytes
        half_height, half_width = (self.height + 1) // 2, (self.width + 1) // 2
        luma = (self.height, self.width * sample)
        if self.format == "bgr24":
            return ((self.height, 3 * self.width),)
        if self.format in ("nv12", "p010"):
            return luma, (half_height, 2 * half_width * sample)
        return luma, (half_height, half_width * sample), (half_height, half_width * sample)


@dataclass(frozen=True)
class DevicePicture:
    """Where the planes of a picture lie: device addresses, and pitches in bytes (the distance of two rows).

    Raises ValueError for what no kernel can read: pitches shorter than a row, 16-bit samples or pairs of chroma samples
    that are not aligned to their size.
    """

    kind: PictureKind
    addresses: tuple[int, ...]
    pitches: tuple[int, ...]

    def __post_init__(self) -> None:
        rows = self.kind.rows
        if not len(rows) == len(self.addresses) == len(self.pitches):
            raise ValueError(f"{self.kind.format} has {len(rows)} planes: got {self.addresses} and {self.pitches}")
        for i, ((_, length), address, pitch) in enumerate(zip(rows, self.addresses, self.pitches, strict=True)):
            unit = self.kind.sample_bytes * (2 if i == 1 and len(rows) == 2 else 1)
            if pitch < length or address % unit or pitch % unit:
                raise ValueError(
                    f"plane {i} of {self.kind}: pitch {pitch} at address {address:#x}, but rows have {length} bytes "
                    f"and samples lie at multiples of {unit}"
                )

    def plane(self, i: int) -> tuple[int, int]:
        """Address and pitch of a plane; (0, 0) past the last."""
        return (self.addresses[i], self.pitches[i]) if i < len(self.addresses) else (0, 0)

    def aligned(self, *units: int) -> bool:
        """Whether address and pitch of each plane are multiples of the plane's unit."""
        return all(
            a % unit == 0 and p % unit == 0 for a, p, unit in zip(self.addresses, self.pitches, units, strict=False)
        )

    @property
    def wide(self) -> bool:
        """Whether four luma samples, and the chroma samples that lie beside them in a plane, are one access each."""
        sample = self.kind.sample_bytes
        chroma = (4 if len(self.addresses) == 2 else 2) * sample
        return self.aligned(4 * sample, chroma, chroma)


def tap_table(taps: Taps) -> NDArray[Any]:
    """(n,) of ``TAP``."""
    table = np.zeros(taps.first.size, TAP)
    table["first"], table["second"] = taps.first, taps.second
    table["weight_first"], table["weight_second"] = taps.weight_first, taps.weight_second
    return table


def point_table(points: NDArray[np.int32]) -> NDArray[Any]:
    """(n,) of ``TAP`` for samples that take one point each."""
    table = np.zeros(points.size, TAP)
    table["first"] = table["second"] = points
    table["weight_first"] = 1
    return table


class Tables:
    """Constant arrays of one kernel in one block of bytes, ``data``, and where each begins: at multiples of 256."""

    def __init__(self, *arrays: NDArray[Any]) -> None:
        self.offsets: list[int] = []
        size = 0
        for array in arrays:
            self.offsets.append(size)
            size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        self.data: NDArray[np.uint8] = np.zeros(size, np.uint8)
        for offset, array in zip(self.offsets, arrays, strict=True):
            self.data[offset : offset + array.nbytes] = array.view(np.uint8)

    def upload(self, driver: Driver, stream: Stream) -> DeviceMemory:
        """The block in device memory; the copy is queued on ``stream``."""
        memory = driver.allocate(self.data.nbytes)
        try:
            driver.upload(memory.address, self.data, stream)
        except BaseException:
            # On a GPU that is gone this fails as well, which says less.
            with contextlib.suppress(CudaError):
                memory.close()
            raise
        return memory


def overlay_kinds(source: PictureKind) -> tuple[PictureKind, ...]:
    """What the kernels write overlays of such pictures as, always 8 bits: the same kind, and NV12 of all 4:2:0."""
    same = (source,) if source.bits == 8 else ()
    return same if source.format in ("nv12", "bgr24") else (*same, replace(source, format="nv12"))
