"""What was measured, as JSON for programs and as a page of text for people."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segcam import __version__
from segcam.engines.base import EngineInfo
from segcam.errors import SinkError
from segcam.metrics import Metrics, Summary
from segcam.writing import whole_file

GLOSSARY = {
    "network only": "frames per second of the network by itself, its inputs already in place",
    "end to end": "frames per second from the source to the last output, everything included",
    "decode": "reader thread: time to get one frame from the source",
    "upload, download": "copies between pinned memory and the GPU, which run beside the work on other frames",
    "gpu": "everything on the GPU of a frame that ran as one CUDA graph; some frames run in parts, which times these",
    "host": "segmenter thread beside a GPU: copying into and out of pinned memory, and queueing",
    "preprocess": "segmenter thread: sample, convert and normalise the frame into the network's input",
    "inference": "the network on one frame; several run at once, so this is more than 1000 / network only",
    "postprocess": "segmenter thread: class map, counts and overlay from the network's scores",
    "write ...": "output thread: one frame into that output",
    "latency": "from the moment a frame was decoded or captured until the last output had it",
}


@dataclass(frozen=True)
class NetworkRate:
    """The network by itself: ``rate_hz`` over ``runs`` inferences with all requests in flight, on a GPU one after the
    other. There, ``enqueue_ms`` is what the processor needs to queue one, and ``graph_hz`` the rate with a CUDA graph;
    0 where there is none, and ``no_graph`` says why.
    """

    rate_hz: float
    runs: int
    inference_ms: Summary
    enqueue_ms: float = 0.0
    graph_hz: float = 0.0
    no_graph: str = ""


def environment() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "segcam": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def build(
    info: EngineInfo,
    source: Mapping[str, Any],
    run: Mapping[str, Any],
    metrics: Metrics,
    network: NetworkRate | None = None,
) -> dict[str, Any]:
    """The report of one run as plain data. Times in milliseconds, rates per second."""
    report: dict[str, Any] = {
        "environment": environment(),
        "engine": {**asdict(info), "arithmetic": info.arithmetic},
        "source": dict(source),
        "run": dict(run),
        "frames": metrics.frames,
        "dropped": dict(metrics.dropped),
        "end_to_end_hz": round(metrics.rate_hz, 3),
        "stages_ms": {name: _rounded(summary) for name, summary in sorted(metrics.summaries().items(), key=_order)},
    }
    if network:
        report["network_only_hz"] = round(network.rate_hz, 3)
        report["network_only_runs"] = network.runs
        report["network_only_inference_ms"] = _rounded(network.inference_ms)
        if network.enqueue_ms:
            report["network_only_enqueue_ms"] = round(network.enqueue_ms, 4)
        if network.graph_hz:
            report["network_only_graph_hz"] = round(network.graph_hz, 3)
        if network.no_graph:
            report["network_only_no_graph"] = network.no_graph
        best_hz = max(network.rate_hz, network.graph_hz) if "gpu" in report["stages_ms"] else network.rate_hz
        if best_hz:
            report["end_to_end_share"] = round(metrics.rate_hz / best_hz, 3)
        report["bound"] = bound(report)
    return report


def _order(item: tuple[str, Summary]) -> tuple[int, str]:
    known = ["decode", "upload", "preprocess", "inference", "postprocess", "download", "gpu", "host"]
    name = item[0]
    return (known.index(name) if name in known else 9 if name == "latency" else 5, name)


def _rounded(summary: Summary) -> dict[str, Any]:
    return {key: value if key == "count" else round(value, 3) for key, value in asdict(summary).items()}


#: What to do about the part that bounds, by its name's beginning.
HINTS = {
    "the source": "--decode nvdec decodes on the GPU; a smaller or less compressed video decodes faster",
    "copies to": "--decode nvdec: pictures are decoded where they are needed; or a smaller video",
    "copies from": "--encode nvenc, or --output null: labels and overlay come down only for outputs that show them",
    "queueing": "a CUDA graph queues all of it with one call",
    "the output": "--output null shows what it costs; a faster --preset, or --encode nvenc",
}


def bound(report: Mapping[str, Any]) -> str:
    """Which part holds the others up: the one that is busy longest for each frame; and what could be done."""
    stages = report["stages_ms"]

    def mean(name: str) -> float:
        return float(stages[name]["mean"]) if name in stages else 0.0

    painting = mean("preprocess") + mean("postprocess")
    rate_hz = report["network_only_hz"]
    busy = {"the source (decode)": mean("decode")}
    on_gpu = "upload" in stages or "gpu" in stages
    if on_gpu:
        as_graph = "gpu" in stages
        if as_graph:
            rate_hz = max(rate_hz, report.get("network_only_graph_hz", 0.0))
        queueing = 0.0 if as_graph else float(report.get("network_only_enqueue_ms", 0.0))
        # It does both: what is the larger part names it.
        host = (
            "queueing the network's work, and copying (host)"
            if 2 * queueing > mean("host")
            else ("the segmenter thread (host: copying into and out of pinned memory, and queueing)")
        )
        busy |= {
            "the GPU (preprocess, network, postprocess)": _period_ms(rate_hz) + painting,
            "copies to the GPU (upload)": mean("upload"),
            "copies from the GPU (download)": mean("download"),
            host: max(mean("host"), queueing),
        }
    else:
        busy |= {"the network": _period_ms(rate_hz), "the segmenter thread (preprocess and postprocess)": painting}
    busy |= {f"the output ({name})": mean(name) for name in stages if name.startswith("write ")}
    worst = max(busy, key=lambda name: busy[name])
    hint = next((hint for beginning, hint in HINTS.items() if worst.startswith(beginning)), "") if on_gpu else ""
    if worst.startswith("queueing") and "network_only_no_graph" in report:
        hint += f"; here there is none: {report['network_only_no_graph']}"
    return f"{worst}: {busy[worst]:.1f} ms a frame" + (f" ({hint})" if hint else "")


def _period_ms(rate_hz: float) -> float:
    return 1e3 / rate_hz if rate_hz else 0.0


def text(report: Mapping[str, Any]) -> str:
    """The report as a page."""
    env, engine = report["environment"], report["engine"]
    size = engine["input_shape"]
    lines = [
        f"machine     {env['cpu']}, {env['cores']} cores, load {env['load_1min']}; "
        f"Python {env['python']}, segcam {env['segcam']}",
        f"engine      {engine['model']} {'x'.join(map(str, size))} on {engine['runtime']} {engine['version']} "
        f"({engine['device']}), {engine['arithmetic']}, "
        f"{engine['requests']} in flight, head " + (f"cut ({engine['head']})" if engine["head"] else "as exported"),
        f"source      {report['source']['description']}, {report['source']['width']}x{report['source']['height']}",
        f"outputs     {', '.join(report['run']['outputs'])}; queue {report['run']['queue']}",
        "",
    ]
    if "network_only_hz" in report:
        lines.append(
            f"network only  {report['network_only_hz']:8.2f} frames/s   ({report['network_only_runs']} inferences)"
        )
    if "network_only_graph_hz" in report:
        lines.append(f"with a graph  {report['network_only_graph_hz']:8.2f} frames/s")
    elif "network_only_no_graph" in report:
        lines.append(f"with a graph      none: {report['network_only_no_graph']}")
    share = f", {report['end_to_end_share']:.0%} of network only" if "end_to_end_share" in report else ""
    dropped = sum(report["dropped"].values())
    causes = "; ".join(f"{count} {cause}" for cause, count in report["dropped"].items())
    lines.append(f"end to end    {report['end_to_end_hz']:8.2f} frames/s   ({report['frames']} frames{share})")
    lines.append(f"dropped       {dropped:8d}" + (f"   ({causes})" if causes else ""))
    if "bound" in report:
        lines.append(f"bound by      {report['bound']}")
    names = list(report["stages_ms"])
    width = max([len(name) for name in names] + [12])
    lines += ["", f"{'stage (ms)':{width}} " + "".join(f"{h:>9}" for h in ("mean", "p50", "p90", "p95", "p99", "max"))]
    for name in names:
        row = report["stages_ms"][name]
        cells = "".join(f"{row[key]:9.2f}" for key in ("mean", "p50", "p90", "p95", "p99", "maximum"))
        lines.append(f"{name:{width}} {cells}")
    lines += ["", f"The first {report['run']['warmup']} frames are not counted."]
    lines += [f"{term}: {meaning}" for term, meaning in GLOSSARY.items()]
    return "\n".join(lines)


def write_json(report: Mapping[str, Any], path: str) -> None:
    """To a file, or to standard output for ``-``. Raises SinkError."""
    document = json.dumps(report, indent=1) + "\n"
    if path == "-":
        sys.stdout.write(document)
        return
    target = Path(path)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as temporary:
            temporary.write_text(document, "utf-8")
    except OSError as error:
        raise SinkError(
            f"the report cannot be written to {path}: {error}", "Choose another file with --json."
        ) from None
