"""Every network at many sizes: valid graphs of the shapes announced, nothing left to simplify, clear refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcam.errors import SegcamError, UsageError
from segcam.networks.architecture import (
    MODELS,
    NetworkOptions,
    build,
    checkpoint_tensors,
    expected_tensors,
    idle_tensors,
)

SMALLEST = {"MobileV3Small": 385, "MobileV3Large": 385, "FastSCNN": 1, "PSPNet": 1}


def blank(options: NetworkOptions) -> dict[str, np.ndarray[Any, Any]]:
    """Weights that take no memory: the graph's form doesn't depend on them."""
    return {key: np.broadcast_to(np.float32(0.5), shape) for key, shape in expected_tensors(options).items()}


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@st.composite
def options(draw: Callable[..., Any], models: tuple[str, ...] = MODELS) -> NetworkOptions:
    model = draw(st.sampled_from(models))
    side = st.integers(SMALLEST[model], SMALLEST[model] + 200)
    return NetworkOptions(
        model,
        draw(st.integers(1, 40)),
        draw(st.integers(1, 80)),
        (draw(side), draw(side)),
        draw(st.integers(0, 3)),
    )


@settings(max_examples=30)
@given(options(MODELS[:3]))
def test_any_options_give_a_valid_graph(options: NetworkOptions) -> None:
    model = build(options, blank(options))
    # Strict inference compares what it finds with the output that is declared.
    onnx.checker.check_model(model, full_check=True)
    (fed,), (scores,) = model.graph.input, model.graph.output
    stride = 2 if options.model.startswith("Mobile") else 8
    batch = options.batch or "N"
    assert (fed.name, scores.name) == ("input0", "scores")
    assert shape_of(fed) == [batch, 3, *options.size]
    assert shape_of(scores) == [batch, options.num_classes, *(math.ceil(n / stride) for n in options.size)]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for value in inferred.graph.value_info:
        lengths = shape_of(value)
        assert len(lengths) != 4 or all(isinstance(n, int) and n > 0 for n in lengths[1:]), value.name


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (65, 97), (512, 512)])
def test_pspnet_at_any_size(size: tuple[int, int]) -> None:
    options = NetworkOptions("PSPNet", 21, size=size)
    model = build(options, blank(options))
    onnx.checker.check_model(model, full_check=True)
    assert shape_of(model.graph.output[0]) == [1, 21, *(math.ceil(n / 8) for n in size)]


@pytest.mark.parametrize(
    "options",
    [
        NetworkOptions("MobileV3Small", size=(392, 424)),
        NetworkOptions("MobileV3Small", num_filters=256, size=(1024, 2048)),
        NetworkOptions("MobileV3Large", num_classes=3, size=(541, 739), batch=2),
        NetworkOptions("MobileV3Large", size=(544, 1056), batch=0),
        NetworkOptions("FastSCNN", size=(333, 517), batch=0),
        NetworkOptions("FastSCNN", size=(1024, 2048)),
    ],
    ids=lambda options: f"{options.model}-{options.size[0]}x{options.size[1]}-{options.batch}",
)
def test_nothing_is_left_for_a_simplifier(options: NetworkOptions) -> None:
    onnxsim = pytest.importorskip("onnxsim")
    # Blank weights would let it merge layers that are equal by chance.
    draws = np.random.default_rng(0)
    weights = {k: draws.uniform(0.5, 1, shape).astype(np.float32) for k, shape in expected_tensors(options).items()}
    model = build(options, weights)
    simplified, _ = onnxsim.simplify(model)
    kinds = [sorted(node.op_type for node in m.graph.node) for m in (model, simplified)]
    assert kinds[0] == kinds[1]
    assert len(model.graph.initializer) == len(simplified.graph.initializer)


@pytest.mark.parametrize("name", MODELS)
def test_nodes_and_weights_have_the_originals_names(name: str) -> None:
    options = NetworkOptions(name)
    model = build(options, blank(options))
    expected = expected_tensors(options)
    kernels = {key for key, shape in expected.items() if len(shape) == 4}
    made = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    assert kernels <= made.keys()
    assert all(made[key] == expected[key] for key in kernels)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {node.name for node in model.graph.node if node.op_type == "Conv"} == {
        key.removesuffix(".weight") for key in kernels
    }
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert (model.producer_name, model.graph.name) == ("segcam", name)


@pytest.mark.parametrize(
    ("name", "classes", "filters", "parameters", "with_auxiliary"),
    [
        # As the originals count them, without the batch norms' statistics.
        ("MobileV3Small", 19, 64, 1_022_387, 1_022_387),
        ("MobileV3Small", 19, 128, 1_140_787, 1_140_787),
        ("MobileV3Small", 19, 256, 1_451_315, 1_451_315),
        ("MobileV3Large", 19, 128, 3_284_547, 3_284_547),
        ("MobileV3Large", 19, 256, 3_693_379, 3_693_379),
        ("FastSCNN", 19, 128, 1_399_939, 1_456_617),
        ("PSPNet", 21, 128, 46_611_829, 48_977_034),
    ],
)
def test_parameters(name: str, classes: int, filters: int, parameters: int, with_auxiliary: int) -> None:
    def count(tensors: dict[str, tuple[int, ...]]) -> int:
        return sum(math.prod(shape) for key, shape in tensors.items() if key.endswith((".weight", ".bias")))

    options = NetworkOptions(name, classes, filters)
    assert count(expected_tensors(options)) == parameters
    assert count(checkpoint_tensors(options)) == with_auxiliary


@given(options())
def test_expected_and_idle_are_the_checkpoint(options: NetworkOptions) -> None:
    expected, idle, both = expected_tensors(options), idle_tensors(options), checkpoint_tensors(options)
    assert not expected.keys() & idle.keys()
    assert expected | idle == both
    assert [key for key in both if key in expected] == list(expected)
    assert all(key.startswith("auxiliary_head.") or key.endswith(".num_batches_tracked") for key in idle)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": "MobileV3Medium"}, "no network 'MobileV3Medium'"),
        ({"num_classes": 0}, "number of classes is 0"),
        ({"num_filters": -4}, "number of filters is -4"),
        ({"size": (0, 512)}, "size is 0,512"),
        ({"batch": -1}, "batch is -1"),
        ({"adaptive_pool": "caffe"}, "no adaptive pool 'caffe'"),
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        NetworkOptions(**{"model": "FastSCNN"} | wrong)
    assert caught.value.hint


def test_a_tensor_that_is_missing_or_misshapen_is_named() -> None:
    options = NetworkOptions("FastSCNN", size=(64, 64))
    weights = blank(options)
    key = "backbone.feature_fusion.dwconv.bn.running_mean"
    short = weights | {key: np.zeros(127, np.float32)}
    with pytest.raises(SegcamError, match=rf"{key} has shape \(127,\), expected \(128,\)"):
        build(options, short)
    del weights[key]
    with pytest.raises(SegcamError, match=f"{key} is missing"):
        build(options, weights)
