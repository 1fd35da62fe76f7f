"""``segcam demo`` as typed: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segcam.cli.main import main
from segcam.sources.street import render

FRAMES = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short demo."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "out"
    assert main(["demo", "--output", str(folder), "--frames", str(FRAMES)]) == 0
    return folder


def test_the_files(made: Path, read_video: Callable[[Path], Any]) -> None:
    assert {path.name for path in made.iterdir()} == {"demo.mp4", "demo.png", "demo.json"}
    video = read_video(made / "demo.mp4")
    assert (video.codec, video.size, len(video.pictures)) == ("h264", (2048, 1024), FRAMES)
    assert [float(time) for time in video.times_s] == pytest.approx([0, 0.05, 0.1, 0.15])
    street = render(2_000_013, 0, (1024, 2048), rate=20)[0]
    changed = np.abs(video.pictures[0].astype(int) - street).mean()
    assert changed > 15, "the classes are painted over it"
    sheet = cv2.imread(str(made / "demo.png"))
    assert sheet is not None and sheet.shape[1] == 3 * 642 and sheet.shape[0] > FRAMES * (320 + 26)


def test_the_figures(made: Path) -> None:
    figures = json.loads((made / "demo.json").read_text("utf-8"))
    assert figures["frames"] == FRAMES and figures["dropped"] == {}
    assert figures["scores"]["pixels"] == FRAMES * 2048 * 1024
    assert 0.5 < figures["scores"]["pixel_accuracy"] <= 1 and 0.1 < figures["scores"]["miou"] <= 1
    assert {"decode", "inference", "write video", "write score"} <= set(figures["stages_ms"])


def test_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text("segcam_config = 1\n[overlay]\nclasses = 'nonsense'\n", "utf-8")
    arguments = ["demo", "--frames", "1", "--seed", "2000025", "--weather", "day"]
    capfd.readouterr()
    assert main(arguments) == 0, "a config.toml is about other jobs"
    first = capfd.readouterr()
    for words in ("out/demo.mp4", "out/demo.png", "out/demo.json", "mIoU 0.", "draw the street", "write H.264"):
        assert words in first.out, words
    commands = [line.strip() for line in first.out.splitlines() if line.startswith("  segcam --engine ")]
    assert len(commands) == 2 and all("--source VIDEO.mp4" in command for command in commands)
    assert "seed=2000025,weather=day" in first.err and "demo_street_f64.onnx" in first.err
    scores = json.loads((tmp_path / "out" / "demo.json").read_text("utf-8"))["scores"]
    assert main(arguments) == 0, "a second one replaces the first one's files"
    assert json.loads((tmp_path / "out" / "demo.json").read_text("utf-8"))["scores"] == scores


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (("--frames", "0"), 2, "--frames: found '0', expected a whole number from 1", "segcam demo --help"),
        (("--frames", "x"), 2, "--frames: found 'x'", "segcam demo --help"),
        (("--seed", "-1"), 2, "--seed", "segcam demo --help"),
        (("--weather", "rian"), 2, "unknown weather 'rian'", "Did you mean 'rain'?"),
        (("--wether", "rain"), 2, "no flag is called --wether", "Did you mean --weather?"),
        (("video.mp4",), 2, "'video.mp4' is not expected here", "See: segcam demo --help"),
        (("--output", "file"), 1, "file is a file, not a folder", "segcam demo --output FOLDER"),
        (("--output", "file/below"), 1, "is not a folder", "Choose a path"),
        (("--output", "taken"), 1, "taken/demo.png is a folder", "segcam demo --output FOLDER"),
    ],
)
def test_what_it_refuses_before_it_draws(
    arguments: tuple[str, ...],
    code: int,
    message: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("taken/demo.png").mkdir(parents=True)
    capfd.readouterr()
    assert main(["demo", *arguments]) == code
    out, err = capfd.readouterr()
    assert out == "" and message in err and hint in err and len(err.splitlines()) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["demo.png", "file", "taken"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    assert main(["demo", "--output", str(folder)]) == 1
    assert "no permission to write" in capfd.readouterr().err


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from collections import namedtuple

    from segcam.sinks import files

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 2**20))
    assert main(["demo", "--output", str(tmp_path / "out")]) == 1
    assert "1.0 MiB are free" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from segcam import bench

    real = bench.network_rate
    monkeypatch.setattr(bench, "network_rate", lambda engine: real(engine, seconds=0.1))
    monkeypatch.chdir(tmp_path)
    assert main(["--benchmark", "--frames", "3"]) == 0
    out, err = capfd.readouterr()
    assert "no --engine: measuring demo" in err and "no --source: measuring on street:" in err
    for words in ("demo_street_f64.onnx", "source      street:", "network only", "end to end", "outputs     null"):
        assert words in out, words
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_keeps_what_is_given(
    brightest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from segcam import bench

    real = bench.network_rate
    monkeypatch.setattr(bench, "network_rate", lambda engine: real(engine, seconds=0.1))
    assert main(["--benchmark", "--engine", str(brightest()), "--source", "test:size=64x64,frames=3"]) == 0
    out, err = capfd.readouterr()
    assert "net.onnx" in out and "test:size=64x64" in out
    assert "no --engine" not in err and "no --source" not in err
