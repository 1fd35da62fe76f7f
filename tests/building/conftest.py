"""Builds in a folder of their own, on noise instead of a street, with everything that they say kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest
from building_nets import stripes, with_head

from segcam.building.options import BuildOptions
from segcam.building.report import Built
from segcam.building.run import build as run_build


@dataclass
class Told:
    """A ``Progress`` that remembers; ``on`` is called with "begin STAGE" and "end STAGE"."""

    stages: list[tuple[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    on: Callable[[str], None] = lambda event: None
    stop: bool = False

    def begin(self, stage: str) -> None:
        self.on(f"begin {stage}")

    def step(self, done: int, total: int, words: str) -> None:
        self.on("step")

    def end(self, stage: str, words: str) -> None:
        self.stages.append((stage, words))
        self.on(f"end {stage}")

    def cancelled(self) -> bool:
        return self.stop

    def words(self, stage: str) -> str:
        return dict(self.stages)[stage]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def build(told: Told) -> Callable[..., Built]:
    """``build(onnx="net.onnx", **BuildOptions)`` with ``told`` watching; if nothing else is asked a network, not a
    plan, checked on noise."""

    def run(onnx: str | Path = "net.onnx", **options: Any) -> Built:
        options = {"target": "onnx", "calibrate": "random", **options}
        return run_build(BuildOptions(onnx=str(onnx), **options), told, told.said.append, told.warned.append)

    return run


@pytest.fixture
def net(own_folder: Path) -> Path:
    """``net.onnx``: scores that are enlarged, softened and named, the way exporters leave it; normalises by itself."""
    path = own_folder / "net.onnx"
    onnx.save(with_head(stripes()), path)
    return path
