"""What `make setup` says before it installs anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(repository / name, tmp_path / name)
    return tmp_path


def old_python(folder: Path) -> Path:
    """An interpreter that answers as one too old would."""
    folder.mkdir()
    script = folder / "python3"
    script.write_text(
        '#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.8.10; else exit 1; fi\n', encoding="utf-8"
    )
    script.chmod(0o755)
    return script


def test_a_python_that_is_too_old_is_named(checkout: Path) -> None:
    done = make(checkout, "setup", f"PYTHON={old_python(checkout / 'bin')}")
    assert done.returncode == 2
    assert "needs Python 3.10 or newer" in done.stderr
    assert "is: Python 3.8.10" in done.stderr


def test_no_python_at_all_says_what_to_do(checkout: Path) -> None:
    tools = checkout / "tools"
    old_python(tools)
    for name in ("make", "sh", "echo", "true", "sed"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    done = make(checkout, "setup", path=str(tools))
    assert done.returncode == 2
    assert "python3 here is: Python 3.8.10" in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_setup_is_done_once_and_again_when_the_project_changes(checkout: Path) -> None:
    stamp = checkout / ".venv" / ".segcam-stamp"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(checkout / "pyproject.toml", (1, 1))
    assert "Nothing to be done" in make(checkout, "setup").stdout
    os.utime(stamp, (0, 0))
    assert "Installing Segcam" in make(checkout, "-n", "setup").stdout


def test_make_alone_lists_what_there_is(checkout: Path) -> None:
    done = make(checkout)
    assert done.returncode == 0
    assert {line.split()[1] for line in done.stdout.splitlines()} == {"setup", "test", "demo"}


def test_ci_runs_the_tests(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")


def test_demo_is_the_demo(checkout: Path, repository: Path) -> None:
    """With a segcam that writes down how it was called in place of the installed one."""
    (checkout / "scripts").mkdir()
    shutil.copy(repository / "scripts" / "demo.sh", checkout / "scripts" / "demo.sh")
    program = checkout / ".venv" / "bin" / "segcam"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$PWD: $*" > called\n', encoding="utf-8")
    program.chmod(0o755)
    (checkout / ".venv" / ".segcam-stamp").touch()
    done = make(checkout, "demo")
    assert done.returncode == 0, done.stderr
    assert (checkout / "called").read_text("utf-8") == f"{checkout}: demo --output out\n"
    program.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    assert make(checkout, "demo").returncode != 0
