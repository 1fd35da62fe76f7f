"""Segcam in a Python program, in three lines:

    import segcam
    network = segcam.Segmenter("model.onnx")
    labels = network.predict("street.jpg")

Pictures given as arrays and given back are RGB, red first, as PIL and matplotlib have them (OpenCV's are BGR:
``picture[..., ::-1]`` turns one into the other).
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Protocol, Union, overload

import numpy as np
from numpy.typing import NDArray

from segcam.classes import CITYSCAPES, TABLES, ClassTable
from segcam.config import from_arguments
from segcam.engines.base import EngineInfo
from segcam.errors import SourceError, UsageError
from segcam.frame import Frame, Segmentation
from segcam.session import Network
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source

if TYPE_CHECKING:
    from segcam.segmenters.base import Segmenter as AnySegmenter
    from segcam.segmenters.reading import LabelSize


class PilImage(Protocol):
    """What of ``PIL.Image.Image`` is used."""

    def convert(self, mode: str, /) -> Any: ...


#: An RGB array (H, W, 3) uint8, a PIL image, or the path of an image file.
Picture = Union[NDArray[np.uint8], PilImage, "os.PathLike[str]", str]


class Segmenter:
    """One network, ready for pictures and streams. Usable as a context manager; not by two threads at once.

    ``engine`` is an ``.onnx`` file, ``demo`` (what comes with Segcam, for made-up streets), or a name of the zoo
    (``mobilev3small_f128``; ``segcam models`` lists them): the first time its checkpoint is fetched and exported, at
    ``size`` (height, width) if given. ``precision`` ``auto`` is what the processor does well, ``fp32`` is exact.
    ``spec`` names a ModelSpec file where none lies beside the model. ``classes`` and ``alpha`` act on the overlays of
    ``stream`` as ``--classes`` and ``--alpha`` do. Raises EngineError, SpecError, ZooError or UsageError; warns with
    UserWarning.
    """

    def __init__(
        self,
        engine: str | os.PathLike[str],
        *,
        runtime: Literal["auto", "tensorrt", "openvino", "onnxruntime"] = "auto",
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
        device: str = "",
        threads: int = 0,
        requests: int = 0,
        cut_head: bool = True,
        rewrite: bool = True,
        size: tuple[int, int] | None = None,
        spec: str | os.PathLike[str] = "",
        alpha: float = 0.5,
        classes: str = "",
        palette: str = "auto",
        mask_only: bool = False,
        legend: bool = False,
    ) -> None:
        settings = from_arguments(
            {
                "engine": os.fspath(engine),
                "runtime": runtime,
                "precision": precision,
                "device": device,
                "threads": threads,
                "requests": requests,
                "cut_head": cut_head,
                "rewrite": rewrite,
                "size": f"{size[0]},{size[1]}" if size else "",
                "spec": os.fspath(spec),
                "alpha": alpha,
                "classes": classes,
                "palette": palette,
                "mask_only": mask_only,
                "legend": legend,
            }
        )
        self._network = Network.load(settings, _warn, logging.getLogger("segcam").info)
        self._predictors: dict[Any, AnySegmenter] = {}
        self._streaming = False

    @property
    def classes(self) -> ClassTable:
        """Names and RGB colours by label."""
        return self._network.classes

    @property
    def info(self) -> EngineInfo:
        """Runtime, version, precision, shapes."""
        return self._network.engine.info

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is a sequence of str, too; what comes first counts
        self, pictures: Picture, *, size: LabelSize = "frame"
    ) -> NDArray[np.uint8]: ...

    @overload
    def predict(self, pictures: Sequence[Picture], *, size: LabelSize = "frame") -> list[NDArray[np.uint8]]: ...

    def predict(self, pictures: Any, *, size: LabelSize = "frame") -> Any:
        """Class map (H, W) uint8 of a picture, or a list of them for a list: indices into ``classes``.

        A picture is an RGB array (H, W, 3) uint8 0..255, red first ((H, W) grey and (H, W, 4) RGBA are taken too, alpha
        ignored), a PIL image, or the path of an image file. ``size`` is that of the class map: ``frame`` is the
        picture's, ``network`` the network's input, or (height, width); scores are sampled there, ids never enlarged.
        Raises UsageError for what is no picture, SourceError for a file that cannot be read.
        """
        if isinstance(pictures, (list, tuple)):
            return self._predict([_frame(picture, i) for i, picture in enumerate(pictures)], size)
        return self._predict([_frame(pictures, 0)], size)[0]

    def _predict(self, frames: list[Frame], size: LabelSize) -> list[NDArray[np.uint8]]:
        self._check_idle()
        segmenter = self._predictors.get(size)
        if segmenter is None:
            segmenter = self._predictors[size] = self._network.segmenter(overlay=False, label_size=size)
        found: list[NDArray[np.uint8]] = []
        try:
            for frame in frames:
                if segmenter.pending == segmenter.depth:
                    found.append(segmenter.collect().labels)
                segmenter.submit(frame)
        finally:
            while segmenter.pending:
                found.append(segmenter.collect().labels)
        return found

    def _check_idle(self) -> None:
        """Two users of the same network at a time would overwrite each other's inputs."""
        if self._streaming:
            raise UsageError(
                "a stream of this Segmenter is not finished",
                "Read it to its end or close() it first, or make a second Segmenter.",
            )

    def stream(
        self,
        source: str | os.PathLike[str],
        *,
        overlay: bool = True,
        start_s: float = 0.0,
        every: int = 1,
        frames: int = 0,
        loops: int = 1,
    ) -> Iterator[Segmentation]:
        """Segmentations of every frame of a source, in order, while the network already works on the next ones.

        ``source`` is what ``--source`` takes. Each result owns its arrays: ``labels`` (H, W) uint8, ``counts`` and
        ``shares`` by class, ``overlay`` (a Frame in the source's own pixel format; ``overlay.bgr()`` converts) unless
        turned off, and the ``frame`` itself. Until the stream ends or is closed, the Segmenter does nothing else.
        Raises SourceError, after the last good frame where a file breaks off, and UsageError.
        """
        self._check_idle()
        from_arguments({"start": f"{start_s:.6f}", "every": every, "frames": frames, "loop": loops})
        opened = make_source(
            os.fspath(source), SourceOptions(start_s=start_s, every=every, frames=frames, loops=loops), _warn
        )
        segmenter = self._network.segmenter(overlay=overlay)
        failure: SourceError | None = None
        self._streaming = True
        try:
            opened.open()
            while True:
                frame = None
                if failure is None:
                    try:
                        frame = opened.read()
                    except SourceError as error:
                        failure = error
                if frame is None:
                    break
                if segmenter.pending == segmenter.depth:
                    yield segmenter.collect()
                segmenter.submit(frame)
            while segmenter.pending:
                yield segmenter.collect()
            if failure is not None:
                raise failure
        finally:
            opened.close()
            self._streaming = False
            try:
                while segmenter.pending:
                    segmenter.collect()
            finally:
                segmenter.close()

    def close(self) -> None:
        """Give the network's memory back; twice is fine."""
        self._predictors.clear()
        self._network.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def colorize(labels: NDArray[np.integer[Any]], classes: ClassTable | str = CITYSCAPES) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, red first: the colour of each label of a (H, W) class map.

    ``classes`` is a table or the name of a built-in one. Labels beyond the table, such as 255 for "ignore", are black.
    """
    if labels.ndim != 2:
        raise UsageError(f"colorize: labels have shape {labels.shape}", "Give a class map of shape (H, W).")
    return np.asarray(_palette(_table(classes))[_ids(labels)])


def blend(
    image_rgb: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    alpha: float = 0.5,
    classes: ClassTable | str = CITYSCAPES,
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, red first: ``image_rgb`` with the class colours over it at opacity ``alpha`` (0..1).

    ``labels`` is (H, W), of the image's size. Void classes and labels beyond the table stay clear. Rounded to nearest.
    """
    table = _table(classes)
    if image_rgb.dtype != np.uint8:
        raise UsageError(f"blend: the image is {image_rgb.dtype}", "Give an image of uint8, 0..255.")
    if image_rgb.ndim != 3 or image_rgb.shape[:2] != labels.shape or image_rgb.shape[2] != 3:
        raise UsageError(
            f"blend: an image of shape {image_rgb.shape} and labels of shape {labels.shape} don't belong together",
            "Give an (H, W, 3) image and (H, W) labels of the same size.",
        )
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"blend: alpha {alpha} is not between 0 and 1", "0 is the image alone, 1 the colours alone.")
    weights = np.zeros(256, np.float32)
    weights[: len(table)] = alpha * table.visible("")
    opacity = weights[_ids(labels)][..., None]
    mixed = image_rgb * (np.float32(1) - opacity) + _palette(table)[_ids(labels)] * opacity
    return np.asarray(np.floor(mixed + np.float32(0.5)), np.uint8)


