"""A source whose waits cannot be broken off, made interruptible by a thread of its own."""

from __future__ import annotations

import queue
import threading

from segcam.frame import Frame
from segcam.sources.base import Source, SourceInfo

_POLL_S = 0.1
_CLOSE_PATIENCE_S = 1.0


class DetachedSource:
    """Runs ``inner`` in a daemon thread and hands over its frames one by one, in order, none dropped.

    FFmpeg looks up only between time-outs, and a stalled camera's driver not at all. Here ``open`` and ``read`` end
    within a tenth of a second after ``interrupt`` (and a Ctrl-C reaches the caller at once); what hangs goes on
    alone until its own time-out, closes ``inner``, and does not keep the process alive.
    """

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self._stop = threading.Event()
        # One frame waits here while the next is being fetched; more would only add delay.
        self._handed: queue.Queue[SourceInfo | Frame | BaseException | None] = queue.Queue(1)
        self._thread = threading.Thread(target=self._run, name="segcam-source", daemon=True)
        self._ended = False

    def open(self) -> SourceInfo:
        from segcam.errors import SourceError

        self._thread.start()
        info = self._take()
        if not isinstance(info, SourceInfo):
            raise SourceError("stopped before the source was open")
        return info

    def read(self) -> Frame | None:
        frame = None if self._ended else self._take()
        if not isinstance(frame, Frame):
            self._ended = True
            return None
        return frame

    def interrupt(self) -> None:
        self._stop.set()
        self._inner.interrupt()

    def close(self) -> None:
        self.interrupt()
        self._ended = True
        if self._thread.is_alive():
            self._thread.join(_CLOSE_PATIENCE_S)

    def _take(self) -> SourceInfo | Frame | None:
        while not self._stop.is_set():
            try:
                item = self._handed.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                self._ended = True
                raise item
            return item
        return None

    def _give(self, item: SourceInfo | Frame | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._handed.put(item, timeout=_POLL_S)
            except queue.Full:
                continue

    def _run(self) -> None:
        try:
            self._give(self._inner.open())
            while not self._stop.is_set():
                frame = self._inner.read()
                self._give(frame)
                if frame is None:
                    return
        except BaseException as error:  # handed to the thread that asked, which raises it
            self._give(error)
        finally:
            self._inner.close()
