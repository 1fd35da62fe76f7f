"""The display's text, the keys, and a real window on a virtual screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from segcam.classes import CITYSCAPES
from segcam.controls import Controls
from segcam.errors import SinkError
from segcam.sinks import window as window_module
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.display import display_problem
from segcam.sinks.hud import KEYS, draw_lines, status_lines
from segcam.sinks.window import WindowSink

APP = str(Path(__file__).resolve().parents[2] / "app")
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X displays are Linux's")


def test_status_says_what_is_going_on():
    lines = status_lines(
        fps=29.97, latency_ms=41.6, dropped={"late": 2, "queue full": 0}, index=4, frames=100, time_s=61.25, alpha=0.5
    )
    assert lines[0].startswith("30.0 fps") and "42 ms" in lines[0]
    assert "frame 5 of 100" in lines[1] and "01:01.2" in lines[1] and "50%" in lines[1]
    assert lines[2:] == ["dropped 2 late"]
    both = status_lines(
        fps=0, latency_ms=0, dropped={"late": 2, "queue full": 3}, index=0, frames=None, time_s=-1, alpha=1,
        paused=True, message="hello",
    )  # fmt: skip
    assert both[0] == "0.0 fps" and "of" not in both[1] and "00:00.0" in both[1]
    assert both[2] == "dropped 5: 2 late, 3 queue full" and "PAUSED" in both[3] and both[4] == "hello"


@pytest.mark.parametrize("size", [(40, 60), (360, 480), (720, 1280), (1024, 2048)])
def test_text_is_drawn_bright_on_dark_and_nowhere_else(size):
    image = np.full((*size, 3), 200, np.uint8)
    bottom = draw_lines(image, ["12.0 fps", *KEYS])
    changed = (image != 200).any(2)
    assert changed.any() and bottom <= size[0]
    assert not changed[:8].any() and not changed[:, :8].any()
    assert not changed[bottom:].any()
    if size[0] > 100:
        assert not changed[:, -1].any() and (image[8:bottom] > 230).any() and (image[8:bottom] < 80).any()


def test_no_lines_draw_nothing():
    image = np.full((50, 50, 3), 200, np.uint8)
    draw_lines(image, [])
    assert (image[30:] == 200).all()


class FakeWindow:
    """Stands for cv2's window functions: gives keys, keeps what was shown."""

    def __init__(self, keys=()):
        self.keys, self.shown, self.visible, self.waited_ms = list(keys), [], 1.0, 0

    def install(self, monkeypatch):
        import cv2

        monkeypatch.setattr(window_module, "display_problem", lambda: None)
        monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "destroyWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "resizeWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "pollKey", lambda: -1)
        monkeypatch.setattr(cv2, "imshow", lambda _, image: self.shown.append(image.copy()))
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: self.visible)
        monkeypatch.setattr(cv2, "waitKey", self.wait)
        return self

    def wait(self, ms):
        self.waited_ms += ms
        return ord(self.keys.pop(0)) if self.keys else -1

    def clock(self):
        return self.waited_ms / 1000


@pytest.fixture
def fake(monkeypatch):
    return FakeWindow().install(monkeypatch)


@pytest.fixture
def opened(fake, info, controls):
    def make(stream=info, **options):
        sink = WindowSink(controls, print, clock=fake.clock, **options)
        sink.open(stream, RunStats())
        return sink

    return make


def test_keys_change_opacity_classes_and_legend(fake, opened, controls, maker):
    sink = opened()

    def press(keys):
        fake.keys = list(keys)
        while fake.keys:
            sink.write(maker().segmentation(0))

    before = controls.version
    press("++-")
    assert controls.alpha == pytest.approx(0.6) and controls.version > before
    press("n")
    assert np.flatnonzero(controls.visible).tolist() == [0]
    press("nn")
    assert np.flatnonzero(controls.visible).tolist() == [2]
    press("ppp")
    assert np.flatnonzero(controls.visible).tolist() == [18]
    press("c")
    assert controls.visible.all()
    press("30")
    assert np.flatnonzero(~controls.visible).tolist() == [0, 3]
    press("3")
    assert np.flatnonzero(~controls.visible).tolist() == [0]
    press("l")
    assert controls.legend
    press("++++++++")
    assert controls.alpha == 1.0
    assert not controls.quit.is_set()
    press("q")
    assert controls.quit.is_set()


