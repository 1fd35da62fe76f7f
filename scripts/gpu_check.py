#!/usr/bin/env python3
"""Checks and times on a GPU machine all that can be: `python scripts/gpu_check.py --json FILE`.

Installs nothing and fetches nothing: what is not there is said, part by part, and the rest goes on. Each part runs in a
process of its own, so that one which breaks the GPU's context doesn't take the others along. Ends with a table; the
JSON has all figures. Exit code 0: all that ran holds; 1: something doesn't; 2: wrong usage; 3: nothing could run on a
GPU here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT / "app", ROOT / "scripts"):
    sys.path.insert(0, str(folder))

from gpucheck.base import Context, Finding, collect  # noqa: E402
from gpucheck.page import exit_code, line, page, verdict  # noqa: E402

#: Module and function of each part, in the order in which they run: what others stand on comes first.
PARTS = {
    "machine": ("gpucheck.machine", "check"),
    "drivers": ("gpucheck.drivers", "check"),
    "ptx": ("gpucheck.ptx", "check"),
    "kernels": ("gpucheck.kernels", "check"),
    "bandwidth": ("gpucheck.bandwidth", "check"),
    "pipeline": ("gpucheck.pipeline", "check"),
    "nvdec": ("gpucheck.media", "check"),
    "ort": ("gpucheck.networks", "onnxruntime"),
    "tensorrt": ("gpucheck.networks", "tensorrt"),
    "sanitizer": ("gpucheck.sanitizer", "check"),
}


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    names = [name for name in PARTS if (not given.only or name in given.only) and name not in given.skip]
    begun = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    findings: list[Finding] = []
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        work = Path(folder)
        if given.wheels:
            _unpack(Path(given.wheels), work / "wheels")
        for name in names:
            since = time.perf_counter()
            run = _in_process if given.in_process else _in_child
            findings += run(name, given, work)
            seconds[name] = round(time.perf_counter() - since, 1)
            # What is known so far survives whatever ends this process.
            _write(given.json, {"begun": begun, "complete": name == names[-1], "seconds": seconds}, findings)
    if not given.in_process or not os.environ.get("GPU_CHECK_CHILD"):
        print(page(findings))
    return exit_code(findings)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", required=True, help="the findings with all their figures")
    parser.add_argument("--only", metavar="PART", nargs="+", choices=PARTS, default=[], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--skip", metavar="PART", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--device", metavar="N", type=int, default=0, help="which GPU")
    parser.add_argument("--size", metavar="HxW", default="1024x2048", help="of frames and networks")
    parser.add_argument("--runs", metavar="N", type=int, default=200, help="of what is timed")
    parser.add_argument("--quick", action="store_true", help="small and few: shows that all runs, not how fast")
    parser.add_argument("--wheels", metavar="FOLDER", help="wheels (*.whl) to unpack and use, none is installed")
    parser.add_argument("--patience", metavar="S", type=float, default=300, help="seconds that a part may take")
    parser.add_argument("--in-process", action="store_true", help="all parts in this very process")
    given = parser.parse_args(argv)
    height, _, width = given.size.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) >= 64 and int(width) >= 64):
        parser.error(f"--size {given.size}: expected HEIGHTxWIDTH, 64x64 or more")
    given.hw = (int(height), int(width))
    if given.wheels and not list(Path(given.wheels).glob("*.whl")):
        parser.error(f"--wheels {given.wheels}: no *.whl in it")
    if given.runs < 4:
        parser.error("--runs: expected 4 or more")
    return given


def _part(name: str, context: Context) -> Iterator[Finding]:
    """Imported here: a module whose packages are missing is a finding."""
    module, function = PARTS[name]
    yield from getattr(import_module(module), function)(context)


def _in_process(name: str, given: argparse.Namespace, work: Path) -> list[Finding]:
    place = work / name
    place.mkdir(exist_ok=True)
    context = Context(name, given.device, given.hw, given.quick, given.runs, place)
    return collect(partial(_part, name), context, _say)


def _in_child(name: str, given: argparse.Namespace, work: Path) -> list[Finding]:
    """A part in a process of its own. One that dies or never ends is a finding, after what it had found."""
    report = work / f"{name}.json"
    command = [
        sys.executable, __file__, "--only", name, "--in-process", "--json", str(report), "--device", str(given.device),
        "--size", given.size, "--runs", str(given.runs), *(["--quick"] if given.quick else []),
    ]  # fmt: skip
    paths = [str(path) for path in ([work / "wheels"] if given.wheels else [])]
    environment = dict(os.environ, GPU_CHECK_CHILD="1", PYTHONUNBUFFERED="1")
    environment["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = ""
    try:
        done = subprocess.run(command, env=environment, check=False, timeout=given.patience)
        if done.returncode not in (0, 1, 3):
            ended = f"its process ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        ended = f"not done after {given.patience:g} s"
    found = []
    if report.exists():
        found = [Finding(**entry) for entry in json.loads(report.read_text("utf-8"))["findings"]]
    if ended or not found:
        found.append(Finding(name, "process", "failed", ended or "it found nothing at all"))
        _say(found[-1])
    return found


def _unpack(wheels: Path, target: Path) -> None:
    """Every wheel, side by side, as an installation would lay them out."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    sys.path.insert(0, str(target))


def _say(finding: Finding) -> None:
    print(line(finding), flush=True)


def _write(path: str, head: dict[str, object], findings: Sequence[Finding]) -> None:
    document = {**head, "verdict": verdict(findings), "findings": [asdict(finding) for finding in findings]}
    target = Path(path)
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}.part")
    half.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    half.replace(target)


if __name__ == "__main__":
    sys.exit(main())
