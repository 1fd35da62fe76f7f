"""One network, eight fixed pictures of made-up streets, and every way that they can take through Segcam on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import segcam
from segcam.classes import CITYSCAPES, ClassTable
from segcam.evaluation.datasets import Dataset, Sample
from segcam.frame import Frame
from segcam.onnx_tools.spec import METADATA_KEY, ModelSpec, dump_spec, parse_spec
from segcam.sources.street import render
from segcam.sources.street.yuv import to_i420

Picture = NDArray[np.uint8]

#: (seed, second) of each picture: all 19 classes, each at least 0.4 % of the pixels, all weathers, no seed that
#: anything was trained on.
EIGHT = (
    (3_000_116, 9), (3_000_100, 2), (3_000_041, 9), (3_000_065, 9),
    (3_000_097, 2), (3_000_032, 2), (3_000_000, 2), (3_000_001, 2),
)  # fmt: skip
SIZE = (512, 1024)
#: x264's quality for the way through a video file: Segcam's own default.
CRF = 23


@lru_cache(1)
def pictures() -> tuple[tuple[Picture, Picture], ...]:
    """The eight: (512, 1024, 3) uint8, red first, and (512, 1024) uint8 classes."""
    return tuple(render(seed, second, SIZE, rate=1) for seed, second in EIGHT)


class Samples:
    """A data set of pictures that are in memory."""

    classes: ClassTable | None = CITYSCAPES
    renamed: Mapping[str, str] = {}

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    @property
    def description(self) -> str:
        return f"{len(self._samples)} pictures of made-up streets"

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> Sample:
        return self._samples[index]


def _frame(number: int, form: Any, planes: tuple[Picture, ...]) -> Frame:
    height, width = SIZE
    return Frame(number, number, Fraction(1, 25), time.perf_counter(), "street", width, height, form, planes)


def as_rgb(folder: Path) -> Dataset:
    """The pictures as they were drawn."""
    return Samples(
        [
            Sample(str(number), _frame(number, "bgr24", (np.ascontiguousarray(rgb[..., ::-1]),)), labels)
            for number, (rgb, labels) in enumerate(pictures())
        ]
    )


def as_street(folder: Path) -> Dataset:
    """In 4:2:0, as ``--source street:`` gives them."""
    return Samples(
        [
            Sample(str(number), _frame(number, "i420", to_i420(rgb)), labels)
            for number, (rgb, labels) in enumerate(pictures())
        ]
    )


def as_files(folder: Path) -> str:
    """PNG files of pictures and labels: what ``--dataset`` takes."""
    import cv2

    for number, (rgb, labels) in enumerate(pictures()):
        for kind, picture in (("images", rgb[..., ::-1]), ("labels", labels)):
            path = folder / kind / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            assert cv2.imwrite(str(path), picture), path
    return f"folder:{folder / 'images'},{folder / 'labels'}"


def as_video(folder: Path) -> Dataset:
    """An H.264 file, written by x264 and read by the source for files."""
    import av

    from segcam.sources.factory import make_source

    path = folder / "eight.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": str(CRF), "preset": "superfast"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        # ITU-T H.273: 1 is BT.709 for primaries, transfer and matrix; AVColorRange 1 is limited.
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1
        for rgb, _ in pictures():
            stacked = np.concatenate([plane.reshape(-1) for plane in to_i420(rgb)])
            picture = av.VideoFrame.from_ndarray(stacked.reshape(SIZE[0] * 3 // 2, SIZE[1]), "yuv420p")
            picture.colorspace = picture.color_range = 1
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    source = make_source(str(path))
    source.open()
    frames = [source.read() for _ in EIGHT]
    source.close()
    return Samples(
        [
            Sample(str(number), frame, labels)
            for number, (frame, (_, labels)) in enumerate(zip(frames, pictures(), strict=True))
            if frame is not None
        ]
    )


@dataclass(frozen=True)
class Way:
    """``data`` puts the pictures where a run finds them, ``options`` are those of ``segcam.evaluate``."""

    data: Callable[[Path], Dataset | str]
    options: Mapping[str, Any]


_FP32 = {"runtime": "openvino", "precision": "fp32"}
#: The first one is what the others are compared with.
WAYS: dict[str, Way] = {
    "OpenVINO, fp32": Way(as_rgb, _FP32),
    "OpenVINO, auto": Way(as_rgb, {"runtime": "openvino"}),
    "ONNX Runtime": Way(as_rgb, {"runtime": "onnxruntime"}),
    "head left in": Way(as_rgb, {**_FP32, "cut_head": False}),
    "not rewritten": Way(as_rgb, {**_FP32, "rewrite": False}),
    "ONNX Runtime, head left in, not rewritten": Way(
        as_rgb, {"runtime": "onnxruntime", "cut_head": False, "rewrite": False}
    ),
    "street:": Way(as_street, _FP32),
    "PNG files": Way(as_files, _FP32),
    f"H.264 file (crf {CRF})": Way(as_video, _FP32),
}
REFERENCE = next(iter(WAYS))


def miou(model: Path, way: str, folder: Path, spec: Path | str = "") -> float:
    """mIoU over the 19 classes of the eight pictures, which go ``way`` through ``folder``; ``spec``: another ModelSpec
    than the model's own."""
    chosen = WAYS[way]
    report = segcam.evaluate(model, chosen.data(folder), spec=spec, **chosen.options)
    assert report.images == len(EIGHT)
    return report.scores.miou_occurring


def own_spec(model: Path) -> ModelSpec:
    """What the model's file says of itself."""
    import onnx

    loaded = onnx.load(str(model), load_external_data=False)
    (text,) = (entry.value for entry in loaded.metadata_props if entry.key == METADATA_KEY)
    return parse_spec(text, str(model))


def fed_wrongly(model: Path) -> dict[str, str]:
    """ModelSpecs (JSON) with one mistake each, by what is wrong."""
    spec = own_spec(model)
    fed = spec.input
    swapped = "BGR" if fed.color == "RGB" else "RGB"
    wrong = {
        "red and blue swapped": replace(fed, color=swapped),
        "not normalised": replace(fed, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        "only scaled to 0..1": replace(fed, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
    }
    return {name: dump_spec(replace(spec, input=one)) for name, one in wrong.items()}
