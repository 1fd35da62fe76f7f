"""The core of the graph builders: shapes, batch norms, sizes of enlargements, and mistakes of a description."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from golden_networks import run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from segcam.networks.builder import Graph, Norm

SIDE = st.integers(1, 40)


def drawn(wanted: Graph, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    draws = np.random.default_rng(seed)
    return {key: draws.uniform(0.5, 1.5, want.shape).astype(np.float32) for key, want in wanted.tensors.items()}


@settings(max_examples=60)
@given(SIDE, SIDE, st.sampled_from([1, 3, 5]), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 4]), st.booleans())
def test_layers_have_the_size_they_say(
    height: int, width: int, kernel: int, stride: int, dilation: int, same: bool
) -> None:
    def describe(graph: Graph) -> Any:
        layer = graph.conv("layer", 3, 2, kernel, stride=stride, dilation=dilation, bias=True, same=same)
        return layer(graph.input, "scores")

    survey = Graph((height, width))
    scores = describe(survey)
    if same:
        assert (scores.height, scores.width) == (-(-height // stride), -(-width // stride))
    graph = Graph((height, width), tensors=drawn(survey))
    assert describe(graph) == scores
    model = graph.finish(scores, "one")
    onnx.checker.check_model(model, full_check=True)
    found = run(model, "onnxruntime", np.ones((1, 3, height, width), np.float32))
    assert found.shape == (1, 2, scores.height, scores.width)


def test_a_batch_norm_is_folded_in_float64() -> None:
    norm, survey = Norm("norm", 1e-3), Graph((4, 4))
    survey.conv("layer", 3, 5, 3, bias=True, norm=norm)
    weights = drawn(survey)
    graph = Graph((4, 4), tensors=weights)
    model = graph.finish(graph.conv("layer", 3, 5, 3, bias=True, norm=norm)(graph.input, "scores"), "one")
    made = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    wide = {key: weight.astype(np.float64) for key, weight in weights.items()}
    scale = wide["norm.weight"] / np.sqrt(wide["norm.running_var"] + 1e-3)
    kernel = (wide["layer.weight"] * scale[:, None, None, None]).astype(np.float32)
    bias = (wide["norm.bias"] + (wide["layer.bias"] - wide["norm.running_mean"]) * scale).astype(np.float32)
    assert made.keys() == {"layer.weight", "layer.bias"}
    np.testing.assert_array_equal(made["layer.weight"], kernel)
    np.testing.assert_array_equal(made["layer.bias"], bias)


def test_half_precision_weights_are_folded_like_any() -> None:
    survey = Graph((4, 4))
    survey.conv("layer", 3, 5, norm=Norm("norm", 1e-5))
    halves = {key: weight.astype(np.float16) for key, weight in drawn(survey).items()}
    made = []
    for weights in (halves, {key: weight.astype(np.float64) for key, weight in halves.items()}):
        graph = Graph((4, 4), tensors=weights)
        made.append(graph.finish(graph.conv("layer", 3, 5, norm=Norm("norm", 1e-5))(graph.input, "scores"), "one"))
    assert made[0] == made[1]


def test_the_survey_builds_nothing() -> None:
    graph = Graph((8, 8))
    scores = graph.conv("layer", 3, 5, norm=Norm("norm", 1e-5))(graph.input)
    assert list(graph.tensors) == [
        "layer.weight",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]
    assert [want.idle for want in graph.tensors.values()] == [False] * 5 + [True]
    with pytest.raises(ValueError, match="no model"):
        graph.finish(scores, "none")


def resized(batch: int, target: tuple[int, int], times: int = 1) -> onnx.ModelProto:
    graph = Graph((5, 6), batch, {})
    maps = [graph.resize(graph.input, *target, f"up{i}", align_corners=bool(i)) for i in range(times)]
    return graph.finish(maps[0] if times == 1 else graph.plus(maps[0], maps[1], "sum"), "resized")


@pytest.mark.parametrize("target", [(10, 18), (11, 13), (5, 7)])
def test_enlargements_with_an_open_batch_are_those_of_explicit_sizes(target: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(np.float32)
    fixed, open_batch = resized(2, target), resized(0, target)
    for runtime in ("onnxruntime", "openvino"):
        expected = run(fixed, runtime, x)
        assert expected.shape == (2, 3, *target)
        np.testing.assert_array_equal(run(open_batch, runtime, x), expected)


def test_an_open_batch_computes_each_size_once() -> None:
    kinds = [node.op_type for node in resized(0, (11, 13), times=2).graph.node]
    assert kinds == ["Shape", "Concat", "Resize", "Resize", "Add"]


def test_an_enlargement_to_the_same_size_is_none() -> None:
    graph = Graph((5, 6), tensors={})
    assert graph.resize(graph.input, 5, 6, "up") is graph.input


def test_mistakes_of_a_description_are_refused() -> None:
    graph = Graph((8, 8))
    layer = graph.conv("layer", 4, 5)
    with pytest.raises(ValueError, match="layer takes 4 channels, input0 has 3"):
        layer(graph.input)
    with pytest.raises(ValueError, match=r"layer\.weight is described twice"):
        graph.conv("layer", 4, 5)
