"""The normalisation inside the graph gives what the normalisation outside gave, borders included."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from segcam.errors import EngineError
from segcam.onnx_tools.preprocessing import embed_preprocessing
from segcam.onnx_tools.spec import IMAGENET_MEAN, IMAGENET_STD

HW = (9, 12)


def network(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[np.float32]]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, *HW])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, fed: NDArray[np.float32]) -> NDArray[Any]:
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"picture": fed})[0])


def difference(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[np.float32]]) -> float:
    """Largest absolute difference between a normalised picture into the network and a raw one into the embedded."""
    rgb = np.random.default_rng(5).integers(0, 256, (*HW, 3), np.uint8)
    normalised = ((rgb - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)).astype(np.float32)
    model = network(nodes, weights)
    before = run(model, np.ascontiguousarray(normalised.transpose(2, 0, 1)[None]))
    embed_preprocessing(model, IMAGENET_MEAN, IMAGENET_STD)
    after = run(model, np.ascontiguousarray(rgb[..., ::-1].transpose(2, 0, 1)[None]).astype(np.float32))
    return float(np.abs(after - before).max())


@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    bias=st.booleans(),
)
def test_the_same_with_every_padding(
    kernel: int, stride: int, dilation: int, pads: tuple[int, ...], bias: bool
) -> None:
    random = np.random.default_rng(kernel * 1000 + stride * 100 + dilation * 10 + bias)
    weights = {"w": random.standard_normal((4, 3, kernel, kernel)).astype(np.float32)}
    if bias:
        weights["b"] = random.standard_normal(4).astype(np.float32)
    conv = helper.make_node(
        "Conv", ["picture", *weights], ["out"], strides=[stride] * 2, dilations=[dilation] * 2, pads=list(pads)
    )
    assert difference([conv], weights) < 2e-5


def test_two_readers_that_share_their_weights_and_one_that_wants_the_shape() -> None:
    nodes = [
        helper.make_node("Conv", ["picture", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["picture", "w"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["picture", "v"], ["c"]),
        helper.make_node("Sum", ["a", "b", "c"], ["out"]),
    ]
    nodes.append(helper.make_node("Shape", ["picture"], ["shape"]))
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((2, 3, 3, 3)).astype(np.float32),
        "v": random.standard_normal((2, 3, 1, 1)).astype(np.float32),
    }
    assert difference(nodes, weights) < 2e-5


def test_a_bias_alone_would_be_wrong_at_the_borders() -> None:
    """Why there is a subtraction: the shortcut is the same in the middle and far off where the padding is read."""
    conv = helper.make_node("Conv", ["picture", "w", "b"], ["out"], pads=[1, 1, 1, 1])
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    folded = weight / std
    short = {"w": folded.astype(np.float32), "b": -(folded * mean).sum((1, 2, 3)).astype(np.float32)}
    rgb = np.random.default_rng(2).uniform(0, 255, (1, 3, *HW)).astype(np.float32)
    right = run(network([conv], {"w": weight, "b": np.zeros(4, np.float32)}), ((rgb - mean) / std).astype(np.float32))
    off = np.abs(run(network([conv], short), rgb) - right)[0].max(0)
    assert off[1:-1, 1:-1].max() < 1e-4
    assert off[0].max() > 1


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([helper.make_node("Relu", ["picture"], ["out"])], {}),
        (
            [helper.make_node("Conv", ["picture", "w"], ["out"], group=3)],
            {"w": np.ones((3, 1, 1, 1), np.float32)},
        ),
    ],
    ids=["another operator", "each channel by itself"],
)
def test_what_cannot_take_it_is_refused(nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="reads the picture") as error:
        embed_preprocessing(network(nodes, weights), IMAGENET_MEAN, IMAGENET_STD)
    assert "--embed-preprocessing" in error.value.hint