def _table(classes: ClassTable | str) -> ClassTable:
    if isinstance(classes, ClassTable):
        return classes
    if classes not in TABLES:
        raise UsageError(f"there is no class table {classes!r}", f"Built in: {', '.join(TABLES)}.")
    return TABLES[classes]


def _palette(classes: ClassTable) -> NDArray[np.uint8]:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = classes.colors_rgb()
    return palette


def _ids(labels: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    if not np.issubdtype(labels.dtype, np.integer) and labels.dtype != np.bool_:
        raise UsageError(
            f"labels are {labels.dtype}, expected whole numbers", "Give the class map that predict() returns."
        )
    return np.where((labels < 0) | (labels > 255), 255, labels).astype(np.uint8)


def _frame(picture: Picture, index: int) -> Frame:
    if isinstance(picture, (str, os.PathLike)):
        source = make_source(os.fspath(picture), SourceOptions(frames=1), _warn)
        try:
            info = source.open()
            frame = source.read()
        finally:
            source.close()
        if frame is None or not info.still:
            raise UsageError(f"{picture} is not an image file", "Use stream() for videos and cameras.")
        return frame
    if hasattr(picture, "convert"):
        picture = _upright(picture)
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UsageError(
            f"predict: got {array.dtype} of shape {array.shape}",
            "Give an RGB array (H, W, 3) of uint8, a PIL image, or the path of an image file.",
        )
    if 0 in array.shape:
        raise UsageError(f"predict: the picture of shape {array.shape} is empty", "Give at least one pixel.")
    rgb = array if array.ndim == 3 else array[..., None]
    bgr = np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3)) if rgb.shape[2] == 1 else rgb[..., 2::-1])
    height, width = bgr.shape[:2]
    return Frame(index, index, Fraction(1, 25), 0.0, "array", width, height, "bgr24", (bgr,))


def _upright(image: Any) -> Any:
    """A PIL image in RGB, turned as its EXIF orientation says, as image files are."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image).convert("RGB")


def _warn(line: str) -> None:
    warnings.warn(line, UserWarning, stacklevel=4)
