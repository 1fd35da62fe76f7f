"""The README's commands, code, spec and messages are what the program does."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcam.cli.main import COMMANDS
from segcam.onnx_tools.spec import parse_spec
from segcam.settings import OPTIONS


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def street(tmp_path: Path, brightest: Callable[..., Path]) -> Path:
    """A folder with what the README's examples name: model.onnx, dashcam.mp4, street.jpg, images, labels."""
    import av
    import cv2

    brightest(name="model").rename(tmp_path / "model.onnx")
    with av.open(str(tmp_path / "dashcam.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for shade in range(8):
            picture = np.full((64, 96, 3), 20 * shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    cv2.imwrite(str(tmp_path / "street.jpg"), np.full((48, 64, 3), 90, np.uint8))
    for name, shade in (("images", 90), ("labels", 1)):
        (tmp_path / name).mkdir()
        cv2.imwrite(
            str(tmp_path / name / "one.png"), np.full((48, 64, 3)[: 3 if name == "images" else 2], shade, np.uint8)
        )
    return tmp_path


def test_every_segcam_command_runs(readme: str, street: Path, run_segcam: Callable[..., Any]) -> None:
    commands = [
        shlex.split(line) for block in blocks(readme, "sh") for line in block.splitlines() if line.startswith("segcam ")
    ]
    assert len(commands) >= 3
    for command in commands:
        # The demo is tested by itself; here it need not be as long.
        shorter = ["--frames", "2"] if command[1:] == ["demo"] else []
        done = run_segcam(*command[1:], *shorter, cwd=street)
        assert done.returncode == 0, (command, done.stderr)
    assert (street / "out.mp4").stat().st_size > 0


def test_make_targets_exist(readme: str, repository: Path) -> None:
    makefile = (repository / "Makefile").read_text("utf-8")
    targets = [
        line.split()[1] for block in blocks(readme, "sh") for line in block.splitlines() if line.startswith("make ")
    ]
    assert set(targets) >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_python_example_runs(readme: str, street: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(street)
    for block in blocks(readme, "python"):
        names: dict[str, Any] = {}
        exec(block, names)
        assert names["picture_rgb"].shape == (48, 64, 3)


def test_the_spec_example_is_valid(readme: str) -> None:
    for block in blocks(readme, "json"):
        assert json.loads(block)["segcam_spec"] == 1
        assert parse_spec(block, "README").classes is not None


def test_flags_and_links_exist(readme: str, repository: Path, run_segcam: Callable[..., Any]) -> None:
    known = {option.flag for option in OPTIONS.values()} | {"--print-config", "--help", "--no-cut-head"}
    for command in COMMANDS:
        known |= set(re.findall(r"--[a-z][a-z-]+", run_segcam(command, "--help").stdout))
    assert set(re.findall(r"--[a-z][a-z-]+", readme)) <= known
    for link in re.findall(r"\]\(([^)#]+)\)", readme):
        assert link.startswith("http") or (repository / link).exists(), link


def test_messages_of_the_table_are_in_the_program(readme: str, repository: Path) -> None:
    source = "\n".join(path.read_text("utf-8") for path in (repository / "app").rglob("*.py"))
    # Messages are written over several source lines.
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    table = readme.split("## Messages and their cures")[1].split("\n## ", maxsplit=1)[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) >= 8
    for row in rows:
        for message in re.findall(r"`([^`]+)`", row):
            for piece in re.split(r"\.\.\.|\bN\b|\bM\b|\bthis CPU\b", message):
                assert piece.strip(" :") in source, f"{message!r}: no message contains {piece!r}"


def test_figures_name_their_command_and_machine(readme: str, repository: Path) -> None:
    section = readme.split("## How fast")[1].split("\n## ", maxsplit=1)[0]
    for script in re.findall(r"benchmarks/\w+\.py", section):
        assert (repository / script).exists()
    assert re.search(r"benchmarks/\w+\.py", section) and re.search(r"\bcores?\b", section)
