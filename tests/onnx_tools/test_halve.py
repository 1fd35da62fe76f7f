"""Weights as float16 in the file: smaller, the same graph around them, and nothing lost in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from segcam.onnx_tools.halve import halve_weights, widen_weights


def network(weights: dict[str, NDArray[np.float32]], *more: onnx.NodeProto) -> onnx.ModelProto:
    """picture, Conv w b, Conv v, out; ``more`` nodes go behind."""
    nodes = [
        helper.make_node("Conv", ["picture", "w", "b"], ["middle"], "first"),
        helper.make_node("Conv", ["middle", "v"], ["out"], "second"),
        *more,
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, 6, 7])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2, 6, 7])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights(scale: float = 1.0, channels: int = 2500) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(3)
    made = {
        "w": random.standard_normal((channels, 3, 1, 1)) * scale,
        "b": random.standard_normal(channels),
        "v": random.standard_normal((2, channels, 1, 1)),
    }
    return {name: value.astype(np.float32) for name, value in made.items()}


def types(model: onnx.ModelProto) -> dict[str, Any]:
    return {i.name: numpy_helper.to_array(i).dtype for i in model.graph.initializer}


def test_half_the_bytes_and_nearly_the_same_scores_in_both_runtimes() -> None:
    model = network(weights())
    whole = model.ByteSize()
    picture = np.random.default_rng(1).standard_normal((1, 3, 6, 7)).astype(np.float32)
    before = ort.InferenceSession(model.SerializeToString()).run(None, {"picture": picture})[0]
    done = halve_weights(model)
    assert (done.tensors, done.kept) == (("w", "v"), {})
    assert types(model) == {"w": np.float16, "b": np.float32, "v": np.float16}
    assert model.ByteSize() < 0.65 * whole
    onnx.checker.check_model(model, full_check=True)
    for after in (
        ort.InferenceSession(model.SerializeToString()).run(None, {"picture": picture})[0],
        ov.compile_model(ov.Core().read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
            picture
        )[0],
    ):
        assert 0 < np.abs(after - before).max() < 2e-3 * np.abs(before).max()


def test_small_tensors_stay() -> None:
    model = network(weights(channels=100))
    untouched = model.SerializeToString()
    assert halve_weights(model).tensors == ()
    assert model.SerializeToString() == untouched


@pytest.mark.parametrize(("scale", "reason"), [(1e6, "beyond float16's 65504"), (1e-6, "values too small for float16")])
def test_what_halves_cannot_hold_stays_float32_and_is_named(scale: float, reason: str) -> None:
    model = network(weights(scale))
    done = halve_weights(model)
    assert done.tensors == ("v",)
    assert list(done.kept) == ["w"]
    assert reason in done.kept["w"]
    assert types(model)["w"] == np.float32


def test_a_tensor_with_another_reader_stays() -> None:
    """Elsewhere float32 may be wanted: as a summand, or as an output of the graph."""
    model = network(weights(), helper.make_node("Add", ["w", "w"], ["twice"]))
    assert halve_weights(model).tensors == ("v",)
    model = network(weights())
    model.graph.output.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [2, 2500, 1, 1]))
    assert halve_weights(model).tensors == ("w",)


def test_zeros_are_held_well() -> None:
    made = weights()
    made["w"][:] = 0
    assert halve_weights(network(made)).tensors == ("w", "v")


def test_widening_gives_the_same_graph_with_rounded_weights() -> None:
    model, plain = network(weights()), network(weights())
    halve_weights(model)
    picture = np.random.default_rng(1).standard_normal((1, 3, 6, 7)).astype(np.float32)
    halved = ort.InferenceSession(model.SerializeToString()).run(None, {"picture": picture})[0]
    assert widen_weights(model) == 2
    assert model.graph.node == plain.graph.node
    assert set(types(model).values()) == {np.dtype(np.float32)}
    rounded = weights()["w"].astype(np.float16).astype(np.float32)
    assert np.array_equal(numpy_helper.to_array(model.graph.initializer[0]), rounded)
    assert np.array_equal(ort.InferenceSession(model.SerializeToString()).run(None, {"picture": picture})[0], halved)
    assert widen_weights(model) == 0


@pytest.mark.parametrize("more", ["another reader", "to float64", "an output"])
def test_what_others_read_is_not_widened(more: str) -> None:
    model = network(weights())
    halve_weights(model)
    cast = model.graph.node[0]
    if more == "another reader":
        model.graph.node.append(helper.make_node("Identity", ["w"], ["w_again"]))
    elif more == "to float64":
        cast.attribute[0].i = TensorProto.DOUBLE
    else:
        model.graph.output.append(helper.make_tensor_value_info(cast.output[0], TensorProto.FLOAT, [2500, 3, 1, 1]))
    assert widen_weights(model) == 1
    assert types(model)["w"] == np.float16
