"""Segcam: real-time semantic segmentation of street video.

The few public names are fetched when they are first used, so that ``segcam --help`` loads no array library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from segcam.errors import SegcamError

if TYPE_CHECKING:
    from segcam.api import Segmenter, blend, colorize
    from segcam.classes import CITYSCAPES
    from segcam.evaluation.entry import evaluate
    from segcam.exporter import export

__version__ = "0.1.0"
__all__ = ["CITYSCAPES", "SegcamError", "Segmenter", "__version__", "blend", "colorize", "evaluate", "export"]

_HOMES = {
    "CITYSCAPES": "segcam.classes",
    "Segmenter": "segcam.api",
    "blend": "segcam.api",
    "colorize": "segcam.api",
    "evaluate": "segcam.evaluation.entry",
    "export": "segcam.exporter",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'segcam' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
