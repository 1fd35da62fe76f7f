"""The targets that findings decide about: held, missed, or not measured and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpucheck.base import Finding


@dataclass(frozen=True)
class Target:
    """``words`` say what is wanted; ``parts`` measure it. ``whole``: all that these find decides. ``speed``: little
    work says nothing about it."""

    words: str
    parts: tuple[str, ...]
    whole: bool = False
    speed: bool = False


TARGETS = {
    "kernels": Target("kernels equal their NumPy references", ("kernels",), whole=True),
    "preprocess": Target(
        "preprocess takes at most twice what its bytes need at a copy's rate", ("bandwidth",), speed=True
    ),
    "postprocess": Target(
        "postprocess takes at most twice what its bytes need at a copy's rate", ("bandwidth",), speed=True
    ),
    "equal": Target(
        "the pipeline names 99.99 % of the pixels as the CPU does, overlays within one level",
        ("pipeline", "ort", "tensorrt"),
    ),
    "pipeline": Target(
        "the pipeline reaches 95 % of its slowest part's rate", ("pipeline", "ort", "tensorrt"), speed=True
    ),
    # Two rates of one run differ by a per cent or so by themselves.
    "graph": Target(
        "a graph is not slower than plain queueing (by more than 2 %)", ("pipeline", "tensorrt"), speed=True
    ),
    "sanitizer": Target("compute-sanitizer finds nothing", ("sanitizer",)),
    "resources": Target("kernels neither spill nor take more than 64 registers", ("resources",)),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a target. ``why`` is what was missed, or why it was not measured."""

    target: str
    words: str
    state: Literal["held", "missed", "not measured"]
    why: str
    measured: int


def outcomes(findings: Sequence[Finding], quick: bool) -> list[Outcome]:
    made = []
    for name, target in TARGETS.items():
        own = [finding for finding in findings if finding.part in target.parts]
        deciding = [f for f in own if f.state in ("ok", "failed") and (f.target == name or target.whole)]
        missed = [finding for finding in deciding if finding.state == "failed"]
        if missed:
            why = "; ".join(f"{finding.name}: {finding.words}" for finding in missed)
            made.append(Outcome(name, target.words, "missed", why, len(deciding)))
        elif deciding:
            made.append(Outcome(name, target.words, "held", _rest(target, findings), len(deciding)))
        else:
            made.append(Outcome(name, target.words, "not measured", _why(target, findings, quick), 0))
    return made


def _why(target: Target, findings: Sequence[Finding], quick: bool) -> str:
    own = [finding for finding in findings if finding.part in target.parts]
    if not own:
        return f"{' and '.join(target.parts)} did not run"
    reasons = [f"{finding.part}: {finding.words}" for finding in own if finding.state in ("absent", "failed")]
    if quick and target.speed:
        reasons.append("--quick measures no speed")
    return "; ".join(dict.fromkeys(reasons)) or f"{' and '.join(target.parts)} ended before"


def _rest(target: Target, findings: Sequence[Finding]) -> str:
    """A part that broke off may have had more to say."""
    broken = [f for f in findings if f.part in target.parts and f.state in ("failed", "absent") and f.name in BREAKS]
    return "; ".join(f"{finding.part}: {finding.words}" for finding in broken)


#: Names of the findings that end a part.
BREAKS = ("process", "unexpected", "the rest")
