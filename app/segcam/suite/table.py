"""The suite's rows as a table for people, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NOTES = (
    "frames/s, with random weights. network only: its input in place (on a GPU one run behind the other, by CUDA "
    "events, after a warm-up). end to end: from pictures in memory to class map and overlay in memory, no decoding and "
    "no encoding."
)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(title, key) of the figures that tell the networks apart: graphs only on a GPU."""
    shown = [("network only", "network_only_hz")]
    on_gpu = any("drivers" in row for row in rows)
    if on_gpu:
        shown.append(("with a graph", "network_only_graph_hz"))
    shown.append(("end to end", "end_to_end_hz"))
    if on_gpu:
        shown.append(("end to end without graphs", "end_to_end_plain_hz"))
    return shown


def driver_columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(title, key) of the network through each CUDA library; keys as ``drivers/NAME/FIGURE``."""
    names = dict.fromkeys(name for row in rows for name in row.get("drivers", {}))
    return [
        (f"{title}, {name}", f"drivers/{name}/{key}")
        for name in names
        for title, key in (("network only", "network_only_hz"), ("with a graph", "graph_hz"))
    ]


def figure(row: Mapping[str, Any], key: str) -> float | None:
    """The number of a column; None where it was not measured."""
    found: Any = row
    for part in key.split("/"):
        if part not in found:
            return None
        found = found[part]
    return float(found)


def rate_words(rate_hz: float) -> str:
    """To about three figures: slow networks differ, too."""
    return f"{rate_hz:.1f}" if rate_hz >= 10 else f"{rate_hz:.2f}"


def table(rows: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> str:
    """The machine, a row for each network and size, what bounds each, and why what is not there is not there."""
    shown = [*columns(rows), *driver_columns(rows)]
    head = ["network", "size", "GFLOPs", *(title for title, _ in shown), "bound by"]
    lines = [
        f"{environment['cpu']}, {environment['cores']} cores, load before {environment['load_1min']}; "
        f"segcam {environment['segcam']}, Python {environment['python']}",
        *dict.fromkeys(_gpu(row["gpu"]) for row in rows if "gpu" in row),
        "",
        "| " + " | ".join(head) + " |",
        "| " + " | ".join(["---", "---", *["---:"] * (1 + len(shown)), "---"]) + " |",
    ]
    for row in rows:
        height, width = row["size"]
        cells = [row["network"], f"{height}x{width}"]
        cells.append(f"{row['gflops']:.1f}" if "gflops" in row else "")
        cells += [_cell(row, key) for _, key in shown]
        cells.append(f"not measured: {row['problem']}" if "problem" in row else row.get("bound", ""))
        lines.append("| " + " | ".join(_plain(cell) for cell in cells) + " |")
    return "\n".join([*lines, "", *engines(rows), *_missing(rows), NOTES])


def engines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each runtime and arithmetic that networks ran with; what differs from network to network is left to
    the JSON."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if "engine" in row:
            engine = row["engine"]
            line = f"engine: {engine['runtime']} {engine['version']} ({engine['device']}), {engine['precision']}"
            found.setdefault(line, []).append(engine.get("first_layers_fp32", 0))
    return [
        line + (f", the first {_span(firsts)} layers fp32" if any(firsts) else "") for line, firsts in found.items()
    ]


def _span(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return str(most) if least == most else f"{least} to {most}"


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = figure(row, key)
    if value is not None:
        return rate_words(value)
    return "" if "problem" in row else "none"


def _missing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why there are figures that are not there, each reason once."""
    found = dict.fromkeys(f"no graph: {row['network_only_no_graph']}" for row in rows if "network_only_no_graph" in row)
    for row in rows:
        for name, measured in row.get("drivers", {}).items():
            if "problem" in measured:
                found[f"{name}: {measured['problem']}"] = None
            elif "no_graph" in measured:
                found[f"{name}, no graph: {measured['no_graph']}"] = None
    return [" ".join(line.split()) for line in found]


def _gpu(device: Mapping[str, Any]) -> str:
    capability, cuda = (".".join(map(str, device[key])) for key in ("compute_capability", "driver_version"))
    return (
        f"{device['name']}, {device['memory_bytes'] >> 20} MiB, compute capability {capability}, driver for CUDA {cuda}"
    )


def _plain(cell: str) -> str:
    return cell.replace("|", "/").replace("\n", " ")
