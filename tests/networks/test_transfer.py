from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from zoo_server import BODY, Puller, Served, Server, noise

from segcam.errors import ZooError
from segcam.networks import cache
from segcam.networks.download import pull
from segcam.networks.transfer import ATTEMPTS

DONE = ["tiny.pt", "tiny.pt.json"]


def test_a_cut_connection_goes_on_where_it_was(puller: Puller, tiny: Served) -> None:
    tiny.cuts = [300_000, 1]
    assert puller().read_bytes() == BODY
    assert puller.server.ranges == ["", "bytes=300000-", "bytes=300001-"]
    assert all(headers.get("if-range") == '"one"' for _, headers in puller.server.seen[1:])
    first, second = puller.pauses
    assert 0.5 <= first <= 1 <= second <= 2, "the first attempt brought something, the second did not"
    assert "cut after 300000 of 700000 bytes: attempt 2 of 5" in puller.said[1]


def test_an_interrupted_download_goes_on_at_the_next_start(puller: Puller, tiny: Served) -> None:
    tiny.cuts = [300_000]

    def interrupt(pause: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(puller.entry(), puller.said.append, sleep=interrupt)
    left = puller.left()
    assert left.pop("tiny.pt.part.json") and left == {"tiny.pt.part": 300_000}
    assert puller().read_bytes() == BODY
    assert puller.server.ranges == ["", "bytes=300000-"]
    assert list(puller.left()) == DONE
    assert "  going on after the 0.3 MB that are here" in puller.said


def test_a_server_without_ranges_begins_again(puller: Puller, tiny: Served) -> None:
    tiny.ranges, tiny.cuts = False, [300_000]
    assert puller().read_bytes() == BODY
    assert puller.server.ranges == ["", "bytes=300000-"]
    assert "the server begins again from the start" in puller.said


@pytest.mark.parametrize(("etag", "modified"), [('"one"', ""), ("", "Wed, 01 Jan 2020 00:00:00 GMT"), ('W/"one"', "")])
def test_a_file_that_changed_meanwhile_is_not_mixed(puller: Puller, tiny: Served, etag: str, modified: str) -> None:
    tiny.body, tiny.etag, tiny.modified, tiny.cuts = noise(700_000, 2), etag, modified, [300_000]

    def change(pause: float) -> None:
        tiny.body, tiny.etag, tiny.modified = BODY, etag and '"two"', modified and "Thu, 02 Jan 2020 00:00:00 GMT"

    # A weak tag vouches for nothing, so that the mixture is only seen by its hash: the next start makes it good.
    mixed = etag.startswith("W/")
    if mixed:
        with pytest.raises(ZooError, match="is not the checkpoint"):
            pull(puller.entry(), puller.said.append, sleep=change)
        assert puller.left() == {}
    assert pull(puller.entry(), puller.said.append, sleep=change).read_bytes() == BODY


def test_a_longer_file_leaves_no_tail_in_a_shorter_one(puller: Puller, tiny: Served) -> None:
    tiny.body, tiny.cuts = noise(900_000, 2), [800_000]

    def change(pause: float) -> None:
        tiny.body, tiny.etag = BODY, '"two"'

    entry = puller.entry(bytes_approximate=True)
    assert pull(entry, puller.said.append, sleep=change).read_bytes() == BODY


def test_another_range_than_was_asked_for_is_not_taken(puller: Puller, tiny: Served) -> None:
    tiny.cuts, tiny.skews = [300_000], [1000]
    assert puller().read_bytes() == BODY
    assert puller.server.ranges == ["", "bytes=300000-", ""]
    assert any("another part of the file than was asked for" in line for line in puller.said)


def test_a_part_of_another_address_is_not_gone_on_with(puller: Puller, tiny: Served) -> None:
    tiny.cuts = [300_000, *[0] * ATTEMPTS]
    puller.refusal()
    puller.server.serve("elsewhere/tiny.pt", BODY)
    assert puller(puller.entry(url=f"{puller.server.url}/elsewhere/tiny.pt")).read_bytes() == BODY
    assert puller.server.ranges[-1] == ""


@pytest.mark.parametrize("note", ["{}", "", '{"url": "x", "etag": "", "modified": "", "total": 700000}'])
def test_a_part_without_its_note_is_not_gone_on_with(puller: Puller, tiny: Served, note: str) -> None:
    folder = cache.folder("checkpoints")
    (folder / "tiny.pt.part").write_bytes(BODY[:1000])
    (folder / "tiny.pt.part.json").write_text(note)
    assert puller().read_bytes() == BODY
    assert puller.server.ranges == [""]


def test_a_part_that_is_all_there_only_wants_its_name(puller: Puller, tiny: Served) -> None:
    """A download that was stopped between its last byte and the rename."""
    tiny.cuts = [300_000, *[0] * ATTEMPTS]
    puller.refusal()
    (cache.root() / "checkpoints" / "tiny.pt.part").write_bytes(BODY)
    count = len(puller.server.seen)
    assert puller().read_bytes() == BODY
    assert len(puller.server.seen) == count


@pytest.mark.parametrize(("extra", "ranges"), [(b"", ["bytes=700000-"]), (b"x", ["bytes=700001-", ""])])
def test_beyond_the_end_the_server_says_whether_it_is_all(
    puller: Puller, tiny: Served, extra: bytes, ranges: list[str]
) -> None:
    """416, where the note of the part does not know the length: it may be complete, or of a longer file."""
    part = cache.folder("checkpoints") / "tiny.pt.part"
    part.write_bytes(BODY + extra)
    note = {"url": puller.entry().url, "etag": tiny.etag, "modified": "", "total": None}
    part.with_name("tiny.pt.part.json").write_text(json.dumps(note))
    assert puller().read_bytes() == BODY
    assert puller.server.ranges == ranges


@pytest.mark.parametrize("status", [404, 403, 410, 501])
def test_what_will_not_pass_is_not_tried_again(puller: Puller, tiny: Served, status: int) -> None:
    tiny.refusals = [(status, {})]
    error = puller.refusal()
    assert f"the server says {status}" in error.message
    assert (len(puller.server.seen), puller.pauses, puller.left()) == (1, [], {})


def test_a_proxy_that_wants_a_name(puller: Puller, tiny: Served) -> None:
    tiny.refusals = [(407, {})]
    assert "https_proxy=http://NAME" in puller.refusal().hint


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_what_may_pass_is_tried_again(puller: Puller, tiny: Served, status: int) -> None:
    tiny.refusals = [(status, {}), (status, {})]
    assert puller().read_bytes() == BODY
    assert [0.5 <= pauses <= 2 * number for number, pauses in enumerate(puller.pauses, 1)] == [True, True]


def test_the_pauses_grow_and_end(puller: Puller, tiny: Served) -> None:
    tiny.refusals = [(503, {})] * ATTEMPTS
    error = puller.refusal()
    assert f"503 Service Unavailable ({ATTEMPTS} attempts)" in error.message
    assert len(puller.server.seen) == ATTEMPTS
    assert [2**n / 2 <= pause <= 2**n for n, pause in enumerate(puller.pauses)] == [True] * (ATTEMPTS - 1)


def test_progress_gives_new_attempts(puller: Puller, server: Server) -> None:
    body = noise(300_000 * 8)
    server.serve("tiny.pt", body).cuts = [300_000] * 7
    assert puller(puller.entry(body)).read_bytes() == body
    assert len(puller.pauses) == 7 and max(puller.pauses) <= 1


@pytest.mark.parametrize(("wish", "pause"), [("7", 7.0), ("Wed, 01 Jan 2020 00:00:00 GMT", 0.0)])
def test_the_servers_own_wish_counts(puller: Puller, tiny: Served, wish: str, pause: float) -> None:
    tiny.refusals = [(429, {"Retry-After": wish})]
    puller()
    assert puller.pauses == [pause]


def test_a_server_that_wants_an_hour_is_left_alone(puller: Puller, tiny: Served) -> None:
    tiny.refusals = [(503, {"Retry-After": "3600"})]
    assert "60 minutes" in puller.refusal().hint
    assert puller.pauses == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(puller: Puller, server: Server, status: int) -> None:
    server.serve("real.bin", BODY).cuts = [300_000]
    server.serve("tiny.pt", b"").refusals = [(status, {"Location": "/real.bin"})] * 2
    assert puller().read_bytes() == BODY
    assert [path for path, _ in server.seen] == ["/tiny.pt", "/real.bin"] * 2
    assert server.ranges == ["", "", "bytes=300000-", "bytes=300000-"]


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/hostname"])
def test_a_redirect_out_of_http_is_not_followed(puller: Puller, tiny: Served, target: str) -> None:
    tiny.refusals = [(302, {"Location": target})]
    error = puller.refusal()
    assert target in error.message
    assert "which is not https" in error.message or "not allowed" in error.message
    assert (puller.pauses, puller.left()) == ([], {})


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    from email.message import Message
    from io import BytesIO
    from urllib.request import Request

    from segcam.networks.transfer import _Redirects

    handler, request = _Redirects(), Request("https://example.org/a")
    with pytest.raises(ZooError, match=r"/a leads on to http://example\.org/b, which is not https"):
        handler.redirect_request(request, BytesIO(), 302, "", Message(), "http://example.org/b")
    kept = handler.redirect_request(request, BytesIO(), 308, "", Message(), "https://example.org/b")
    assert kept is not None and kept.full_url == "https://example.org/b"


def test_a_redirect_loop_ends(puller: Puller, tiny: Served) -> None:
    tiny.refusals = [(302, {"Location": "/tiny.pt"})] * 20
    assert "the server says 302" in puller.refusal().message


def test_a_file_of_another_length_is_not_fetched(puller: Puller, tiny: Served) -> None:
    tiny.body = BODY + b"x"
    error = puller.refusal()
    assert "has 700001 bytes, expected 700000" in error.message
    assert puller.left() == {}


def test_an_endless_file_is_stopped(puller: Puller, tiny: Served) -> None:
    tiny.body, tiny.length = BODY * 3, False
    error = puller.refusal(puller.entry(bytes_approximate=True))
    assert "has more than 1400000 bytes" in error.message
    assert puller.left() == {}


def test_a_login_page_is_not_a_checkpoint(puller: Puller, tiny: Served) -> None:
    tiny.body, tiny.kind = b"<html>Welcome to the airport", "text/html; charset=utf-8"
    error = puller.refusal()
    assert "answers with a web page" in error.message and "login page" in error.hint
    assert puller.left() == {}


def test_a_length_that_only_the_table_knows(puller: Puller, tiny: Served) -> None:
    tiny.length, tiny.cuts = False, [300_000]
    assert puller().read_bytes() == BODY
    assert puller.server.ranges == ["", "bytes=300000-"]


def test_nobody_answers(puller: Puller) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/tiny.pt"
    error = puller.refusal(puller.entry(url=url))
    assert f"127.0.0.1 cannot be reached (Connection refused) ({ATTEMPTS} attempts)" in error.message
    assert len(puller.pauses) == ATTEMPTS - 1 and puller.left() == {}


def test_a_name_that_nobody_has(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    error = puller.refusal(puller.entry(url="http://nobody.invalid/tiny.pt"))
    assert "nobody.invalid cannot be reached (Name or service not known)" in error.message
    assert "segcam models add tiny FILE" in error.hint


def test_an_untrusted_certificate_is_not_tried_again(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl

    def untrusted(*arguments: object, **more: object) -> None:
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise error

    monkeypatch.setattr("http.client.HTTPSConnection.connect", untrusted)
    error = puller.refusal(puller.entry(url="https://example.org/tiny.pt"))
    assert "does not trust (self-signed certificate)" in error.message and "SSL_CERT_FILE" in error.hint
    assert puller.pauses == []


def test_a_full_disk_is_seen_before_and_while(puller: Puller, tiny: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import shutil

    with monkeypatch.context() as patch:
        usage = shutil.disk_usage("/")
        patch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
        assert "the disk is full (0.7 MB to come, 0.0 MB free)" in puller.refusal().message

    def fail(path: Path, document: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("segcam.networks.transfer.write_json", fail)
        assert "the disk is full (No space left on device)" in puller.refusal().message
    assert puller().read_bytes() == BODY
