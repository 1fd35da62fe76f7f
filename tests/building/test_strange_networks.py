"""Networks as people have them: converted before, out of order, broken, or made for something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building_nets import quantized, stripes
from onnx import TensorProto, helper, numpy_helper

import segcam
from segcam.building.report import Built, kept_words, read_report
from segcam.errors import EngineError, SourceError, UsageError
from segcam.onnx_tools.precision import convert_precision

Build = Callable[..., Built]


@pytest.fixture
def picture() -> np.ndarray:
    """(32, 48, 3) RGB: blocks of 8 pixels, each of one clear colour."""
    random = np.random.default_rng(3)
    coarse = random.permuted(np.tile([230, 120, 20], (4, 6, 1)), axis=2).astype(np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def class_map(path: Path, picture: np.ndarray) -> np.ndarray:
    with segcam.Segmenter(path, runtime="onnxruntime") as network:
        return network.predict(picture)


def put(model: onnx.ModelProto, path: str = "net.onnx") -> None:
    onnx.save(model, path)


@pytest.mark.parametrize("head", ["cut", "labels"])
@pytest.mark.parametrize("keep_io", [True, False])
def test_a_network_in_halves_already_is_measured_against_itself_in_float32(
    net: Path, build: Build, picture: np.ndarray, keep_io: bool, head: str
) -> None:
    wanted = class_map(net, picture)
    put(convert_precision(onnx.load(net), "fp16", keep_io=keep_io).model)
    built = build(precisions=("fp16",), head=head)
    report = read_report(built.path)
    assert report is not None and report["agreement"]["labels_equal"] >= 0.999
    assert report["agreement"]["nonfinite"] == 0
    kind = TensorProto.FLOAT if keep_io else TensorProto.FLOAT16
    assert onnx.load(built.path).graph.input[0].type.tensor_type.elem_type == kind
    assert (class_map(built.path, picture) == wanted).mean() >= 0.999


def test_overflow_of_a_network_in_halves_is_seen(net: Path, build: Build) -> None:
    made = convert_precision(onnx.load(net), "fp16").model
    # A product far beyond 65504, which ONNX Runtime's own arithmetic would not notice.
    relu = next(node for node in made.graph.node if node.op_type == "Relu")
    big, small = (numpy_helper.from_array(np.float16(value), name) for value, name in ((6e4, "big"), (2**-14, "small")))
    made.graph.initializer.extend([big, small])
    place = list(made.graph.node).index(relu)
    made.graph.node.insert(place + 1, helper.make_node("Mul", [f"{relu.output[0]}.0", "big"], ["far"], "scale"))
    made.graph.node.insert(place + 2, helper.make_node("Mul", ["far", "small"], [relu.output[0]], "back"))
    made.graph.node[place].output[0] += ".0"
    del made.graph.value_info[:]
    put(made)
    with pytest.raises(EngineError, match=r"does not hold in fp16: \d+ tensors are not finite"):
        build(precisions=("fp16",), simplify=False, rewrite=False)


@pytest.mark.parametrize(
    ("own", "asked", "message"),
    [
        ("fp16", ("fp32",), "computes in float16 already, and --fp32 was asked for"),
        ("fp16", ("bf16",), "computes in float16 already, and --bf16 was asked for"),
        ("bf16", ("fp32",), "computes in bfloat16 already, and --fp32 was asked for"),
        ("bf16", (), "computes in bfloat16 already, and fp16 is the default"),
    ],
)
def test_what_is_in_halves_already_becomes_nothing_else(
    net: Path, build: Build, own: Any, asked: tuple[Any, ...], message: str
) -> None:
    if own == "bf16" and onnx.defs.onnx_opset_version() < 22:
        pytest.skip("convolutions in bfloat16 are of opset 22, which this onnx does not know")
    put(convert_precision(onnx.load(net), own).model)
    with pytest.raises(EngineError, match=message) as refused:
        build(precisions=asked)
    assert f"--{own}" in refused.value.hint
    assert read_report(build(precisions=(own,)).path)["precision"] == own


def test_nodes_out_of_order_are_put_in_order(net: Path, build: Build, picture: np.ndarray) -> None:
    wanted = class_map(net, picture)
    model = onnx.load(net)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    put(model)
    for precision in ("fp16", "fp32"):
        built = build(precisions=(precision,))
        onnx.checker.check_model(str(built.path), full_check=True)
        assert (class_map(built.path, picture) == wanted).mean() >= 0.999


def test_an_axis_of_minus_one_is_an_open_one(net: Path, build: Build) -> None:
    model = stripes(("n", 3, "h", "w"))
    for axis in (0, 2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = -1
    put(model)
    with pytest.raises(EngineError, match=r"input 'x' is \?x3x\?x\?: its height and width are open"):
        build()
    assert build(size=(32, 48)).spec.input.size == (32, 48)


def test_quantized_networks_of_old_opsets_have_the_rest_in_halves(net: Path, build: Build) -> None:
    put(quantized(opset=13))
    built = build(precisions=("int8", "fp16"))
    model = onnx.load(built.path)
    assert model.opset_import[0].version == 19
    assert not any("DequantizeLinear" in reason for reason in built.kept.values())
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    assert {kinds[node.input[1]] for node in model.graph.node if node.op_type == "DequantizeLinear"} == {
        TensorProto.FLOAT16
    }


def no_outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def classifier(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("GlobalAveragePool", ["scores"], ["pool"]))
    model.graph.node.append(helper.make_node("Flatten", ["pool"], ["flat"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [1, 3]))


def idle_cast(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Cast"


def short_weight(model: onnx.ModelProto) -> None:
    tensor = next(i for i in model.graph.initializer if len(i.raw_data) > 8)
    tensor.raw_data = tensor.raw_data[:-4]


def enormous(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 10**8


def own_operator(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = "Frobnicate", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def of_the_future(model: onnx.ModelProto) -> None:
    model.ir_version = 99


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (no_outputs, "is not an ONNX model .it has no outputs: it may be cut off", "--onnx"),
        (no_opset, "is not an ONNX model .it has no operator set: it may be cut off", "--onnx"),
        (classifier, "output 'flat' has 2 dimensions, expected scores NxCxHxW", "output.name"),
        (idle_cast, "net.onnx is not valid ONNX: .*Cast|not valid ONNX: .*to", "opset 17"),
        (short_weight, "net.onnx is not valid ONNX", "Export it again"),
        (enormous, "1x3x32x100000000 is larger than any picture", "--size"),
        (own_operator, "com.example:Frobnicate", "without operators of its own"),
        (of_the_future, "IR version: 99", "opset 17"),
    ],
)
def test_broken_networks_are_an_error_that_says_so(
    net: Path, build: Build, change: Callable[[onnx.ModelProto], None], message: str, hint: str
) -> None:
    model = stripes()
    change(model)
    put(model)
    # For fp32 nothing is run: what reads the file may know more.
    for precision in ("fp16",) if change in (own_operator, of_the_future) else ("fp16", "fp32"):
        with pytest.raises(EngineError, match=message) as refused:
            build(precisions=(precision,))
        assert hint in refused.value.hint
        assert not list(Path().glob("engines/*"))


def test_counts_are_words() -> None:
    assert (kept_words(1), kept_words(3)) == ("1 node stays fp32", "3 nodes stay fp32")


@pytest.mark.parametrize("length", [0.02, 0.5, 0.9, 0.999])
def test_files_that_are_cut_off(net: Path, build: Build, length: float) -> None:
    content = net.read_bytes()
    net.write_bytes(content[: int(len(content) * length)])
    with pytest.raises(EngineError, match="is not an ONNX model"):
        build()


def test_what_pictures_come_from_is_looked_at_first(build: Build, told: Any) -> None:
    with pytest.raises(SourceError, match=r"nowhere.mp4"):
        build("no such network.onnx", calibrate="nowhere.mp4")
    assert told.stages == []


def test_pictures_that_nobody_looks_at_are_said(net: Path, build: Build, told: Any) -> None:
    build(precisions=("fp32",), calibrate="random")
    assert any("--calibrate is left out" in line for line in told.said)
    assert "frames" not in dict(told.stages)


@pytest.mark.parametrize("precious", [b"precious", b""])
def test_a_plan_of_somebody_else_stays(net: Path, build: Build, tensorrt_face: Any, precious: bytes) -> None:
    plan = Path("theirs.plan")
    plan.write_bytes(precious)
    with pytest.raises(UsageError, match="build-engine did not write it") as refused:
        build(target="tensorrt", output=plan)
    assert "--force" in refused.value.hint
    assert plan.read_bytes() == precious
    assert build(target="tensorrt", output=plan, force=True).written


@pytest.mark.tensorrt("11.4.0.106")
def test_an_error_is_not_hidden_by_what_fails_after_it(net: Path, build: Build, tensorrt_face: Any) -> None:
    """Once a GPU has met a bad address, to give memory back fails, too."""
    tensorrt_face.control.fail("IExecutionContext.execute_async_v3", False, log="Error Code 1: made up")
    tensorrt_face.machine.fail("cuMemFree")
    with pytest.raises(EngineError, match=r"could not run the plan just built[^$]*made up"):
        build(target="tensorrt")
