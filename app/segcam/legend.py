"""The legend: names and colours of the classes, painted into a frame's own planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segcam.classes import RGB, ClassTable
from segcam.frame import LUMA_WEIGHTS, Frame, Plane

#: Smaller frames (either side, pixels) have no room for a legend.
MIN_SIDE = 64

_BACKGROUND: RGB = (16, 16, 16)
_TEXT: RGB = (240, 240, 240)
_EDGE: RGB = (150, 150, 150)
_BACKGROUND_OPACITY = 0.7
#: Share of the frame that the panel may take.
_MAX_HEIGHT, _MAX_WIDTH = 0.96, 0.6
_FONT_PIXELS = 22  # height of a capital in OpenCV's simplex font at scale 1


@dataclass(frozen=True)
class _Patch:
    """How to paint one plane: ``plane[top:, left:] = plane * keep + add`` over (h, w, channels) float32."""

    top: int
    left: int
    keep: NDArray[np.float32]
    add: NDArray[np.float32]

    def paint(self, plane: Plane) -> None:
        height, width = self.keep.shape[:2]
        area = plane[self.top : self.top + height, self.left : self.left + width]
        blended = area.reshape((*self.keep.shape[:2], -1)) * self.keep + self.add
        area[...] = np.clip(np.rint(blended), 0, 255).astype(np.uint8).reshape(area.shape)


class Legend:
    """A panel at the top right with a swatch and the name of each visible class.

    ``visible`` is (classes,) bool. The panel is drawn once for each size, format and colour matrix that comes by.
    """

    def __init__(self, classes: ClassTable, visible: NDArray[np.bool_]) -> None:
        self._entries = [
            (classes.names[index], classes.colors[index]) for index in np.flatnonzero(visible[: len(classes)]).tolist()
        ]
        self._patches: dict[tuple[object, ...], tuple[_Patch, ...]] = {}

    def paint(self, overlay: Frame) -> None:
        """Draw into ``overlay``'s planes, which must be writable here, in its own format, matrix and range.

        Frames of less than ``MIN_SIDE`` pixels and empty legends are left alone.
        """
        if not self._entries or min(overlay.width, overlay.height) < MIN_SIDE:
            return
        key = (overlay.width, overlay.height, overlay.format, overlay.matrix, overlay.full_range)
        if key not in self._patches:
            # A source that changes its size goes on with the new one; there is no need to keep the old panel.
            self._patches = {key: self._make_patches(overlay)}
        for patch, plane in zip(self._patches[key], overlay.planes, strict=True):
            patch.paint(plane)

    def _make_patches(self, frame: Frame) -> tuple[_Patch, ...]:
        rgb, opacity = _draw_panel(self._entries, frame.width, frame.height)
        height, width = opacity.shape
        margin = 2 * round(frame.height / 100)
        top, left = margin, max(0, (frame.width - width - margin) // 2 * 2)
        if frame.format == "bgr24":
            return (_patch(top, left, rgb[:, :, ::-1], opacity),)
        luma, chroma = _yuv(rgb, frame)
        # Chroma counts for 2x2 pixels: what is added and what is kept are the means of the four.
        blocks = (height // 2, 2, width // 2, 2)
        coverage = opacity.reshape(blocks).mean((1, 3))
        tint = (chroma * opacity[:, :, None]).reshape(*blocks, 2).mean((1, 3))
        patches = [_patch(top, left, luma, opacity)]
        for channels in ((0, 1),) if frame.format == "nv12" else ((0,), (1,)):
            keep = (1 - coverage)[:, :, None]
            patches.append(
                _Patch(top // 2, left // 2, keep.astype(np.float32), tint[:, :, channels].astype(np.float32))
            )
        return tuple(patches)


def _patch(top: int, left: int, color: NDArray[np.float64], opacity: NDArray[np.float64]) -> _Patch:
    color = color.reshape(*opacity.shape, -1)
    keep = (1 - opacity)[:, :, None].astype(np.float32)
    return _Patch(top, left, keep, (color * opacity[:, :, None]).astype(np.float32))


def _yuv(rgb: NDArray[np.float64], frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luma (h, w) and chroma (h, w, 2: U, V) code values, not yet rounded, of (h, w, 3) red-first 0..255."""
    kr, kb = LUMA_WEIGHTS[frame.matrix]
    red, green, blue = (rgb[:, :, channel] / 255 for channel in range(3))
    y = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    black, y_span, c_span = (0, 255, 255) if frame.full_range else (16, 219, 224)
    return black + y_span * y, 128 + c_span * np.stack([u, v], 2)


def _draw_panel(
    entries: list[tuple[str, RGB]], frame_width: int, frame_height: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The panel as (h, w, 3) RGB 0..255 and its opacity (h, w) 0..1; both sides even, no larger than the frame."""
    import cv2

    font, line = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
    row = max(14, round(frame_height * 0.028))
    while True:
        scale = row * 0.54 / _FONT_PIXELS
        thickness = max(1, round(scale * 1.8))
        gap = max(2, row // 4)
        in_column = max(1, int((frame_height * _MAX_HEIGHT - 2 * gap) // row))
        widest = max(cv2.getTextSize(drawable(name), font, scale, thickness)[0][0] for name, _ in entries)
        column = widest + row + 3 * gap
        columns = max(1, int((frame_width * _MAX_WIDTH) // column))
        if in_column * columns >= len(entries) or row <= 9:
            break
        row -= 1
    shown = entries
    if len(entries) > in_column * columns:
        left_out = len(entries) - in_column * columns + 1
        shown = [*entries[: in_column * columns - 1], (f"+ {left_out} more", _BACKGROUND)]
    # Columns of even length look better than full ones and a rest.
    used = -(-len(shown) // in_column)
    in_column = -(-len(shown) // used)
    height = min((in_column * row + 2 * gap + 1) // 2 * 2, frame_height // 2 * 2)
    width = min((used * column + gap + 1) // 2 * 2, frame_width // 2 * 2)
    panel = np.full((height, width, 3), _BACKGROUND, np.uint8)
    solid = np.zeros((height, width), np.uint8)
    for position, (name, color) in enumerate(shown):
        x = gap + position // in_column * column
        y = gap + position % in_column * row
        edge = max(1, row // 8)
        corners = (x, y + edge), (x + row - 1, y + row - 1 - edge)
        if color != _BACKGROUND:
            cv2.rectangle(solid, *corners, 255, -1)
            cv2.rectangle(panel, *corners, color, -1)
            if row >= 12:  # dark colours need an edge against the panel
                cv2.rectangle(panel, *corners, _EDGE, 1)
        at = (x + row + gap, y + round(row * 0.74))
        # Opacity follows the glyphs' soft edges, so the text is as crisp on a bright street as on the panel.
        cv2.putText(panel, drawable(name), at, font, scale, _TEXT, thickness, line)
        cv2.putText(solid, drawable(name), at, font, scale, 255, thickness, line)
    opacity = _BACKGROUND_OPACITY + (1 - _BACKGROUND_OPACITY) * (solid / 255.0)
    return panel.astype(np.float64), opacity


def drawable(name: str) -> str:
    """Before OpenCV 5 its fonts have nothing but ASCII."""
    import cv2

    return name if int(cv2.__version__.split(".")[0]) >= 5 else name.encode("ascii", "replace").decode()
