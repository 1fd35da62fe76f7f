"""Builds with the stand-in for TensorRT, an old and a new one: from an export to class maps on the GPU."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building_nets import SPEC, quantized, stripes, with_head
from onnx import TensorProto, helper

import segcam
from segcam.building.report import Built
from segcam.engines.manifest import manifest_path, read_manifest, sha256_of
from segcam.errors import CudaError, EngineError, MissingDependencyError

Build = Callable[..., Built]
pytestmark = pytest.mark.usefixtures("tensorrt_face")


@pytest.fixture
def plan(build: Build) -> Build:
    """``build`` with TensorRT."""
    return lambda onnx="net.onnx", **more: build(onnx, target="tensorrt", **more)


@pytest.fixture
def picture() -> np.ndarray:
    """(32, 48, 3) RGB: blocks of 8 pixels, each of one clear colour."""
    coarse = np.random.default_rng(3).permuted(np.tile([230, 120, 20], (4, 6, 1)), axis=2).astype(np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def class_map(path: Path, picture: np.ndarray, **options: Any) -> np.ndarray:
    with segcam.Segmenter(path, **options) as network:
        return network.predict(picture)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def dynamic(path: Path, *shape: int | str) -> Path:
    return saved(with_head(stripes(shape or ("n", 3, 32, 48))), path)


def picture_in_bytes(path: Path) -> Path:
    """NHWC bytes in, moved before they become numbers: as an exporter writes x.permute(0, 3, 1, 2).float()."""
    model = with_head(stripes())
    graph = model.graph
    graph.input[0].CopyFrom(helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, 32, 48, 3]))
    for node in reversed(
        [
            helper.make_node("Transpose", ["picture"], ["moved"], "move", perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["moved"], ["x"], "widen", to=TensorProto.FLOAT),
        ]
    ):
        graph.node.insert(0, node)
    document = json.loads(json.dumps(SPEC))
    document["input"] |= {"std": [1, 1, 1], "layout": "NHWC", "dtype": "uint8"}
    model.metadata_props[0].value = json.dumps(document)
    onnx.checker.check_model(model, full_check=True)
    return saved(model, path)


SIZES = ((1, 3, 32, 32), (1, 3, 32, 48), (1, 3, 64, 96))
SHAPES = ((1, 3, 32, 48), (1, 3, 32, 48), (4, 3, 32, 48))
NETWORKS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "labels": (lambda path: saved(with_head(stripes()), path), {}),
    "labels kept": (lambda path: saved(with_head(stripes()), path), {"head": "keep"}),
    "labels in bytes": (lambda path: saved(with_head(stripes()), path), {"head": "labels"}),
    "scores": (lambda path: saved(stripes(), path), {}),
    "opset 11": (lambda path: saved(with_head(stripes(opset=11, weights_as_inputs=True)), path), {}),
    "open batch": (dynamic, {"shapes": SHAPES}),
    "open batch, one": (dynamic, {}),
    "open size": (lambda path: dynamic(path, 1, 3, "h", "w"), {"shapes": SIZES}),
    "open size, one": (lambda path: dynamic(path, "n", 3, "h", "w"), {"size": (32, 48)}),
    "bytes": (picture_in_bytes, {}),
    "int8": (lambda path: saved(quantized(), path), {"precisions": ("int8",)}),
    "int8, not asked": (lambda path: saved(quantized(), path), {}),
    "int8 and fp16": (lambda path: saved(quantized(opset=19), path), {"precisions": ("int8", "fp16")}),
    "fp32": (lambda path: saved(with_head(stripes()), path), {"precisions": ("fp32",)}),
    "bf16": (lambda path: saved(with_head(stripes()), path), {"precisions": ("bf16",)}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_becomes_a_plan_that_names_what_it_names(
    own_folder: Path, plan: Build, picture: np.ndarray, tensorrt_face: Any, name: str
) -> None:
    make, options = NETWORKS[name]
    source = make(own_folder / "net.onnx")
    if name == "bf16" and onnx.defs.onnx_opset_version() < 22:
        pytest.skip("convolutions in bfloat16 are of opset 22, which this onnx does not know")
    if name == "bf16" and tensorrt_face.version < (10, 16):
        # Convolutions have bfloat16 from opset 22 on, which older parsers don't read.
        with pytest.raises(EngineError, match="opset 22") as refused:
            plan(**options)
        assert "--fp16" in refused.value.hint
        return
    built = plan(**options)
    manifest = read_manifest(built.path)
    assert (manifest.plan_sha256, manifest.source) == (sha256_of(built.path), str(source))
    assert manifest.precision_found and manifest.tensors
    if "head" not in options:
        assert built.spec.output.kind == "logits" or name.startswith("int8")
    found = class_map(built.path, picture)
    wanted = class_map(source, picture, runtime="onnxruntime", precision="fp32", size=(32, 48))
    assert (found == wanted).mean() >= 0.999
    assert "of the labels are those of the network that it was built from" in built.proof
    assert plan(**options).already
    if "shapes" in options:
        assert built.head
        (profile,) = (tensor["profile"] for tensor in manifest.tensors if tensor["mode"] == "input")
        assert tuple(map(tuple, profile)) == options["shapes"]


def test_more_pictures_at_a_time_are_for_others(own_folder: Path, plan: Build) -> None:
    dynamic(own_folder / "net.onnx")
    built = plan(batch=4)
    assert [tensor["shape"][0] for tensor in read_manifest(built.path).tensors] == [4, 4]
    assert "this, for 4, is for other programs" in built.text() and "next:" not in built.text()
    assert "of the labels are those of the network" in built.proof


def test_the_manifest_says_what_was_asked_and_found(net: Path, plan: Build, tensorrt_face: Any) -> None:
    flags = {"precisions": ("fp16",), "workspace": 1 << 30, "optimization_level": 2, "version_compat": True}
    built = plan(**flags)
    manifest = read_manifest(built.path)
    assert manifest.tensorrt == tensorrt_face.name
    assert manifest.flags == {
        "fp16": True, "workspace": "1G", "optimization-level": 2, "version-compat": True, "calibrate": "random",
    }  # fmt: skip
    assert (manifest.precision_asked, manifest.version_compatible, manifest.hardware_compatible) == ("fp16", True, "")
    assert manifest.head == built.head and manifest.agreement is not None
    assert manifest.precision_found.get("float16", 0) > 0
    assert f"TensorRT {tensorrt_face.name}" in built.text()


def test_the_command_of_a_refused_plan_builds_it_again(
    net: Path, plan: Build, tensorrt_face: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    import shlex

    from segcam.cli.main import main

    built = plan(precisions=("fp16",), workspace=1 << 30, head="keep", rewrite=False)
    tensorrt_face.install("10.16.1.11")
    assert main(["--engine", str(built.path), "--source", "test:size=96x64", "--frames", "1", "--output", "null"]) == 1
    said = capfd.readouterr().err
    command = shlex.split(said.partition("Build it on this machine: ")[2].splitlines()[0])
    assert command[0] == "build-engine"
    assert main(["build", *command[1:]]) == 0
    assert read_manifest(built.path).tensorrt == "10.16.1.11"
    assert read_manifest(built.path).flags["head"] == "keep"
    assert main(["--engine", str(built.path), "--source", "test:size=96x64", "--frames", "1", "--output", "null"]) == 0


def test_another_tensorrt_is_no_reason_to_say_already(net: Path, plan: Build, tensorrt_face: Any) -> None:
    plan()
    tensorrt_face.install("10.16.1.11")
    assert not plan().already
    assert plan().already


@pytest.mark.parametrize("stage", ["load", "simplify", "precision", "parse", "build", "verify", "write"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, EngineError("made up")])
def test_a_raise_at_any_stage_leaves_what_was_there(
    net: Path, plan: Build, told: Any, stage: str, error: BaseException
) -> None:
    def files() -> dict[str, bytes]:
        # TensorRT's timings of a build that got as far are worth keeping.
        return {p.name: p.read_bytes() for p in Path("engines").iterdir() if p.suffix != ".cache"}

    plan()
    before = files()
    assert set(before) == {"net_fp16.plan", "net_fp16.plan.json"}

    def strike(event: str) -> None:
        if event == f"begin {stage}":
            raise error

    told.on = strike
    with pytest.raises((KeyboardInterrupt, EngineError)):
        plan(force=True)
    assert files() == before


def test_ctrl_c_while_tensorrt_builds(
    net: Path, tensorrt_face: Any, own_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from segcam.cli.main import main

    tensorrt_face.control.on_step = lambda phase, step: signal.raise_signal(signal.SIGINT)
    handler = signal.getsignal(signal.SIGINT)
    assert main(["build", "--onnx", "net.onnx", "--calibrate", "random"]) == 130
    assert [path.name for path in (own_folder / "engines").iterdir() if path.suffix != ".cache"] == []
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_plan_that_computes_something_else_is_not_kept(
    net: Path, plan: Build, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import segcam.engines.plan_verify

    true = segcam.engines.plan_verify.expected_outputs

    def other(model: onnx.ModelProto, feeds: Any) -> list[np.ndarray]:
        return [out[:, ::-1] for out in true(model, feeds)]

    monkeypatch.setattr("segcam.engines.plan_verify.expected_outputs", other)
    with pytest.raises(EngineError, match="does not compute what its network does"):
        plan()
    assert not list((own_folder / "engines").glob("*.plan*"))


def test_without_tensorrt(net: Path, plan: Build, monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)  # type: ignore[arg-type]
    with pytest.raises(MissingDependencyError, match="TensorRT is not installed") as refused:
        plan()
    assert "pip install" in refused.value.hint and "--target onnx" in refused.value.hint
    assert not (own_folder / "engines").exists()


def test_without_a_gpu(net: Path, plan: Build, tensorrt_face: Any) -> None:
    tensorrt_face.machine.fail("cuInit")
    with pytest.raises(CudaError) as refused:
        plan()
    assert "--target onnx" in refused.value.hint


def test_a_refused_network_is_said_with_tensorrts_words(net: Path, plan: Build, tensorrt_face: Any) -> None:
    tensorrt_face.control.fail("Builder.build_serialized_network", None, log="Error Code 10: no implementation")
    with pytest.raises(EngineError, match=r"built no plan on .*\n.*Error Code 10"):
        plan()
    assert not list(Path("engines").glob("*.plan*"))


def test_threads_end_with_the_build(net: Path, plan: Build, tensorrt_face: Any) -> None:
    before = threading.active_count()
    plan()
    assert threading.active_count() == before
    assert (tensorrt_face.machine.allocated, tensorrt_face.machine.pinned) == (0, 0)
    assert manifest_path(Path("engines/net_fp16.plan")).is_file()
