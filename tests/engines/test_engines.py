"""Both runtimes, on networks whose class is the brightest channel."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from segcam.engines.base import Engine, EngineOptions
from segcam.engines.factory import make_engine
from segcam.errors import EngineError, SegcamError, SpecError, UsageError

Brightest = Callable[..., Path]
RUNTIMES: list[Literal["openvino", "onnxruntime"]] = ["openvino", "onnxruntime"]
FP32 = EngineOptions(precision="fp32", threads=1, requests=2)


def load(path: Path, runtime: str = "onnxruntime", options: EngineOptions = FP32, **changes: Any) -> Engine:
    warnings: list[str] = []
    engine = make_engine(str(path), dataclasses.replace(options, **changes), warnings.append, runtime)  # type: ignore[arg-type]
    engine.activate()
    assert not warnings
    return engine


def scores_of(engine: Engine, slot: int) -> np.ndarray[Any, Any]:
    """(classes, H, W) copy of a slot's scores, however the runtime lays them out."""
    found = engine.wait(slot)[0]
    return (found.transpose(2, 0, 1) if engine.info.output_layout == "NHWC" else found).copy()


def fails(path: Path, kind: type[SegcamError], *words: str, runtime: str = "onnxruntime", **changes: Any) -> None:
    """Loading fails with an error that holds all ``words`` and says what to do."""
    engine = make_engine(str(path), dataclasses.replace(FP32, **changes), lambda line: None, runtime)  # type: ignore[arg-type]
    with pytest.raises(kind) as caught:
        engine.activate()
    for word in words:
        assert word in str(caught.value)
    assert caught.value.hint
    with pytest.raises(EngineError, match="not active"):
        _ = engine.info


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_inputs(brightest: Brightest, runtime: str, dtype: str, layout: str) -> None:
    engine = load(brightest(dtype=dtype, layout=layout), runtime)
    info, spec = engine.info, engine.spec
    assert info.input_hw == (24, 40)
    assert (spec.input.layout, spec.input.dtype, spec.input.size, spec.input.name) == (
        layout,
        dtype,
        (24, 40),
        "picture",
    )
    assert info.output_shape == ((1, 3, 24, 40) if info.output_layout == "NCHW" else (1, 24, 40, 3))
    assert engine.input(0).dtype == dtype
    assert engine.input(0).shape == info.input_shape
    random = np.random.default_rng(0)
    for slot in range(info.requests):
        fed = random.integers(0, 256, info.input_shape)
        engine.input(slot)[...] = fed
        engine.start(slot)
        found = scores_of(engine, slot)
        chw = fed[0] if layout == "NCHW" else fed[0].transpose(2, 0, 1)
        np.testing.assert_allclose(found, chw / 255, atol=1e-5)
        assert engine.elapsed_ms(slot) >= 0
    engine.close()


def test_both_runtimes_agree(brightest: Brightest) -> None:
    path = brightest(input_hw=(64, 96))
    fed = np.random.default_rng(1).uniform(0, 255, (1, 3, 64, 96)).astype(np.float32)
    found = []
    for runtime in RUNTIMES:
        engine = load(path, runtime)
        engine.input(0)[...] = fed
        engine.start(0)
        found.append(scores_of(engine, 0))
        engine.close()
    np.testing.assert_array_equal(found[0].argmax(0), found[1].argmax(0))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_in_flight_keep_apart(brightest: Brightest, runtime: str) -> None:
    engine = load(brightest(input_hw=(128, 128)), runtime, requests=4)
    assert engine.info.requests == 4
    for round_ in range(5):
        for slot in range(4):
            engine.input(slot)[...] = 10 * slot + round_
            engine.start(slot)
        for slot in (2, 0, 3, 1):
            found = engine.wait(slot)
            np.testing.assert_allclose(found, (10 * slot + round_) / 255, rtol=1e-5)
    engine.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_life(brightest: Brightest, runtime: str) -> None:
    path = brightest()
    engine = make_engine(str(path), FP32, print, runtime)  # type: ignore[arg-type]
    engine.close()
    for use in (lambda: engine.info, lambda: engine.spec, lambda: engine.input(0)):
        with pytest.raises(EngineError, match="not active"):
            use()
    engine.activate()
    engine.activate()
    assert engine.info.line().startswith("net.onnx: 40x24 on ")
    assert "fp32" in engine.info.line()
    engine.input(0)[...] = 3
    engine.start(0)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="not active"):
        engine.input(0)
    engine.activate()
    engine.input(1)[...] = 51
    engine.start(1)
    np.testing.assert_allclose(engine.wait(1), 0.2, rtol=1e-5)
    engine.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", ["int64", "int32", "uint8"])
