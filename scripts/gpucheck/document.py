"""The result as JSON: its keys are always all there, and what is known so far is on disk whatever ends the process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpucheck.base import Finding
from gpucheck.page import exit_code, verdict
from gpucheck.targets import outcomes

#: Goes up when a key changes its meaning or goes away.
SCHEMA = 1


class Document:
    """``asked`` is what the run was asked for, by the options' names."""

    def __init__(self, path: str, asked: Mapping[str, Any]) -> None:
        self._path, self._asked = Path(path), dict(asked)
        self._begun = _now()
        self.seconds: dict[str, float] = {}
        self.findings: list[Finding] = []
        self.complete = False

    def write(self) -> None:
        self._path.absolute().parent.mkdir(parents=True, exist_ok=True)
        half = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        half.write_text(json.dumps(self.content(), indent=1) + "\n", "utf-8")
        half.replace(self._path)

    def content(self) -> dict[str, Any]:
        findings = self.findings
        return {
            "schema": SCHEMA,
            "begun": self._begun,
            "written": _now(),
            "complete": self.complete,
            "verdict": verdict(findings),
            "exit_code": exit_code(findings),
            "asked": self._asked,
            "machine": _machine(findings),
            "versions": _versions(findings),
            "targets": {outcome.target: asdict(outcome) for outcome in outcomes(findings, bool(self._asked["quick"]))},
            "parts": {name: _part(name, findings, took) for name, took in self.seconds.items()},
            "findings": [asdict(finding) for finding in findings],
        }


def read(path: Path) -> tuple[list[Finding], bool]:
    """The findings in a document, and whether it is complete; none where there is none (yet)."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return [], False
    return [Finding(**entry) for entry in document["findings"]], document["complete"]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _figures(findings: Sequence[Finding], name: str) -> dict[str, Any]:
    return next((finding.figures for finding in findings if (finding.part, finding.name) == ("machine", name)), {})


def _machine(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "host": _figures(findings, "host"),
        "gpu": _figures(findings, "gpu"),
        "nvidia_smi": _figures(findings, "nvidia-smi"),
        "libraries": _figures(findings, "libraries").get("present", []),
        "tools": _figures(findings, "tools").get("present", []),
    }


def _versions(findings: Sequence[Finding]) -> dict[str, str]:
    found = {name: said for name, said in _figures(findings, "packages").items() if isinstance(said, str)}
    return dict(_figures(findings, "software")) | found


def _part(name: str, findings: Sequence[Finding], seconds: float) -> dict[str, Any]:
    own = [finding for finding in findings if finding.part == name]
    states = {finding.state for finding in own}
    state = (
        "failed" if "failed" in states
        else "absent" if states <= {"absent"}
        else "partly" if "absent" in states
        else "ok"
    )  # fmt: skip
    why = [f"{finding.name}: {finding.words}" for finding in own if finding.state in ("failed", "absent")]
    return {"state": state, "why": "; ".join(why), "seconds": seconds, "findings": len(own)}
