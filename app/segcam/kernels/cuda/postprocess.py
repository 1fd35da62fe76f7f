"""Launches postprocess.cu: scores or ids on a coarse grid to class map, pixel counts and overlay, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segcam.frame import ColorMatrix
from segcam.geometry import Taps
from segcam.kernels.cuda.driver import Driver, Module, Stream
from segcam.kernels.cuda.picture import (
    BLOCK,
    DevicePicture,
    Tables,
    overlay_kinds,
    point_table,
    tap_table,
)
from segcam.kernels.reference import overlay_tables

ScoreDtype = Literal["float32", "float16", "bfloat16"]
IdDtype = Literal["int8", "uint8", "int32", "int64"]

#: Bytes of the pixel counts: (256,) uint32.
COUNTS_BYTES = 1024

#: A block's tile, and how many points of the grid it can hold: the numbers of postprocess.cu.
TILE_ROWS, TILE_COLS, TILE_POINTS = 16, 128, 2304

_DIRECT, _WIDE = 1, 2
_FORMATS = {"nv12": 1, "i420": 2, "bgr24": 3, "p010": 4, "i420p10": 5}

#: What makes eight bits of a sample of ten, with 22 fractional bits: limited range is a shift, full range ends at 255.
_TEN_TO_EIGHT = {False: 1 << 20, True: round(255 / 1023 * (1 << 22))}


@dataclass(frozen=True)
class Grid:
    """A network's output of one picture: where its elements lie, counted in elements from its address.

    Class ids have one "class"; their ``classes`` and ``class_stride`` are not looked at.
    """

    dtype: ScoreDtype | IdDtype
    classes: int
    height: int
    width: int
    class_stride: int
    row_stride: int
    point_stride: int

    @classmethod
    def nchw(cls, dtype: ScoreDtype | IdDtype, classes: int, height: int, width: int) -> Grid:
        """(1, classes, H, W) packed; ids too, with one class."""
        return cls(dtype, classes, height, width, height * width, width, 1)

    @classmethod
    def nhwc(cls, dtype: ScoreDtype, classes: int, height: int, width: int, padded: int = 0) -> Grid:
        """(1, H, W, classes), each point's scores ``padded`` elements apart if given."""
        step = padded or classes
        return cls(dtype, classes, height, width, 1, width * step, step)