@pytest.mark.parametrize("shape", ["nhw", "n1hw", "nhw1", "hw"])
def test_label_outputs(brightest: Brightest, runtime: str, kind: str, shape: str) -> None:
    engine = load(brightest(output=f"{kind}_{shape}"), runtime)
    assert engine.spec.output.kind == "labels"
    assert engine.info.head == ""
    want = {"nhw": (1, 24, 40), "n1hw": (1, 1, 24, 40), "nhw1": (1, 24, 40, 1), "hw": (24, 40)}[shape]
    assert engine.info.output_shape == want
    engine.close()


def test_whole_numbers_are_labels_whatever_the_spec_says(brightest: Brightest) -> None:
    engine = load(brightest(output="int64_nhw", spec=""), spec=str(_spec_file(brightest)))
    assert engine.spec.output.kind == "labels"
    engine.close()


def _spec_file(brightest: Brightest, **changes: Any) -> Path:
    """A spec file made from the network's own, with entries of ``input`` and ``output`` changed."""
    path = brightest(name="other", spec="beside")
    file = path.with_name(path.name + ".json")
    document = json.loads(file.read_text("utf-8"))
    for key, value in changes.items():
        part, _, name = key.partition("_")
        if name:
            document[part][name] = value
        else:
            document[part] = value
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def test_where_the_spec_comes_from(brightest: Brightest, tmp_path: Path) -> None:
    path = brightest(spec="metadata")
    assert load(path).spec.origin == "metadata of net.onnx"
    beside = path.with_name("net.onnx.json")
    beside.write_text(_spec_file(brightest, input_color="BGR").read_text("utf-8"), encoding="utf-8")
    engine = load(path)
    assert engine.spec.origin == str(beside)
    assert engine.spec.input.color == "BGR"
    named = _spec_file(brightest, input_mean=[1, 2, 3])
    engine = load(path, spec=str(named))
    assert engine.spec.origin == str(named)
    assert engine.spec.input.mean == (1, 2, 3)


@pytest.mark.parametrize(("dtype", "mean"), [("float32", 0.485 * 255), ("uint8", 0.0)])
def test_without_a_spec_one_line_says_what_is_assumed(brightest: Brightest, dtype: str, mean: float) -> None:
    """ImageNet's normalisation; but bytes can't hold normalised values, so these are fed as they are."""
    warnings: list[str] = []
    engine = make_engine(str(brightest(spec="", dtype=dtype)), FP32, warnings.append, "onnxruntime")
    engine.activate()
    assert len(warnings) == 1
    assert "net.onnx.json" in warnings[0]
    assert ("ImageNet" in warnings[0]) == (dtype == "float32")
    assert engine.spec.input.mean[0] == pytest.approx(mean)
    assert engine.spec.input.color == "RGB"
    engine.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_name": "image"}, ["'image'", "picture"]),
        ({"output_name": "logits"}, ["'logits'", "s"]),
        ({"input_size": [32, 40]}, ["40x32", "1x3x24x40"]),
        ({"input_color": "GBR"}, ["input.color", "GBR"]),
        ({"input_mean": [1, 2]}, ["input.mean"]),
        ({"input_std": [1, 0, 1]}, ["input.std.1"]),
        ({"input_typo": 1}, ["at input", "typo"]),
        ({"output_kind": "boxes"}, ["output.kind", "boxes"]),
        ({"output_void": [3]}, ["void names channel 3", "3 classes"]),
        ({"output_void": [-1]}, ["output.void.0"]),
        ({"output_upsample": "cubic"}, ["output.upsample"]),
        ({"classes": []}, ["classes"]),
        ({"classes": "city"}, ["classes"]),
        ({"classes": [{"name": "a", "color": [0, 0, 256]}]}, ["classes"]),
        ({"extra": 1}, ["the document", "extra"]),
        ({"input": {}}, ["input", "required"]),
    ],
)
def test_specs_that_do_not_fit(brightest: Brightest, changes: dict[str, Any], words: list[str]) -> None:
    path = brightest()
    fails(path, SpecError, "other.onnx.json", *words, spec=str(_spec_file(brightest, **changes)))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', '{"segcam_spec": 2}', "\x00"])
