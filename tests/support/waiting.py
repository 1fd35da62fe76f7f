"""Waiting for what another process or thread does, without knowing how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 60.0


def until(reached: Callable[[], bool]) -> None:
    """Returns as soon as ``reached``; an AssertionError after ``PATIENCE_S``."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, "it does not come that far"
        time.sleep(0.02)
