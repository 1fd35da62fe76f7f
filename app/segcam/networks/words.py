"""Names out of files that nobody vouches for, made fit for a message."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST = 160


def shown(name: str) -> str:
    """``name`` as one short printable piece: nothing in it can steer a terminal."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def listed(items: Sequence[str], most: int = 12) -> str:
    """The first ``most`` items, comma between, and how many more there are."""
    more = len(items) - most
    return ", ".join(map(shown, items[:most])) + (f" ... and {more} more" if more > 0 else "")


def dims(shape: Sequence[int]) -> str:
    """``64x3x3x3``, and words for the shape of a single number."""
    return "x".join(map(str, shape)) or "one number"