def test_c_goes_back_to_the_selection_of_the_start(fake, info, maker):
    start = CITYSCAPES.visible("road,car")
    controls = Controls(0.5, start)
    sink = WindowSink(controls, print, clock=fake.clock)
    sink.open(info, RunStats())
    fake.keys = list("n1c")
    while fake.keys:
        sink.write(maker().segmentation(0))
    assert (controls.visible == start).all()


def test_escape_and_closing_the_window_quit(fake, opened, controls, maker):
    sink = opened()
    fake.keys = ["\x1b"]
    sink.write(maker().segmentation(0))
    assert controls.quit.is_set()
    controls.quit.clear()
    fake.visible = 0.0
    sink.write(maker().segmentation(1))
    assert controls.quit.is_set()
    shown = len(fake.shown)
    sink.write(maker().segmentation(2))
    assert len(fake.shown) == shown  # a window that is gone must not come back


def test_pause_holds_write_until_space_or_quit(fake, opened, controls, maker):
    sink = opened()
    fake.keys = [" "]
    threading.Timer(0.3, lambda: fake.keys.append(" ")).start()
    sink.write(maker().segmentation(0))
    assert fake.waited_ms > 100 and not controls.quit.is_set()
    fake.keys = [" "]
    threading.Timer(0.3, controls.quit.set).start()
    sink.write(maker().segmentation(1))


def test_a_file_plays_no_faster_than_real_time_and_does_not_hurry_after_a_delay(fake, opened, maker):
    sink = opened()
    make = maker()
    for index in range(26):
        sink.write(make.segmentation(index))
    assert 1.0 <= fake.clock() < 1.1
    fake.waited_ms += 5000  # a slow network
    late = fake.clock()
    for index in range(26, 52):
        sink.write(make.segmentation(index))
    assert 0.95 <= fake.clock() - late < 1.1
    start = fake.clock()
    for index in range(25):  # a loop begins again at 0
        sink.write(make.segmentation(index))
    assert 0.9 <= fake.clock() - start < 1.1


@pytest.mark.parametrize("reason", ["pace off", "live"])
def test_no_waiting(fake, opened, maker, info, reason):
    import dataclasses

    sink = opened(dataclasses.replace(info, live=reason == "live"), pace=reason == "live")
    for index in range(50):
        sink.write(maker().segmentation(index))
    assert fake.clock() < 0.2


def test_stills_stay_a_second_and_the_last_one_until_a_key(fake, opened, maker):
    sink = opened(StreamInfo("folder", 64, 48, None, 2, False, CITYSCAPES))
    sink.write(maker().segmentation(0))
    assert 1.0 <= fake.clock() < 1.1
    threading.Timer(0.5, lambda: fake.keys.append("\r")).start()
    sink.write(maker().segmentation(1))
    assert fake.clock() > 1.5


def test_large_pictures_shrink_and_small_ones_do_not(fake, opened, maker):
    sink = opened(hud=False)
    for format in ("i420", "nv12", "bgr24"):
        large = maker(width=2048, height=1024, format=format).segmentation(0)
        sink.write(large)
        shown = fake.shown[-1]
        assert shown.shape == (640, 1280, 3)
        small = np.asarray(large.overlay.bgr(), float).mean((0, 1))
        np.testing.assert_allclose(shown.astype(float).mean((0, 1)), small, atol=2)
    sink.write(maker(width=63, height=47).segmentation(1))
    np.testing.assert_array_equal(fake.shown[-1], maker(width=63, height=47).segmentation(1).overlay.bgr())


def test_hud_is_drawn_on_a_copy(fake, opened, maker):
    segmentation = maker(width=320, height=240, format="bgr24").segmentation(0)
    before = segmentation.overlay.planes[0].copy()
    opened().write(segmentation)
    assert (fake.shown[-1] != before).any()
    np.testing.assert_array_equal(segmentation.overlay.planes[0], before)


