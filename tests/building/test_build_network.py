"""Builds without TensorRT: networks of every kind become files that run, and that say what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import segcam
from segcam.building.options import BuildOptions
from segcam.building.report import Built, read_report, report_path
from segcam.engines.base import EngineOptions
from segcam.engines.factory import make_engine
from segcam.errors import EngineError, SegcamError, SpecError, UsageError

Build = Callable[..., Built]

NEEDS_OPSET_22 = pytest.mark.skipif(
    onnx.defs.onnx_opset_version() < 22,
    reason="convolutions in bfloat16 are of opset 22, which this onnx does not know",
)


def class_map(path: Path, picture: np.ndarray, **options: Any) -> np.ndarray:
    with segcam.Segmenter(path, **{"runtime": "onnxruntime", **options}) as network:
        return network.predict(picture)


@pytest.fixture
def picture() -> np.ndarray:
    """(64, 96, 3) RGB: blocks of 16 pixels, each of one clear colour."""
    random = np.random.default_rng(3)
    coarse = random.permuted(np.tile([230, 120, 20], (4, 6, 1)), axis=2).astype(np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)


@pytest.mark.parametrize("precision", ["fp16", "fp32", pytest.param("bf16", marks=NEEDS_OPSET_22)])
def test_a_network_in_every_precision_names_what_the_original_names(
    net: Path, build: Build, told: Any, picture: np.ndarray, precision: str
) -> None:
    built = build(precisions=(precision,))
    assert built.path == Path(f"engines/net_{precision}.onnx")
    assert [stage for stage, _ in told.stages if stage != "frames"] == [
        "load", "simplify", "head", "rewrite", "precision", "write",
    ]  # fmt: skip
    # onnxsim may have seen that the softmax doesn't matter.
    assert built.head in ("Resize+Softmax+ArgMax+Cast", "Resize+ArgMax")
    # ONNX Runtime has no bfloat16 on a CPU.
    found = class_map(built.path, picture, runtime="openvino" if precision == "bf16" else "onnxruntime")
    assert (found == class_map(net, picture)).mean() >= (0.97 if precision == "bf16" else 0.999)
    model = onnx.load(built.path)
    types = {i.data_type for i in model.graph.initializer}
    assert {"fp16": TensorProto.FLOAT16, "fp32": TensorProto.FLOAT, "bf16": TensorProto.BFLOAT16}[precision] in types
    assert [value.type.tensor_type.elem_type for value in model.graph.input] == [TensorProto.FLOAT]
    report = read_report(built.path)
    assert report is not None
    assert (report["agreement"] is None) == (precision == "fp32")
    assert "pictures to check with" not in " ".join(told.said)
    assert f"--onnx={built.path}" in report["trtexec"]
    if precision != "fp32":
        assert report["agreement"]["labels_equal"] > 0.97
        assert "random" in report["agreement"]["source"]


def test_without_a_precision_fp16_is_taken_and_said(net: Path, build: Build, told: Any) -> None:
    assert build().path.name == "net_fp16.onnx"
    assert any("precision: fp16, the default" in line for line in told.said)


def test_the_street_is_what_is_looked_at_and_said(net: Path, build: Build, told: Any) -> None:
    built = build(calibrate="")
    assert any("street:, a made-up street (--calibrate names others)" in line for line in told.said)
    assert "on 4 frames of street:" in built.agreement


def test_the_same_again_is_said_and_not_built(net: Path, build: Build, told: Any) -> None:
    first = build()
    before = first.path.stat().st_mtime_ns
    told.stages.clear()
    again = build()
    assert again.already and "nothing to do (--force builds it again)" in again.text()
    assert first.path.stat().st_mtime_ns == before
    assert [stage for stage, _ in told.stages] == ["load"]
    assert not build(force=True).already


@pytest.mark.parametrize("what", ["flags", "source", "spec", "product", "report"])
def test_whatever_has_changed_is_built_again(net: Path, build: Build, what: str) -> None:
    first = build()
    if what == "source":
        model = onnx.load(net)
        model.doc_string = "another"
        onnx.save(model, net)
    elif what == "spec":
        spec = {
            "segcam_spec": 1,
            "input": {"color": "BGR", "mean": [0, 0, 0], "std": [1, 1, 1]},
            "output": {"kind": "logits"},
            "classes": [{"name": n, "color": [1, 2, 3]} for n in "abc"],
        }
        net.with_name("net.onnx.json").write_text(json.dumps(spec))
    elif what == "product":
        first.path.write_bytes(first.path.read_bytes() + b"\n")
    elif what == "report":
        report_path(first.path).write_text("{}")
    options = {"size": (32, 48)} if what == "flags" else {}
    assert not build(**options).already
    assert build(**options).already


def test_a_dry_run_writes_nothing_and_says_what_it_would(net: Path, build: Build, own_folder: Path) -> None:
    before = sorted(own_folder.rglob("*"))
    built = build(dry_run=True, target="tensorrt")
    assert "would write engines/net_fp16.plan" in built.text()
    assert "trtexec --onnx=engines/net_fp16.onnx --saveEngine=engines/net_fp16.plan --stronglyTyped" in built.text()
    assert [path for path in sorted(own_folder.rglob("*")) if "cache" not in path.parts] == [
        path for path in before if "cache" not in path.parts
    ]


@pytest.mark.parametrize("head", ["cut", "keep", "labels"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_head_names_the_same(net: Path, build: Build, picture: np.ndarray, head: str, precision: str) -> None:
    built = build(precisions=(precision,), head=head)
    output = onnx.load(built.path).graph.output[0].type.tensor_type
    wanted = {"cut": TensorProto.FLOAT, "keep": TensorProto.INT64, "labels": TensorProto.UINT8}[head]
    assert output.elem_type == wanted
    # At the network's own size: labels are then not enlarged by anybody.
    small = picture[::2, ::2]
    assert (class_map(built.path, small) == class_map(net, small)).mean() >= 0.999
    assert built.spec.output.kind == ("logits" if head == "cut" else "labels")


def test_what_is_written_is_not_cut_rewritten_or_warned_about_again(net: Path, build: Build) -> None:
    built = build()
    said: list[str] = []
    engine = make_engine(str(built.path), EngineOptions(), said.append, "onnxruntime")
    engine.activate()
    assert said == []
    assert engine.info.head == ""
    assert replace(engine.spec, origin="") == replace(built.spec, origin="")
    engine.close()


def test_a_network_without_a_spec_gets_one_that_says_its_classes(net: Path, build: Build, told: Any) -> None:
    model = onnx.load(net)
    del model.metadata_props[:]
    onnx.save(model, net)
    built = build()
    assert any("net.onnx has no spec" in line for line in told.warned)
    assert built.spec.classes is not None and len(built.spec.classes) == 3
    assert build().already
    told.warned.clear()
    engine = make_engine(str(built.path), EngineOptions(), told.warned.append, "onnxruntime")
    engine.activate()
    assert (told.warned, len(engine.spec.class_table(3))) == ([], 3)
    engine.close()


def test_a_spec_of_another_number_of_classes_is_refused(net: Path, build: Build) -> None:
    model = onnx.load(net)
    document = json.loads(model.metadata_props[0].value)
    document["classes"] = "cityscapes"
    model.metadata_props[0].value = json.dumps(document)
    onnx.save(model, net)
    with pytest.raises(SpecError, match="names 19 classes, the network has 3 channels"):
        build()


def test_a_spec_beside_the_output_is_warned_about(net: Path, build: Build, told: Any) -> None:
    Path("engines").mkdir()
    Path("engines/net_fp16.onnx.json").write_text("{}")
    build()
    assert any("net_fp16.onnx.json goes before the spec inside" in line for line in told.warned)


def test_values_too_large_for_halves_are_kept_and_named(
    net: Path, build: Build, told: Any, picture: np.ndarray
) -> None:
    model = onnx.load(net)
    # 16 channels leave the first layer as large as 400000, and come back in the second.
    first, second = (i for i in model.graph.initializer if i.dims and i.dims[0] == 16)
    for tensor, factor in ((first, 1e5), (second, 1e-5)):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    onnx.save(model, net)
    built = build(precisions=("fp16",), rewrite=False, simplify=False)
    assert any("65504" in reason or "limit" in reason for reason in built.kept.values())
    assert "nodes stay fp32" in built.text()
    assert read_report(built.path)["kept_fp32"] == built.kept
    assert (class_map(built.path, picture) == class_map(net, picture)).mean() >= 0.999


@pytest.mark.parametrize(
    ("make", "error", "message", "hint"),
    [
        (lambda net: net.write_bytes(b"nothing"), EngineError, "is not an ONNX model", "--onnx"),
        (lambda net: net.unlink(), EngineError, "there is no file", "--onnx"),
        (lambda net: net.write_bytes(b""), EngineError, "is empty", "--onnx"),
        (lambda net: (net.unlink(), net.mkdir()), EngineError, "a folder", "--onnx"),
    ],
)
def test_files_that_are_no_networks(
    net: Path, build: Build, own_folder: Path, make: Callable[[Path], Any], error: type, message: str, hint: str
) -> None:
    make(net)
    with pytest.raises(error, match=message) as refused:
        build()
    assert hint in refused.value.hint and "--engine" not in refused.value.hint
    assert not (own_folder / "engines").exists()


def test_an_opset_that_nobody_knows_yet(net: Path, build: Build) -> None:
    model = onnx.load(net)
    model.opset_import[0].version = 99
    onnx.save(model, net)
    with pytest.raises(EngineError, match=r"is of opset 99, and onnx .* knows \d+ at most") as refused:
        build()
    assert "opset 17" in refused.value.hint


def test_weights_in_a_file_of_their_own(net: Path, build: Build, own_folder: Path) -> None:
    model = onnx.load(net)
    onnx.save_model(model, net, save_as_external_data=True, location="weights.bin", size_threshold=0)
    first = build()
    weights = own_folder / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[3] ^= 1
    weights.write_bytes(content)
    assert not build().already, "the weights are part of the source"
    weights.unlink()
    with pytest.raises(EngineError, match=r"net.onnx cannot be read.*weights.bin") as refused:
        build()
    assert "put that file beside it" in refused.value.hint
    assert first.path.is_file()


def test_an_operator_that_nobody_knows(net: Path, build: Build) -> None:
    model = onnx.load(net)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Frobnicate"
    onnx.save(model, net)
    with pytest.raises(EngineError, match="Frobnicate"):
        build()


def test_the_output_may_not_be_the_source_nor_somebody_elses(net: Path, build: Build, own_folder: Path) -> None:
    with pytest.raises(UsageError, match="is the network itself"):
        build(output=net)
    other = own_folder / "other.onnx"
    other.write_bytes(b"precious")
    with pytest.raises(UsageError, match="build-engine did not write it"):
        build(output=other)
    assert other.read_bytes() == b"precious"
    assert build(output=other, force=True).written


def test_a_zoo_name_is_exported_and_gives_the_products_name(own_zoo: Path, build: Build, told: Any) -> None:
    built = build("tiny", precisions=("fp32",))
    assert built.path == Path("engines/tiny_fp32.onnx")
    assert built.source == "tiny"
    assert any(line.startswith("exporting tiny") for line in told.said)


def test_options_are_checked_first(build: Build) -> None:
    with pytest.raises(UsageError, match="--fp16 and --fp32 exclude each other"):
        build("nowhere.onnx", precisions=("fp16", "fp32"))


def test_cancelled_between_stages(net: Path, build: Build, told: Any, own_folder: Path) -> None:
    told.stop = True
    with pytest.raises(KeyboardInterrupt):
        build()
    assert not (own_folder / "engines").exists() or list((own_folder / "engines").iterdir()) == []


@pytest.mark.parametrize("stage", ["load", "simplify", "head", "rewrite", "frames", "precision", "write"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SegcamError("made up"), OSError(28, "No space left on device")])
def test_a_raise_at_any_stage_leaves_nothing(
    net: Path, build: Build, told: Any, own_folder: Path, stage: str, error: BaseException
) -> None:
    def strike(event: str) -> None:
        if event == f"begin {stage}":
            raise error

    told.on = strike
    with pytest.raises((KeyboardInterrupt, SegcamError, OSError)):
        build()
    assert not (own_folder / "engines").exists() or list((own_folder / "engines").iterdir()) == []


def test_options_have_the_defaults_of_the_command() -> None:
    options = BuildOptions(onnx="net.onnx")
    assert options.flags() == {"fp16": True}
