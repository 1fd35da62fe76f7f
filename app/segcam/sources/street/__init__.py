"""A drive through a street that is made up as it goes, with the class of every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segcam.sources.street.source import WEATHERS, Drive, StreetSource, parse_drive

if TYPE_CHECKING:
    from segcam.sources.street.picture import render

__all__ = ["WEATHERS", "Drive", "StreetSource", "parse_drive", "render"]


def __getattr__(name: str) -> object:
    # Drawing takes Numba and OpenCV, which reading a spec need not load.
    if name == "render":
        from segcam.sources.street.picture import render

        return render
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
