"""Whatever ends a run (a kill, a full disk, a missing permission), what was written before plays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segcam.errors import SinkError
from segcam.sinks.base import RunStats
from segcam.sinks.video import VideoSink

APP = str(Path(__file__).resolve().parents[2] / "app")

CHILD = """
import os, resource, signal, sys
import numpy as np
from fractions import Fraction
from pathlib import Path
from segcam.classes import CITYSCAPES
from segcam.errors import SinkError
from segcam.frame import Frame, Segmentation
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.video import VideoSink

path, frames, limit, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
rng = np.random.default_rng(0)
sink = VideoSink(path, print)
sink.open(StreamInfo("x", 160, 120, Fraction(25), None, False, CITYSCAPES), RunStats())
index = 0
try:
    for index in range(frames):
        planes = tuple(rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((120, 160), (60, 80), (60, 80)))
        frame = Frame(index, index, Fraction(1, 25), 0.0, "x", 160, 120, "i420", planes)
        sink.write(Segmentation(frame, planes[0], frame, np.zeros(19, np.int64), CITYSCAPES))
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
except SinkError as error:
    print("FAILED AT", index)
    print(error)
try:
    sink.close()
except SinkError as error:
    print("FAILED AT CLOSE")
    print(error)
sink.close()
"""


def run_child(path: Path, frames: int, limit: int = 0, end: str = "close") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(frames), str(limit), end],
        env={**os.environ, "PYTHONPATH": APP}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def opencv_frames(path: Path) -> int:
    import cv2

    video, count = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        count += 1
    return count


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_killed_process_loses_less_than_two_seconds(tmp_path, read_video, suffix):
    path = tmp_path / f"a{suffix}"
    done = run_child(path, 170, end="kill")  # key frames at 0, 2, 4 and 6 s
    assert done.returncode == -signal.SIGKILL, done.stderr
    decoded = read_video(path)
    assert 170 - 50 < len(decoded.times_s) <= 170
    assert [int(t * 25) for t in decoded.times_s] == list(range(len(decoded.times_s)))
    assert opencv_frames(path) == len(decoded.times_s)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_full_disk_is_one_error_and_leaves_a_playable_file(tmp_path, read_video, suffix):
    path = tmp_path / f"a{suffix}"
    done = run_child(path, 170, limit=1_000_000)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FAILED") == 1 and "FAILED AT CLOSE" not in done.stdout
    assert f"writing {path} failed" in done.stdout and "can be played" in done.stdout
    failed_at = int(done.stdout.split("FAILED AT ")[1].split()[0])
    decoded = read_video(path)
    assert failed_at - 50 < len(decoded.times_s) <= failed_at
    assert opencv_frames(path) == len(decoded.times_s)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_disk_that_fills_up_while_the_file_is_finished(tmp_path, read_video, suffix):
    path = tmp_path / f"a{suffix}"
    assert run_child(path, 60).returncode == 0
    # A bit less than the finished file needs: what fails is the last fragment or the index.
    done = run_child(path, 60, limit=path.stat().st_size - 20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FAILED") == 1
    decoded = read_video(path)
    assert 10 < len(decoded.times_s) <= 60
    assert opencv_frames(path) == len(decoded.times_s)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_no_space_left_says_so(tmp_path, info, maker):
    path = tmp_path / "a.mp4"
    path.symlink_to("/dev/full")
    sink = VideoSink(path, print)
    sink.open(info, RunStats())
    with pytest.raises(SinkError, match="No space left") as caught:
        for index in range(100):
            sink.write(maker().segmentation(index))
    assert "disk is full" in caught.value.hint and "can be played" not in caught.value.hint
    with pytest.raises(SinkError, match="No space left"):
        sink.write(maker().segmentation(100))
    sink.close()
    sink.close()


def test_parent_that_is_a_file_is_found_before_the_run(tmp_path, info):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SinkError, match="is not a folder"):
        VideoSink(tmp_path / "file" / "a.mp4", print).open(info, RunStats())


def test_folder_without_permission_is_found_before_the_run(tmp_path):
    if os.name != "posix":
        pytest.skip("permissions are POSIX's")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    # root may write anywhere, so the check runs as nobody.
    code = (
        "import os, sys; from pathlib import Path\n"
        "from segcam.sinks.files import check_writable; from segcam.errors import SinkError\n"
        "if os.getuid() == 0: os.chdir('/'); os.setgid(65534); os.setuid(65534)\n"
        "try: check_writable(Path(sys.argv[1]))\n"
        "except SinkError as error: print('found:', error)\n"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and str(folder) != "/":
            folder.chmod(folder.stat().st_mode | 0o555)
    done = subprocess.run(
        [sys.executable, "-c", code, str(locked / "new" / "a.mp4")],
        env={**os.environ, "PYTHONPATH": APP}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "found:" in done.stdout and "no permission to write in" in done.stdout, done.stderr
    assert "--output" in done.stdout


def test_too_little_room_is_found_before_the_run(tmp_path, info, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(SinkError, match=r"0\.0 MiB are free"):
        VideoSink(tmp_path / "a.mp4", print).open(info, RunStats())


def test_missing_overlay_is_an_error_and_not_a_hole(tmp_path, info, maker):
    sink = VideoSink(tmp_path / "a.mp4", print)
    sink.open(info, RunStats())
    segmentation = maker().segmentation(0)
    segmentation.overlay = None
    with pytest.raises(SinkError, match="frame 0 has no overlay"):
        sink.write(segmentation)
    sink.close()
