"""Pictures of an evaluation: the confusion matrix, and the picture on which two sides differ most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcam.classes import ClassTable
from segcam.errors import SinkError
from segcam.evaluation.compare import Worst
from segcam.evaluation.scores import Scores
from segcam.legend import drawable
from segcam.sinks.files import write_error
from segcam.writing import whole_file

Picture = NDArray[np.uint8]

#: More classes than this get smaller cells without figures in them.
_FIGURES_UP_TO = 40
_PAPER, _INK, _FAINT, _GRID = (255, 255, 255), (40, 40, 40), (150, 150, 150), (225, 225, 225)
#: Blue first, as OpenCV paints: right ones and wrong ones, at a share of 1.
_RIGHT, _WRONG, _NO_PIXELS = np.array([138, 120, 24.0]), np.array([48, 52, 196.0]), (245, 245, 245)
#: A panel of the worst picture is at most this wide.
_PANEL_WIDTH = 960


def confusion_picture(scores: Scores, sides: tuple[str, str]) -> Picture:
    """(H, W, 3) uint8, blue first: what each class (row) is called, in percent of the row; rows without pixels empty.

    The last column is "no class"; there is a last row of that name only where it has pixels (two networks).
    """
    import cv2

    matrix = scores.matrix if scores.matrix[-1].any() else scores.matrix[:-1]
    columns = [*scores.classes, "no class"]
    names = columns[: len(matrix)]
    totals = matrix.sum(1)
    figures = len(columns) <= _FIGURES_UP_TO
    cell, scale = (44, 0.42) if figures else (max(6, 1800 // len(columns)), 0.42 if 1800 // len(columns) >= 14 else 0.3)
    left = max(_width(name, scale) for name in columns) + 18
    share_width = 74 if figures else 0
    top = left + 52
    height, width = top + cell * len(names) + 16, max(left + cell * len(columns) + share_width + 16, 520)
    paper = np.full((height, width, 3), _PAPER, np.uint8)
    _write(paper, f"rows: {sides[0]}   columns: {sides[1]}", (12, 22), 0.5)
    mean = f"mIoU {scores.miou:.4f}   equal pixels {scores.pixel_accuracy:.4f}   percent of each row"
    _write(paper, mean, (12, 44), 0.45, _FAINT)
    _upright(paper, columns, left, top, cell, scale)
    for row, name in enumerate(names):
        y = top + row * cell
        if figures or cell >= 10:
            ink = _INK if totals[row] else _FAINT
            _write(paper, name, (left - 8 - _width(name, scale), y + cell // 2 + 4), scale, ink)
        for column in range(len(columns)):
            x = left + column * cell
            share = matrix[row, column] / totals[row] if totals[row] else 0.0
            strength = share**0.6  # so that a few percent can be seen
            full = _RIGHT if row == column else _WRONG
            color = tuple(np.rint(255 + (full - 255) * strength).tolist()) if totals[row] else _NO_PIXELS
            cv2.rectangle(paper, (x, y), (x + cell - 2, y + cell - 2), color, -1)
            if figures and share >= 0.001:
                text = f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.1f}"
                ink = _PAPER if strength > 0.6 else _INK
                _write(paper, text, (x + (cell - 2 - _width(text, 0.4)) // 2, y + cell // 2 + 4), 0.4, ink)
        if figures:
            part = f"{totals[row] / max(1, scores.pixels):.1%}"
            _write(paper, part, (left + cell * len(columns) + 10, y + cell // 2 + 4), 0.4, _FAINT)
    if figures:
        _write(paper, "of pixels", (left + cell * len(columns) + 4, top - 10), 0.36, _FAINT)
    return paper


def worst_picture(worst: Worst, table: ClassTable, sides: tuple[str, str]) -> Picture:
    """(H, W, 3) uint8, blue first: the picture, what each side makes of it, and where they differ, two by two.

    Where they differ the last panel has the second side's colours; elsewhere the picture in a faint grey. Pixels that
    are ignored or no class are black in the class maps.
    """
    import cv2

    height, width = worst.first.shape
    scale = min(1.0, _PANEL_WIDTH / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(table)] = table.colors_rgb()[:, ::-1]
    photo = np.asarray(cv2.resize(worst.picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    differ = (worst.first != worst.second) & worst.counted
    grey = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY) // 3 + 150
    difference = np.repeat(np.asarray(grey, np.uint8)[:, :, None], 3, 2)
    difference[differ] = palette[worst.second[differ]]
    panels = [
        (photo, worst.name),
        (palette[worst.first], sides[0]),
        (palette[worst.second], sides[1]),
        (difference, f"where they differ, as {sides[1]} has it: {1 - worst.share:.2%}"),
    ]
    drawn = [panel(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), caption) for picture, caption in panels]
    rows = [np.hstack(drawn[:2]), np.hstack(drawn[2:])]
    found = np.union1d(worst.first[worst.counted], worst.second[worst.counted])
    return np.vstack([*rows, *key(found, table, rows[0].shape[1])])


def write_png(path: Path, picture: Picture) -> None:
    """Whole or not at all. Raises SinkError."""
    import cv2

    done, data = cv2.imencode(".png", picture)
    if not done:
        raise SinkError(f"{path} cannot be written as PNG")
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(data.tobytes())
    except OSError as error:
        raise write_error(path, error) from error


def panel(picture: object, caption: str) -> Picture:
    """A picture (H, W, 3) uint8, blue first, under a bar with its caption, beside a dark edge."""
    body = np.asarray(picture, np.uint8)
    bar = np.full((26, body.shape[1], 3), 32, np.uint8)
    _write(bar, caption, (8, 18), 0.45, (240, 240, 240))
    edge = np.full((26 + body.shape[0], 2, 3), 32, np.uint8)
    return np.hstack([np.vstack([bar, body]), edge])


def key(found: NDArray[np.uint8], table: ClassTable, width: int) -> list[Picture]:
    """Strips (26, ``width``, 3) with the colours and names of the classes ``found``: ids, each once, ascending."""
    import cv2

    entries = [(table.names[i], table.colors[i][::-1]) for i in found[found < len(table)].tolist()]
    rows: list[Picture] = []
    x = width
    for name, color in entries:
        step = _width(name, 0.42) + 44
        if x + step > width:
            rows.append(np.full((26, width, 3), 32, np.uint8))
            x = 8
        cv2.rectangle(rows[-1], (x, 5), (x + 20, 20), color, -1)
        cv2.rectangle(rows[-1], (x, 5), (x + 20, 20), _FAINT, 1)
        _write(rows[-1], name, (x + 26, 18), 0.42, (240, 240, 240))
        x += step
    return rows


def _upright(paper: Picture, names: list[str], left: int, top: int, cell: int, scale: float) -> None:
    """The columns' names, read from below, above the cells."""
    if cell < 10:
        return
    room = left - 10
    for column, name in enumerate(names):
        strip = np.full((cell, room, 3), _PAPER, np.uint8)
        _write(strip, name, (4, cell // 2 + 4), scale)
        x = left + column * cell
        paper[top - room - 4 : top - 4, x : x + cell] = np.rot90(strip)


def _write(paper: Picture, text: str, at: tuple[int, int], scale: float, ink: tuple[int, int, int] = _INK) -> None:
    import cv2

    cv2.putText(paper, drawable(text), at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)


def _width(text: str, scale: float) -> int:
    import cv2

    return int(cv2.getTextSize(drawable(text), cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0])
