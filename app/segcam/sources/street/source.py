"""``street:`` as a source of frames, and what may be written after it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from segcam.errors import UsageError
from segcam.sources.base import SourceOptions
from segcam.sources.made import Format, MadeSource, Planes
from segcam.sources.settings import FORMAT, parse_format, parse_settings, parse_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Truth = Callable[[int, NDArray[np.uint8]], None]

#: What ``weather=`` takes, besides ``auto``.
WEATHERS = ("day", "dusk", "rain", "overcast")
SETTINGS = ("seed", "weather", *FORMAT)
_MOST_SEED = 2**62
#: More threads than this draw no faster.
_MOST_THREADS = 8


@dataclass(frozen=True)
class Drive:
    """One street, in one weather, as it was asked for."""

    seed: int
    weather: str
    format: Format


def check_weather(weather: str, where: str) -> str:
    """``weather``, where it is ``auto`` or one of WEATHERS. Raises UsageError."""
    if weather != "auto" and weather not in WEATHERS:
        near = get_close_matches(weather, WEATHERS, 1, 0.4)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"{where}: unknown weather {weather!r}", f"{meant}Known: auto, {', '.join(WEATHERS)}.")
    return weather


def parse_drive(text: str, spec: str, size: str = "2048x1024", rate: str = "25", frames: str = "0") -> Drive:
    """``seed=7,weather=rain,size=2048x1024,rate=25,frames=100,live=1``, each part optional, with these
    defaults. Raises UsageError."""
    settings = parse_settings(text, SETTINGS, spec)
    return Drive(
        parse_whole(settings.get("seed", "0"), "seed", spec, _MOST_SEED),
        check_weather(settings.get("weather", "auto"), f"source {spec!r}"),
        parse_format(settings, spec, size, rate, frames),
    )


class StreetSource(MadeSource):
    """``street:seed=7,weather=rain,size=2048x1024,rate=25,frames=100,live=1``, each part optional: without them seed 0,
    the seed's own weather, 2048x1024, 25 frames per second, endless, as fast as it is read.

    The same on every run (``picture.render``). ``--decode-threads`` draw it, 0: one for each core. Before a frame is
    given ``truth`` hears its number (its ``pts``, where the source is not looped) and its class map (H, W) uint8.
    """

    about = "made-up street"

    def __init__(
        self,
        spec: str,
        options: SourceOptions,
        clock: Callable[[], float] = time.perf_counter,
        truth: Truth | None = None,
    ) -> None:
        self._truth = truth
        self._drive = parse_drive(spec.removeprefix("street:"), spec)
        super().__init__(spec, options, self._drive.format, clock)
        self._threads = options.threads or min(_MOST_THREADS, os.cpu_count() or 1)

    def _prepare(self) -> None:
        # What Numba compiles, it compiles before the first frame; the textures are painted.
        from segcam.sources.street.textures import bank
        from segcam.sources.street.yuv import to_i420  # noqa: F401

        bank()

    def _draw(self, number: int) -> Planes:
        from segcam.sources.street.picture import render
        from segcam.sources.street.yuv import to_i420

        form = self._format
        rgb, labels = render(
            self._drive.seed,
            number,
            (form.height, form.width),
            weather=self._drive.weather,
            rate=form.rate,
            threads=self._threads,
        )
        if self._truth is not None:
            self._truth(number, labels)
        return to_i420(rgb)
