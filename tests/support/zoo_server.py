"""A file server on loopback that can misbehave in every way a download has to bear, and a zoo of its own files."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segcam.errors import ZooError
from segcam.networks import cache, zoo
from segcam.networks.download import pull


@dataclass
class Served:
    """What the server gives for one path, and how. Each list is used up from the front, one item a request."""

    body: bytes
    etag: str = '"one"'
    modified: str = ""
    ranges: bool = True
    length: bool = True
    kind: str = "application/octet-stream"
    #: (status, headers) in place of the file.
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    #: Cut the connection after so many bytes of the body.
    cuts: list[int] = field(default_factory=list)
    #: Send a range that begins so many bytes later than asked.
    skews: list[int] = field(default_factory=list)


@dataclass
class Server:
    """``files`` by path, with the slash. ``seen`` are (path, headers) of each request, in order."""

    url: str
    files: dict[str, Served] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def serve(self, name: str, body: bytes) -> Served:
        served = self.files[f"/{name}"] = Served(body)
        return served

    @property
    def ranges(self) -> list[str]:
        """The ranges asked for, "" where the whole file was."""
        return [headers.get("range", "") for _, headers in self.seen]


def start_server() -> tuple[Server, Callable[[], None]]:
    """A server and what stops it."""
    server = Server("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            self.close_connection = True
            # What comes through a proxy has the whole address.
            served = server.files.get(re.sub(r"^http://[^/]*", "", self.path))
            if served is None:
                self._answer(404, {"Content-Length": "0"})
            elif served.refusals:
                status, headers = served.refusals.pop(0)
                self._answer(status, {"Content-Length": "0", **headers})
            else:
                self._send(served)

        def _answer(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, served: Served) -> None:
            headers = {"Content-Type": served.kind, "ETag": served.etag, "Last-Modified": served.modified}
            body, status = served.body, 200
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            condition = self.headers.get("If-Range")
            if asked and served.ranges and condition in (None, served.etag, served.modified):
                start, size = int(asked[1]) + (served.skews.pop(0) if served.skews else 0), len(body)
                if start >= size:
                    self._answer(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
                    return
                status, body = 206, body[start:]
                headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            if served.length:
                headers["Content-Length"] = str(len(body))
            self._answer(status, {name: value for name, value in headers.items() if value})
            self.wfile.write(body[: served.cuts.pop(0)] if served.cuts else body)

    class Listening(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up in the middle is part of some tests."""

    listening = Listening(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
    thread.start()

    def stop() -> None:
        listening.shutdown()
        listening.server_close()
        thread.join()

    return server, stop


@pytest.fixture
def server() -> Iterator[Server]:
    made, stop = start_server()
    yield made
    stop()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder (not made yet), and an environment that says nothing else about the zoo or proxies."""
    for name in ("SEGCAM_OFFLINE", "SEGCAM_ZOO", "SEGCAM_ZOO_MIRROR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEGCAM_CACHE", str(folder))
    return folder


def noise(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


def zoo_text(url: str, body: bytes, *, digits: int = 64, **more: object) -> str:
    """A table with the one network ``tiny`` (alias ``wee``), whose checkpoint is ``body`` at ``url``."""
    words = {
        "name": "tiny",
        "model": "FastSCNN",
        "num_classes": 19,
        "size": [64, 96],
        "parameters": 1_399_939,
        "url": url,
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest()[:digits],
        **more,
    }
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for key, value in words.items()
    ]
    return "\n".join(["zoo = 1", "[[network]]", *lines, "[[network.alias]]", "name = 'wee'", ""])


#: Long enough that a part of it counts as progress.
BODY = noise(700_000)


@dataclass
class Puller:
    """``pull`` of the one network of a table, with the pauses noted in place of slept."""

    server: Server
    folder: Path
    said: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def entry(self, body: bytes = BODY, url: str = "", **more: object) -> zoo.ZooEntry:
        path = self.folder / "zoo.toml"
        path.write_text(zoo_text(url or f"{self.server.url}/tiny.pt", body, **more))  # type: ignore[arg-type]
        return zoo.read_table(path).entries[0]

    def __call__(self, entry: zoo.ZooEntry | None = None, **more: bool) -> Path:
        return pull(entry or self.entry(), self.said.append, sleep=self.pauses.append, **more)

    def refusal(self, entry: zoo.ZooEntry | None = None, **more: bool) -> ZooError:
        with pytest.raises(ZooError) as caught:
            self(entry, **more)
        return caught.value

    def left(self) -> dict[str, int]:
        """Names and lengths of what lies in the cache, locks aside."""
        folder = cache.root() / "checkpoints"
        return {path.name: path.stat().st_size for path in sorted(folder.glob("*"))}


@pytest.fixture
def puller(server: Server, own_cache: Path, tmp_path: Path) -> Puller:
    return Puller(server, tmp_path)


@pytest.fixture
def tiny(server: Server) -> Served:
    return server.serve("tiny.pt", BODY)
