"""The findings as a page, and the exit code they amount to."""

from __future__ import annotations

from collections.abc import Sequence

from gpucheck.base import Finding
from gpucheck.targets import outcomes

#: These tell of a GPU nothing but that it isn't there.
_NO_GPU_NEEDED = ("wheels", "machine", "resources")


def line(finding: Finding) -> str:
    mark = {"ok": "ok    ", "timed": "timed ", "failed": "FAILED", "absent": "absent"}[finding.state]
    return f"{mark} {finding.part:10} {finding.name}: {finding.words}"


def page(findings: Sequence[Finding], quick: bool) -> str:
    """Two tables in Markdown: everything found, failures first, and the targets; and a line that counts."""
    order = {"failed": 0, "ok": 1, "timed": 2, "absent": 3}
    rows = sorted(findings, key=lambda finding: order[finding.state])
    lines = ["", *_table(["state", "part", "what", "found"], [[r.state, r.part, r.name, r.words] for r in rows])]
    targets = outcomes(findings, quick)
    lines += ["", *_table(["target", "", "why"], [[one.words, one.state, one.why] for one in targets])]
    if any(finding.state == "absent" and "No module named" in finding.words for finding in findings):
        lines += ["", "Packages that are not there can be carried along as wheels: --help says which."]
    counts = {state: sum(row.state == state for row in rows) for state in order}
    lines += ["", ", ".join(f"{count} {state}" for state, count in counts.items()) + f". {verdict(findings)}"]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for cells in rows:
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return lines


def verdict(findings: Sequence[Finding]) -> str:
    return {
        0: "Everything that could run holds.",
        1: "Something does not hold.",
        3: "Nothing could run on a GPU here.",
    }[exit_code(findings)]


def exit_code(findings: Sequence[Finding]) -> int:
    """0: all that ran holds; 1: something failed; 3: nothing ran on a GPU."""
    if any(finding.state == "failed" for finding in findings):
        return 1
    ran = any(finding.state in ("ok", "timed") and finding.part not in _NO_GPU_NEEDED for finding in findings)
    return 0 if ran else 3
