"""``segcam doctor``: what this machine has for Segcam, what is missing, and the command that gets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from segcam.cli import machine
from segcam.cli.probes import PACKAGES, Check, Package, pip_install, python

#: A first import right after installation reads hundreds of megabytes and may take this long.
_TIMEOUT_S = 60.0
_GPU_PACKAGES = ("TensorRT", "PyCUDA", "cuda-bindings")


def main(argv: Sequence[str]) -> int:
    """Prints the table (``--json``: one JSON object) and returns 0 if everything that the CPU path needs is there."""
    from segcam.cli.args import Parser

    parser = Parser("segcam doctor", description="Says what this machine has, what is missing, and how to get it.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    given = parser.parse(argv)
    groups = examine()
    works = all(check.state != "missing" for checks in groups.values() for check in checks)
    if given.json:
        print(
            json.dumps({"works": works, "checks": {name: [asdict(c) for c in rows] for name, rows in groups.items()}})
        )
    else:
        _show(groups)
        print(_verdict(groups, works))
    return 0 if works else 1


def examine() -> dict[str, list[Check]]:
    """All rows by group. Takes the time of the slowest imports; packages are looked at side by side."""
    with ThreadPoolExecutor(max_workers=max(2, machine.usable_cores())) as pool:
        # The slowest first, so that they do not come last and alone.
        slow = ("OpenVINO", "Numba", "ONNX Runtime", "OpenCV", "PyAV", "onnx")
        order = sorted(PACKAGES, key=lambda title: slow.index(title) if title in slow else len(slow))
        answers = {title: pool.submit(look_apart, PACKAGES[title]) for title in order}
        gpu = machine.gpu()
        groups = {"machine": machine.computer(), "gpu": gpu.checks, "packages": [], "devices": machine.devices()}
        for title in PACKAGES:
            checks = answers[title].result()
            if title in _GPU_PACKAGES:
                for check in checks:
                    _advise(check, gpu)
                groups["gpu"] += checks
            else:
                groups["packages"] += checks
    _either_runtime(groups["packages"])
    return groups


def look_apart(package: Package) -> list[Check]:
    """``probes.look`` in a process of its own; one that dies or hangs becomes a row."""
    home = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))}
    code = f"from segcam.cli.probes import child; child({package.title!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode == 0:
            return [Check(**row) for row in json.loads(done.stdout.splitlines()[-1])]
        found = f"ends the process that imports it ({_how(done.returncode)})"
    except subprocess.TimeoutExpired:
        found = f"no answer within {_TIMEOUT_S:.0f} s of being imported"
    except (OSError, ValueError, IndexError, TypeError) as error:
        found = f"gave no answer that can be read ({error})"
    fix = f"{python()} -m pip install --force-reinstall {package.pip}"
    return [Check(package.title, "missing" if package.needed else "optional", found, fix)]


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _advise(check: Check, gpu: machine.Gpu) -> None:
    """The right command for this machine's CUDA in place of pip's plain name."""
    if check.state == "ok" or check.found != "not installed":
        return
    old = gpu.cuda is not None and gpu.cuda < (13, 0)
    if check.name == "TensorRT":
        check.fix = pip_install("tensorrt-cu12" if old else "tensorrt-cu13")
    elif check.name == "cuda-bindings":
        check.fix = pip_install("cuda-bindings<13" if old else "cuda-bindings")
    else:
        toolkit = "" if gpu.toolkit else "; first install the CUDA toolkit"
        check.fix = f"{pip_install('pycuda')}   # compiles{toolkit}. cuda-bindings does the same job without"
    if gpu.jetson:
        if check.name == "TensorRT":
            check.fix = "sudo apt-get install -y nvidia-jetpack   # and a venv with --system-site-packages"
    elif gpu.cuda is None:
        check.found = "not installed (useful with an NVIDIA GPU only)"


def _either_runtime(checks: list[Check]) -> None:
    """One of OpenVINO and ONNX Runtime is enough for the CPU path."""
    rows = {runtime: [c for c in checks if c.name.startswith(runtime)] for runtime in ("OpenVINO", "ONNX Runtime")}
    if any(all(check.state == "ok" for check in found) for found in rows.values()):
        for check in [c for found in rows.values() for c in found if c.state == "missing"]:
            check.state = "optional"


def _verdict(groups: dict[str, list[Check]], works: bool) -> str:
    if not works:
        lacking = [check.name for checks in groups.values() for check in checks if check.state == "missing"]
        return f"Segcam cannot run yet: {', '.join(lacking)}. Each row above ends in what to do."
    on_gpu = {check.name for check in groups["gpu"] if check.state == "ok"}
    if {"GPU", "TensorRT"} <= on_gpu and on_gpu & {"PyCUDA works", "cuda-bindings works"}:
        return "Segcam can run here, on the CPU and on the GPU."
    return "Segcam can run here on the CPU. The GPU path lacks what is marked optional under gpu."


def _show(groups: dict[str, list[Check]]) -> None:
    if sys.stdout.isatty():
        try:
            _show_rich(groups)
            return
        except ImportError:
            # A broken rich is one of the rows; the plain table says so.
            pass
    width = max(len(check.name) for checks in groups.values() for check in checks)
    for group, checks in groups.items():
        print(f"{group}:")
        for check in checks:
            print(f"  {check.state:8}  {check.name:{width}}  {check.found}")
            if check.fix:
                print(f"  {'':8}  {'':{width}}  -> {check.fix}")
        print()


def _show_rich(groups: dict[str, list[Check]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colors = {"ok": "green", "missing": "bold red", "optional": "yellow"}
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for number, (group, checks) in enumerate(groups.items()):
        if number:
            table.add_row()
        table.add_row("", Text(group, "bold"))
        for check in checks:
            found = Text(check.found)
            if check.fix:
                found.append(f"\n-> {check.fix}", "cyan")
            table.add_row(Text(check.state, colors[check.state]), Text(check.name), found)
    console = Console(highlight=False)
    console.print(table)
    console.print()
