"""Keeps a library's hands off the stack that signals are handled on."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """stack_t of Linux (signal.h)."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> tuple[int | None, int, int]:
    """This thread's alternate signal stack (sigaltstack(2)): its address, flags and size in bytes."""
    found = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.sp, found.flags, found.size


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """This thread's alternate signal stack is the same after the block as before.

    OpenVINO's CPU plugin gives the thread that loads it such a stack, and unmaps it when it is unloaded, in whichever
    thread that happens. The next signal of the first thread, such as Ctrl-C, would then kill the process: Python
    handles signals on the alternate stack where there is one.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    before = _Stack(*signal_stack())
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
