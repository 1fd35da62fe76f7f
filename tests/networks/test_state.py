from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcam.errors import CheckpointError
from segcam.networks.architecture import MODELS, NetworkOptions, build, expected_tensors, idle_tensors
from segcam.networks.checkpoint import read_checkpoint
from segcam.networks.state import fitting_options, match_state, random_state

EXPECTED = {"conv.weight": (4, 3, 2, 2), "bn.running_var": (4,), "bn.bias": (4,)}
IDLE = {"bn.num_batches_tracked": (), "auxiliary.weight": (9, 4)}


def state(**changes: Any) -> dict[str, Any]:
    tensors: dict[str, Any] = {name: np.ones(shape, np.float32) for name, shape in EXPECTED.items()}
    tensors |= {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in tensors.items() if value is not None}


def test_what_fits_comes_in_the_networks_order() -> None:
    given = dict(reversed(state(bn__num_batches_tracked=np.array(3), auxiliary__weight=np.ones((2, 2))).items()))
    given["conv.weight"] = np.full((4, 3, 2, 2), 0.1, np.float64)
    given["bn.bias"] = np.full(4, 0.5, np.float16)
    matched = match_state(given, EXPECTED, IDLE, "Net")
    assert list(matched) == list(EXPECTED)
    assert {array.dtype for array in matched.values()} == {np.dtype("f4")}
    assert matched["conv.weight"][0, 0, 0, 0] == np.float32(0.1)
    assert matched["bn.running_var"] is given["bn.running_var"]


def test_all_faults_are_listed() -> None:
    given = state(conv__weight=np.ones((4, 3)), bn__bias=None, other=np.ones(1), more=np.ones(1))
    with pytest.raises(CheckpointError) as caught:
        match_state(given, EXPECTED, IDLE, "Net, 19 classes")
    error = caught.value
    assert error.missing == ("bn.bias",)
    assert error.unexpected == ("other", "more")
    assert error.misshapen == {"conv.weight": ((4, 3), (4, 3, 2, 2))}
    assert error.message == (
        "the checkpoint's 4 tensors are not those of Net, 19 classes (3 needed):"
        "\n  1 missing: bn.bias"
        "\n  2 unexpected: other, more"
        "\n  1 of another shape: conv.weight 4x3 instead of 4x3x2x2"
    )


def test_thousands_of_names_are_cut_in_the_message_only() -> None:
    expected = {f"layer{number}": (1,) for number in range(5000)}
    with pytest.raises(CheckpointError) as caught:
        match_state({}, expected, {}, "Net")
    assert caught.value.missing == tuple(expected)
    assert "5000 missing: layer0, layer1, " in caught.value.message
    assert caught.value.message.endswith("layer999 ... and 4000 more")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones(4, np.int64), r"floating-point weights; the checkpoint has bn.bias \(int64\)"),
        (np.ones(4, np.complex64), r"bn.bias \(complex64\)"),
        (np.ones(4, bool), r"bn.bias \(bool\)"),
        (np.array([1, np.nan, 1, 1]), r"bn.bias has NaN among its 4 values"),
        (np.array([1, 1, 1, -np.inf], np.float16), r"bn.bias has infinities"),
        (np.array([1, 1e300, 1, 1]), r"bn.bias has infinities"),
    ],
)
def test_values_that_no_network_has(values: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        match_state(state(bn__bias=values), EXPECTED, IDLE, "Net")


def test_a_negative_variance() -> None:
    with pytest.raises(CheckpointError, match=r"bn.running_var has a negative variance \(-1\)"):
        match_state(state(bn__running_var=-np.ones(4)), EXPECTED, IDLE, "Net")
    match_state(state(bn__bias=-np.ones(4)), EXPECTED, IDLE, "Net")


# Against the real networks

VARIANTS = [
    NetworkOptions("MobileV3Small", num_filters=64),
    NetworkOptions("MobileV3Large", num_filters=256, num_classes=5),
    NetworkOptions("FastSCNN", num_classes=7),
    NetworkOptions("PSPNet", num_classes=21),
]


def empty_state(options: NetworkOptions) -> dict[str, Any]:
    return {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in (expected_tensors(options) | idle_tensors(options)).items()
    }


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options.model)
def test_a_network_is_known_by_its_tensors(options: NetworkOptions) -> None:
    found = fitting_options(empty_state(options))
    assert found is not None
    assert NetworkOptions(**found) == options  # type: ignore[arg-type]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options.model)
