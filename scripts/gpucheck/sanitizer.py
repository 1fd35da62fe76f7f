"""NVIDIA's compute-sanitizer over the kernels, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gpucheck.base import Absent, Context, Finding, best_kind

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_SCRIPT = Path(__file__).resolve().parents[1] / "gpu_check.py"


def check(context: Context) -> Iterator[Finding]:
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise Absent("compute-sanitizer is not on the PATH: it comes with the CUDA toolkit")
    best_kind(context)
    for tool in TOOLS:
        report = context.work / f"{tool}.json"
        command = [
            program, "--tool", tool, "--error-exitcode", "9", sys.executable, str(_SCRIPT), "--only", "kernels",
            "--quick", "--in-process", "--device", str(context.device), "--json", str(report),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        except subprocess.TimeoutExpired:
            yield context.absent(tool, "not done after 240 s")
            continue
        summary = re.findall(r"=+ (?:ERROR|RACECHECK) SUMMARY: (.*)", done.stdout + done.stderr)
        clean = done.returncode == 0 and bool(summary) and summary[-1].startswith("0 ")
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        words = f"{'; '.join(summary) or 'no summary'}; exit code {done.returncode}"
        yield context.found(tool, clean, words if summary else f"{words}: {' '.join(last)}")
