"""PSPNet's own rules: strides on the 3x3, contracted dilation, shortcuts, output stride 8."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest

from segcam.networks.architecture import NetworkOptions, build, expected_tensors


@pytest.fixture(scope="module")
def layers() -> dict[str, dict[str, object]]:
    options = NetworkOptions("PSPNet", 21, size=(512, 512))
    blank = {key: np.broadcast_to(np.float32(0.5), shape) for key, shape in expected_tensors(options).items()}
    return {
        node.name: {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for node in build(options, blank).graph.node
    }


def test_dilations_and_strides(layers: dict[str, dict[str, object]]) -> None:
    rates = {(3, 0): 1, (3, 1): 2, (3, 5): 2, (4, 0): 2, (4, 1): 4, (4, 2): 4, (1, 1): 1, (2, 3): 1}
    for (stage, block), rate in rates.items():
        middle = layers[f"backbone.layer{stage}.{block}.conv2"]
        assert (middle["dilations"], middle["pads"]) == ([rate] * 2, [rate] * 4)
    strided = {name for name, given in layers.items() if given.get("strides") == [2, 2]}
    assert strided >= {
        "backbone.stem.0",
        "backbone.maxpool",
        "backbone.layer2.0.conv2",
        "backbone.layer2.0.downsample.0",
    }
    assert not any(name.startswith(("backbone.layer1", "backbone.layer3", "backbone.layer4")) for name in strided)


def test_every_stage_has_one_shortcut(layers: dict[str, dict[str, object]]) -> None:
    shortcuts = [name for name in layers if name.endswith(".downsample.0")]
    assert shortcuts == [f"backbone.layer{stage}.0.downsample.0" for stage in (1, 2, 3, 4)]


def test_building_takes_no_second_copy_of_the_weights() -> None:
    options = NetworkOptions("PSPNet", 21)
    weights = {key: np.broadcast_to(np.float32(0.5), shape) for key, shape in expected_tensors(options).items()}
    tracemalloc.start()
    try:
        model = build(options, weights)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert model.ByteSize() > 180e6
    # The largest layer is 75 MB: its folded kernel, and that as bytes. The model itself isn't in Python's memory.
    assert peak < 170e6
