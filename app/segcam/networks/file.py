"""A file of weights, read at places that the file itself names."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from segcam.errors import CheckpointError


class WeightsFile:
    """An open file; nothing outside it is asked for, and nothing is allocated before that is known.

    It is read, not mapped: a file that shrinks meanwhile then gives an error instead of a signal. A context manager.
    Raises OSError like ``open``.
    """

    def __init__(self, path: Path) -> None:
        self.stream = path.open("rb")
        self.size = os.fstat(self.stream.fileno()).st_size

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()

    def bytes_at(self, start: int, count: int) -> bytes:
        """``count`` bytes from ``start``. Raises CheckpointError where the file has fewer."""
        self._check(start, count)
        data = self.stream.read(count)
        if len(data) != count:
            raise CheckpointError("it became shorter while it was read")
        return data

    def array_at(self, start: int, count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The same as an array of uint8, aligned for every type."""
        self._check(start, count)
        data = np.empty(count, np.uint8)
        if self.stream.readinto(data.data) != count:
            raise CheckpointError("it became shorter while it was read")
        return data

    def _check(self, start: int, count: int) -> None:
        if not 0 <= start <= start + count <= self.size:
            raise CheckpointError(f"it ends early: it has {self.size:,} bytes and refers to byte {start + count:,}")
        self.stream.seek(start)
