"""One file over HTTP into a part file: taken up where it stopped, tried again where that can help.

Built on urllib: it takes proxies from the environment (http_proxy, https_proxy, no_proxy). The semantics of ranges,
If-Range and Retry-After are those of RFC 9110. Nothing here decides whether the bytes are the right ones.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import errno
import http.client
import json
import random
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from segcam import __version__
from segcam.errors import ZooError
from segcam.networks.cache import no_room, write_json

#: Called with the bytes that are there and the bytes that will be, None if the server does not say.
Progress = Callable[[int, "int | None"], None]

ATTEMPTS = 5
_TIMEOUT_S = 30.0
_LONGEST_PAUSE_S = 30.0
#: A server that wants a longer pause than this is left to the person.
_LONGEST_RETRY_AFTER_S = 120.0
#: An attempt that brought this much was no failure: the count starts anew.
_PROGRESS_BYTES = 256 << 10
_BLOCK = 64 << 10
_FINAL = {501, 505}
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class _Again(Exception):
    """An attempt that failed in a way that passes. ``wait_s`` is the server's own wish."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _Note:
    """What a part file is a part of, beside it as FILE.part.json."""

    url: str
    etag: str
    modified: str
    total: int | None


@dataclass(frozen=True)
class Download:
    """``url`` into ``part``: ``size`` bytes where that is known, else at most ``largest``."""

    url: str
    part: Path
    size: int | None
    largest: int
    say: Callable[[str], None]
    progress: Progress
    sleep: Callable[[float], None] = time.sleep

    @property
    def shown(self) -> str:
        """The address without a password."""
        return without_login(self.url)

    def run(self) -> None:
        """Fills the part file. Raises ZooError; what came until then stays for the next time."""
        failures = 0
        while True:
            before = self._have()
            try:
                self._attempt()
                return
            except _Again as trouble:
                failures = 1 if self._have() - before >= _PROGRESS_BYTES else failures + 1
                if failures >= ATTEMPTS:
                    raise ZooError(
                        f"{self.shown} cannot be fetched: {trouble} ({ATTEMPTS} attempts)",
                        "Try again later; what came so far is kept. Behind a proxy: export https_proxy=http://HOST:PORT",
                    ) from None
                pause_s = min(_LONGEST_PAUSE_S, 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)
                pause_s = pause_s if trouble.wait_s is None else trouble.wait_s
                self.say(f"{trouble}: attempt {failures + 1} of {ATTEMPTS} in {pause_s:.1f} s")
                self.sleep(pause_s)

    def discard(self) -> None:
        """Take the part file away."""
        self.part.unlink(missing_ok=True)
        self._note_path.unlink(missing_ok=True)

    def _have(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def _note_path(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    def _begun(self) -> _Note | None:
        """The note of a part that can go on; any other part is taken away."""
        if not self._have():
            return None
        with contextlib.suppress(OSError, ValueError, TypeError):
            note = _Note(**json.loads(self._note_path.read_text("utf-8")))
            if note.url == self.shown:
                return note
        self.discard()
        return None

    def _attempt(self) -> None:
        note = self._begun()
        have = self._have()
        if note and have == note.total:
            return
        request = _request(self.url)
        if note:
            request.add_header("Range", f"bytes={have}-")
            # A weak tag does not vouch for bytes.
            validator = note.etag if note.etag and not note.etag.startswith("W/") else note.modified
            if validator:
                request.add_header("If-Range", validator)
        opener = urllib.request.build_opener(_Redirects)
        try:
            response = opener.open(request, timeout=_TIMEOUT_S)
        except ZooError:
            raise
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and note:
                    self._beyond(error, have)
                    return
                raise self._refused(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from None
        with response:
            self._take(response, have if note else 0)

    def _beyond(self, answer: urllib.error.HTTPError, have: int) -> None:
        """416: the part is all there is (a download that was stopped just before its end), or it is of another file."""
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found and found[2] == str(have):
            return
        self.discard()
        raise _Again("the file has changed on the server")

    def _take(self, response: http.client.HTTPResponse, have: int) -> None:
        headers = response.headers
        if headers.get_content_type() == "text/html":
            raise ZooError(
                f"{self.shown} answers with a web page, not with the file",
                "Is there a login page of this network or a proxy in between? Open the address in a browser.",
            )
        start, total = 0, None
        if response.status == 206:
            found = _RANGE.fullmatch(headers.get("Content-Range", ""))
            if not found or found[1] != str(have):
                self.discard()
                raise _Again("the server sent another part of the file than was asked for")
            start, total = have, int(found[2]) if found[2] != "*" else None
        elif headers.get("Content-Length", "").isdigit():
            total = int(headers["Content-Length"])
        if have and not start:
            self.say("the server begins again from the start")
        self._check_size(total)
        self._check_room((total or self.size or self.largest) - start)
        try:
            with self.part.open("r+b" if start else "wb") as file:
                note = _Note(self.shown, headers.get("ETag", ""), headers.get("Last-Modified", ""), total)
                write_json(self._note_path, asdict(note))
                file.seek(start)
                self._stream(response, file, start, total)
        except OSError as error:
            raise error if isinstance(error, ZooError) else no_room(error, self.part) from None

    def _stream(self, response: http.client.HTTPResponse, file: IO[bytes], done: int, total: int | None) -> None:
        self.progress(done, total or self.size)
        while total is None or done < total:
            try:
                block = response.read1(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Again(f"the connection broke after {done} bytes ({_words(error)})") from None
            if not block:
                break
            file.write(block)
            done += len(block)
            self._check_size(None, done)
            self.progress(done, total or self.size)
        expected = total if total is not None else self.size
        if expected is not None and done < expected:
            raise _Again(f"the connection was cut after {done} of {expected} bytes")

    def _check_size(self, total: int | None, done: int = 0) -> None:
        wrong = total is not None and self.size is not None and total != self.size
        if wrong or max(total or 0, done) > self.largest:
            self.discard()
            raise ZooError(
                f"{self.shown} has {total if total is not None else f'more than {self.largest}'} bytes, "
                f"expected {self.size if self.size is not None else f'at most {self.largest}'}",
                "It is not the file that the zoo's table describes: look at the address in a browser.",
            )

    def _check_room(self, bytes_to_come: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if free < bytes_to_come:
            raise no_room(
                OSError(errno.ENOSPC, f"{bytes_to_come / 1e6:.1f} MB to come, {free / 1e6:.1f} MB free"), self.part
            )

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        said = f"{error.code} {error.reason}".strip()
        if error.code in (408, 425, 429) or (error.code >= 500 and error.code not in _FINAL):
            wait_s = _retry_after_s(error.headers.get("Retry-After", ""))
            if wait_s is not None and wait_s > _LONGEST_RETRY_AFTER_S:
                return ZooError(
                    f"{self.shown}: the server says {said}", f"It wants to be left alone for {wait_s / 60:.0f} minutes."
                )
            return _Again(f"the server says {said}", wait_s)
        if error.code == 407:
            return ZooError(
                f"the proxy says {said}", "Give it your name: export https_proxy=http://NAME:PASSWORD@HOST:PORT"
            )
        return ZooError(
            f"{self.shown}: the server says {said}", "Open the address in a browser: the file may have moved."
        )

    def _unreachable(self, error: Exception) -> Exception:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        host = urlsplit(self.shown).hostname
        if isinstance(reason, ssl.SSLCertVerificationError):
            return ZooError(
                f"{host} shows a certificate that this machine does not trust ({reason.verify_message})",
                "If your network looks into TLS, name its certificates: export SSL_CERT_FILE=/path/to/certificates.pem",
            )
        if isinstance(reason, (http.client.InvalidURL, ValueError)) and not isinstance(reason, OSError):
            return ZooError(f"{self.shown} is not an address ({reason})", "Give an http or https address.")
        return _Again(f"{host} cannot be reached ({_words(reason)})")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, 308 included (Python 3.10 does not), but never from https to anything less."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        # Any: http.client's message type, which the base class only hands on.
        schemes = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in schemes:
            raise ZooError(
                f"{without_login(req.full_url)} leads on to {without_login(newurl)}, which is not https",
                "Nothing was fetched: an address that gives up encryption half-way is not followed.",
            )
        return super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def _request(url: str) -> urllib.request.Request:
    """urllib takes no login in an address. As an unredirected header it stays with the host that it is for."""
    parts = urlsplit(url)
    request = urllib.request.Request(
        without_login(url), headers={"User-Agent": f"segcam/{__version__}", "Accept-Encoding": "identity"}
    )
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
    return request


def without_login(url: str) -> str:
    """The address without a user's name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _retry_after_s(text: str) -> float | None:
    """Seconds of a Retry-After header, a number or a date; None where it is neither."""
    if text.strip().isdigit():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())


def _words(error: object) -> str:
    """An exception without its number, or its kind where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
