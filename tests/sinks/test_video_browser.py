"""A browser plays what the video sink writes: size, duration, a jump, the right colours."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
from fractions import Fraction

import numpy as np
import pytest

from segcam.classes import CITYSCAPES
from segcam.frame import LUMA_WEIGHTS, Frame, Segmentation
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.video import VideoSink

PAGE = """<script>
const wait = (v, what) => new Promise((ok, no) => { v['on' + what] = ok; v.onerror = () => no(v.error.message); });
async function look(name) {
  try {
    const v = document.createElement('video'); v.muted = true; document.body.append(v);
    v.src = URL.createObjectURL(await (await fetch(name)).blob());
    await wait(v, 'loadeddata');
    const seeked = wait(v, 'seeked'); v.currentTime = 2.5; await seeked;
    const c = document.createElement('canvas'); c.width = v.videoWidth; c.height = v.videoHeight;
    const x = c.getContext('2d'); let rgb = [0, 0, 0];
    // A busy machine may say 'seeked' before the picture is there to be drawn.
    for (let tries = 0; tries < 50 && rgb[0] + rgb[1] + rgb[2] === 0; tries++) {
      if (tries) await new Promise(ok => setTimeout(ok, 100));
      x.drawImage(v, 0, 0);
      rgb = [...x.getImageData(40, 40, 1, 1).data].slice(0, 3);
    }
    return {width: v.videoWidth, height: v.videoHeight, duration_s: v.duration, at_s: v.currentTime, rgb};
  } catch (error) { return {error: String(error)}; }
}
onload = async () => {
  const found = {}; for (const name of NAMES) found[name] = await look(name);
  await fetch('/found', {method: 'POST', body: JSON.stringify(found)});
};
</script><body>"""

RGB = (200, 60, 30)
CASES = {
    "bt709.mp4": ("bt709", False),
    "bt601.mp4": ("bt601", False),
    "full.mp4": ("bt709", True),
    "bt601.mov": ("bt601", False),
}


def colored(matrix, full_range):
    """(Y, U, V) of RGB, by the definition."""
    kr, kb = LUMA_WEIGHTS[matrix]
    red, green, blue = (value / 255 for value in RGB)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    black, y_span, c_span = (0, 255, 255) if full_range else (16, 219, 224)
    return round(black + y_span * y), round(128 + c_span * u), round(128 + c_span * v)


def test_chromium_plays_the_files(tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    for name, (matrix, full_range) in CASES.items():
        sink = VideoSink(tmp_path / name, print)
        sink.open(StreamInfo("x", 322, 180, Fraction(25), None, False, CITYSCAPES), RunStats())
        y, u, v = colored(matrix, full_range)
        planes = (np.full((180, 322), y, np.uint8), np.full((90, 161), u, np.uint8), np.full((90, 161), v, np.uint8))
        for index in range(100):
            frame = Frame(index, index, Fraction(1, 25), 0.0, "x", 322, 180, "i420", planes, matrix, full_range)
            sink.write(Segmentation(frame, planes[0], frame, np.zeros(19, np.int64), CITYSCAPES))
        sink.close()
    (tmp_path / "index.html").write_text(PAGE.replace("NAMES", json.dumps(list(CASES))))
    found: dict[str, dict[str, object]] = {}
    done = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]  # passed through as they come

        def do_POST(self) -> None:
            found.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            done.set()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        child = subprocess.Popen(
            [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
             f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0",
             f"http://127.0.0.1:{server.server_port}/index.html"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        answered = done.wait(60)
        died = child.poll()
        child.terminate()
        child.wait()
        server.shutdown()
    if not answered and died is not None:
        pytest.skip(f"{browser} does not start here: it ended at once with {died}")
    assert answered, "the page never told what it saw"
    for name in CASES:
        seen = found[name]
        assert "error" not in seen, f"{name}: {seen}"
        assert (seen["width"], seen["height"]) == (322, 180)
        assert seen["duration_s"] == pytest.approx(4.0, abs=0.01)
        assert seen["at_s"] == pytest.approx(2.5, abs=0.01)
        assert seen["rgb"] == pytest.approx(RGB, abs=4), name
