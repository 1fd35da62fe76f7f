"""What sources have in common that make their pictures themselves: numbering, pace, the end, looping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from segcam.errors import SourceError
from segcam.frame import Frame, Plane
from segcam.sources.base import SourceInfo, SourceOptions
from segcam.sources.select import announced_frames, check_options, given_rate, refuse_looping, refuse_seeking

Planes = tuple[Plane, Plane, Plane]


@dataclass(frozen=True)
class Format:
    """``frames`` 0 is endless; ``live`` keeps the pace of the clock."""

    width: int
    height: int
    rate: Fraction
    frames: int
    live: bool


class MadeSource:
    """I420, BT.709, limited range. A kind of source says in ``_draw`` what frame ``number`` looks like, in ``_prepare``
    what it needs before, in ``about`` what it is. With a live format frames come in real time, none is skipped, and
    --start and --loop are refused. Raises UsageError.
    """

    about = ""

    def __init__(
        self, spec: str, options: SourceOptions, form: Format, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        check_options(options)
        if form.live:
            refuse_seeking(options, spec)
            refuse_looping(options, spec)
        self._spec, self._options, self._format, self._clock = spec, options, form, clock
        self._stop = threading.Event()
        self._opened = False
        self._first = round(Fraction(options.start_s) * form.rate)
        self._given = 0
        self._began_s: float | None = None

    def _prepare(self) -> None:
        """Called by ``open``."""

    def _draw(self, number: int) -> Planes:
        """Fresh planes of frame ``number``."""
        raise NotImplementedError

    def open(self) -> SourceInfo:
        form, options = self._format, self._options
        if form.frames and self._first >= form.frames:
            lasts_s = float(form.frames / form.rate)
            raise SourceError(
                f"{self._spec}: --start {options.start_s:g} s is behind the end (it lasts {lasts_s:.2f} s)",
                f"Give --start between 0 and {lasts_s:.2f}.",
            )
        self._prepare()
        self._opened = True
        frames = announced_frames(form.frames - self._first if form.frames else None, options)
        return SourceInfo(
            description=f"{self._spec} ({self.about})",
            width=form.width,
            height=form.height,
            rate_hz=given_rate(form.rate, options),
            # Without an end of its own it still stops at --frames.
            frames=frames if frames is not None else options.frames or None,
            live=form.live,
        )

    def read(self) -> Frame | None:
        if not self._opened or self._stop.is_set():
            return None
        number, pts = self._place(self._given)
        if number is None:
            return None
        form = self._format
        if form.live and not self._wait(self._given * self._options.every / form.rate):
            return None
        asked_s = time.perf_counter()
        planes = self._draw(number)
        ready_s = time.perf_counter()
        frame = Frame(
            index=self._given,
            pts=pts,
            time_base=1 / form.rate,
            captured_at_s=ready_s,
            source_id=self._spec,
            width=form.width,
            height=form.height,
            format="i420",
            planes=planes,
            matrix="bt709",
            decode_ms=(ready_s - asked_s) * 1000,
        )
        self._given += 1
        return frame

    def interrupt(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._stop.set()
        self._opened = False

    def _place(self, given: int) -> tuple[int | None, int]:
        """Number of the ``given``-th frame and its presentation time (in frames); number None at the end."""
        options = self._options
        if options.frames and given >= options.frames:
            return None, 0
        if not self._format.frames:
            number = self._first + given * options.every
            return number, number
        in_round = self._format.frames - self._first
        played, place = divmod(given, -(-in_round // options.every))
        if options.loops and played >= options.loops:
            return None, 0
        number = self._first + place * options.every
        return number, number + played * in_round

    def _wait(self, due_s: Fraction) -> bool:
        if self._began_s is None:
            self._began_s = self._clock()
        return not self._stop.wait(max(0.0, self._began_s + float(due_s) - self._clock()))
