"""Network addresses: which are understood, and how to show them without their secrets."""

from __future__ import annotations

import re

#: Schemes that FFmpeg reads over the network; ``file://`` is turned into a path before.
NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https", "udp", "srt", "tcp")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
# Up to the last "@" of the word: a password that holds "/" or "@" unescaped must not show either.
_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://[^\s:/@]*):\S*@")
_SECRET_FIELD = re.compile(
    r"(?i)([?&;](?:password|passwd|passphrase|pass|pwd|token|access_token|secret|key|api_?key|auth|sig|signature)=)[^&;\s#'\"]+"
)


def url_scheme(text: str) -> str:
    """The scheme of a URL in lower case (``rtsp``), or "" for anything else."""
    match = _SCHEME.match(text)
    return match.group(1).lower() if match else ""


def redact_url(text: str) -> str:
    """``text`` (a URL, or a message that holds some) with every password and secret query field as ``***``."""
    return _SECRET_FIELD.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))
