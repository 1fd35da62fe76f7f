"""The queue between two threads, with the one rule on what happens when it is full."""

from __future__ import annotations

import threading
import time
from collections import deque
from enum import Enum
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

QueuePolicy = Literal["lossless", "newest"]


class Mark(Enum):
    """What ``BoundedQueue.get`` answers when there is no item."""

    END = "the last item has been taken and no other will come"
    EMPTY = "nothing came within the time given"


def choose_policy(asked: Literal["auto", "lossless", "newest"], live: bool) -> tuple[QueuePolicy, str]:
    """The rule, and the words for the line at the start of a run.

    ========  ==========  ==================================================================
    asked     source      what happens when the segmenter is slower than the source
    ========  ==========  ==================================================================
    auto      file        lossless: the reader waits; every frame once, in order
    auto      live        newest: the oldest waiting frame is dropped and counted
    lossless  any         as for a file (a live source then falls behind, or its driver drops)
    newest    any         as for a live source
    ========  ==========  ==================================================================
    """
    kind = "live source" if live else "file"
    if asked == "auto":
        chosen: QueuePolicy = "newest" if live else "lossless"
        why = kind
    else:
        chosen, why = asked, "as asked"
    what = "every frame, none dropped" if chosen == "lossless" else "newest frame first, late ones dropped and counted"
    return chosen, f"{chosen} ({why}): {what}"


class BoundedQueue(Generic[T]):
    """First in, first out, at most ``size`` items. ``lossless``: ``put`` waits; ``newest``: it drops the oldest.

    The end is a state and not an item, so it always fits. ``dropped`` counts what ``newest`` dropped.
    """

    def __init__(self, size: int, policy: QueuePolicy = "lossless") -> None:
        self._size, self._policy = size, policy
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._aborted = False
        self.dropped = 0

    def put(self, item: T) -> bool:
        """False when nobody will take it any more (closed or aborted): the caller stops."""
        with self._changed:
            if self._policy == "newest" and not self._closed:
                while len(self._items) >= self._size:
                    self._items.popleft()
                    self.dropped += 1
            while len(self._items) >= self._size and not self._aborted and not self._closed:
                self._changed.wait()
            if self._aborted or self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> T | Mark:
        """The oldest item; END after the last, or at once after ``abort``; EMPTY after ``timeout_s``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._items:
                if self._closed or self._aborted:
                    return Mark.END
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return Mark.EMPTY
                self._changed.wait(left)
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """No more items will come; those inside are still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Forget what is inside; both ends stop at once."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)
