"""The log of a training run (JSON lines), what is drawn from it, and the clock that its budget is measured by."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SIZE = (540, 960)
_MARGINS = (40, 60, 60, 60)
_INK, _FAINT, _LOSS, _MIOU = (40, 40, 40), (220, 220, 220), (60, 60, 200), (160, 90, 20)


class ActiveClock:
    """Minutes of work: a step in which the process was stopped, or the machine slept, counts like one of five median
    ones. ``done`` is what earlier runs had used."""

    def __init__(self, done: float = 0.0, clock: Callable[[], float] = time.perf_counter) -> None:
        self.minutes = done
        self._clock, self._last = clock, clock()
        self._steps: deque[float] = deque(maxlen=50)

    def step(self) -> float:
        """The seconds since the last call, as they count."""
        now = self._clock()
        took, self._last = now - self._last, now
        if len(self._steps) >= 5:
            took = min(took, 5 * median(self._steps))
        self._steps.append(took)
        self.minutes += took / 60
        return took

    def other(self) -> None:
        """What was done since the last call is no step, and counts in full up to a minute."""
        now = self._clock()
        self.minutes += min(now - self._last, 60.0) / 60
        self._last = now


class Log:
    """Appends one JSON object a line to a file; each is there when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **values})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines() if line]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """``write(temporary name)``, then that name becomes ``path``: nobody ever sees half of it."""
    part = path.with_name(f".{path.name}.part")
    write(part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def draw_curve(events: Sequence[dict[str, Any]]) -> NDArray[np.uint8]:
    """Loss (left) and mIoU on held-out scenes (right) over minutes of work, (540, 960, 3) uint8 BGR."""
    losses = [(e["minutes"], e["loss"]) for e in events if e["event"] == "step"]
    scores = [(e["minutes"], e["miou"]) for e in events if e["event"] == "evaluation"]
    top, right, bottom, left = _MARGINS
    height, width = _SIZE[0] - top - bottom, _SIZE[1] - left - right
    end = max([minutes for minutes, _ in losses + scores], default=0) or 1.0
    most = max([loss for _, loss in losses], default=1.0) or 1.0
    canvas = np.full((*_SIZE, 3), 255, np.uint8)

    def place(minutes: float, share: float) -> tuple[int, int]:
        return round(left + width * minutes / end), round(top + height * (1 - min(max(share, 0.0), 1.0)))

    for fifth in range(6):
        share = fifth / 5
        cv2.line(canvas, place(0, share), place(end, share), _FAINT, 1)
        y = place(0, share)[1] + 5
        _text(canvas, f"{most * share:.2f}", (8, y), _LOSS)
        _text(canvas, f"{share:.1f}", (left + width + 10, y), _MIOU)
        _text(canvas, f"{end * share:.1f}", (place(end * share, 0)[0] - 12, top + height + 22), _INK)
    _text(canvas, "loss", (8, 24), _LOSS)
    _text(canvas, "mIoU", (left + width + 10, 24), _MIOU)
    _text(canvas, "minutes", (left + width // 2 - 30, _SIZE[0] - 14), _INK)
    for points, span, colour in ((losses, most, _LOSS), (scores, 1.0, _MIOU)):
        line = np.array([place(minutes, value / span) for minutes, value in points], np.int32).reshape(-1, 1, 2)
        cv2.polylines(canvas, [line], False, colour, 2, cv2.LINE_AA)
    for minutes, value in scores:
        cv2.circle(canvas, place(minutes, value), 4, _MIOU, -1, cv2.LINE_AA)
    if scores:
        _text(canvas, f"{scores[-1][1]:.3f}", (place(*scores[-1])[0] - 50, place(*scores[-1])[1] - 12), _MIOU)
    return canvas


def _text(canvas: NDArray[np.uint8], text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
