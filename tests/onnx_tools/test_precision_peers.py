"""The converter beside ONNX Runtime's own, in one run: never worse in agreement, never invalid where that is valid."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper
from onnxruntime.transformers import float16
from random_graphs import feeds, networks

import segcam
from segcam.onnx_tools.check import random_inputs, runner
from segcam.onnx_tools.precision import agreement, convert_precision, fit_precision, name_nodes

MakeTail = Callable[..., onnx.ModelProto]
#: Two networks that round elsewhere differ by luck: of N pixels so near a tie, a few fall one way or the other.
_LUCK = 5e-4


def theirs(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """None where that converter fails or its result is not valid."""
    copy = type(model).FromString(model.SerializeToString())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = float16.convert_float_to_float16(copy, keep_io_types=True)
        # Its nodes are not in order, which the checker wants; nothing else is put right.
        made = name_nodes(made)
        onnx.checker.check_model(made, full_check=True)
        runner(made)
    except Exception:  # whatever it raises
        return None
    assert isinstance(made, onnx.ModelProto)
    return made


def compare(model: onnx.ModelProto, luck: float = _LUCK) -> bool:
    """Both on the same pictures, really rounding; whether theirs is valid."""
    ours = convert_precision(model, "fp16").model
    onnx.checker.check_model(ours, full_check=True)
    pictures = [random_inputs(model, seed) for seed in range(2)]
    found = agreement(model, ours, pictures, "noise")
    assert found.nonfinite == 0
    assert found.labels_equal + found.ties >= 0.999
    peer = theirs(model)
    if peer is not None:
        other = agreement(model, peer, pictures, "noise")
        assert found.nonfinite <= other.nonfinite
        assert found.labels_equal >= other.labels_equal - luck
        assert found.largest_difference <= other.largest_difference * 1.5 + 1e-3 * found.spread
    return peer is not None


@pytest.mark.parametrize(("name", "size"), [("mobilev3small_f64", (400, 400)), ("fast_scnn", (64, 128))])
def test_exports_of_the_zoo(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        segcam.export(path, name, size=size, init="random")
    model = onnx.load(path)
    assert compare(model)
    assert fit_precision(model, "fp16", [random_inputs(model)], "noise").kept == {}


def test_a_stranger_with_normalisation_and_labels(make_tail: MakeTail) -> None:
    for opset, via in ((11, "chain"), (13, "sizes"), (17, "scales")):
        model = onnx.shape_inference.infer_shapes(
            make_tail(opset=opset, via=via, operators=[("Softmax", {"axis": 1}), ("ArgMax", {"axis": 1})],
                      output_type=TensorProto.INT64)
        )  # fmt: skip
        compare(model)


def test_bytes_in_with_the_cast_inside() -> None:
    """What the older converters left invalid: a Cast to float32 that is there already."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], "to float", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], "turn", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["t", "k"], ["m"], "scale"),
        helper.make_node("Softmax", ["m"], ["y"], "share", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "bytes",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 16, 24, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 16, 24])],
        [helper.make_tensor("k", TensorProto.FLOAT, [], [1 / 64])],
    )
    compare(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), luck=3e-3)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(networks())
def test_random_graphs_are_valid_wherever_theirs_are(model: onnx.ModelProto) -> None:
    ours = convert_precision(model, "fp16").model
    runner(ours)(feeds()[0])
    peer = theirs(model)
    if peer is not None:
        mine, other = (agreement(model, made, feeds(), "noise") for made in (ours, peer))
        assert mine.nonfinite <= other.nonfinite
        assert mine.largest_difference <= other.largest_difference * 2 + 0.01 * max(1.0, mine.spread)
