"""What the window writes over the picture: lines of text on dark ground. Pure drawing, no window needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

#: (key, what it does), as shown by ``h``.
KEYS: tuple[tuple[str, str], ...] = (
    ("space", "pause, go on"),
    ("+ -", "opacity of the classes"),
    ("n p", "show only the next / previous class"),
    ("0-9", "show or hide class 0 to 9"),
    ("c", "all classes again"),
    ("l", "legend"),
    ("s", "save this picture (PNG)"),
    ("h", "these keys"),
    ("q Esc", "quit"),
)

_KEEP = 0.35  # share of the picture that shines through the ground
_FONT_PIXELS = 22  # height of a capital in OpenCV's simplex font at scale 1


def status_lines(
    *,
    fps: float,
    latency_ms: float,
    dropped: Mapping[str, int],
    index: int,
    frames: int | None,
    time_s: float,
    alpha: float,
    paused: bool = False,
    message: str = "",
) -> list[str]:
    """The text of the display, one string a line. ``frames`` is None when nobody knows how many there will be."""
    lines = [f"{fps:.1f} fps" + (f"   latency {latency_ms:.0f} ms" if latency_ms > 0 else "")]
    of_all = f" of {frames}" if frames else ""
    minutes, seconds = divmod(max(0.0, time_s), 60)
    lines.append(f"frame {index + 1}{of_all}   {int(minutes):02d}:{seconds:04.1f}   opacity {alpha:.0%}")
    lost = {cause: count for cause, count in dropped.items() if count}
    if lost:
        causes = ", ".join(f"{count} {cause}" for cause, count in lost.items())
        lines.append(f"dropped {sum(lost.values())}: {causes}" if len(lost) > 1 else f"dropped {causes}")
    if paused:
        lines.append("PAUSED   (space goes on)")
    if message:
        lines.append(message)
    return lines


def draw_lines(
    image_bgr: NDArray[np.uint8], lines: Sequence[str | tuple[str, str]], *, left: int = 8, top: int = 8
) -> int:
    """Write ``lines`` into ``image_bgr`` ((H, W, 3) uint8, blue first, changed in place); return the y below them.

    A pair is written in two columns. Text is as high as fits a picture of that height; what doesn't fit is cut off
    at the edges.
    """
    import cv2

    height: int = image_bgr.shape[0]
    row = max(14, round(height / 36))
    scale = row * 0.56 / _FONT_PIXELS
    thickness = max(1, round(scale * 1.8))
    pad = row // 3
    pieces: list[tuple[int, int, str]] = []  # x, y, text
    right = 0
    for position, line in enumerate(lines):
        y = top + pad // 2 + position * row + round(row * 0.74)
        columns = ((left + pad, line),) if isinstance(line, str) else ((left + pad, line[0]), (left + 5 * row, line[1]))
        for x, text in columns:
            pieces.append((x, y, text))
            right = max(right, x + int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)[0][0]) + pad)
    bottom = min(height, top + row * len(lines) + pad)
    ground = image_bgr[top:bottom, left:right]
    ground[...] = (ground * np.float32(_KEEP)).astype(np.uint8)
    for x, y, text in pieces:
        cv2.putText(image_bgr, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (245, 245, 245), thickness, cv2.LINE_AA)
    return bottom
