"""Kernels are compiled once for a machine, not at every start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STARTUP = """
import json, sys
import segcam.kernels.cpu.blend, segcam.kernels.cpu.color, segcam.kernels.cpu.labels, segcam.kernels.cpu.preprocess
hits = misses = 0
for name, module in list(sys.modules.items()):
    if name.startswith("segcam.kernels"):
        for value in vars(module).values():
            stats = getattr(value, "stats", None)
            if stats is not None and getattr(value, "__module__", "") == name:
                hits += sum(stats.cache_hits.values())
                misses += sum(stats.cache_misses.values())
print(json.dumps([hits, misses]))
"""


@pytest.mark.slow
def test_a_second_start_compiles_nothing(tmp_path: Path, repository: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(repository / "app")}

    def start() -> tuple[int, int]:
        done = subprocess.run(
            [sys.executable, "-c", STARTUP], env=environment, capture_output=True, text=True, check=True, timeout=600
        )
        hits, misses = json.loads(done.stdout)
        return hits, misses

    def cached() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ic]")}

    hits, misses = start()
    assert hits == 0
    files = cached()
    kernels = sum(path.suffix == ".nbc" for path in files)
    # What is only ever part of another kernel is compiled with it and not stored by itself.
    assert misses >= kernels >= 5
    assert start() == (kernels, 0)
    assert cached() == files
