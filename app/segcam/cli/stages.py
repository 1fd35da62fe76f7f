"""The stages of a build on a terminal: a bar for the one at work, a line for each that is done."""

from __future__ import annotations

import sys
import threading
from typing import Any

from segcam.cli import interrupts

_WIDTH = 10


class Stages:
    """See ``engines.plan_options.Progress``; a context manager. Lines go to stderr: results have stdout to themselves.

    ``asked`` is "auto", "on" or "off": whether there is a bar; auto is on a terminal. ``step`` may come from any
    thread.
    """

    def __init__(self, asked: str) -> None:
        self._on = asked == "on" or (asked == "auto" and sys.stderr.isatty())
        self._bar: Any = None
        self._task: Any = None
        self._lock = threading.Lock()

    def __enter__(self) -> Stages:
        if self._on:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = [TextColumn("{task.description:10}"), BarColumn(), TextColumn("{task.fields[words]}")]
            self._bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def begin(self, stage: str) -> None:
        with self._lock:
            if self._bar is not None:
                self._clear()
                self._task = self._bar.add_task(stage, total=None, words="")

    def step(self, done: int, total: int, words: str) -> None:
        with self._lock:
            if self._bar is not None and self._task is not None:
                # Words are TensorRT's and people's: none of them is markup.
                from rich.markup import escape

                self._bar.update(self._task, completed=done, total=total or None, words=escape(words[:60]))

    def end(self, stage: str, words: str) -> None:
        with self._lock:
            self._clear()
        self.say(f"  {stage:{_WIDTH}} {words}")

    def cancelled(self) -> bool:
        # Ctrl-C comes as KeyboardInterrupt if it comes, and where TensorRT builds as a signal of its own.
        return interrupts.interrupted()

    def say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        self.say(f"segcam: warning: {line}")

    def _clear(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
        self._task = None
