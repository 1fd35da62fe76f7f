"""How a run ends that a person or the system ends: in a process of its own, with real signals and a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

_PATIENCE_S = 60.0
ReadVideo = Callable[[Path], Any]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, repository: Path, model: Path) -> Iterator[Start]:
    """Starts ``segcam`` on the test pattern at 100 frames a second without end; arguments follow the source's."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: object, source: str = "test:live=1,rate=100,size=128x64", **more: Any) -> Any:
        environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
        environment["PYTHONPATH"] = str(repository / "app")
        command = [sys.executable, "-m", "segcam", "-e", str(model), "-s", source, *map(str, arguments)]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, **{**streams, **more})
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_the_files(start: Start, read_video: ReadVideo, tmp_path: Path, number: int) -> None:
    process = start("-o", "out.mp4", "-o", "o.jsonl", "-o", "out.mkv", "--queue", "lossless")
    until(lambda: count_lines(tmp_path / "o.jsonl") >= 40)
    process.send_signal(number)
    out, err = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.count("finishing what has been read") == 1
    indices = [json.loads(line)["index"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert indices == list(range(len(indices)))
    assert len(indices) >= 40
    assert f"interrupted after {len(indices)} frames" in err
    for name in ("out.mp4", "out.mkv"):
        video = read_video(tmp_path / name)
        assert len(video.pictures) == len(indices)
        assert f"{name}: {len(indices)} frames" in err
    assert read_video(tmp_path / "out.mp4").announced == len(indices), "an ordinary index, not a live one"


def test_the_second_signal_quits_at_once(start: Start, read_video: ReadVideo, tmp_path: Path) -> None:
    """x264's slowest preset at 1080p, and many frames in the queues: finishing would take half a minute."""
    process = start(
        "-o", "out.mkv", "-o", "o.jsonl", "--preset", "placebo", "--crf", "0", "--queue-size", "20",
        source="test:size=1920x1080",
    )  # fmt: skip
    until(lambda: count_lines(tmp_path / "o.jsonl") >= 3 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = iter(process.stderr.readline, "")
    assert any("finishing what has been read" in line for line in said)
    assert process.poll() is None, "it finishes what it has"
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_a_killed_run_leaves_a_video_that_plays(start: Start, read_video: ReadVideo, tmp_path: Path, name: str) -> None:
    process = start("-o", name, "-o", "o.jsonl", "--queue", "lossless")
    until(lambda: count_lines(tmp_path / "o.jsonl") >= 300)
    process.kill()
    process.wait(_PATIENCE_S)
    lines = count_lines(tmp_path / "o.jsonl")
    frames = len(read_video(tmp_path / name).pictures)
    # At most half a second (50 frames) and what the encoder holds may be missing.
    assert lines - 100 <= frames <= lines + 10
    assert frames >= 200


def test_ctrl_c_while_a_live_source_has_nothing_to_say(start: Start, tmp_path: Path) -> None:
    """One frame every 20 seconds: the run does not wait for the next one."""
    process = start("-o", "o.jsonl", source="test:live=1,rate=1/20,size=128x64")
    until(lambda: count_lines(tmp_path / "o.jsonl") == 1)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 130
    assert time.monotonic() - begun < 15
    assert "interrupted after 1 frames" in err or "interrupted after 1 frame " in err


def test_interrupting_a_benchmark_still_reports(start: Start, tmp_path: Path) -> None:
    process = start("-o", "o.jsonl", "--json", "r.json")
    until(lambda: count_lines(tmp_path / "o.jsonl") >= 30)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 130
    made = json.loads((tmp_path / "r.json").read_text())
    assert made["frames"] == count_lines(tmp_path / "o.jsonl")
    assert made["end_to_end_hz"] > 0


def on_a_terminal(start: Start, *arguments: object) -> tuple[int, str, str]:
    """Exit code, what came on stdout (a pipe), and what a terminal at stderr got."""
    ours, theirs = pty.openpty()
    try:
        process = start(*arguments, source="test:rate=50,size=128x64,frames=60,live=1", stderr=theirs)
        os.close(theirs)
        theirs = -1
        shown = b""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # Linux says so when the other end is closed
                    break
                if not part:
                    break
                shown += part
            elif process.poll() is not None:
                break
        assert process.stdout is not None
        return process.wait(_PATIENCE_S), process.stdout.read(), shown.decode("utf-8", "replace")
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)


def test_progress_is_drawn_on_a_terminal(start: Start) -> None:
    code, out, shown = on_a_terminal(start, "-o", "null")
    assert (code, out) == (0, "")
    assert "frames/s" in shown
    assert re.search(r"\d+/60", shown)
    assert "done: 60 frames" in shown or re.search(r"done: \d+ frames", shown)


def test_progress_off_draws_nothing_on_a_terminal(start: Start) -> None:
    code, out, shown = on_a_terminal(start, "-o", "null", "--progress", "off")
    assert (code, out) == (0, "")
    assert "\x1b[" not in shown
    assert not re.search(r"\d+/60", shown)


def test_no_progress_elsewhere(start: Start) -> None:
    process = start("-o", "null", source="test:size=128x64,frames=40")
    out, err = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, out) == (0, "")
    assert "\x1b" not in err
    assert "\r" not in err
    assert not re.search(r"\d+/40", err)
