"""Launches preprocess.cu: a frame in device memory to the network's input, in one pass."""

from __future__ import annotations

from typing import Literal

import numpy as np

from segcam.geometry import Fit
from segcam.kernels.cuda.driver import Driver, Module, Stream
from segcam.kernels.cuda.picture import BLOCK, DevicePicture, PictureKind, Tables, tap_table
from segcam.kernels.feed import make_feed

InputDtype = Literal["float32", "float16", "uint8"]
InputLayout = Literal["NCHW", "NHWC"]

#: The numbers of preprocess.cu.
_DTYPES: tuple[InputDtype, ...] = ("float32", "float16", "uint8")
_CHANNELS_LAST, _BGR_SWAPPED, _WIDE_OUT, _UNIT_COLUMNS = 1, 2, 4, 8


class PreprocessPlan:
    """All that depends on the kind of the pictures and on the network; no device is needed for it.

    ``mean`` and ``std`` are per channel in the order fed, acting on 0..255. Outside the frame (letterbox) the input is
    0. uint8 inputs are rounded to nearest, ties to even, and clipped. ``tables`` is what the kernel reads.
    """

    def __init__(
        self,
        kind: PictureKind,
        placement: Fit,
        input_hw: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        rgb: bool,
        dtype: InputDtype = "float16",
        layout: InputLayout = "NCHW",
    ) -> None:
        feed = make_feed((kind.height, kind.width), kind.colors, placement, mean, std, rgb=rgb, bits=kind.bits)
        self.kind, self.input_hw = kind, input_hw
        self.kernel = f"preprocess_{kind.format}"
        self.tables = Tables(
            tap_table(feed.rows), tap_table(feed.cols), tap_table(feed.chroma_rows), tap_table(feed.chroma_cols)
        )
        height, width = input_hw
        #: Bytes of the input of one frame.
        self.nbytes = 3 * height * width * np.dtype(dtype).itemsize
        self.grid = (-(-width // 128), -(-height // 16), 1)
        self._flags = 0
        if layout == "NHWC":
            self._flags |= _CHANNELS_LAST
        if kind.format == "bgr24" and rgb:
            self._flags |= _BGR_SWAPPED
        self._wide_unit = 4 * np.dtype(dtype).itemsize if width % 4 == 0 else 0
        self._unit_columns = kind.format != "bgr24" and placement.left == 0 and feed.x.is_identity
        self._unit_columns = self._unit_columns and feed.cols.is_identity
        box = (placement.top, placement.bottom, placement.left, placement.right)
        self._shape = tuple(np.int32(n) for n in (_DTYPES.index(dtype), height, width, *box))
        self._numbers = tuple(
            np.float32(n) for array in (feed.matrix, feed.offset, feed.scale, feed.shift) for n in array.ravel()
        )

    def arguments(
        self, tables: int, picture: DevicePicture, out: int, cleared: int = 0
    ) -> tuple[np.generic | int, ...]:
        """The kernel's parameters; ``tables`` and ``out`` (``nbytes`` of the input's dtype) are device addresses, and
        so is ``cleared``, pixel counts that are set to 0 for ``Postprocess``, unless it is 0.

        Raises ValueError for a picture of another kind, and for an ``out`` that is not aligned to its dtype.
        """
        if picture.kind != self.kind:
            raise ValueError(f"made for {self.kind}, got {picture.kind}")
        itemsize = self.nbytes // (3 * self.input_hw[0] * self.input_hw[1])
        if out % itemsize:
            raise ValueError(f"the input at {out:#x} is not aligned to its {itemsize} bytes")
        flags = self._flags
        if self._wide_unit and out % self._wide_unit == 0:
            flags |= _WIDE_OUT
        sample = self.kind.sample_bytes
        chroma = 4 if len(picture.addresses) == 2 else 2
        if self._unit_columns and picture.aligned(4 * sample, chroma * sample, chroma * sample):
            flags |= _UNIT_COLUMNS
        planes = [picture.plane(i) for i in range(3)]
        return (
            *(address for address, _ in planes),
            *(np.int32(pitch) for _, pitch in planes),
            *(tables + offset for offset in self.tables.offsets),
            out,
            *self._shape,
            np.int32(flags),
            *self._numbers,
            cleared,
        )


class Preprocess:
    """A plan on a device: made once, then one launch for each frame, which allocates nothing there.

    ``module`` is ``driver.load_module(read_ptx("preprocess"))``. The tables' upload is queued on ``stream``: launches
    on other streams must come after it. Used inside ``driver.current()``; ``close`` gives the tables back.
    """

    def __init__(self, driver: Driver, module: Module, plan: PreprocessPlan, stream: Stream) -> None:
        self.plan = plan
        self._driver = driver
        self._function = module.function(plan.kernel)
        self._tables = plan.tables.upload(driver, stream)

    def launch(self, picture: DevicePicture, out: int, stream: Stream, cleared: int = 0) -> None:
        """Queue filling the input at device address ``out``, and clearing pixel counts. Raises CudaError."""
        arguments = self.plan.arguments(self._tables.address, picture, out, cleared)
        self._driver.launch(self._function, self.plan.grid, BLOCK, arguments, stream)

    def close(self) -> None:
        self._tables.close()
