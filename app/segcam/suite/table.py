"""The suite's rows as a table for people, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NOTES = (
    "frames/s; random weights. network: by itself, its input in place (on a GPU one run behind the other, by CUDA "
    "events). end to end: from pictures in memory to class map and overlay in memory, no decoding and no encoding."
)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(title, key) of the figures that any of the rows has; drivers as ``drivers/NAME``."""
    shown = [("network", "network_only_hz")]
    if any("network_only_graph_hz" in row for row in rows):
        shown.append(("with a graph", "network_only_graph_hz"))
    names = dict.fromkeys(name for row in rows for name in row.get("drivers", {}))
    shown += [(f"network, {name}", f"drivers/{name}") for name in names]
    shown.append(("end to end", "end_to_end_hz"))
    if any("end_to_end_plain_hz" in row for row in rows):
        shown.append(("without graphs", "end_to_end_plain_hz"))
    return shown


def figure(row: Mapping[str, Any], key: str) -> float | None:
    """The number of a column; None where it was not measured."""
    if key.startswith("drivers/"):
        row, key = row.get("drivers", {}).get(key.removeprefix("drivers/"), {}), "network_only_hz"
    return float(row[key]) if key in row else None


def table(rows: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> str:
    """The machine, a row for each network and size, and what bounds each."""
    shown = columns(rows)
    head = ["network", "size", "GFLOPs", *(title for title, _ in shown), "bound by"]
    lines = [
        f"{environment['cpu']}, {environment['cores']} cores, load {environment['load_1min']}; "
        f"segcam {environment['segcam']}, Python {environment['python']}",
        "",
        "| " + " | ".join(head) + " |",
        "| " + " | ".join(["---", "---", *["---:"] * (1 + len(shown)), "---"]) + " |",
    ]
    for row in rows:
        height, width = row["size"]
        cells = [row["network"], f"{height}x{width}"]
        cells.append(f"{row['gflops']:.1f}" if "gflops" in row else "")
        cells += ["" if (value := figure(row, key)) is None else f"{value:.1f}" for _, key in shown]
        cells.append(f"not measured: {row['problem']}" if "problem" in row else row.get("bound", ""))
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    ran = dict.fromkeys(_engine(row["engine"]) for row in rows if "engine" in row)
    lines += ["", *(f"engine: {words}" for words in ran)]
    missing = {
        f"{name}: {found['problem']}"
        for row in rows
        for name, found in row.get("drivers", {}).items()
        if "problem" in found
    }
    return "\n".join([*lines, *sorted(missing), NOTES])


def _engine(engine: Mapping[str, Any]) -> str:
    return f"{engine['runtime']} {engine['version']} ({engine['device']}), {engine['arithmetic']}"
