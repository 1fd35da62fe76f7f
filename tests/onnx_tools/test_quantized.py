"""Quantised graphs: those that TensorRT's parser takes, and each fault of the others by the name of its node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segcam.errors import EngineError
from segcam.onnx_tools.check import random_inputs
from segcam.onnx_tools.quantized import check_quantized, has_qdq


def quantised(**changed: Any) -> onnx.ModelProto:
    """x, Q, DQ and weights, Q, DQ to a Conv of 4 channels; ``changed`` replaces constants (None: computed from x)."""
    node = helper.make_node
    values: dict[str, Any] = {
        "s": np.float32(0.02), "z": np.int8(0), "ws": np.full(4, 0.01, np.float32), "wz": np.zeros(4, np.int8),
        "w": np.ones((4, 3, 1, 1), np.float32), "b": np.zeros(4, np.float32),
    }  # fmt: skip
    axis = changed.pop("axis", 0)
    values.update(changed)
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], "qx"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], "dx"),
        node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], "qw", axis=axis),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], "dw", axis=axis),
        node("Conv", ["d", "wd", "b"], ["y"], "conv"),
    ]
    if values["s"] is None:
        nodes.insert(0, node("ReduceMax", ["x"], ["s"], "peak", keepdims=0))
    if values["b"] is None:
        values["bq"], values["bs"] = np.zeros(4, np.int32), np.full(4, 2e-4, np.float32)
        nodes.insert(4, node("DequantizeLinear", ["bq", "bs"], ["b"], "db", axis=0))
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items() if v is not None],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def faults(model: onnx.ModelProto, kind: Any = "int8") -> list[str]:
    with pytest.raises(EngineError) as caught:
        check_quantized(model, kind)
    assert "modelopt" in caught.value.hint
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


def test_a_good_one_passes() -> None:
    check_quantized(quantised(), "int8")
    assert has_qdq(quantised()) == "int8"


def test_scales_for_channels_of_a_constant_that_is_int8_already() -> None:
    model = quantised()
    graph = model.graph
    del graph.node[2]
    graph.node[2].input[0] = "w8"
    graph.initializer.append(numpy_helper.from_array(np.ones((4, 3, 1, 1), np.int8), "w8"))
    check_quantized(model, "int8")


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"z": np.int8(3)}, ["qx: zero point z is not zero", "dx: zero point z is not zero"]),
        ({"z": np.uint8(0)}, ["qx: quantises to uint8, expected int8", "dx: quantises to uint8, expected int8"]),
        ({"s": np.float32(0)}, ["qx: scale s has values that are not above zero"] * 2),
        ({"s": np.float32(np.nan)}, ["qx: scale s has values that are not above zero"] * 2),
        ({"s": None}, ["qx: scale s is computed, expected a constant"] * 2),
        ({"wz": np.zeros(3, np.int8)}, ["qw: has 3 zero points for 4 scales"] * 2),
        ({"b": None}, ["db: gives a bias in int32, expected it not to be quantised"]),
        (
            {"ws": np.ones(3, np.float32), "wz": np.zeros(3, np.int8), "axis": 1},
            ["qw: scales go along axis 1 of a Conv's weights, expected axis 0"] * 2,
        ),
        (
            {"ws": np.ones(3, np.float32), "wz": np.zeros(3, np.int8)},
            ["qw: has 3 scales for 4 output channels"] * 2,
        ),
        (
            {"s": np.ones(3, np.float32), "z": np.zeros(3, np.int8)},
            ["qx: has 3 scales for an activation, expected one"] * 2,
        ),
    ],
)
def test_each_fault_is_named(changed: dict[str, Any], wanted: list[str]) -> None:
    found = faults(quantised(**changed))
    assert len(found) == len(wanted)
    assert found[0] == wanted[0]
    assert [line.split(": ", 1)[1] for line in found] == [line.split(": ", 1)[1] for line in wanted]


def test_the_other_kind_and_none_at_all() -> None:
    assert len(faults(quantised(), "fp8")) == 4
    plain = quantised()
    del plain.graph.node[:4]
    plain.graph.node[0].input[0], plain.graph.node[0].input[1] = "x", "w"
    assert has_qdq(plain) is None
    assert faults(plain) == []
    with pytest.raises(EngineError, match="--fp8 needs a network with QuantizeLinear"):
        check_quantized(plain, "fp8")


def test_fp8_is_the_type_with_four_bits_of_exponent() -> None:
    model = quantised()
    model.opset_import[0].version, model.ir_version = 19, 9
    for name in ("z", "wz"):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(
            helper.make_tensor(
                name, TensorProto.FLOAT8E4M3FN, list(tensor.dims), bytes(4 if name == "wz" else 1), raw=True
            )
        )
    assert has_qdq(model) == "fp8"
    check_quantized(model, "fp8")
    assert len(faults(model, "int8")) == 4


def test_what_onnxruntime_makes_by_default_is_refused_and_with_the_named_options_taken(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    plain = quantised(w=np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32))
    del plain.graph.node[:4]
    plain.graph.node[0].input[0], plain.graph.node[0].input[1] = "x", "w"
    onnx.save(plain, tmp_path / "plain.onnx")

    class Frames(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [random_inputs(plain, seed) for seed in range(2)]

        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop() if self.left else None

    signed = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(tmp_path / "plain.onnx", tmp_path / "default.onnx", Frames(), **signed)
    found = faults(onnx.load(tmp_path / "default.onnx"))
    assert any("bias in int32" in line for line in found)
    assert any("is not zero" in line for line in found)
    named = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantize_static(
        tmp_path / "plain.onnx",
        tmp_path / "good.onnx",
        Frames(),
        per_channel=True,
        op_types_to_quantize=["Conv"],
        extra_options=named,
        **signed,
    )
    check_quantized(onnx.load(tmp_path / "good.onnx"), "int8")
