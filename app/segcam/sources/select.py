"""What --start, --every, --frames and --loop mean, in one place for every kind of source."""

from __future__ import annotations

import math
from fractions import Fraction

from segcam.errors import UsageError
from segcam.sources.base import SourceOptions


def check_options(options: SourceOptions) -> None:
    """Raises UsageError for values that mean nothing."""
    if not (math.isfinite(options.start_s) and options.start_s >= 0):
        raise UsageError(f"--start {options.start_s} is not a time in seconds from 0 on")
    for flag, value, least in (
        ("--every", options.every, 1),
        ("--frames", options.frames, 0),
        ("--loop", options.loops, 0),
        ("--decode-threads", options.threads, 0),
    ):
        if value < least:
            raise UsageError(f"{flag} {value} is less than {least}")


def refuse_seeking(options: SourceOptions, name: str) -> None:
    """Raises UsageError where a live or timeless source is asked to start elsewhere or to repeat itself."""
    if options.start_s > 0:
        raise UsageError(
            f"{name} has no time to start at, but --start {options.start_s:g} was asked", "Leave out --start."
        )


def refuse_looping(options: SourceOptions, name: str) -> None:
    """Raises UsageError where a live source is asked to run more than once."""
    if options.loops != 1:
        raise UsageError(f"{name} is live and cannot be played again, but --loop was asked", "Leave out --loop.")


def announced_frames(in_round: int | None, options: SourceOptions) -> int | None:
    """Frames that ``read`` will give in all, where one round holds ``in_round`` from --start on (None: unknown)."""
    if options.loops == 0 and options.frames:
        return options.frames
    if in_round is None or options.loops == 0:
        return None
    given = -(-in_round // options.every) * options.loops
    return min(given, options.frames) if options.frames else given


def given_rate(rate_hz: Fraction | None, options: SourceOptions) -> Fraction | None:
    """Mean rate of what ``read`` gives."""
    return rate_hz / options.every if rate_hz else None
