"""A run of any length keeps the same amount of memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# In a process of its own, so that nothing else that pytest holds is counted. The lines sink stands in every run and is
# wrapped: it looks at the resident set at the 100th frame and at the end.
_PROGRAM = """
import sys
from pathlib import Path
from segcam.sinks.jsonl import JsonLinesSink

page = __import__("resource").getpagesize()
def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * page / 1e6

write, seen = JsonLinesSink.write, []
def watched(self, segmentation):
    write(self, segmentation)
    seen.append(resident_mb() if len(seen) in (99, 699) else 0.0)
JsonLinesSink.write = watched

from segcam.cli.main import main
code = main(sys.argv[1:])
print(len(seen), seen[99], seen[-1])
sys.exit(code)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
@pytest.mark.parametrize("kind", ["pattern", "looped video"])
def test_resident_memory_does_not_grow(
    kind: str, model: Path, make_clip: Callable[..., Path], repository: Path, tmp_path: Path
) -> None:
    if kind == "pattern":
        source = ["-s", "test:size=640x360"]
    else:
        source = ["-s", str(make_clip(count=50, size=(640, 360))), "--loop"]
    done = subprocess.run(
        [
            sys.executable, "-c", _PROGRAM, "-e", str(model), *source, "--frames", "700",
            "-o", "out.mp4", "-o", "o.jsonl", "--preset", "ultrafast",
        ],
        cwd=tmp_path, env={"PYTHONPATH": str(repository / "app"), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    frames, early_mb, late_mb = map(float, done.stdout.split())
    print(f"{kind}: {early_mb:.1f} MB after 100 frames, {late_mb:.1f} MB after 700")
    assert frames == 700
    assert late_mb - early_mb < 20