class PostprocessPlan:
    """All that depends on the grid and on the class map's size; no device is needed for it.

    ``y`` and ``x`` say where the rows and columns of the class map lie on the grid: ``Taps`` for scores, which are
    interpolated, the nearest points (int32, rising) for ids, which never are. At most 255 classes, else ValueError.
    """

    def __init__(self, grid: Grid, y: Taps | NDArray[np.int32], x: Taps | NDArray[np.int32]) -> None:
        self.grid_in = grid
        flags = 0
        if isinstance(y, Taps) and isinstance(x, Taps):
            if not 0 < grid.classes < 256 or grid.dtype.startswith(("int", "uint")):
                raise ValueError(f"{grid} is no grid of scores of 1 to 255 classes")
            if (y.size, x.size) != (grid.height, grid.width):
                raise ValueError(f"taps of a grid of {(y.size, x.size)} points for {grid}")
            unrolled = grid.classes == 19 and grid.dtype != "bfloat16"
            self.kernel = f"postprocess_{grid.dtype}" + ("_19" if unrolled else "")
            if (y.is_identity and x.is_identity) or _span(y, TILE_ROWS) * _span(x, TILE_COLS) > TILE_POINTS:
                flags |= _DIRECT
            tables = Tables(tap_table(y), tap_table(x))
            self.height, self.width = y.first.size, x.first.size
        elif not isinstance(y, Taps) and not isinstance(x, Taps):
            self.kernel = f"postprocess_ids_{grid.dtype}"
            tables = Tables(point_table(y), point_table(x))
            self.height, self.width = y.size, x.size
        else:
            raise ValueError("one axis has taps and the other nearest points")
        self.tables = tables
        self._flags = flags
        self.grid = (-(-self.width // TILE_COLS), -(-self.height // TILE_ROWS), 1)

    def arguments(
        self,
        tables: int,
        scores: int,
        *,
        labels: int = 0,
        labels_pitch: int = 0,
        counts: int = 0,
        colors: int = 0,
        source: DevicePicture | None = None,
        overlay: DevicePicture | None = None,
    ) -> tuple[np.generic | int, ...]:
        """The kernel's parameters. All addresses are the device's; what is 0 or None is not written.

        ``labels`` (H, W) uint8, its rows ``labels_pitch`` bytes apart (0: packed). ``counts`` (256,) uint32, added to.
        ``overlay`` gets ``source`` with the ``colors`` (``color_table``) blended in: other memory, the same kind or
        NV12 of a 4:2:0 source (``overlay_kinds``), and that of the class map's size. Samples of ten bits are rounded to
        eight first, as ``sources.planes`` does it. Raises ValueError where they don't fit together.
        """
        grid, pitch = self.grid_in, labels_pitch or self.width
        wide = labels % 4 == 0 and (not labels or pitch % 4 == 0)
        formats, scale = (0, 0), 0
        planes = [(0, 0)] * 6
        if overlay is not None:
            if source is None or not colors or colors % 16:
                raise ValueError(f"an overlay needs its picture and colours: {source}, {overlay}, {colors:#x}")
            if overlay.kind not in overlay_kinds(source.kind):
                raise ValueError(f"overlays have 8 bits and {source.kind} is not painted into {overlay.kind}")
            if (overlay.kind.height, overlay.kind.width) != (self.height, self.width):
                raise ValueError(f"a class map of {(self.height, self.width)} cannot be painted into {overlay.kind}")
            formats = _FORMATS[source.kind.format], _FORMATS[overlay.kind.format]
            scale = _TEN_TO_EIGHT[source.kind.full_range]
            wide = wide and source.wide and overlay.wide
            planes = [source.plane(i) for i in range(3)] + [overlay.plane(i) for i in range(3)]
        return (
            scores,
            np.uint64(grid.class_stride),
            np.int32(grid.row_stride),
            np.int32(grid.point_stride),
            np.int32(grid.classes),
            *(tables + offset for offset in self.tables.offsets),
            np.int32(self.height),
            np.int32(self.width),
            np.int32(self._flags | (_WIDE if wide else 0)),
            labels,
            np.int32(pitch),
            counts,
            *(np.int32(code) for code in formats),
            np.uint32(scale),
            colors,
            *(address for address, _ in planes[:3]),
            *(np.int32(pitch) for _, pitch in planes[:3]),
            *(address for address, _ in planes[3:]),
            *(np.int32(pitch) for _, pitch in planes[3:]),
        )


def _span(taps: Taps, tile: int) -> int:
    """How many points of the grid a tile of so many samples needs, at most."""
    begin = np.arange(0, taps.first.size, tile)
    end = np.minimum(begin + tile, taps.first.size) - 1
    return int((taps.second[end] - taps.first[begin]).max()) + 1


def color_table(
    colors: tuple[ColorMatrix, bool] | None,
    colors_rgb: NDArray[np.uint8],
    alpha: NDArray[np.float64],
    *,
    mask_only: bool = False,
) -> NDArray[np.int32]:
    """(256, 4) int32 for the kernel: of each id what is kept of a sample and what is added to each plane.

    ``colors`` are the picture's matrix and range (``PictureKind.colors``); ``colors_rgb`` (256, 3) uint8 and ``alpha``
    (256,) 0..1 have a row for every id: hidden classes, and ids that are no class, have alpha 0.
    """
    keep, add = overlay_tables(colors, colors_rgb, alpha, mask_only=mask_only)
    return np.ascontiguousarray(np.concatenate([keep[:, None], add], axis=1), np.int32)


class Postprocess:
    """A plan on a device: made once, then one launch for each frame, which allocates nothing there.

    ``module`` is ``driver.load_module(read_ptx("postprocess"))``. The tables' upload is queued on ``stream``: launches
    on other streams must come after it. Used inside ``driver.current()``; ``close`` gives the tables back.
    """

    def __init__(self, driver: Driver, module: Module, plan: PostprocessPlan, stream: Stream) -> None:
        self.plan = plan
        self._driver = driver
        self._function = module.function(plan.kernel)
        self._tables = plan.tables.upload(driver, stream)

    def launch(
        self,
        scores: int,
        stream: Stream,
        *,
        labels: int = 0,
        labels_pitch: int = 0,
        counts: int = 0,
        colors: int = 0,
        source: DevicePicture | None = None,
        overlay: DevicePicture | None = None,
    ) -> None:
        """Queue the kernel; see ``PostprocessPlan.arguments``. Raises CudaError.

        ``counts`` are added to: ``Preprocess.launch`` clears them, which spares a frame a piece of work by itself.
        """
        arguments = self.plan.arguments(
            self._tables.address, scores, labels=labels, labels_pitch=labels_pitch, counts=counts, colors=colors,
            source=source, overlay=overlay,
        )  # fmt: skip
        self._driver.launch(self._function, self.plan.grid, BLOCK, arguments, stream)

    def close(self) -> None:
        self._tables.close()
