"""What is there, what of it runs here, and what may go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segcam.building.listing import listed, pruned
from segcam.building.report import Built
from segcam.engines.manifest import manifest_path
from segcam.errors import EngineError

Build = Callable[..., Built]
ENGINES = Path("engines")


def row(name: str) -> str:
    (line,) = (line for line in listed(ENGINES).splitlines() if line.startswith(name))
    return line


def test_an_empty_folder() -> None:
    assert "has no plans and no prepared networks yet: build-engine --onnx" in listed(ENGINES)


def test_without_tensorrt_plans_are_shown_and_not_judged(
    net: Path, build: Build, tensorrt_face: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    build(target="tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # type: ignore[arg-type]
    assert row("net_fp16.plan").endswith("?")
    assert "plans were not judged: TensorRT is not installed" in listed(ENGINES)
    with pytest.raises(EngineError, match="nothing is removed: TensorRT is not installed") as refused:
        pruned(ENGINES, dry_run=False)
    assert "--list" in refused.value.hint
    assert (ENGINES / "net_fp16.plan").is_file()


def test_the_table(net: Path, build: Build, tensorrt_face: Any) -> None:
    build(target="tensorrt")
    build()
    lines = listed(ENGINES).splitlines()
    assert lines[0].split()[:2] == ["file", "GPU"] and len(lines) == 3
    assert row("net_fp16.onnx").endswith("yes")
    plan = row("net_fp16.plan")
    for words in ("NVIDIA Stand-in", tensorrt_face.name, "fp16", "%", "yes"):
        assert words in plan
    net.write_bytes(net.read_bytes() + b"\x0a\x00")
    assert row("net_fp16.plan").endswith("yes, but net.onnx has changed since")
    net.unlink()
    assert row("net_fp16.plan").endswith("yes")


def test_what_cannot_run_here_says_why_and_goes(net: Path, build: Build, tensorrt_face: Any) -> None:
    for name in ("here", "version", "damaged", "edited", "foreign"):
        build(target="tensorrt", output=ENGINES / f"{name}.plan")
    build()
    tensorrt_face.install("10.16.1.11")
    build(target="tensorrt", output=ENGINES / "here.plan", force=True)
    (ENGINES / "damaged.plan").write_bytes(b"x" * 99)
    manifest_path(ENGINES / "edited.plan").write_text(
        manifest_path(ENGINES / "edited.plan").read_text().replace("Stand-in", "Other")
    )
    manifest_path(ENGINES / "foreign.plan").unlink()
    assert row("here").endswith("yes")
    assert "built it, and this is 10.16.1.11" in row("version")
    assert "its manifest says" in row("damaged")
    assert "has been changed since build-engine wrote it" in row("edited")
    assert "has no manifest" in row("foreign")

    before = sorted(ENGINES.iterdir())
    said = pruned(ENGINES, dry_run=True)
    assert said.count("would remove") == 2
    assert sorted(ENGINES.iterdir()) == before
    said = pruned(ENGINES, dry_run=False)
    assert said.count("removed") == 2 and "version.plan: TensorRT" in said
    left = {path.name for path in ENGINES.iterdir() if path.suffix in (".plan", ".json", ".onnx")}
    # What nobody can say Segcam wrote stays; so do networks.
    assert left == {
        "here.plan", "here.plan.json", "edited.plan", "edited.plan.json", "foreign.plan", "net_fp16.onnx",
        "net_fp16.onnx.report.json",
    }  # fmt: skip
    assert "nothing to remove" in pruned(ENGINES, dry_run=False)


def test_a_network_that_was_changed(net: Path, build: Build) -> None:
    path = build().path
    path.write_bytes(path.read_bytes() + b"\n")
    assert "changed since it was written" in row("net_fp16.onnx")