def test_specs_that_are_none(brightest: Brightest, tmp_path: Path, text: str) -> None:
    path = brightest()
    path.with_name("net.onnx.json").write_text(text, encoding="utf-8")
    fails(path, SpecError, "net.onnx.json")


def test_spec_files_that_cannot_be_read(brightest: Brightest, tmp_path: Path) -> None:
    path = brightest()
    fails(path, SpecError, "missing.json", "does not exist", spec=str(tmp_path / "missing.json"))
    fails(path, SpecError, "does not exist", spec=str(tmp_path))
    (tmp_path / "utf16.json").write_bytes("{}".encode("utf-16"))
    fails(path, SpecError, "utf16.json", "cannot be read", spec=str(tmp_path / "utf16.json"))


def test_files_that_are_no_networks(brightest: Brightest, tmp_path: Path) -> None:
    good = brightest()
    fails(tmp_path / "nett.onnx", EngineError, "no file", "Did you mean", "net.onnx")
    fails(tmp_path / "zzzzzz", EngineError, "no file", "--engine")
    fails(tmp_path / "no" / "such" / "folder.onnx", EngineError, "no file")
    fails(tmp_path, EngineError, "a folder")
    bad = tmp_path / "bad.onnx"
    whole = good.read_bytes()
    bad.write_bytes(b"")
    fails(bad, EngineError, "empty")
    png, archive, pickled = b"\x89PNG\r\n\x1a\n" + bytes(200), b"PK\x03\x04" + bytes(64), b"\x80\x02}q\x00."
    for content in (b"hello, this is text\n" * 20, png, archive, pickled, bytes(500)):
        bad.write_bytes(content)
        fails(bad, EngineError, "bad.onnx", "not an ONNX model")
    for share in (0.1, 0.5, 0.9):
        bad.write_bytes(whole[: int(len(whole) * share)])
        fails(bad, EngineError, "bad.onnx")


def test_weights_in_a_file_that_is_missing(brightest: Brightest, tmp_path: Path) -> None:
    model = onnx.load(brightest())
    path = tmp_path / "apart.onnx"
    onnx.save(model, path, save_as_external_data=True, location="apart.bin", size_threshold=0)
    load(path).close()
    (tmp_path / "apart.bin").unlink()
    fails(path, EngineError, "cannot be read", "apart.bin")


def _model(
    inputs: list[tuple[str, int, list[Any] | None]], nodes: list[onnx.NodeProto], outputs: list[str]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, t, d) for n, t, d in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([("x", 1, [1, 3, 8, 8]), ("y", 1, [1, 3, 8, 8])], ["2 inputs", "x, y"]),
        ([("x", 1, [1, 4, 8, 8])], ["1x4x8x8", "4 channels"]),
        ([("x", 1, [4, 3, 8, 8])], ["batch is fixed at 4"]),
        ([("x", 1, [1, 3, 8])], ["3 dimensions"]),
        ([("x", 1, [1, 3, None, 8])], ["1x3x?x8", "open", "--size"]),
        ([("x", 7, [1, 3, 8, 8])], ["element type"]),
    ],
)
def test_networks_that_take_no_picture(tmp_path: Path, inputs: Any, words: list[str]) -> None:
    nodes = [helper.make_node("Sum" if inputs[0][1] == 1 else "Identity", [n for n, _, _ in inputs], ["out"])]
    path = tmp_path / "net.onnx"
    onnx.save(_model(inputs, nodes, ["out"]), path)
    for runtime in RUNTIMES:
        fails(path, EngineError, "net.onnx", *words, runtime=runtime)


