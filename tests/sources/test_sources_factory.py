"""Which class a spec becomes, and that nothing heavy is imported for choosing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segcam.errors import SourceError, UsageError
from segcam.sources.base import Source, SourceOptions
from segcam.sources.detached import DetachedSource
from segcam.sources.factory import make_source
from segcam.sources.images import ImageSource
from segcam.sources.select import announced_frames, given_rate
from segcam.sources.synthetic import SyntheticSource
from segcam.sources.video import VideoSource


def test_kinds(make_video):
    video = make_video("a.mp4", 2)
    for spec, kind in (
        ("test", SyntheticSource),
        ("test:rate=5", SyntheticSource),
        (str(video), VideoSource),
        (video.as_uri(), VideoSource),
        ("rtsp://127.0.0.1/x", DetachedSource),
        ("RTSP://127.0.0.1/x", DetachedSource),
        ("0", DetachedSource),
        ("/dev/video0", DetachedSource),
        ("camera:0", DetachedSource),
    ):
        source = make_source(spec)
        assert type(source) is kind and isinstance(source, Source), spec


def test_a_file_called_0_is_a_file_with_its_path(make_video, monkeypatch):
    path = make_video("a.mp4", 2)
    path.rename(path.with_name("0"))
    monkeypatch.chdir(path.parent)
    assert type(make_source("./0")) is VideoSource
    assert type(make_source("0")) is DetachedSource


def test_home_is_expanded(make_video, monkeypatch):
    path = make_video("a.mp4", 2)
    monkeypatch.setenv("HOME", str(path.parent))
    assert type(make_source("~/a.mp4")) is VideoSource


def test_uri_with_escapes(make_video, read_all):
    path = make_video("a b.mp4", 2)
    assert "%20" in path.as_uri() and len(read_all(make_source(path.as_uri()))) == 2


@pytest.mark.parametrize("spec", ["", "  ", "gopher://x", "test:bogus=1"])
def test_what_cannot_be_meant(spec):
    with pytest.raises(UsageError):
        make_source(spec)


def test_missing_folder():
    with pytest.raises(SourceError, match="no folder"):
        make_source("/no/such/folder/a.mp4")


def test_nothing_heavy_is_imported_for_choosing(make_video):
    path = make_video("a.mp4", 2)
    code = (
        "import sys\n"
        "from segcam.sources.factory import make_source\n"
        f"for spec in ('test:', 'rtsp://h/x', '0', {str(path)!r}): make_source(spec)\n"
        "print([name for name in ('av', 'cv2', 'numba', 'rich') if name in sys.modules])\n"
    )
    app = Path(__file__).resolve().parents[2] / "app"
    command, env = [sys.executable, "-c", code], {"PYTHONPATH": str(app)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.stdout == "[]\n", done.stderr


def test_announcements():
    assert announced_frames(10, SourceOptions(every=3)) == 4
    assert announced_frames(10, SourceOptions(every=3, loops=5, frames=7)) == 7
    assert announced_frames(10, SourceOptions(loops=0)) is None
    assert announced_frames(None, SourceOptions(loops=0, frames=7)) == 7
    assert announced_frames(None, SourceOptions(frames=7)) is None
    assert given_rate(None, SourceOptions()) is None


def test_images_too(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert type(make_source(str(tmp_path))) is ImageSource is type(make_source(str(tmp_path / "a.png")))
    assert type(make_source(str(tmp_path / "*.png"))) is ImageSource
    (tmp_path / "01.png").write_bytes(b"")
    assert type(make_source(str(tmp_path / "%02d.png"))) is ImageSource
