"""Fast-SCNN's own rules: where activations stand, what is added, what the checkpoint holds beside."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from segcam.networks.architecture import NetworkOptions, build, expected_tensors, idle_tensors


@pytest.fixture(scope="module")
def graph() -> onnx.GraphProto:
    options = NetworkOptions("FastSCNN", size=(512, 1024))
    blank = {key: np.broadcast_to(np.float32(0.5), shape) for key, shape in expected_tensors(options).items()}
    return build(options, blank).graph


def test_no_activation_between_depthwise_and_pointwise(graph: onnx.GraphProto) -> None:
    consumers = {node.input[0]: node for node in graph.node}
    depthwise = [node.output[0] for node in graph.node if ".depthwise_conv." in node.name]
    assert len(depthwise) == 4
    assert {consumers[name].op_type for name in depthwise} == {"Conv"}


def test_sums_and_strides(graph: onnx.GraphProto) -> None:
    name = "backbone.global_feature_extractor.bottleneck"
    blocks = {f"{name}{group}.{i}" for group in (1, 2, 3) for i in (1, 2)}
    assert {node.name for node in graph.node if node.op_type == "Add"} == blocks | {"backbone.feature_fusion.sum"}
    strided = {
        node.name
        for node in graph.node
        for attribute in node.attribute
        if attribute.name == "strides" and node.op_type == "Conv" and list(attribute.ints) == [2, 2]
    }
    down = "backbone.learning_to_downsample"
    assert strided == {
        f"{down}.conv.conv",
        f"{down}.dsconv1.depthwise_conv.conv",
        f"{down}.dsconv2.depthwise_conv.conv",
        f"{name}1.0.conv.1.conv",
        f"{name}2.0.conv.1.conv",
    }


def test_auxiliary_heads_are_idle() -> None:
    options = NetworkOptions("FastSCNN", num_classes=7)
    heads = {key: shape for key, shape in idle_tensors(options).items() if "auxiliary" in key and "weight" in key}
    assert heads == {
        "auxiliary_head.0.conv_seg.weight": (7, 32, 1, 1),
        "auxiliary_head.0.convs.0.conv.weight": (32, 128, 3, 3),
        "auxiliary_head.0.convs.0.bn.weight": (32,),
        "auxiliary_head.1.conv_seg.weight": (7, 32, 1, 1),
        "auxiliary_head.1.convs.0.conv.weight": (32, 64, 3, 3),
        "auxiliary_head.1.convs.0.bn.weight": (32,),
    }
