"""NVIDIA's compute-sanitizer over the kernels, where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gpucheck import child
from gpucheck.base import Absent, Context, Finding, best_kind

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_SCRIPT = Path(__file__).resolve().parents[1] / "gpu_check.py"
#: Of what the part has got, for what comes before and after.
_SPARE_S = 5.0


def check(context: Context) -> Iterator[Finding]:
    until = time.monotonic() + context.seconds - _SPARE_S
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise Absent("compute-sanitizer is not on the PATH: it comes with the CUDA toolkit")
    best_kind(context)
    # The kernels' process belongs to this part's group, and is no part of its own.
    environment = {key: value for key, value in os.environ.items() if key != child.MARK}
    for number, tool in enumerate(TOOLS):
        report = context.work / f"{tool}.json"
        command = [
            program, "--tool", tool, "--error-exitcode", "9", sys.executable, str(_SCRIPT), "--only", "kernels",
            "--quick", "--in-process", "--device", str(context.device), "--json", str(report),
        ]  # fmt: skip
        # What one tool leaves is for the others.
        seconds = max(1.0, (until - time.monotonic()) / (len(TOOLS) - number))
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds, env=environment
            )
        except subprocess.TimeoutExpired:
            yield context.absent(tool, f"not done after {seconds:.0f} s: --only sanitizer --patience gives it more")
            continue
        said = done.stdout + done.stderr
        summary = re.findall(r"=+ (?:ERROR|RACECHECK) SUMMARY: (.*)", said)
        words = f"{'; '.join(summary) or 'no summary'}; exit code {done.returncode}"
        if not summary:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            words = " ".join([words + ":", *last])
            # Some virtual machines don't let it at the GPU.
            if re.search(r"[Dd]evice (is )?not supported|Unable to find|LibraryNotLoaded", said):
                yield context.absent(tool, words)
                continue
        clean = done.returncode == 0 and bool(summary) and summary[-1].startswith("0 ")
        yield context.found(tool, clean, words, target="sanitizer", said=[] if clean else said.splitlines()[-40:])
