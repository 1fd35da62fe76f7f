"""fastseg's own rules: the smallest picture, squeeze-excite widths, TensorFlow's padding, the gate."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from segcam.errors import UsageError
from segcam.networks import fastseg
from segcam.networks.architecture import NetworkOptions, build, expected_tensors


def graph_of(name: str, size: tuple[int, int]) -> onnx.GraphProto:
    options = NetworkOptions(name, size=size)
    blank = {key: np.broadcast_to(np.float32(0.5), shape) for key, shape in expected_tensors(options).items()}
    return build(options, blank).graph


def node_of(graph: onnx.GraphProto, name: str) -> dict[str, object]:
    (node,) = (node for node in graph.node if node.name == name)
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


@pytest.mark.parametrize("name", ["MobileV3Small", "MobileV3Large"])
@pytest.mark.parametrize("size", [(384, 1024), (1024, 384), (1, 1)])
def test_a_picture_that_is_too_small_is_refused_with_the_reason(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=rf"at least 385x385 .*not {size[0]}x{size[1]} .*49x49") as caught:
        expected_tensors(NetworkOptions(name, size=size))
    assert "--size" in caught.value.hint
    assert expected_tensors(NetworkOptions(name, size=(385, 385)))


def test_squeeze_excite_widths() -> None:
    # Channels to hidden width, as the checkpoints have them.
    known = {16: 8, 72: 24, 96: 24, 120: 32, 144: 40, 240: 64, 288: 72, 480: 120, 576: 144, 672: 168, 960: 240}
    shapes = [
        shape
        for name in ("MobileV3Small", "MobileV3Large")
        for key, shape in expected_tensors(NetworkOptions(name)).items()
        if key.endswith("se.conv_reduce.weight")
    ]
    found = {channels: hidden for hidden, channels, *_ in shapes}
    assert found == known


@pytest.mark.parametrize(
    ("size", "first", "five"),
    # Height and width, then [top, left, bottom, right] of the 3x3 stem and of Large's strided 5x5.
    [
        ((544, 1056), [0, 0, 1, 1], [1, 1, 2, 2]),
        ((541, 739), [1, 1, 1, 1], [1, 2, 2, 2]),
        ((386, 389), [0, 1, 1, 1], [2, 1, 2, 2]),
    ],
)
def test_strided_layers_pad_as_tensorflow_does(size: tuple[int, int], first: list[int], five: list[int]) -> None:
    graph = graph_of("MobileV3Large", size)
    assert node_of(graph, "trunk.early.0")["pads"] == first
    assert node_of(graph, "trunk.block2.0.conv_dw")["pads"] == five
    dilated = node_of(graph, "trunk.block5.0.conv_dw")
    assert (dilated["pads"], dilated["dilations"], dilated["strides"]) == ([8] * 4, [4, 4], [1, 1])


def test_the_gate_is_enlarged_to_its_corners_and_broadcast_from_one_cell() -> None:
    wide, single = graph_of("MobileV3Small", (1024, 2048)), graph_of("MobileV3Small", (392, 424))
    gate = node_of(wide, "aspp_conv2")
    assert gate["coordinate_transformation_mode"] == b"align_corners"
    others = [node for node in wide.node if node.op_type == "Resize" and node.name != "aspp_conv2"]
    assert [node.name for node in others] == ["up4", "up2"]
    assert all(node_of(wide, node.name)["coordinate_transformation_mode"] == b"half_pixel" for node in others)
    assert "aspp_conv2" not in {node.name for node in single.node}
    assert node_of(wide, "aspp_conv2.0") == {"kernel_shape": [49, 49], "strides": [16, 20]}


def test_residuals_and_activations_follow_the_tables() -> None:
    for name, trunk in (("MobileV3Small", fastseg.SMALL), ("MobileV3Large", fastseg.LARGE)):
        graph = graph_of(name, (512, 512))
        sums = {node.name for node in graph.node if node.op_type == "Add"}
        kept = {"block0.0"} if name == "MobileV3Large" else set()
        assert sums == {f"trunk.{b.name}" for b in trunk.blocks if not b.name.endswith(".0") or b.name in kept}
        swish = {node.name.rpartition(".")[0] for node in graph.node if node.op_type == "HardSwish"}
        hard = {f"trunk.{b.name}" for b in trunk.blocks if b.hard}
        assert swish == hard | {"trunk.early", f"trunk.{trunk.last[0]}".rpartition(".")[0]}
