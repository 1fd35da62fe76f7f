"""What builds have left in a folder, and what of it can be used on this machine."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segcam.building.report import read_report, report_path
from segcam.engines.manifest import (
    PLAN_SUFFIXES,
    Manifest,
    Running,
    manifest_path,
    read_manifest,
    read_plan,
    unusable,
)
from segcam.errors import CudaError, EngineError, MissingDependencyError

_COLUMNS = ("file", "GPU", "TensorRT", "precision", "MB", "labels as fp32", "built", "usable here")


@dataclass(frozen=True)
class Entry:
    """A product. ``reason`` says why it cannot be used here, or what else is to be known, "" for nothing; ``useless``:
    a build wrote it, and it cannot run here."""

    path: Path
    cells: tuple[str, ...]
    reason: str
    useless: bool


def listed(folder: Path) -> str:
    """A table of the plans and prepared networks in ``folder``. Raises EngineError for a folder that isn't there."""
    running, without = _running()
    found = entries(folder, running)
    if not found:
        return f"{folder} has no plans and no prepared networks yet: build-engine --onnx model.onnx"
    rows = [_COLUMNS, *((*entry.cells, entry.reason or "yes") for entry in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if without:
        lines.append(f"plans were not judged: {without}")
    return "\n".join(lines)


def pruned(folder: Path, *, dry_run: bool) -> str:
    """Remove (or with ``dry_run`` only name) the plans that build-engine wrote and that cannot run here, with their
    manifests. What it did not write, and networks, stay. Raises EngineError, and as TensorRT and the driver do."""
    running, without = _running()
    if running is None:
        raise EngineError(
            f"without TensorRT and a GPU nothing says what could run here, so nothing is removed: {without}",
            "See what is there: build-engine --list",
        )
    lines = []
    for entry in entries(folder, running):
        if not entry.useless:
            continue
        if not dry_run:
            _remove(entry.path)
        lines.append(f"{'would remove' if dry_run else 'removed'} {entry.path}: {entry.reason}")
    return "\n".join(lines) or f"{folder}: nothing to remove"


def _remove(plan: Path) -> None:
    try:
        # The plan first: a manifest without a plan is harmless.
        plan.unlink(missing_ok=True)
        manifest_path(plan).unlink(missing_ok=True)
    except OSError as error:
        raise EngineError(f"{plan} cannot be removed ({error.strerror})", "See who owns it: ls -l") from None


def entries(folder: Path, running: Running | None) -> list[Entry]:
    """What is in ``folder``, by name; ``running`` None: plans are not judged. Raises EngineError."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EngineError(f"{folder} cannot be read ({error.strerror})", "Name a folder with --output.") from None
    found = []
    for path in (folder / name for name in names):
        if path.suffix.lower() in PLAN_SUFFIXES and not path.name.startswith(".") and path.is_file():
            found.append(_plan_entry(path, running))
        elif path.suffix.lower() == ".onnx" and report_path(path).is_file():
            found.append(_network_entry(path))
    return found


def _plan_entry(plan: Path, running: Running | None) -> Entry:
    size = f"{plan.stat().st_size / 1e6:.1f}"
    try:
        manifest = read_manifest(plan)
    except EngineError as error:
        # It may be anybody's, or a newer Segcam's.
        return Entry(plan, (plan.name, "?", "?", "?", size, "?", "?"), _first(error), False)
    cells = (
        plan.name,
        manifest.gpu,
        manifest.tensorrt,
        str(manifest.precision),
        size,
        _share(manifest.agreement),
        manifest.built_at[:16].replace("T", " "),
    )
    reason = ""
    try:
        read_plan(manifest, plan)
        reason = unusable(manifest, running) if running else "?"
    except EngineError as error:
        reason = _first(error)
    return Entry(plan, cells, reason or _stale(manifest), bool(reason))


def _stale(manifest: Manifest) -> str:
    """A plan that runs, though its source has become another; as a reason to build again, not to remove it."""
    from segcam.building.prepare import file_sha256

    source = Path(manifest.source)
    if not source.is_file():
        return ""
    return "" if file_sha256(source) == manifest.source_sha256 else f"yes, but {source.name} has changed since"


def _network_entry(path: Path) -> Entry:
    size = f"{path.stat().st_size / 1e6:.1f}"
    report = read_report(path)
    if report is None:
        return Entry(path, (path.name, "any", "-", "?", size, "?", "?"), "changed since it was written", False)
    cells = (path.name, "any", "-", str(report.get("precision")), size, _share(report.get("agreement")), "-")
    return Entry(path, cells, "", False)


def _share(agreement: dict[str, Any] | None) -> str:
    try:
        return f"{agreement['labels_equal']:.2%}" if agreement else "-"
    except (KeyError, TypeError, ValueError):
        return json.dumps(agreement)[:12]


def _first(error: EngineError) -> str:
    return error.message.splitlines()[0]


def _running() -> tuple[Running | None, str]:
    """What plans would run with here; or None, and why."""
    from segcam.building.gpu import open_gpu

    try:
        with open_gpu("") as gpu:
            return gpu.running, ""
    except (MissingDependencyError, CudaError) as error:
        return None, error.message
