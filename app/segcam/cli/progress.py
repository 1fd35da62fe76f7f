"""The bar of a run on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from segcam.sinks.base import RunStats


class Progress:
    """A bar on a terminal, with the time left where the source's length is known; elsewhere nothing."""

    def __init__(self, asked: str, total: int | None, stats: RunStats) -> None:
        self._on = asked == "on" or (asked == "auto" and sys.stderr.isatty())
        self._total, self._stats = total, stats
        self._bar: Any = None

    def __enter__(self) -> Callable[[], None]:
        if not self._on:
            return lambda: None
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        self._bar = Progress(
            *columns, TextColumn("{task.fields[fps]:.1f} frames/s"), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("frames", total=self._total, fps=0.0)
        self._bar.start()
        return self._tick

    def _tick(self) -> None:
        self._bar.update(self._task, completed=self._stats.frames, fps=self._stats.fps)

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._tick()
            self._bar.stop()
