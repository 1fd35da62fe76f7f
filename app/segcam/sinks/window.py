"""A window that shows the overlay and takes keys, by OpenCV."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcam.controls import Controls
from segcam.errors import SinkError
from segcam.frame import Frame, Segmentation
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.display import display_problem
from segcam.sinks.hud import KEYS, draw_lines, status_lines

TITLE = "Segcam"
_MAX_WIDTH, _MAX_HEIGHT = 1280, 800
_ALPHA_STEP = 0.1
_MESSAGE_S = 2.0
_PAUSE_TICK_S = 0.03
#: How long each still of a folder stays; the last one stays until Enter.
_STILL_S = 1.0
_ESCAPE = 27
_ENTER = (10, 13)


class WindowSink:
    """Shows the overlay, at most 1280x800, with rates and keys (``h`` lists them). Closing the window quits the run.

    With ``pace`` a file plays no faster than real time: ``write`` waits until a frame's time has come and drops
    nothing. Stills stay for a second each, the last one until Enter. While paused ``write`` doesn't return. What keys
    change (opacity, classes, legend, quit) goes through ``Controls`` and holds for frames segmented from then on.

    All calls must come from the main thread, because window systems want that.
    """

    runs_in_main_thread = True
    needs_overlay = True
    needs_labels = False

    def __init__(
        self,
        controls: Controls,
        warn: Callable[[str], None],
        *,
        hud: bool = True,
        pace: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._controls = controls
        self._warn = warn
        self._hud = hud
        self._pace = pace
        self._clock = clock
        self._stats = RunStats()
        self._info: StreamInfo | None = None
        self._first_visible = controls.visible
        self._only = -1
        self._paused = False
        self._show_keys = False
        self._go_on = False
        self._message, self._message_until_s = "", 0.0
        self._segmentation: Segmentation | None = None
        self._shown: NDArray[np.uint8] | None = None
        self._anchor: tuple[float, float] | None = None
        self._is_open = False
        self._sized = False
        self._frames = 0

    def open(self, info: StreamInfo, stats: RunStats) -> None:
        """Open the window. Raises SinkError with the reason if there is no screen."""
        problem = display_problem()
        if problem is not None:
            raise SinkError(f"no window can be shown: {problem}", "Write a file instead: --output out.mp4")
        import cv2

        self._info, self._stats = info, stats
        self._first_visible = self._controls.visible
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise SinkError(f"no window can be shown: {error}", "Write a file instead: --output out.mp4") from error
        self._is_open = True

    def write(self, segmentation: Segmentation) -> None:
        if segmentation.overlay is None:
            raise SinkError(f"frame {segmentation.frame.index} has no overlay to show")
        if self._controls.quit.is_set():
            return
        self._segmentation = segmentation
        self._shown = _for_screen(segmentation.overlay)
        self._go_on = False
        self._frames += 1
        try:
            self._wait_until_due(segmentation.frame.time_s)
            self._refresh()
            self._pump(0.001)
            self._hold()
        finally:
            self._segmentation = None

    def close(self) -> None:
        if self._is_open:
            import cv2

            self._is_open = False
            cv2.destroyWindow(TITLE)
            cv2.pollKey()

    @property
    def description(self) -> str:
        return f"window: {self._frames} frames shown"

    def _is_still(self) -> bool:
        return self._info is not None and self._info.rate_hz is None and not self._info.live

    def _wait_until_due(self, time_s: float) -> None:
        """Pump events until the frame's time has come. A run that is late doesn't hurry afterwards."""
        if not self._pace or self._info is None or self._info.live or self._is_still():
            return
        now = self._clock()
        if self._anchor is None or time_s < self._anchor[1]:
            self._anchor = (now, time_s)
        due = self._anchor[0] + time_s - self._anchor[1]
        while now < due and not self._controls.quit.is_set():
            self._pump(min(due - now, _PAUSE_TICK_S))
            now = self._clock()
        self._anchor = (max(now, due), time_s)

    def _hold(self) -> None:
        """Keep the picture while paused; a still for its second (Enter cuts it short), the last one until Enter."""
        until_s = self._clock() + (_STILL_S if self._is_still() else 0.0)
        last = self._is_still() and self._info is not None and self._frames == self._info.frames
        while not self._controls.quit.is_set():
            if not self._paused and (self._go_on if last else self._clock() >= until_s):
                break
            self._pump(_PAUSE_TICK_S)
            if self._paused:
                self._anchor = None
            if self._go_on and self._is_still() and not self._paused:
                break

    def _pump(self, wait_s: float) -> None:
        """Let the window live for about ``wait_s`` (at least a millisecond) and act on a key."""
        import cv2

        key = cv2.waitKey(max(1, int(wait_s * 1000)))
        if self._is_open and self._sized and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            self._controls.quit.set()
        elif key >= 0:
            self._on_key(key & 0xFF)
            self._refresh()
        elif self._message and self._clock() >= self._message_until_s:
            self._refresh()

    def _refresh(self) -> None:
        import cv2

        if self._shown is None:
            return
        image = self._shown
        if self._hud or self._show_keys or self._message or self._paused:
            image = image.copy()
            below = draw_lines(image, self._status()) if self._status() else 8
            if self._show_keys:
                draw_lines(image, KEYS, top=below + 8)
        cv2.imshow(TITLE, image)
        if not self._sized:
            cv2.resizeWindow(TITLE, image.shape[1], image.shape[0])
            self._sized = True

    def _status(self) -> list[str]:
        if self._clock() >= self._message_until_s:
            self._message = ""
        if not self._hud or self._segmentation is None:
            return [line for line in ("PAUSED   (space goes on)" if self._paused else "", self._message) if line]
        frame = self._segmentation.frame
        return status_lines(
            fps=self._stats.fps,
            latency_ms=self._stats.latency_ms,
            dropped=self._stats.dropped.copy(),
            index=frame.index,
            frames=self._info.frames if self._info is not None else None,
            time_s=frame.time_s,
            alpha=self._controls.alpha,
            paused=self._paused,
            message=self._message or ("Enter goes on" if self._is_still() else ""),
        )

    def _say(self, message: str) -> None:
        self._message, self._message_until_s = message, self._clock() + _MESSAGE_S

    def _on_key(self, key: int) -> None:
        letter = chr(key).lower()
        if key == _ESCAPE or letter == "q":
            self._controls.quit.set()
        elif letter == " ":
            self._paused = not self._paused
        elif letter in "+=":
            self._controls.alpha = round(self._controls.alpha + _ALPHA_STEP, 2)
        elif letter in "-_":
            self._controls.alpha = round(self._controls.alpha - _ALPHA_STEP, 2)
        elif letter in "np":
            self._show_only(1 if letter == "n" else -1)
        elif letter in "0123456789":
            self._toggle(int(letter))
        elif letter == "c":
            self._only = -1
            self._controls.visible = self._first_visible
            self._say("all classes")
        elif letter == "l":
            self._controls.legend = not self._controls.legend
            self._say("legend on" if self._controls.legend else "legend off")
        elif letter == "s":
            self._save()
        elif letter == "h":
            self._show_keys = not self._show_keys
        elif key in _ENTER:
            self._go_on = True

    def _show_only(self, step: int) -> None:
        if self._info is None:
            return
        count = len(self._info.classes)
        self._only = (self._only + step) % count if self._only >= 0 or step > 0 else count - 1
        mask = np.zeros(count, np.bool_)
        mask[self._only] = True
        self._controls.visible = mask
        self._say(f"only {self._info.classes.names[self._only]}")

    def _toggle(self, index: int) -> None:
        mask = self._controls.visible
        if self._info is None or index >= len(mask):
            return
        mask[index] = not mask[index]
        self._only = -1
        self._controls.visible = mask
        self._say(f"{self._info.classes.names[index]} {'shown' if mask[index] else 'hidden'}")

    def _save(self) -> None:
        """The picture at full size without the display's text, into the current folder, never over another file."""
        import cv2

        if self._segmentation is None or self._segmentation.overlay is None:
            return
        index = self._segmentation.frame.index
        names = [f"segcam_{index:06d}.png", *(f"segcam_{index:06d}_{again}.png" for again in range(2, 1000))]
        path = next((Path(name) for name in names if not Path(name).exists()), Path(names[-1]))
        done, data = cv2.imencode(".png", self._segmentation.overlay.bgr())
        try:
            if not done:
                raise OSError("PNG encoder failed")
            path.write_bytes(data.tobytes())
        except OSError as error:
            self._warn(f"{path.absolute()} was not saved: {error}")
            self._say(f"not saved: {error.strerror or error}")
            return
        self._say(f"saved {path}")


def _for_screen(overlay: Frame) -> NDArray[np.uint8]:
    """The overlay as BGR that fits the screen. Planes are made small first: that is cheaper than the conversion."""
    import cv2

    factor = min(1.0, _MAX_WIDTH / overlay.width, _MAX_HEIGHT / overlay.height)
    if factor == 1.0:
        return overlay.bgr()
    width, height = (max(2, round(side * factor / 2) * 2) for side in (overlay.width, overlay.height))
    planes: list[NDArray[np.uint8]] = []
    for number, plane in enumerate(overlay.planes):
        size = (width // 2, height // 2) if number else (width, height)
        planes.append(np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.uint8))
    return dataclasses.replace(overlay, width=width, height=height, planes=tuple(planes), owner=None).bgr()
