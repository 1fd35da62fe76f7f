"""Plans that runs build for themselves: once for each network, kind of run, TensorRT and GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from building_nets import SPEC

from segcam.building import cached_plan
from segcam.engines.base import EngineOptions
from segcam.engines.manifest import read_manifest
from segcam.errors import EngineError, UsageError

OPTIONS = EngineOptions()


@pytest.fixture(autouse=True)
def on_noise(monkeypatch: pytest.MonkeyPatch, tensorrt_face: Any) -> None:
    monkeypatch.setattr("segcam.building.calibrate.STREET", "random")


class Lines:
    def __init__(self) -> None:
        self.said: list[str] = []

    def plan(self, path: Path, options: EngineOptions = OPTIONS) -> Path:
        self.said.clear()
        return cached_plan(path, options, self.said.append, self.said.append)

    @property
    def built(self) -> bool:
        return any(line.startswith("  build:") for line in self.said)


@pytest.fixture
def lines() -> Lines:
    return Lines()


def test_once_and_then_from_the_cache(net: Path, lines: Lines, own_cache: Path, tensorrt_face: Any) -> None:
    first = lines.plan(net)
    assert first.parent == own_cache / "engines"
    assert lines.built and "building a TensorRT plan of net.onnx for NVIDIA Stand-in, once" in lines.said[0]
    manifest = read_manifest(first)
    assert (manifest.tensorrt, manifest.precision_asked) == (tensorrt_face.name, "fp16")
    assert lines.plan(net) == first
    assert lines.said == []


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(precision="fp32"),
        EngineOptions(cut_head=False),
        EngineOptions(rewrite=False),
    ],
)
def test_another_kind_of_run_is_another_plan(net: Path, lines: Lines, options: EngineOptions) -> None:
    first = lines.plan(net)
    second = lines.plan(net, options)
    assert first != second and lines.built
    assert lines.plan(net) == first and not lines.built


def test_a_stale_plan_is_built_again_and_said(net: Path, lines: Lines, tensorrt_face: Any) -> None:
    first = lines.plan(net)
    model = onnx.load(net)
    model.doc_string = "trained a little more"
    onnx.save(model, net)
    second = lines.plan(net)
    assert second != first and "net.onnx has changed since its plan was built" in lines.said[0]
    name = tensorrt_face.name
    tensorrt_face.install("10.16.1.11")
    third = lines.plan(net)
    assert third != second and f"TensorRT {name} built it, and this is 10.16.1.11" in lines.said[0]
    tensorrt_face.install(name)
    assert lines.plan(net) == second and lines.said == []
    second.write_bytes(b"cut off")
    assert lines.plan(net) == second
    assert "is damaged" in lines.said[0] and lines.built


def test_what_else_is_new_is_said(net: Path, lines: Lines, tensorrt_face: Any) -> None:
    old = net.read_bytes()
    lines.plan(net)
    model = onnx.load(net)
    model.doc_string = "trained a little more"
    onnx.save(model, net)
    lines.plan(net)
    # Another kind of run is nothing that has changed, whatever plans of earlier networks are there.
    lines.plan(net, EngineOptions(precision="fp32"))
    assert lines.said[0].startswith("building a TensorRT plan of net.onnx")
    spec = net.with_name("net.onnx.json")
    spec.write_text(json.dumps({**SPEC, "input": {"color": "BGR", "mean": [0, 0, 0], "std": [255, 255, 255]}}), "utf-8")
    lines.plan(net)
    assert "the spec of net.onnx is another than its plan was built with" in lines.said[0]
    spec.unlink()
    net.write_bytes(old)
    tensorrt_face.install(name="NVIDIA Sibling")
    lines.plan(net)
    assert "was tuned on NVIDIA Stand-in" in lines.said[0] and lines.built


def test_the_gpu_that_runs_it_builds_it(net: Path, lines: Lines, tensorrt_face: Any) -> None:
    tensorrt_face.install(devices=2)
    lines.plan(net, EngineOptions(device="cuda:1"))
    opened = [call.args for call in tensorrt_face.machine.calls if call.name == "cuDevicePrimaryCtxRetain"]
    assert opened and set(opened) == {(1,)}


def test_files_and_precisions_that_cannot_be(net: Path, lines: Lines, own_folder: Path) -> None:
    with pytest.raises(EngineError, match="there is no file"):
        lines.plan(own_folder / "nothing.onnx")
    with pytest.raises(UsageError, match="nothing that a plan can be built in"):
        lines.plan(net, EngineOptions(precision="fp64"))  # type: ignore[arg-type]
