"""Counts of work: by hand on small graphs, and against the figures that Open Model Zoo publishes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segcam.errors import EngineError
from segcam.networks.architecture import NetworkOptions, build, expected_tensors
from segcam.onnx_tools.flops import Work, count_macs, count_work


def network(
    nodes: list[onnx.NodeProto], weights: dict[str, Any], hw: tuple[int, int] = (6, 8), batch: int = 1
) -> onnx.ModelProto:
    """A graph from ``picture`` (batch, 3, *hw) to ``out``, whose shape is left open. A batch of 0 is open, too."""
    dims: list[int | str] = [batch or "N", 3, *hw]
    graph = helper.make_graph(
        nodes,
        "counted",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("nodes", "weights", "work"),
    [
        # 5 channels of 3x4 values, 3*3*3 taps each; a bias adds one operation a value.
        (
            [helper.make_node("Conv", ["picture", "w"], ["out"], strides=[2, 2], pads=[1, 1, 1, 1])],
            {"w": ones(5, 3, 3, 3)},
            Work(60 * 27, 2 * 60 * 27, 135),
        ),
        (
            [helper.make_node("Conv", ["picture", "w", "b"], ["out"])],
            {"w": ones(5, 3, 1, 1), "b": ones(5)},
            Work(240 * 3, 2 * 240 * 3 + 240, 20),
        ),
        (
            [helper.make_node("Conv", ["picture", "w"], ["out"], group=3, pads=[1, 1, 1, 1])],
            {"w": ones(3, 1, 3, 3)},
            Work(144 * 9, 2 * 144 * 9, 27),
        ),
        # Each of the 144 values in goes to 2 channels times 2x2 places.
        (
            [helper.make_node("ConvTranspose", ["picture", "w"], ["out"], strides=[2, 2])],
            {"w": ones(3, 2, 2, 2)},
            Work(144 * 8, 2 * 144 * 8, 24),
        ),
        (
            [helper.make_node("MatMul", ["picture", "w"], ["out"])],
            {"w": ones(8, 2)},
            Work(36 * 8, 2 * 36 * 8, 16),
        ),
        ([helper.make_node("HardSwish", ["picture"], ["out"])], {}, Work(0, 5 * 144, 0)),
        ([helper.make_node("Relu", ["picture"], ["out"])], {}, Work(0, 2 * 144, 0)),
        (
            [helper.make_node("AveragePool", ["picture"], ["out"], kernel_shape=[3, 2], strides=[3, 2])],
            {},
            Work(0, 6 * 3 * 2 * 4, 0),
        ),
        ([helper.make_node("GlobalAveragePool", ["picture"], ["out"])], {}, Work(0, 0, 0)),
        (
            [
                helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
                helper.make_node("Conv", ["picture", "wide"], ["out"]),
            ],
            {"w": np.ones((100, 3, 1, 1), np.float16)},
            Work(4800 * 3, 2 * 4800 * 3, 300),
        ),
    ],
    ids=["conv", "bias", "depthwise", "transposed", "matmul", "hardswish", "relu", "pool", "mean", "half"],
)
@pytest.mark.parametrize("batch", [1, 3, 0])
def test_each_operator(nodes: list[onnx.NodeProto], weights: dict[str, Any], work: Work, batch: int) -> None:
    assert count_work(network(nodes, weights, batch=batch)) == work


def test_gemm_both_ways() -> None:
    flat = helper.make_node("Flatten", ["picture"], ["flat"])
    plain = helper.make_node("Gemm", ["flat", "w", "b"], ["out"])
    found = count_work(network([flat, plain], {"w": ones(144, 7), "b": ones(7)}))
    assert found == Work(7 * 144, 2 * 7 * 144 + 7, 144 * 7 + 7)
    turned = helper.make_node("Gemm", ["flat", "w"], ["out"], transA=1)
    assert count_macs(network([flat, turned], {"w": ones(1, 7)})) == 144 * 7


def test_sizes_that_the_graph_computes_are_followed() -> None:
    """As older exporters leave them: the size of an enlargement taken from the picture's own shape."""
    nodes = [
        helper.make_node("Conv", ["picture", "w"], ["small"], strides=[2, 2]),
        helper.make_node("Shape", ["picture"], ["shape"]),
        helper.make_node("Slice", ["shape", "two", "four"], ["hw"]),
        helper.make_node("Concat", ["nc", "hw"], ["sizes"], axis=0),
        helper.make_node("Resize", ["small", "", "", "sizes"], ["large"], mode="linear"),
        helper.make_node("Conv", ["large", "v"], ["out"]),
    ]
    weights = {
        "w": ones(2, 3, 1, 1),
        "v": ones(4, 2, 1, 1),
        "two": np.array([2]),
        "four": np.array([4]),
        "nc": np.array([1, 2]),
    }
    assert count_macs(network(nodes, weights)) == 2 * 3 * 12 + 4 * 2 * 48


def test_an_open_size_cannot_be_counted() -> None:
    model = network([helper.make_node("Conv", ["picture", "w"], ["out"])], {"w": ones(5, 3, 1, 1)})
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(EngineError, match="is open, expected a fixed one"):
        count_work(model)


@pytest.mark.parametrize(
    ("options", "softmax", "published"),
    [
        (NetworkOptions("MobileV3Small", 19, 128, (1024, 2048)), 0, 69.2204),
        (NetworkOptions("MobileV3Large", 19, 128, (1024, 2048)), 0, 140.9611),
        (NetworkOptions("PSPNet", 21, size=(512, 512), adaptive_pool="omz"), 5 * 21, 357.1719),
    ],
    ids=["fastseg-small", "fastseg-large", "pspnet-pytorch"],
)
def test_the_published_figures_to_their_last_digit(options: NetworkOptions, softmax: int, published: float) -> None:
    """With the normalisation, 2 operations a value of the picture, and pspnet-pytorch's softmax at full size."""
    zeros = {key: np.zeros(shape, np.float32) for key, shape in expected_tensors(options).items()}
    work = count_work(build(options, zeros))
    pixels = options.size[0] * options.size[1]
    assert round((work.operations + (2 * 3 + softmax) * pixels) / 1e9, 4) == published
