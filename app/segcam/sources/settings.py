"""The ``key=value,key=value`` tail of ``test:``, ``street:`` and ``camera:``."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from fractions import Fraction

from segcam.errors import UsageError
from segcam.sources.made import Format

#: What ``parse_format`` reads.
FORMAT = ("size", "rate", "frames", "live")


def parse_settings(text: str, known: Collection[str], spec: str) -> dict[str, str]:
    """``"size=640x480,rate=30"`` as a dict. Raises UsageError for an unknown, repeated or valueless key."""
    settings: dict[str, str] = {}
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        key, equals, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if key not in known:
            near = get_close_matches(key, known, 1, 0.5)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(f"source {spec!r}: unknown setting {key!r}", f"{meant}Known: {', '.join(sorted(known))}.")
        if not equals or not value:
            raise UsageError(f"source {spec!r}: {key!r} has no value", f"Write {key}=VALUE.")
        if key in settings:
            raise UsageError(f"source {spec!r}: {key!r} is given twice", "Give it once.")
        settings[key] = value
    return settings


def parse_size(text: str, spec: str, least: int, most: int) -> tuple[int, int]:
    """``"1280x720"`` as (width, height). Raises UsageError."""
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if not match:
        raise UsageError(f"source {spec!r}: size {text!r} is not WIDTHxHEIGHT", "Write for example size=1280x720.")
    width, height = int(match.group(1)), int(match.group(2))
    if not (least <= width <= most and least <= height <= most):
        raise UsageError(f"source {spec!r}: size {text} is outside {least}x{least} to {most}x{most}")
    return width, height


def parse_rate(text: str, key: str, spec: str) -> Fraction:
    """``"30"``, ``"29.97"`` or ``"30000/1001"`` in frames per second, above 0 and up to 1000. Raises UsageError."""
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise UsageError(
            f"source {spec!r}: {key} {text!r} is not a rate between 0 and 1000 frames per second",
            f"Write for example {key}=30 or {key}=30000/1001.",
        )
    return rate.limit_denominator(100_000)


def parse_whole(text: str, key: str, spec: str, most: int) -> int:
    """A whole number 0..most. Raises UsageError."""
    if not text.isdecimal() or int(text) > most:
        raise UsageError(f"source {spec!r}: {key} {text!r} is not a whole number from 0 to {most}")
    return int(text)


def parse_format(settings: dict[str, str], spec: str, size: str, rate: str, frames: str = "0") -> Format:
    """The format of a source that makes its pictures itself, with these defaults. Raises UsageError."""
    width, height = parse_size(settings.get("size", size), spec, 64, 8192)
    return Format(
        width,
        height,
        parse_rate(settings.get("rate", rate), "rate", spec),
        parse_whole(settings.get("frames", frames), "frames", spec, 10**9),
        bool(parse_whole(settings.get("live", "0"), "live", spec, 1)),
    )
