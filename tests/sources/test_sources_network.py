"""Addresses: a real HTTP server on loopback, ports where nothing or nobody answers, and secrets that must not show."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from segcam.errors import SourceError, UsageError
from segcam.sources import network
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source
from segcam.sources.urls import redact_url


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/closed"):
            self.send_error(401)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and then says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_mp4_over_http(server, make_video, read_all):
    make_video("a.mp4", 8)
    source = make_source(f"http://{server}/a.mp4")
    info = source.open()
    assert not info.live and info.frames == 8
    source.close()
    got = read_all(make_source(f"http://{server}/a.mp4", SourceOptions(start_s=0.08, loops=2)))
    assert [(int(f.planes[0][0, 0]) - 16) // 8 for f in got] == [*range(2, 8), *range(2, 8)]


def test_over_http_onto_the_gpu(server, make_video, read_all, gpu, nvdec):
    make_video("a.mp4", 4)
    plain = read_all(make_source(f"http://{server}/a.mp4"))
    got = read_all(make_source(f"http://{server}/a.mp4", SourceOptions(gpu=gpu)))
    assert nvdec.opened == 1 and len(got) == 4 and all(frame.device is not None for frame in got)
    assert all(np.array_equal(a.bgr(), b.bgr()) for a, b in zip(got, plain, strict=True))
    got.clear()


def test_stream_without_duration_is_live(server, make_video, read_all):
    make_video("a.mjpeg", 3, codec="mjpeg", pix_fmt="yuvj420p")
    url = f"http://{server}/a.mjpeg"
    source = make_source(url)
    info = source.open()
    source.close()
    assert info.live and info.frames is None
    assert len(read_all(make_source(url))) == 3
    with pytest.raises(UsageError, match="live"):
        make_source(url, SourceOptions(loops=2)).open()


def test_password_shows_nowhere(server, make_video, read_all):
    make_video("a.mp4", 2)
    url = f"http://me:hunter2@{server}/a.mp4?token=s3cret"
    warnings: list[str] = []
    source = make_source(url, warn=warnings.append)
    info = source.open()
    frame = source.read()
    source.close()
    assert frame is not None and "***" in info.description
    for wrong in (url.replace("a.mp4", "b.mp4"), url.replace(server, f"127.0.0.1:{closed_port()}")):
        with pytest.raises(SourceError) as caught:
            make_source(wrong).open()
        warnings.append(str(caught.value))
    for text in (info.description, frame.source_id, *warnings):
        assert "hunter2" not in text and "s3cret" not in text


@pytest.mark.parametrize(("path", "says"), [("none.mp4", "404"), ("closed/a.mp4", "refuses access")])
def test_http_errors(server, path, says):
    with pytest.raises(SourceError, match=says):
        make_source(f"http://{server}/{path}").open()


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp"])
def test_refused_connection(scheme):
    with pytest.raises(SourceError, match="connection refused"):
        make_source(f"{scheme}://127.0.0.1:{closed_port()}/x").open()


def test_silence_ends_with_the_time_out(silent, monkeypatch):
    monkeypatch.setattr(network, "OPEN_TIMEOUT_S", 0.3)
    with pytest.raises(SourceError, match=r"no answer within 0\.3 s"):
        make_source(f"rtsp://127.0.0.1:{silent}/x").open()


def test_silence_ends_with_an_interrupt(silent):
    source = make_source(f"rtsp://127.0.0.1:{silent}/x")
    threading.Timer(0.3, source.interrupt).start()
    with pytest.raises(SourceError, match="stopped before"):
        source.open()
    source.close()


@pytest.mark.parametrize("options", [SourceOptions(start_s=1), SourceOptions(loops=0)])
def test_live_streams_neither_start_later_nor_loop(options):
    with pytest.raises(UsageError):
        make_source("rtsp://127.0.0.1/x", options)


def test_unknown_scheme_is_refused_without_its_password():
    with pytest.raises(UsageError, match="ftp:// are not supported") as caught:
        make_source("ftp://a:b@c/d")
    assert "a:b" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:secret@cam/1", "rtsp://user:***@cam/1"),
        ("rtsp://user:p@ss/w:rd@cam:554/1", "rtsp://user:***@cam:554/1"),
        ("open rtsp://u:p@h/x, then http://v:q@i/y", "open rtsp://u:***@h/x, then http://v:***@i/y"),
        ("http://h/x?user=a&pwd=b&n=1", "http://h/x?user=a&pwd=***&n=1"),
        ("srt://h:1?passphrase=longsecret", "srt://h:1?passphrase=***"),
        ("rtsp://:p@h/x", "rtsp://:***@h/x"),
        ("rtsp://cam:554/x", "rtsp://cam:554/x"),
        ("/videos/a:b@c.mp4", "/videos/a:b@c.mp4"),
        ("", ""),
    ],
)
def test_redaction(text, shown):
    assert redact_url(text) == shown
    assert redact_url(shown) == shown
