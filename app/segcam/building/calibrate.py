"""Pictures for a network before it runs anywhere: fed exactly as the pipeline feeds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.building.options import CALIBRATION_FRAMES, RANDOM, STREET
from segcam.engines.model import Shape
from segcam.errors import SourceError
from segcam.frame import Frame
from segcam.geometry import even, fit
from segcam.onnx_tools.spec import ModelSpec
from segcam.sources.base import Source, SourceInfo, SourceOptions

#: Of a source that goes on for ever, frames this far apart: a street looks different then.
_EVERY = 25
#: Pixels of the network for one of a random picture.
_COARSE = 8
#: The smallest side of a street.
_LEAST = 64


@dataclass(frozen=True, eq=False)
class Feeds:
    """What a network's input is given, one dictionary a run, and where it came from, in words."""

    feeds: tuple[dict[str, NDArray[Any]], ...]
    source: str


def calibration_feeds(
    source: str,
    spec: ModelSpec,
    shape: Shape,
    warn: Callable[[str], None],
    step: Callable[[int], None] = lambda done: None,
) -> Feeds:
    """``CALIBRATION_FRAMES`` frames of ``source`` (any of --source, "random", "" for the made-up street) as ``shape``,
    the network's input. A network that takes several pictures at once gets each frame as all of them.

    ``step`` hears how many are done. Raises UsageError and SourceError as sources do.
    """
    assert spec.input.size
    words = source or STREET
    if words == RANDOM:
        frames: Iterator[Frame] = _noise(spec.input.size)
        said = "random pictures"
    else:
        frames, said = _frames(words, spec.input.size, warn), words
    made: list[dict[str, NDArray[Any]]] = []
    for frame in frames:
        made.append({spec.input.name: _fed(frame, spec, shape)})
        step(len(made))
    if not made:
        raise SourceError(f"{words} has no frame to look at", "Name another source with --calibrate.")
    count = len(made)
    return Feeds(tuple(made), f"{count} frame{'s' if count > 1 else ''} of {said}" if said is words else said)


def check_source(source: str) -> None:
    """Raise what ``calibration_feeds`` would of a ``source`` that cannot be opened, before anything has taken time."""
    if source in ("", RANDOM, STREET):
        return
    from segcam.sources.factory import make_source

    with _opened(make_source(source, SourceOptions(), lambda line: None)):
        pass


def _fed(frame: Frame, spec: ModelSpec, shape: Shape) -> NDArray[Any]:
    from segcam.kernels.cpu.preprocess import Preprocessor
    from segcam.segmenters.cpu import fill_input

    given = spec.input
    assert given.size
    placement = fit((frame.height, frame.width), given.size, given.resize)
    picture = np.empty((1, 3, *given.size), np.float32)
    Preprocessor(frame, placement, given.mean, given.std, rgb=given.color == "RGB")(frame, picture)
    fed = np.empty((1, *shape[1:]), np.dtype(given.dtype))
    fill_input(fed, picture, given.layout)
    return np.repeat(fed, shape[0], axis=0)


def _noise(size: tuple[int, int]) -> Iterator[Frame]:
    """Coarse noise, which is smooth once it is enlarged to ``size``: neighbouring pixels of a picture are alike."""
    random = np.random.default_rng(0)
    height, width = (max(2, side // _COARSE) for side in size)
    for index in range(CALIBRATION_FRAMES):
        picture = random.integers(0, 256, (height, width, 3), np.uint8)
        yield Frame(index, index, Fraction(1), 0.0, RANDOM, width, height, "bgr24", (picture,))


def _frames(text: str, size: tuple[int, int], warn: Callable[[str], None]) -> Iterator[Frame]:
    from segcam.sources.factory import make_source

    if text in (STREET, STREET.rstrip(":")):
        # Drawn at the size at which the network sees it.
        height, width = (max(_LEAST, even(side)) for side in size)
        text = f"{STREET}size={width}x{height}"
    with _opened(make_source(text, SourceOptions(), warn)) as (source, info):
        if info.live:
            yield from islice(_read(source), CALIBRATION_FRAMES)
            return
    # All over a file; of a source that goes on for ever, a second apart.
    every = _EVERY if info.frames is None else max(1, info.frames // CALIBRATION_FRAMES)
    with _opened(make_source(text, SourceOptions(every=every, frames=CALIBRATION_FRAMES), warn)) as (source, _):
        yield from _read(source)


def _read(source: Source) -> Iterator[Frame]:
    while (frame := source.read()) is not None:
        yield frame


@contextmanager
def _opened(source: Source) -> Iterator[tuple[Source, SourceInfo]]:
    try:
        yield source, source.open()
    finally:
        source.close()