def test_size_against_a_fixed_network(brightest: Brightest) -> None:
    fails(brightest(), SpecError, "--size says 64x48", "1x3x24x40", size=(48, 64))
    load(brightest(), size=(24, 40)).close()


def test_several_outputs_are_not_chosen_from_quietly(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Neg", ["x"], ["b"])]
    onnx.save(_model([("x", 1, [1, 3, 8, 8])], nodes, ["a", "b"]), path)
    warnings: list[str] = []
    engine = make_engine(str(path), FP32, warnings.append, "onnxruntime")
    engine.activate()
    assert any("a, b" in line and "reading a" in line for line in warnings)
    engine.close()
    spec = tmp_path / "s.json"
    spec.write_text(json.dumps({
        "segcam_spec": 1, "input": {"color": "RGB", "mean": [0, 0, 0], "std": [1, 1, 1]},
        "output": {"kind": "logits", "name": "b"}, "classes": [{"name": n, "color": [0, 0, 0]} for n in "abc"],
    }), encoding="utf-8")  # fmt: skip
    for runtime in RUNTIMES:
        engine = load(path, runtime, spec=str(spec))
        engine.input(0)[...] = 2
        engine.start(0)
        assert (engine.wait(0) == -2).all()
        engine.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_operator_that_no_runtime_knows(tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "net.onnx"
    node = helper.make_node("FancyPool", ["x"], ["out"], domain="com.example")
    model = _model([("x", 1, [1, 3, 8, 8])], [node], ["out"])
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, path)
    fails(path, EngineError, "net.onnx", "FancyPool", runtime=runtime)


@pytest.mark.parametrize("name", ["a.plan", "b.engine", "c.TRT"])
def test_plans_are_tensorrt_s(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    fails(path, EngineError, "there is no file", "build-engine --onnx MODEL.onnx", runtime="auto")
    path.with_suffix(".onnx").touch()
    path.write_bytes(b"ptrt")
    fails(path, EngineError, "has no manifest", f"build-engine --onnx {path.with_suffix('.onnx')}", runtime="auto")
    with pytest.raises(UsageError, match="onnxruntime cannot run"):
        make_engine(str(path), FP32, print, "onnxruntime")


def test_precision_and_device_that_are_not_there(brightest: Brightest) -> None:
    path = brightest()
    for precision in ("bf16", "fp16"):
        fails(path, UsageError, precision, "fp32", precision=precision)
    fails(path, UsageError, "GPU.7", device="GPU.7")
    fails(path, UsageError, "NOSUCH", "CPU", runtime="openvino", device="NOSUCH")


def test_openvino_computes_in_what_it_says(brightest: Brightest) -> None:
    import openvino

    capable = {str(c) for c in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")}
    path = brightest()
    for name in ("bf16", "fp16"):
        if name.upper() in capable:
            engine = load(path, "openvino", precision=name)
            assert engine.info.precision == name
            engine.close()
        else:
            fails(path, UsageError, name, "--precision auto", runtime="openvino", precision=name)
    engine = load(path, "openvino", precision="auto")
    assert engine.info.precision == ("bf16" if "BF16" in capable else "fp16" if "FP16" in capable else "fp32")
    engine.close()


def test_without_openvino_one_line_says_so(brightest: Brightest, monkeypatch: pytest.MonkeyPatch) -> None:
    from segcam.engines import factory
    from segcam.engines.onnxruntime import OnnxRuntimeEngine

    real = factory.find_spec
    monkeypatch.setattr(factory, "find_spec", lambda name: None if name == "openvino" else real(name))
    warnings: list[str] = []
    assert isinstance(make_engine(str(brightest()), FP32, warnings.append), OnnxRuntimeEngine)
    assert len(warnings) == 1
    assert "pip install openvino" in warnings[0]
    monkeypatch.setattr(factory, "find_spec", lambda name: None)
    with pytest.raises(SegcamError, match="no runtime") as caught:
        make_engine(str(brightest()), FP32, warnings.append)
    assert "pip install" in caught.value.hint
