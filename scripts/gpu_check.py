#!/usr/bin/env python3
"""Checks and times on a GPU machine all that can be: `python scripts/gpu_check.py`.

Installs nothing and fetches nothing: what is not there is said, part by part, and the rest goes on. Each part runs in a
process of its own with a time limit, so that one which breaks the GPU's context, dies or hangs doesn't take the others
along. Ends with a table, the targets, and the JSON with all figures, which is on disk from the first part on. Exit code
0: all that ran holds; 1: something doesn't; 2: wrong usage; 3: nothing could run on a GPU here.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT / "app", ROOT / "scripts"):
    sys.path.insert(0, str(folder))

from gpucheck import child, wheels  # noqa: E402
from gpucheck.base import Context, Finding, collect  # noqa: E402
from gpucheck.document import Document  # noqa: E402
from gpucheck.page import exit_code, line, page  # noqa: E402

#: Module and function of each part, in the order in which they run: what others stand on comes first, what takes long
#: last.
PARTS = {
    "machine": ("gpucheck.machine", "check"),
    "drivers": ("gpucheck.drivers", "check"),
    "ptx": ("gpucheck.ptx", "check"),
    "kernels": ("gpucheck.kernels", "check"),
    "bandwidth": ("gpucheck.bandwidth", "check"),
    "resources": ("gpucheck.resources", "check"),
    "pipeline": ("gpucheck.pipeline", "check"),
    "nvdec": ("gpucheck.media", "nvdec"),
    "nvenc": ("gpucheck.media", "nvenc"),
    "ort": ("gpucheck.networks", "onnxruntime"),
    "tensorrt": ("gpucheck.networks", "tensorrt"),
    "sanitizer": ("gpucheck.sanitizer", "check"),
}
#: Less time than this is not worth starting a part for.
_LEAST_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    until = time.monotonic() + given.budget
    names = [name for name in PARTS if (not given.only or name in given.only) and name not in given.skip]
    asked = {
        key: getattr(given, key) for key in ("only", "skip", "device", "size", "runs", "quick", "budget", "patience")
    }
    document = Document(given.json, asked)
    own_process = child.MARK in os.environ

    def heard(finding: Finding) -> None:
        document.findings.append(finding)
        # The parent of a part's process hears of it through this file.
        document.write()
        if not own_process:
            print(line(finding), flush=True)

    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        if given.wheels:
            for finding in wheels.unpack([Path(place) for place in given.wheels], work / "wheels"):
                heard(finding)
            sys.path.insert(0, str(work / "wheels"))
        for name in names:
            since, left = time.monotonic(), until - time.monotonic()
            document.seconds[name] = 0.0
            if given.in_process:
                place = work / name
                place.mkdir()
                context = Context(name, given.device, given.hw, given.quick, given.runs, place, given.patience)
                collect(partial(_part, name), context, heard)
            elif left < _LEAST_S:
                heard(Finding(name, "all", "absent", f"no time left of the {given.budget:g} s of --budget"))
            else:
                limit = f", all that was left of the {given.budget:g} s of --budget" if left < given.patience else ""
                seconds = min(left, given.patience)
                report = work / f"{name}.json"
                command = _command(name, given, report, seconds)
                paths = [str(work / "wheels")] if given.wheels else []
                child.run(command, name, report, paths, seconds, limit, heard)
            document.seconds[name] = round(time.monotonic() - since, 1)
            document.complete = name == names[-1]
            document.write()
    if not own_process:
        print(page(document.findings, given.quick))
        print(f"all figures: {given.json}")
    return exit_code(document.findings)


def _command(name: str, given: argparse.Namespace, report: Path, seconds: float) -> list[str]:
    return [
        sys.executable, __file__, "--only", name, "--in-process", "--json", str(report), "--device", str(given.device),
        "--size", given.size, "--runs", str(given.runs), "--patience", f"{seconds:.1f}",
        *(["--quick"] if given.quick else []),
    ]  # fmt: skip


def _part(name: str, context: Context) -> Iterator[Finding]:
    """Imported here: a module whose packages are missing is a finding."""
    module, function = PARTS[name]
    yield from getattr(import_module(module), function)(context)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=wheels.help_text(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", metavar="FILE", default="gpu_check.json", help="findings and all their figures (default: %(default)s)"
    )
    parser.add_argument("--only", metavar="PART", nargs="+", choices=PARTS, default=[], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--skip", metavar="PART", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--device", metavar="N", type=int, default=0, help="which GPU")
    parser.add_argument(
        "--size", metavar="HxW", default="1024x2048", help="of frames and networks (default: %(default)s)"
    )
    parser.add_argument("--runs", metavar="N", type=int, default=200, help="of what is timed (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small and few: shows that all runs, not how fast")
    parser.add_argument(
        "--wheels",
        metavar="FOLDER",
        nargs="+",
        default=[],
        help="wheels to unpack and use (see below), not to install",
    )
    parser.add_argument(
        "--budget", metavar="S", type=float, default=540, help="seconds for all parts together (default: %(default)s)"
    )
    parser.add_argument(
        "--patience", metavar="S", type=float, default=240, help="seconds that one part may take (default: %(default)s)"
    )
    parser.add_argument("--in-process", action="store_true", help="all parts in this very process, for debuggers")
    given = parser.parse_args(argv)
    height, _, width = given.size.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) >= 64 and int(width) >= 64):
        parser.error(f"--size {given.size}: expected HEIGHTxWIDTH, 64x64 or more")
    given.hw = (int(height), int(width))
    for place in map(Path, given.wheels):
        if not place.is_dir():
            parser.error(f"--wheels {place}: no such folder")
    if given.wheels and not wheels.find([Path(place) for place in given.wheels]):
        parser.error(f"--wheels {' '.join(given.wheels)}: no *.whl and no piece of one in it")
    if given.runs < 4:
        parser.error("--runs: expected 4 or more")
    if not all(seconds > 0 for seconds in (given.budget, given.patience)):
        parser.error("--budget, --patience: expected seconds, more than 0")
    return given


def run(argv: Sequence[str] | None = None) -> int:
    """``main`` as a program: however it is ended, the part that runs is ended with it."""
    signal.signal(signal.SIGTERM, _end)
    with suppress(KeyboardInterrupt):
        return main(argv)
    return 130


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    if child.MARK in os.environ:
        child.adopt()
    sys.exit(run())
