"""What tests of every folder share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

# A shared machine may stall for seconds: no deadlines. CI takes the same examples each time.
settings.register_profile("segcam", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("segcam")

RunSegcam = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real footage, networks and broken files, which are never part of the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("shared test data is not beside the checkout")
    return folder


@pytest.fixture
def run_segcam(tmp_path: Path) -> RunSegcam:
    """``run_segcam(*arguments, cwd=tmp_path, env=None, timeout_s=120, python_flags=())``: ``python -m segcam`` in a
    process of its own, without a display. ``env`` is added to the environment. Returns the CompletedProcess, as text.
    """

    def run(
        *arguments: object,
        cwd: Path = tmp_path,
        env: dict[str, str] | None = None,
        timeout_s: float = 120.0,
        python_flags: tuple[str, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
        environment["PYTHONPATH"] = str(REPOSITORY / "app")
        environment["PYTHONIOENCODING"] = "utf-8"
        environment.update(env or {})
        return subprocess.run(
            [sys.executable, *python_flags, "-m", "segcam", *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
        )

    return run