def test_the_hint_names_the_network_that_fits(options: NetworkOptions) -> None:
    asked = NetworkOptions("MobileV3Small")
    with pytest.raises(CheckpointError) as caught:
        match_state(empty_state(options), expected_tensors(asked), idle_tensors(asked), "MobileV3Small")
    assert f"--model {options.model} --num-classes {options.num_classes}" in caught.value.hint
    assert ("--num-filters" in caught.value.hint) == options.model.startswith("Mobile")


def test_nothing_fits() -> None:
    assert fitting_options({}) is None
    assert fitting_options({"last.weight": np.ones(3)}) is None
    assert fitting_options({"last.weight": np.ones((0, 0, 1, 1))}) is None
    assert fitting_options({"decode_head.conv_seg.weight": np.ones((19, 128, 1, 1))}) is None


def test_the_older_fast_scnn_is_told() -> None:
    options = NetworkOptions("FastSCNN")
    given = empty_state(options)
    given["backbone.global_feature_extractor.out.conv.weight"] = np.ones((128, 256, 1, 1))
    with pytest.raises(CheckpointError, match="128x256x1x1 instead of 128x256x3x3") as caught:
        match_state(given, expected_tensors(options), idle_tensors(options), "FastSCNN")
    assert "June 2021" in caught.value.hint


def test_a_real_file_with_40_of_its_tensors(shared_data: Path) -> None:
    path = shared_data.parent / "conformance" / "checkpoints" / "broken_missing_keys.pt"
    options = NetworkOptions("MobileV3Small", num_filters=64)
    wanted = expected_tensors(options)
    tensors = read_checkpoint(path).tensors
    with pytest.raises(CheckpointError, match="40 tensors are not those of MobileV3Small, 64 filters") as caught:
        match_state(tensors, wanted, idle_tensors(options), "MobileV3Small, 64 filters")
    assert caught.value.missing == tuple(name for name in wanted if name not in tensors)
    assert len(caught.value.missing) > 150
    assert not caught.value.unexpected


# Random weights


def test_random_weights_depend_on_name_shape_and_seed() -> None:
    shapes = {"a.weight": (8, 4, 3, 3), "b.weight": (8, 4, 3, 3), "c.running_var": (64,)}
    state, same, other = (
        random_state(shapes, 1),
        random_state(dict(reversed(shapes.items())), 1),
        random_state(shapes, 2),
    )
    for name, shape in shapes.items():
        assert state[name].shape == shape
        assert state[name].dtype == np.float32
        np.testing.assert_array_equal(state[name], same[name])
        assert not np.array_equal(state[name], other[name])
    assert not np.array_equal(state["a.weight"], state["b.weight"])
    assert match_state(state, shapes, {}, "Net")["a.weight"] is state["a.weight"]


@pytest.mark.parametrize("model", MODELS)
def test_random_weights_keep_every_layer_alive(model: str) -> None:
    """Measured: standard deviations of 0.09 to 17 throughout, nothing beyond 70."""
    import onnx
    import onnxruntime

    options = NetworkOptions(model, size=(416, 416) if model.startswith("Mobile") else (128, 128))
    network = build(options, random_state(expected_tensors(options), 0))
    scores = network.graph.output[0].name
    for node in network.graph.node:
        if node.op_type in ("Conv", "Add", "Relu", "HardSwish", "Concat") and node.output[0] != scores:
            network.graph.output.append(
                onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)
            )
    assert len(network.graph.output) > 40
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).standard_normal((1, 3, *options.size)).astype(np.float32)
    outputs = session.run(None, {network.graph.input[0].name: picture})
    deviations = [float(np.std(array)) for array in outputs]
    assert min(deviations) > 0.02
    assert max(float(np.abs(array).max()) for array in outputs) < 1000
    assert math.isfinite(sum(deviations))
    assert len(np.unique(outputs[0].argmax(1))) > 2


def test_names_out_of_a_file_cannot_steer_a_terminal() -> None:
    with pytest.raises(CheckpointError) as caught:
        match_state({"\x1b[2J" + "x" * 999: np.ones(1)}, {}, {}, "Net")
    assert re.search(r"unexpected: \\x1b\[2Jx+\.\.\.$", caught.value.message)
    assert len(caught.value.message) < 300
