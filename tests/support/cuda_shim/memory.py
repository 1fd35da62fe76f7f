"""Host memory that kernels take for the device's: at any alignment, with nothing behind its last byte."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.kernels.cuda.picture import DevicePicture, PictureKind

_LIBC = ctypes.CDLL(None)
_LIBC.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
_LIBC.free.argtypes = [ctypes.c_void_p]

RUBBISH = 0x5A


class Memory:
    """``nbytes`` that begin ``offset`` bytes after a multiple of 256 and end where their allocation ends."""

    def __init__(self, nbytes: int, offset: int = 0) -> None:
        block = ctypes.c_void_p()
        assert _LIBC.posix_memalign(ctypes.byref(block), 256, nbytes + offset) == 0
        assert block.value is not None
        weakref.finalize(self, _LIBC.free, block.value)
        self.address = block.value + offset
        self.bytes: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self.address))
        self.bytes[:] = RUBBISH

    @classmethod
    def of(cls, array: NDArray[Any], offset: int = 0) -> Memory:
        memory = cls(array.nbytes, offset)
        memory.bytes[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return memory

    def view(self, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        return self.bytes.view(dtype).reshape(shape)


class Rows(Memory):
    """A plane whose rows lie ``pad`` bytes further apart than they are long."""

    def __init__(self, rows: int, length: int, pad: int = 0, offset: int = 0) -> None:
        self.rows, self.length, self.pitch = rows, length, length + pad
        super().__init__((rows - 1) * self.pitch + length, offset)

    @property
    def array(self) -> NDArray[np.uint8]:
        """(rows, length) view."""
        return np.lib.stride_tricks.as_strided(self.bytes, (self.rows, self.length), (self.pitch, 1))

    def padding_is_untouched(self) -> bool:
        outside = np.ones(self.bytes.size, bool)
        np.lib.stride_tricks.as_strided(outside, (self.rows, self.length), (self.pitch, 1))[:] = False
        return bool((self.bytes[outside] == RUBBISH).all())


class HostPicture:
    """A picture of a kind in such memory. ``pads`` and ``offsets``, one for each plane, count samples, or pairs of
    chroma samples where these are interleaved; ``align`` more makes pitches and addresses its multiples."""

    def __init__(self, kind: PictureKind, pads: tuple[int, ...], offsets: tuple[int, ...], *, align: int = 1) -> None:
        self.kind = kind
        units = [kind.sample_bytes] * 3
        if len(kind.rows) == 2:
            units[1] *= 2
        self.planes = [
            Rows(rows, length, -(-(length + pad * unit) // align) * align - length, -(-offset * unit // align) * align)
            for (rows, length), unit, pad, offset in zip(kind.rows, units, pads, offsets, strict=False)
        ]
        self.device = DevicePicture(
            kind, tuple(plane.address for plane in self.planes), tuple(plane.pitch for plane in self.planes)
        )

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Copies of the planes, shaped as in ``frame.Frame``."""
        dtype = np.uint16 if self.kind.bits > 8 else np.uint8
        planes = [np.ascontiguousarray(plane.array).view(dtype) for plane in self.planes]
        if self.kind.format == "bgr24":
            return (planes[0].reshape(self.kind.height, self.kind.width, 3),)
        if len(planes) == 2:
            planes[1] = planes[1].reshape(planes[1].shape[0], -1, 2)
        return tuple(planes)

    def fill(self, seed: int) -> HostPicture:
        """Random samples; what 10 bits leave of 16 is 0."""
        random = np.random.default_rng(seed)
        for plane in self.planes:
            if self.kind.bits == 8:
                plane.array[:] = random.integers(0, 256, plane.array.shape, np.uint8)
            else:
                samples = random.integers(0, 1024, (plane.rows, plane.length // 2), np.uint16)
                plane.array[:] = (samples << (6 if self.kind.format == "p010" else 0)).astype("<u2").view(np.uint8)
        return self
