"""Ctrl-C that does not get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside a library that is being imported, a
destructor or a callback of C code it may be thrown away there, with or without a line that says so. Hence it is noted
here as well, and looked for where one step of a job ends and the next begins.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_noted = threading.Event()


@contextmanager
def noting() -> Iterator[None]:
    """Inside it Ctrl-C is noted, and raised as always. In the main thread; where somebody else handles SIGINT, or it is
    ignored, nothing changes."""
    _noted.clear()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _note(number: int, frame: FrameType | None) -> None:
    _noted.set()
    signal.default_int_handler(number, frame)


def interrupted() -> bool:
    """Whether Ctrl-C has been pressed, also where nobody has heard of it."""
    return _noted.is_set()


def check() -> None:
    """Raises the KeyboardInterrupt that got lost."""
    if interrupted():
        raise KeyboardInterrupt


def answered() -> None:
    """Call it when a KeyboardInterrupt has been caught for good: the process may then end with an exit code.

    Where a library ran Python code that was interrupted (PyRun_String), the interpreter remembers it and would end
    itself by SIGINT instead; the next code that is run so makes it forget (CPython, pythonrun.c).
    """
    import ctypes

    ctypes.pythonapi.PyRun_SimpleString(b"")
