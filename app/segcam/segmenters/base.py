"""What every segmenter is: frames in, segmentations out, in order, several in flight."""

from __future__ import annotations

from typing import Protocol

from segcam.frame import Frame, Segmentation


class Segmenter(Protocol):
    """``submit`` up to ``depth`` frames, ``collect`` the oldest; ``pending`` is how many are in flight.

    ``ready`` says whether ``collect`` would return at once. ``recycle`` gives a segmentation's arrays back for reuse; a
    caller that keeps them doesn't call it. Used by one thread, but for ``recycle``, which any thread may call.
    ``close`` gives back what it has taken besides the engine's, which is closed after it; again is fine.
    """

    @property
    def depth(self) -> int: ...

    @property
    def pending(self) -> int: ...

    def submit(self, frame: Frame) -> None: ...

    def ready(self) -> bool: ...

    def collect(self) -> Segmentation: ...

    def recycle(self, segmentation: Segmentation) -> None: ...

    def close(self) -> None: ...