def test_snapshots_are_full_size_and_never_overwrite(fake, opened, maker, tmp_path, monkeypatch):
    import cv2

    monkeypatch.chdir(tmp_path)
    sink = opened()
    segmentation = maker(width=1400, height=700).segmentation(7)
    fake.keys = ["s", "s"]
    while fake.keys:
        sink.write(segmentation)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["segcam_000007.png", "segcam_000007_2.png"]
    np.testing.assert_array_equal(cv2.imread("segcam_000007.png"), segmentation.overlay.bgr())


@linux_only
def test_no_screen_is_an_error_with_a_way_out(monkeypatch, info, controls):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SinkError, match="no screen") as caught:
        WindowSink(controls, print).open(info, RunStats())
    assert "--output" in caught.value.hint


@linux_only
@pytest.mark.parametrize("display", [":9731", "localhost:9731", "unix:9731"])
def test_unreachable_screen_is_an_error_and_not_an_abort(monkeypatch, display):
    monkeypatch.setenv("DISPLAY", display)
    problem = display_problem()
    assert problem is not None and "does not answer" in problem


@linux_only
def test_a_screen_that_refuses_is_found_by_the_probe(monkeypatch, tmp_path):
    """Something listens, but it is no X server: OpenCV aborts on that, in the probe."""
    import socket

    server = socket.socket(socket.AF_UNIX)
    number = 20000 + os.getpid()
    server.bind(f"\0/tmp/.X11-unix/X{number}")
    server.listen()

    def hang_up():
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=hang_up, daemon=True).start()
    monkeypatch.setenv("DISPLAY", f":{number}")
    problem = display_problem()
    server.close()
    assert problem is not None and "no window could be opened" in problem


REAL = """
import sys
import numpy as np
from fractions import Fraction
from segcam.classes import CITYSCAPES
from segcam.controls import Controls
from segcam.frame import Frame, Segmentation
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.factory import SinkOptions, make_sink
controls = Controls(0.5, np.ones(19, bool))
sink = make_sink("window", SinkOptions(), controls, print)
sink.open(StreamInfo("x", 320, 240, Fraction(25), None, False, CITYSCAPES), RunStats(fps=25, latency_ms=40))
print("open", flush=True)
index = 0
while not controls.quit.is_set() and index < 1500:
    planes = (np.full((240, 320, 3), (40, 160, 80), np.uint8),)
    frame = Frame(index, index, Fraction(1, 25), 0.0, "x", 320, 240, "bgr24", planes)
    sink.write(Segmentation(frame, planes[0][:, :, 0], frame, np.zeros(19, np.int64), CITYSCAPES))
    index += 1
sink.close()
print(controls.quit.is_set(), round(controls.alpha, 1), int(controls.visible.sum()), controls.legend)
"""


@pytest.fixture
def screen():
    """The number of a virtual screen of one's own."""
    if not shutil.which("Xvfb") or not shutil.which("xdotool"):
        pytest.skip("needs Xvfb and xdotool")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=[write], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait()


def test_real_window_takes_keys(screen, tmp_path):
    environment = {**os.environ, "PYTHONPATH": APP, "DISPLAY": screen}
    child = subprocess.Popen(
        [sys.executable, "-c", REAL], env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert child.stdout is not None and child.stdout.readline() == "open\n"

    def xdotool(*words):
        return subprocess.run(["xdotool", *words], env=environment, capture_output=True, text=True, check=False).stdout

    try:
        found = xdotool("search", "--sync", "--onlyvisible", "--name", "^Segcam$").split()
        assert found
        xdotool("windowfocus", "--sync", found[0])
        # Keys may get lost before the window listens: the snapshot shows when it does.
        for _ in range(100):
            xdotool("key", "s")
            time.sleep(0.1)
            if list(tmp_path.glob("segcam_*.png")):
                break
        for key in ("plus", "n", "l", "space", "space", "Escape"):
            xdotool("key", key)
            time.sleep(0.15)
        out, _ = child.communicate(timeout=30)
    finally:
        child.kill()
    assert list(tmp_path.glob("segcam_*.png"))
    assert out.split("\n")[-2] == "True 0.6 1 True"
