"""From --output to a sink, and what is refused before anything is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segcam.errors import UsageError
from segcam.sinks.base import Sink
from segcam.sinks.factory import SinkOptions, check_outputs, make_sink
from segcam.sinks.images import ImageSink
from segcam.sinks.jsonl import JsonLinesSink
from segcam.sinks.null import NullSink
from segcam.sinks.video import VideoSink
from segcam.sinks.window import WindowSink

APP = str(Path(__file__).resolve().parents[2] / "app")


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("x.mp4", VideoSink),
        ("dir.v2/x.MKV", VideoSink),
        ("x.mov", VideoSink),
        ("x.jsonl", JsonLinesSink),
        ("null", NullSink),
        ("window", WindowSink),
        ("./null", ImageSink),
        ("./window", ImageSink),
        ("folder/", ImageSink),
        ("a.png", ImageSink),
        ("labels:a/%05d.png", ImageSink),
    ],
)
def test_kinds(spec, kind, controls):
    sink = make_sink(spec, SinkOptions(), controls, print)
    assert type(sink) is kind
    assert isinstance(sink, Sink)
    assert sink.runs_in_main_thread == (kind is WindowSink)


@pytest.mark.parametrize(
    ("spec", "picture", "layout", "suffix"),
    [
        ("folder/", "overlay", "folder", ".jpg"),
        ("folder", "overlay", "folder", ".jpg"),
        ("run.7/", "overlay", "folder", ".jpg"),
        ("overlay:folder", "overlay", "folder", ".jpg"),
        ("colors:folder/", "colors", "folder", ".jpg"),
        ("labels:folder/", "labels", "folder", ".png"),
        ("a.png", "overlay", "still", ".png"),
        ("A.JPG", "overlay", "still", ".jpg"),
        ("colors:a.jpeg", "colors", "still", ".jpeg"),
        ("labels:a.png", "labels", "still", ".png"),
        ("d/%05d.png", "overlay", "pattern", ".png"),
        ("labels:d/f_%d.png", "labels", "pattern", ".png"),
        ("d/100%.png", "overlay", "still", ".png"),
    ],
)
def test_images(spec, picture, layout, suffix, controls):
    sink = make_sink(spec, SinkOptions(image_format="jpg"), controls, print)
    assert isinstance(sink, ImageSink)
    assert (sink.picture, sink.layout, sink.suffix) == (picture, layout, suffix)
    assert (sink.needs_overlay, sink.needs_labels) == (picture == "overlay", picture != "overlay")


def test_a_folder_that_exists_may_have_a_dot(tmp_path, controls):
    (tmp_path / "run.1").mkdir()
    sink = make_sink(str(tmp_path / "run.1"), SinkOptions(), controls, print)
    assert isinstance(sink, ImageSink) and sink.layout == "folder"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("x.avi", "no output of type .avi"),
        ("x.webm", "no output of type .webm"),
        ("x.gif", "no output of type .gif"),
        ("labels:x.jpg", "JPEG changes label ids"),
        ("labels:x.mp4", "can only go to images"),
        ("colors:x.jsonl", "can only go to images"),
        ("lables:folder/", "lables: is not an output"),
        ("rtsp://host/stream", "rtsp: is not an output"),
        ("labels:", "names no file"),
        ("", "names no file"),
    ],
)
def test_refused(spec, words, controls):
    with pytest.raises(UsageError, match=words) as caught:
        make_sink(spec, SinkOptions(), controls, print)
    assert ".mkv" in caught.value.hint or "labels:x.png" in caught.value.hint


@pytest.mark.parametrize(
    "values",
    [{"crf": 52}, {"crf": -1}, {"jpeg_quality": 0}, {"preset": "fastest"}, {"image_format": "gif"}, {"threads": -1}],
)
def test_options_out_of_range(values):
    with pytest.raises(UsageError, match=str(next(iter(values.values())))):
        SinkOptions(**values)


def test_two_outputs_in_the_same_place(tmp_path):
    a = tmp_path / "a.mp4"
    (tmp_path / "link").symlink_to(tmp_path)
    for other in (str(a), f"{tmp_path}/x/../a.mp4", f"{tmp_path}/link/a.mp4"):
        with pytest.raises(UsageError, match="the same place"):
            check_outputs([str(a), "null", other], "clip.mp4")
    for pair in (["labels:d/", "colors:d"], ["window", "window"]):
        with pytest.raises(UsageError, match="the same place"):
            check_outputs(pair, "clip.mp4")
    check_outputs(["null", "null", "window", "a.mp4", "a.mkv", "labels:d", "colors:e"], "clip.mp4")


def test_output_that_is_the_source(tmp_path, monkeypatch):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"x")
    os.link(clip, tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to(clip)
    monkeypatch.chdir(tmp_path)
    for spec in ("clip.mp4", "./clip.mp4", str(clip), "hard.mp4", "soft.mp4"):
        with pytest.raises(UsageError, match="is the source itself"):
            check_outputs([spec], "clip.mp4")
    check_outputs(["other.mp4", "./", "clip/"], "clip.mp4")


def test_output_into_the_folder_of_pictures_that_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.png").write_bytes(b"x")
    for source in ("in", "in/", "in/*.png", "in/a.png", "in/%05d.png"):
        with pytest.raises(UsageError):
            check_outputs(["labels:in/"], source)
    with pytest.raises(UsageError, match="is the source itself"):
        check_outputs(["labels:in/%05d.png"], "in/%05d.png")
    check_outputs(["labels:out/", "in/b.png"], "in/a.png")
    check_outputs(["0"], "0")
    check_outputs(["overlay:0/"], "rtsp://0/")


def test_heavy_packages_are_imported_late():
    code = (
        "import sys\n"
        "from segcam.controls import Controls\n"
        "from segcam.sinks.factory import SinkOptions, make_sink\n"
        "import numpy as np\n"
        "for spec in ('a.mp4', 'a.jsonl', 'null', 'window', 'a/', 'labels:a.png'):\n"
        "    make_sink(spec, SinkOptions(), Controls(0.5, np.ones(3, bool)), print)\n"
        "import segcam.legend\n"
        "print([name for name in ('av', 'cv2', 'numba') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": APP}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
