"""What a person may change while a run goes on: written by the window, read by the segmenter and the pipeline."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray


class Controls:
    """Opacity, class filter, legend, quit. Every method may be called from any thread.

    ``alpha`` is 0..1; ``visible`` is (classes,) bool, a copy at each call. ``version`` changes with every change of
    either, so that a reader rebuilds its tables only then. ``legend``: whether a legend is painted into the overlay.
    """

    def __init__(self, alpha: float, visible: NDArray[np.bool_], legend: bool = False) -> None:
        self._lock = threading.Lock()
        self._alpha = alpha
        self._visible = visible.copy()
        self._version = 0
        self.legend = legend
        self.quit = threading.Event()

    @property
    def version(self) -> int:
        return self._version

    @property
    def alpha(self) -> float:
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        with self._lock:
            self._alpha = min(1.0, max(0.0, value))
            self._version += 1

    @property
    def visible(self) -> NDArray[np.bool_]:
        with self._lock:
            return self._visible.copy()

    @visible.setter
    def visible(self, mask: NDArray[np.bool_]) -> None:
        with self._lock:
            self._visible = mask.astype(np.bool_).copy()
            self._version += 1
