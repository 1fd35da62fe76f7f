"""A part in a process of its own, with a time limit: one that dies or never ends takes nothing along but itself."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gpucheck.base import Finding
from gpucheck.document import read

#: In its environment; so it knows.
MARK = "GPU_CHECK_CHILD"
_TICK_S = 0.2
_TAIL = 4000
_LAST_S = 10
_PR_SET_PDEATHSIG = 1


def adopt() -> None:
    """Called by the process of a part: it and what it starts are one group, and it ends when its parent does."""
    os.setpgid(0, 0)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(
    command: Sequence[str],
    part: str,
    report: Path,
    python_path: Sequence[str],
    seconds: float,
    limit: str,
    heard: Callable[[Finding], None],
) -> None:
    """``heard`` gets each finding of the part soon after it wrote it into ``report``, and what ended it, if anything.

    ``limit`` says why there are no more than these ``seconds``, if they are fewer than usual: that is no failure. What
    the part printed goes to stderr when it is over, the end of it.
    """
    environment = {**os.environ, MARK: "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([*python_path, *filter(None, [os.environ.get("PYTHONPATH")])])
    said = report.with_suffix(".err")
    count, complete = 0, False

    def catch_up() -> None:
        nonlocal count, complete
        found, complete = read(report)
        for finding in found[count:]:
            heard(finding)
        count = len(found)

    until = time.monotonic() + seconds
    late = False
    with said.open("wb") as errors:
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=subprocess.STDOUT
        )
        try:
            while True:
                try:
                    child.wait(_TICK_S)
                    break
                except subprocess.TimeoutExpired:
                    catch_up()
                    if time.monotonic() > until:
                        late = True
                        break
        finally:
            # Whatever it started goes as well: the GPU must be free for the next part.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            with suppress(ProcessLookupError):
                child.kill()
            # What waits for a GPU that hangs cannot even be killed.
            with suppress(subprocess.TimeoutExpired):
                child.wait(_LAST_S)
    catch_up()
    tail = said.read_bytes()[-_TAIL:].decode("utf-8", "replace").strip()
    if tail:
        print(tail, file=sys.stderr, flush=True)
    more = {"said": tail} if tail else {}
    if late:
        words = f"not done after {seconds:.0f} s{limit}"
        heard(Finding(part, "process", "absent" if limit else "failed", words, more))
    elif child.returncode not in (0, 1, 3) or not complete:
        heard(Finding(part, "process", "failed", f"its process {_ended(child.returncode)}", more))
    elif not count:
        heard(Finding(part, "process", "failed", "it found nothing at all", more))


def _ended(code: int | None) -> str:
    if code is None:
        return "cannot be ended"
    if code >= 0:
        return f"ended with {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
