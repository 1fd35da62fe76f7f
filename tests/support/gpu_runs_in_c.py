"""Whole runs of segcam over the libraries of ``cuda_in_c``: a network for GPUs that needs no runtime, and what its
overlays must be.

The network gives its input back as scores: the class of a pixel is the strongest of its colours, so that class maps
show what the preprocess kernel made, and of which picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from segcam import session
from segcam.cli.main import main
from segcam.engines.base import EngineInfo, EngineOptions
from segcam.engines.device import DeviceEngine
from segcam.engines.plan import PlanTensor, Shape
from segcam.geometry import fit
from segcam.kernels.cuda import reference
from segcam.kernels.cuda.driver import Driver, Stream
from segcam.kernels.cuda.picture import PictureKind
from segcam.kernels.cuda.postprocess import color_table
from segcam.onnx_tools.spec import InputSpec, ModelSpec, OutputSpec
from segcam.segmenters.reading import class_colors, class_map_axes, score_taps
from segcam.session import Network
from segcam.settings import Settings

#: Height and width of the network's input.
SIZE = (96, 128)
MEAN, STD = (110.0, 120.0, 130.0), (60.0, 50.0, 55.0)

Planes = tuple[NDArray[Any], ...]


class Passing:
    """See ``segcam.engines.device.DeviceNetwork`` and ``DeviceRun``: both."""

    name = "passing"

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.input = PlanTensor("picture", "input", "float16", (1, 3, *SIZE), "linear")
        self.output = replace(self.input, name="scores", mode="output")
        self.input_shape = self.output_shape = self.input.shape
        self.input_bytes = self.output_bytes = 6 * SIZE[0] * SIZE[1]

    def execution(self, shape: Shape) -> Passing:
        assert shape == self.input_shape
        return self

    def enqueue(self, stream: Stream, input_address: int, output_address: int) -> None:
        self.driver.copy(output_address, input_address, self.input_bytes, stream)

    def warm_up(self, stream: Stream, input_address: int, output_address: int) -> None:
        self.enqueue(stream, input_address, output_address)
        stream.synchronize()

    def close(self) -> None:
        pass


class PassingEngine(DeviceEngine[Passing]):
    def activate(self) -> None:
        driver = self._driver = self._open_driver()
        with driver.current():
            self._plan = Passing(driver)
            self._make_slots(self._plan, self._plan.input_shape)
        given = InputSpec("picture", color="RGB", mean=MEAN, std=STD)
        self._spec = ModelSpec(
            replace(given, size=SIZE, dtype="float16"), OutputSpec("scores", "logits", "half_pixel"), None, "passing"
        )
        self._info = EngineInfo(
            model="passing", runtime="none", version="", device=driver.device.name, precision="fp16", threads=0,
            requests=len(self._slots), input_shape=self._plan.input_shape, output_shape=self._plan.output_shape,
            output_layout="NCHW", head="", spec="passing",
        )  # fmt: skip


def install() -> None:
    """Every engine is the passing one."""

    def gpu_engine(path: Path, options: EngineOptions, runtime: Any, say: Any, warn: Any) -> PassingEngine:
        return PassingEngine(path, options, warn)

    session.gpu_engine = gpu_engine  # type: ignore[attr-defined]


def run(*arguments: str) -> int:
    """``segcam`` with the passing network."""
    Path("passing.onnx").touch()
    return main(["--engine", "passing.onnx", *arguments])


def decoded(path: Path | str, pixels: str) -> Iterator[Planes]:
    """The pictures of a file, shaped as in ``frame.Frame``: "nv12", "p010", or "rounded": ten bits as NV12 of eight."""
    wide = pixels != "nv12"
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            luma, chroma = (
                np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : picture.width << wide].copy()
                for plane in picture.reformat(format="p010le" if wide else "nv12").planes
            )
            dtype = np.uint16 if wide else np.uint8
            planes = luma.view(dtype), chroma.view(dtype).reshape(chroma.shape[0], -1, 2)
            if pixels == "rounded":
                planes = tuple(reference.eight_bits(PictureKind("p010", 2, 2), plane) for plane in planes)
            yield planes


def class_maps(kind: PictureKind, pictures: Iterator[Planes]) -> Iterator[NDArray[np.uint8]]:
    """(H, W): what the network must say, from the NumPy references."""
    hw = (kind.height, kind.width)
    placement = fit(hw, SIZE, InputSpec("picture").resize)
    axes = class_map_axes(hw, "frame", hw, placement, SIZE, SIZE, OutputSpec("scores", "logits", "half_pixel"))
    for planes in pictures:
        fed = reference.preprocess(kind, planes, placement, SIZE, MEAN, STD, rgb=True).astype(np.float16)
        yield reference.class_map(fed.astype(np.float32), *score_taps(hw, SIZE, axes))[0]


def overlays(kind: PictureKind, pictures: Iterator[Planes], maps: Iterator[NDArray[np.uint8]]) -> Iterator[Planes]:
    """What must be painted, as NV12, where the class maps are those."""
    network = Network.load(Settings(engine="passing.onnx"), print, print)
    table = color_table(kind.colors, *class_colors(network.classes, network.controls))
    network.close()
    for planes, labels in zip(pictures, maps, strict=True):
        yield reference.overlay(kind, planes, labels, table, replace(kind, format="nv12"))


def check(source: str, written: str, maps: str, matrix: Any, pixels: str = "nv12") -> None:
    """Of a run with ``-o written -o labels:maps/``: each class map is what the references say of the source's picture
    on all but a few pixels (scores lie close together where two colours are as strong), and the file has the very
    samples of the overlay that belongs to it."""
    import cv2

    height, width = next(decoded(source, pixels))[0].shape
    kind = PictureKind("p010" if pixels == "p010" else "nv12", height, width, matrix)
    files = sorted(Path(maps).iterdir())
    found: list[Any] = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in files]
    wanted = list(class_maps(kind, decoded(source, pixels)))
    assert len(found) == len(wanted) > 0
    for mine, other in zip(found, wanted, strict=True):
        share = float((mine == other).mean())
        assert mine.dtype == np.uint8 and share >= 0.999, share
        assert np.bincount(mine.ravel(), minlength=3).min() > mine.size // 20
    painted = overlays(kind, decoded(source, pixels), iter(found))
    for number, pair in enumerate(zip(decoded(written, "nv12"), painted, strict=True)):
        for one, two in zip(*pair, strict=True):
            assert np.array_equal(one, two), (number, int((one != two).sum()))
