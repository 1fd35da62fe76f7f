from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from zoo_server import BODY, Puller, Served, Server, noise, start_server

from segcam.networks import cache
from segcam.networks.transfer import ATTEMPTS, without_login

DONE = ["tiny.pt", "tiny.pt.json"]


def test_fetched_checked_and_kept(puller: Puller, tiny: Served) -> None:
    path = puller()
    assert path == cache.root() / "checkpoints" / "tiny.pt"
    assert path.read_bytes() == BODY
    assert list(puller.left()) == DONE
    assert puller.said == [f"fetching tiny: 0.7 MB from {puller.server.url}/tiny.pt", "  checked: SHA-256"]
    assert puller() == path and len(puller.server.seen) == 1, "a second time takes it from the cache"
    (headers,) = [headers for _, headers in puller.server.seen]
    assert headers["user-agent"].startswith("segcam/") and headers["accept-encoding"] == "identity"


def test_force_fetches_anew_and_the_old_file_stays_until_then(puller: Puller, tiny: Served) -> None:
    puller()
    tiny.refusals = [(404, {})]
    puller.refusal(force=True)
    assert list(puller.left()) == DONE
    tiny.cuts = [300_000, *[0] * ATTEMPTS]
    puller.refusal(force=True)
    tiny.cuts, puller.server.seen[:] = [], []
    puller(force=True)
    assert puller.server.ranges == [""], "nor is a part of it good enough"


def test_parts_of_two_files_get_one_whole_try(puller: Puller, tiny: Served) -> None:
    tiny.etag, tiny.cuts = "", [300_000, 0, 0, 0, 0, 0]
    tiny.body = noise(700_000, 2)
    puller.refusal()
    assert puller.left()["tiny.pt.part"] == 300_000
    tiny.body, tiny.cuts = BODY, []
    assert puller().read_bytes() == BODY
    assert puller.server.ranges[-2:] == ["bytes=300000-", ""]
    assert any("once more, from the start" in line for line in puller.said)
    assert list(puller.left()) == DONE


def test_a_wrong_hash_leaves_nothing_and_names_both(puller: Puller, tiny: Served) -> None:
    tiny.body = noise(len(BODY), 2)
    error = puller.refusal()
    assert hashlib.sha256(BODY).hexdigest() in error.message
    assert hashlib.sha256(tiny.body).hexdigest() in error.message
    assert "segcam models add tiny FILE" in error.hint
    assert puller.left() == {}


def test_a_wrong_file_in_the_cache_is_replaced(puller: Puller, tiny: Served) -> None:
    (cache.folder("checkpoints") / "tiny.pt").write_bytes(b"something else")
    assert "is not the checkpoint of tiny" in puller.refusal(offline=True).message
    assert puller().read_bytes() == BODY
    assert "is not the checkpoint of tiny" in puller.said[0] and "fetching it anew" in puller.said[0]


def test_where_only_a_prefix_is_published_that_is_checked_and_said(puller: Puller, tiny: Served) -> None:
    entry = puller.entry(digits=8, bytes_approximate=True)
    puller(entry)
    assert puller.said[-1] == "  checked: the first 32 bits of its SHA-256, which is all that is published of it"
    cache.remove(entry, puller.said.append)
    tiny.body = noise(len(BODY), 2)
    error = puller.refusal(entry)
    assert f"expected it to begin with {entry.sha256}" in error.message
    assert puller.left() == {}


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_offline_fetches_nothing(puller: Puller, tiny: Served, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "environment":
        monkeypatch.setenv("SEGCAM_OFFLINE", "1")
    error = puller.refusal(offline=how == "flag")
    assert "told to stay offline" in error.message and "segcam models add tiny tiny.pt" in error.hint
    assert puller.server.seen == []
    file = puller.folder / "brought.pt"
    file.write_bytes(BODY)
    cache.add(puller.entry(), file, puller.said.append)
    assert puller(offline=how == "flag").read_bytes() == BODY
    assert "is not fetched anew" in puller.refusal(force=True, offline=how == "flag").message


def test_offline_0_is_not_offline(puller: Puller, tiny: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGCAM_OFFLINE", "0")
    assert puller().read_bytes() == BODY


@pytest.fixture
def proxy() -> Iterator[Server]:
    made, stop = start_server()
    yield made
    stop()


def test_a_proxy_is_honoured_and_its_exceptions_too(
    puller: Puller, tiny: Served, proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.serve("tiny.pt", BODY)
    monkeypatch.setenv("http_proxy", proxy.url)
    entry = puller.entry()
    puller(entry)
    assert [path for path, _ in proxy.seen] == [entry.url] and puller.server.seen == []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    puller(entry, force=True)
    assert len(proxy.seen) == len(puller.server.seen) == 1


def test_a_mirror_stands_for_the_published_addresses(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    puller.server.serve("our/models/tiny.pt", BODY)
    for base in ("/our/models", "/our/models/"):
        monkeypatch.setenv("SEGCAM_ZOO_MIRROR", puller.server.url + base)
        entry = puller.entry(url="https://example.org/released/tiny.pt")
        assert puller(entry, force=True).read_bytes() == BODY
    assert [path for path, _ in puller.server.seen] == ["/our/models/tiny.pt"] * 2


def test_a_mirrors_login_is_sent_to_it_alone_and_never_shown(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = puller.server
    mirror.serve("tiny.pt", BODY).refusals = [(302, {"Location": "/real.bin"})]
    mirror.serve("real.bin", BODY).cuts = [300_000]
    monkeypatch.setenv("SEGCAM_ZOO_MIRROR", mirror.url.replace("//", "//me:pass%20word@"))
    puller()
    sent = [(path, headers.get("authorization")) for path, headers in mirror.seen]
    basic = "Basic bWU6cGFzcyB3b3Jk"
    assert sent == [("/tiny.pt", basic), ("/real.bin", None), ("/tiny.pt", basic)]
    noted = "".join(path.read_text() for path in (cache.root() / "checkpoints").glob("*.json"))
    assert "pass" not in noted + "".join(puller.said)
    assert without_login("https://me:pass@host:80/x?y=1") == "https://host:80/x?y=1"


def test_two_at_once_fetch_once(puller: Puller, tiny: Served) -> None:
    entry = puller.entry()
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(puller(entry))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [cache.checkpoint_path(entry)] * 4
    assert found[0].read_bytes() == BODY
    assert len(puller.server.seen) == 1


def test_the_bar_is_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from segcam.networks.download import bar

    with bar("tiny") as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with bar("tiny") as progress:
        progress(1_000_000, None)
        progress(1_500_000, 2_000_000)
    shown = capsys.readouterr().err
    assert "tiny" in shown and "1.5/2.0 MB" in shown
