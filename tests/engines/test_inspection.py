"""The engine inspector's answers, as 10.x and 11.x give them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segcam.engines.inspection import check_asked, check_found, count_types, parse_layers, type_of
from segcam.errors import EngineError


def tensor(kind: str) -> dict[str, Any]:
    """As 10.x writes it."""
    return {"Name": "t", "Location": "Device", "Dimensions": [1, 8, 4, 4], "Format/Datatype": kind}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Half", "float16"),
        ("Row major linear FP16 format", "float16"),
        ("Channel major FP16 format where channel % 8 == 0", "float16"),
        ("Half(64,1:8,...)", "float16"),
        ("Float", "float32"),
        ("Row major linear FP32 format (kLINEAR)", "float32"),
        ("BFloat16", "bfloat16"),
        ("Row major linear BF16 format", "bfloat16"),
        ("Int8", "int8"),
        ("Four wide channel vectorized row major Int8 format", "int8"),
        ("FP8", "float8_e4m3fn"),
        ("UInt8", "uint8"),
        ("Int32", "int32"),
        ("Int64", "int64"),
        ("Bool", "bool"),
        ("N/A due to dynamic shapes", None),
    ],
)
def test_spellings_of_types(text: str, word: str | None) -> None:
    assert type_of({"Name": "l", "Outputs": [tensor(text)]}) == word
    assert type_of({"Name": "l", "Outputs": [{"Name": "t", "Format": "Row major linear", "Datatype": text}]}) == word


def test_a_layer_computes_in_the_narrowest_type_that_it_touches() -> None:
    fused = {"Name": "conv", "Inputs": [tensor("Float")], "Outputs": [tensor("Half")]}
    assert type_of(fused) == "float16"
    by_weights = {
        "Inputs": [tensor("N/A due to dynamic shapes")],
        "Outputs": [tensor("N/A due to dynamic shapes")],
        "Weights": {"Type": "Half", "Count": 9},
    }
    assert type_of(by_weights) == "float16"
    assert type_of({"Inputs": [tensor("UInt8")], "Outputs": [tensor("Float")]}) == "float32"
    assert type_of({"Inputs": [tensor("Float")], "Outputs": [tensor("Int64")]}) == "float32"
    assert type_of({"Inputs": [tensor("Int8")], "Outputs": [tensor("Half")]}) == "int8"
    assert type_of({"Name": "shape", "Inputs": [], "Outputs": []}) is None


def test_both_documents_are_read() -> None:
    layers = [{"Name": "conv", "Inputs": [tensor("Half")], "Outputs": [tensor("Half")]}]
    tens = json.dumps({"Layers": layers, "Bindings": ["input", "output"]})
    elevens = json.dumps({"Layers": layers, "I/O Tensors": [{"Name": "input", "IOMode": "Input", "DataType": "Float"}]})
    assert count_types(parse_layers(tens)) == count_types(parse_layers(elevens)) == {"float16": 1}
    names = parse_layers(json.dumps({"Layers": ["conv1", "conv2"], "Bindings": []}))
    assert [layer["Name"] for layer in names] == ["conv1", "conv2"]
    assert count_types(names) == {}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"Layers": ', "null"])
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(EngineError, match="inspector") as caught:
        parse_layers(text)
    assert caught.value.hint


def test_a_plan_in_another_precision_is_refused_with_the_share_found() -> None:
    network = {"float16": 90, "float32": 10}
    check_found("fp16", network, {"float16": 40, "float32": 20})
    with pytest.raises(EngineError, match=r"fp16 was asked for and not given: 0 % .*60 float32.*90 %"):
        check_found("fp16", network, {"float32": 60})
    # A cast or two at the ends make no half plan.
    with pytest.raises(EngineError, match="3 %"):
        check_found("fp16", network, {"float32": 58, "float16": 2})
    with pytest.raises(EngineError, match="fp32 was asked for"):
        check_found("fp32", {"float32": 100}, {"float16": 60})


def test_shapes_and_labels_are_no_arithmetic() -> None:
    check_found("fp16", {"float16": 10, "int64": 90}, {"float16": 10, "int32": 90})


def test_a_network_without_the_precision_is_refused_before_it_is_built() -> None:
    check_asked("fp16", {"float16": 1, "float32": 80})
    with pytest.raises(EngineError, match=r"fp16 was asked for, and the network has no float16 in it: 80 float32"):
        check_asked("fp16", {"float32": 80})
    with pytest.raises(EngineError, match="int8") as caught:
        check_asked("int8", {"float32": 80})
    assert "quantize" in caught.value.hint
