"""Whether a window can be shown here, found out without taking the whole process down."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

_DISPLAY = re.compile(r"(?P<host>[^:]*):(?P<number>\d+)(\.\d+)?")
_PROBE = "import cv2; cv2.namedWindow('segcam', cv2.WINDOW_NORMAL); cv2.destroyAllWindows()"
_CONNECT_S = 2.0
_PROBE_S = 20.0


def display_problem() -> str | None:
    """Why no window can be shown, in one line, or None if one can.

    On Linux OpenCV aborts the process when it can't reach the display. So the display is asked first, and then
    a process of its own opens a window.
    """
    try:
        import cv2
    except ImportError as error:
        return f"OpenCV is not usable ({error}); install it with: pip install opencv-python"
    gui = re.search(r"GUI:\s*(\S+)", cv2.getBuildInformation())
    if gui is None or gui.group(1) == "NONE":
        return "this OpenCV was built without windows; install the other one: pip install opencv-python"
    if not sys.platform.startswith("linux"):
        return None
    display = os.environ.get("DISPLAY", "")
    if not display and not os.environ.get("WAYLAND_DISPLAY"):
        return "there is no screen (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    if display and not _reachable(display):
        return f"the screen {display!r} (DISPLAY) does not answer"
    return _probe_problem()


def _reachable(display: str) -> bool:
    """Whether anyone listens at an X display. Names this doesn't understand are left to the probe."""
    match = _DISPLAY.fullmatch(display)
    if match is None:
        return True
    host, number = match["host"], int(match["number"])
    if host and not host.startswith("unix"):
        try:
            socket.create_connection((host, 6000 + number), _CONNECT_S).close()
        except OSError:
            return False
        return True
    path = f"/tmp/.X11-unix/X{number}"
    for address in ("\0" + path, path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_CONNECT_S)
            try:
                client.connect(address)
            except OSError:
                continue
            return True
    return False


def _probe_problem() -> str | None:
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"no window could be opened ({error})"
    if probe.returncode == 0:
        return None
    lines = [line.strip() for line in probe.stderr.splitlines() if line.strip()]
    reason = next((line for line in lines if "could not connect" in line.lower()), lines[-1] if lines else "")
    return f"no window could be opened: {reason[:200] or f'OpenCV ended with code {probe.returncode}'}"
