"""Signals after OpenVINO has been here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segcam.engines.signal_stack import kept_signal_stack, signal_stack

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sigaltstack is looked at on Linux")

_CTRL_C = """
import os, signal, sys, threading
from pathlib import Path
from segcam.engines.base import EngineOptions
from segcam.engines.openvino import OpenVinoEngine
from segcam.engines.signal_stack import signal_stack

before = signal_stack()
engine = OpenVinoEngine(Path(sys.argv[1]), EngineOptions(), print)
engine.activate()
assert signal_stack() == before, signal_stack()
# The last reference goes in another thread, and the plugin with it.
held = [engine]
del engine
def end():
    held.pop().close()
thread = threading.Thread(target=end)
thread.start()
thread.join()
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(10)
except KeyboardInterrupt:
    print("heard")
"""


def test_ctrl_c_is_heard_after_the_engine_is_gone(
    brightest: Callable[..., Path], repository: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CTRL_C, str(brightest())],
        env={"PYTHONPATH": str(repository / "app"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "heard"), done.stderr


def test_the_stack_is_given_back() -> None:
    import ctypes

    before = signal_stack()
    room = ctypes.create_string_buffer(1 << 17)

    class Stack(ctypes.Structure):
        _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    with kept_signal_stack():
        ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(ctypes.addressof(room), 0, len(room))), None)
        assert signal_stack()[0] == ctypes.addressof(room)
    assert signal_stack() == before
