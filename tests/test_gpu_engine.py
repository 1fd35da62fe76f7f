"""Which runtime an ONNX file gets: TensorRT where it and a GPU are there, else the CPU, and never without a word."""

from __future__ import annotations

import importlib.machinery
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from plans import plan_of

from segcam import gpu_engine as module
from segcam.cli.main import main
from segcam.config import from_arguments
from segcam.engines.base import EngineOptions
from segcam.engines.tensorrt import TensorRtEngine
from segcam.errors import EngineError, MissingDependencyError
from segcam.gpu_engine import gpu_engine
from segcam.session import Network

Brightest = Callable[..., Path]


@pytest.fixture
def gpu(tensorrt_face: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A machine with TensorRT, and what its runs said; ``build`` is how plans come to be there."""
    import segcam.building

    monkeypatch.setattr(module, "has_driver_library", lambda: True)
    found = SimpleNamespace(face=tensorrt_face, said=[], warned=[], built=[])

    def build(path: Path, options: EngineOptions, say: Any, warn: Any) -> Path:
        found.built.append((path, options))
        return plan_of(tensorrt_face.trt, path, options)

    found.build = build

    def cached_plan(*arguments: Any) -> Path:
        path: Path = found.build(*arguments)
        return path

    monkeypatch.setattr(segcam.building, "cached_plan", cached_plan)
    return found


def choose(gpu: SimpleNamespace, path: Path, runtime: Any = "auto", **options: Any) -> Any:
    return gpu_engine(path, EngineOptions(rewrite=False, **options), runtime, gpu.said.append, gpu.warned.append)


@pytest.mark.parametrize(
    ("runtime", "device", "taken"),
    [
        ("auto", "", True),
        ("tensorrt", "", True),
        ("auto", "cuda:0", True),
        ("tensorrt", "0", True),
        ("auto", "CPU", False),
        ("auto", "GPU", False),
        ("openvino", "", False),
        ("onnxruntime", "", False),
    ],
)
def test_who_gets_a_network(gpu: SimpleNamespace, brightest: Brightest, runtime: str, device: str, taken: bool) -> None:
    path = brightest()
    engine = choose(gpu, path, runtime, device=device)
    assert (engine is not None) == taken == bool(gpu.built)
    if engine is not None:
        assert isinstance(engine, TensorRtEngine) and engine.info.requests == 3
        engine.close()
    assert not gpu.warned


def test_plans_and_files_that_are_not_there_are_others_business(gpu: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "net.plan").touch()
    for name in ("net.plan", "none.onnx"):
        assert choose(gpu, tmp_path / name, "tensorrt") is None
    assert not gpu.built


@pytest.mark.parametrize("missing", ["tensorrt", "driver"])
def test_auto_looks_without_loading_anything(
    gpu: SimpleNamespace, brightest: Brightest, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    # As in a process that has not imported TensorRT, installed or not.
    monkeypatch.delitem(sys.modules, "tensorrt")
    spec = importlib.machinery.ModuleSpec("tensorrt", None)
    monkeypatch.setattr(module, "find_spec", lambda name: spec if missing != "tensorrt" else None)
    monkeypatch.setattr(module, "has_driver_library", lambda: missing != "driver")
    assert choose(gpu, brightest()) is None
    assert "tensorrt" not in sys.modules and not gpu.built
    assert len(gpu.warned) == (missing == "driver")
    assert all("no NVIDIA driver" in line for line in gpu.warned)


@pytest.mark.parametrize("kind", [EngineError, MissingDependencyError])
def test_what_cannot_be_used_is_said_and_the_cpu_runs(
    gpu: SimpleNamespace, brightest: Brightest, kind: type[EngineError]
) -> None:
    def build(*_: Any) -> Path:
        raise kind("the GPU is full:\n  ERROR: of memory", "Empty it.")

    gpu.build = build
    assert choose(gpu, brightest()) is None
    assert gpu.warned == [
        "the GPU is not used, the network runs on the CPU: the GPU is full (--runtime tensorrt says more)"
    ]
    for runtime, device in (("tensorrt", ""), ("auto", "cuda:0")):
        with pytest.raises(kind, match="of memory"):
            choose(gpu, brightest(), runtime, device=device)


def test_a_plan_that_does_not_load_leaves_nothing_behind(gpu: SimpleNamespace, brightest: Brightest) -> None:
    gpu.face.control.fail("Runtime.deserialize_cuda_engine", None, after=1, log="no")
    assert choose(gpu, brightest()) is None
    assert len(gpu.warned) == 1
    assert not any(gpu.face.machine.leftovers().values())


def test_a_run_takes_the_gpu(gpu: SimpleNamespace, brightest: Brightest) -> None:
    settings = from_arguments({"engine": str(brightest()), "rewrite": False})
    network = Network.load(settings, gpu.warned.append, gpu.said.append)
    assert network.engine.info.runtime == "TensorRT" and len(network.classes) == 3
    network.close()
    gpu.build = lambda *_: (_ for _ in ()).throw(EngineError("no"))
    network = Network.load(settings, gpu.warned.append, gpu.said.append)
    assert network.engine.info.device.startswith("CPU") and len(gpu.warned) == 1
    network.close()


def test_segcam_runs_a_plan(
    tensorrt_face: Any, brightest: Brightest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(tensorrt_face.trt, brightest())
    report = tmp_path / "report.json"
    given = ["--engine", str(plan), "--source", "test:size=128x96", "--frames", "12", "--output", "null"]
    assert main([*given, "--benchmark", "--json", str(report)]) == 0
    shown = capsys.readouterr()
    assert f"TensorRT {tensorrt_face.name}" in shown.out + shown.err
    engine = json.loads(report.read_text("utf-8"))["engine"]
    assert (engine["runtime"], engine["device"], engine["precision"]) == ("TensorRT", "NVIDIA Stand-in", "fp32")
    assert not any(tensorrt_face.machine.leftovers().values())
    assert main([*given, "--precision", "fp16"]) == 2
    assert "was built as fp32" in capsys.readouterr().err
    plan.write_bytes(b"")
    assert main(given) == 1
    shown = capsys.readouterr()
    assert "is empty" in shown.err and "Traceback" not in shown.err


def test_a_plan_is_built_once_and_kept(
    tensorrt_face: Any, brightest: Brightest, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_driver_library", lambda: True)
    path = brightest()
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    settings = from_arguments({"engine": str(path), "precision": "fp32", "rewrite": False})
    said: list[str] = []

    def run() -> Any:
        said.clear()
        network = Network.load(settings, said.append, said.append)
        info = network.engine.info
        network.close()
        return info

    info = run()
    assert (info.runtime, info.precision) == ("TensorRT", "fp32"), said
    assert "once" in "".join(said)
    assert run() == info and not said
    plan = own_cache / "engines" / info.model
    plan.write_bytes(plan.read_bytes()[:-1])
    assert run() == info and "damaged" in "".join(said)
    assert not any(tensorrt_face.machine.leftovers().values())
