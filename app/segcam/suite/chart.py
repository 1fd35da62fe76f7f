"""The suite's rows as a bar chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.errors import SinkError
from segcam.sinks.files import write_error
from segcam.suite.table import columns, figure, rate_words
from segcam.writing import whole_file

Picture = NDArray[np.uint8]

#: Blue first, as OpenCV paints: colours that differ in lightness, too.
_COLORS = ((138, 120, 24), (48, 122, 224), (90, 170, 90), (170, 110, 170), (60, 60, 170), (190, 190, 70))
_PAPER, _INK, _FAINT, _GRID = (255, 255, 255), (40, 40, 40), (140, 140, 140), (228, 228, 228)
_BAR, _GAP, _WIDTH = 15, 16, 1100


def chart(rows: Sequence[Mapping[str, Any]], title: str) -> Picture:
    """(H, W, 3) uint8, blue first: frames per second, a group of bars for each network and size, one for each column of
    the table. A row that was not measured says so."""
    import cv2

    shown = columns(rows)
    names = [f"{row['network']} {row['size'][0]}x{row['size'][1]}" for row in rows]
    left = max([_wide(name) for name in names] + [60]) + 20
    right = 90
    group = _BAR * len(shown) + _GAP
    top, bottom = 74, 34
    height = top + max(1, len(rows)) * group + bottom
    paper = np.full((height, _WIDTH, 3), _PAPER, np.uint8)
    _write(paper, _fitting(title, _WIDTH - 24), (12, 24), 0.5)
    x = 12
    for (words, _), color in zip(shown, _cycle(len(shown)), strict=True):
        cv2.rectangle(paper, (x, 40), (x + 12, 52), color, -1)
        _write(paper, words, (x + 18, 51), 0.42)
        x += 18 + _wide(words) + 24
    values = [figure(row, key) or 0.0 for row in rows for _, key in shown]
    step = _step(max([*values, 1e-9]))
    span = _WIDTH - left - right
    most = step * max(1, int(np.ceil(max([*values, 1e-9]) / step)))
    for mark in np.arange(0, most + step / 2, step):
        at = left + round(span * float(mark / most))
        cv2.line(paper, (at, top - 6), (at, height - bottom), _GRID, 1)
        _write(paper, f"{mark:g}", (at - _wide(f"{mark:g}") // 2, height - bottom + 18), 0.4, _FAINT)
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = top + number * group
        middle = y + _BAR * len(shown) // 2 + 4
        _write(paper, name, (left - 10 - _wide(name), middle), 0.42)
        if "problem" in row:
            _write(paper, "not measured", (left + 6, middle), 0.42, _FAINT)
        for place, ((_, key), color) in enumerate(zip(shown, _cycle(len(shown)), strict=True)):
            value = figure(row, key)
            if value is None:
                continue
            end = left + round(span * value / most)
            cv2.rectangle(paper, (left, y + place * _BAR), (end, y + (place + 1) * _BAR - 3), color, -1)
            _write(paper, rate_words(value), (end + 6, y + (place + 1) * _BAR - 4), 0.38)
    return paper


def write_chart(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """As PNG. Raises SinkError."""
    import cv2

    done, data = cv2.imencode(".png", chart(rows, title))
    assert done
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_bytes(data.tobytes())
    except OSError as error:
        raise SinkError(write_error(path, error).message, "Choose another file with --chart.") from None


def _cycle(count: int) -> list[tuple[int, int, int]]:
    return [_COLORS[n % len(_COLORS)] for n in range(count)]


def _step(most: float) -> float:
    """The distance of lines: 1, 2 or 5 times a power of ten, about six of them."""
    power = 10.0 ** np.floor(np.log10(most / 6))
    return float(next(power * n for n in (1, 2, 5, 10) if power * n >= most / 6))


def _wide(text: str, scale: float = 0.42) -> int:
    import cv2

    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0])


def _fitting(title: str, width: int) -> str:
    """As much of it as there is room for."""
    shown = title
    while _wide(shown, 0.5) > width and len(title) > 4:
        title = title[:-1]
        shown = f"{title} ..."
    return shown


def _write(paper: Picture, text: str, at: tuple[int, int], scale: float, color: tuple[int, int, int] = _INK) -> None:
    import cv2

    # OpenCV's own letters are ASCII only.
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(paper, plain, at, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
