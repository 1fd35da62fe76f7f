"""Random networks in halves: always valid, always runnable, the same types in and out, and values that are close."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import feeds, networks

from segcam.onnx_tools.check import runner
from segcam.onnx_tools.elements import opsets_of
from segcam.onnx_tools.naming import all_nodes, name_nodes
from segcam.onnx_tools.precision import agreement, convert_precision, exposed, magnitudes
from segcam.onnx_tools.rounding import half_tensors, rounded

_SLOW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
FLOAT = onnx.TensorProto.FLOAT


def check_close(model: onnx.ModelProto, converted: onnx.ModelProto, tolerance: float) -> None:
    exact, plain = runner(rounded(converted), exact=True), runner(model, exact=True)
    for feed in feeds():
        for wanted, got in zip(plain(feed), exact(feed), strict=True):
            if np.issubdtype(wanted.dtype, np.floating):
                scale = max(1.0, float(np.abs(wanted).max()))
                np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * scale)


@_SLOW
@given(networks(), st.data())
def test_float16_is_valid_runs_and_is_close(model: onnx.ModelProto, data: st.DataObject) -> None:
    names = [node.name for node in all_nodes(name_nodes(model).graph)]
    keep = dict.fromkeys(data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True)), "asked for")
    converted = convert_precision(model, "fp16", keep=keep)
    onnx.checker.check_model(converted.model, full_check=True)
    assert keep.items() <= {**dict.fromkeys(keep, "asked for"), **converted.kept}.items()
    types = [o.type.tensor_type.elem_type for o in converted.model.graph.output]
    assert types == [o.type.tensor_type.elem_type for o in model.graph.output]
    assert [i.name for i in converted.model.graph.input] == ["x", "cond"]
    for feed in feeds():
        for wanted, got in zip(runner(model)(feed), runner(converted.model)(feed), strict=True):
            assert (wanted.dtype, wanted.shape) == (got.dtype, got.shape)
    check_close(model, converted.model, 0.02)
    found = agreement(model, converted.model, feeds(), "noise")
    assert found.nonfinite == 0


@_SLOW
@given(networks())
def test_halves_outside_too(model: onnx.ModelProto) -> None:
    converted = convert_precision(model, "fp16", keep_io=False).model
    types = [o.type.tensor_type.elem_type for o in converted.graph.output]
    wanted = [o.type.tensor_type.elem_type for o in model.graph.output]
    assert types == [onnx.TensorProto.FLOAT16 if t == FLOAT else t for t in wanted]
    assert converted.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    runner(converted)({"x": feeds()[0]["x"].astype(np.float16), "cond": np.array(True)})
    check_close(model, converted, 0.02)


@_SLOW
@given(networks(13))
def test_bfloat16_is_valid_and_close(model: onnx.ModelProto) -> None:
    if onnx.defs.onnx_opset_version() < 22:
        pytest.skip("this onnx has no bfloat16 convolutions")
    converted = convert_precision(model, "bf16").model
    assert opsets_of(converted)[""] >= 22
    types = [o.type.tensor_type.elem_type for o in converted.graph.output]
    assert types == [o.type.tensor_type.elem_type for o in model.graph.output]
    check_close(model, converted, 0.12)


@_SLOW
@given(networks())
def test_nothing_to_do_twice(model: onnx.ModelProto) -> None:
    """What is in halves already gets no more casts; names that are there stay."""
    once = convert_precision(model, "fp16", keep_io=False)
    twice = convert_precision(once.model, "fp16", keep_io=False)
    assert half_tensors(twice.model) >= half_tensors(once.model)
    assert twice.casts <= once.casts
    named = name_nodes(model)
    assert name_nodes(named).SerializeToString(deterministic=True) == named.SerializeToString(deterministic=True)


@_SLOW
@given(networks())
def test_every_value_is_measured_and_exposed(model: onnx.ModelProto) -> None:
    """Largest values agree with what the tensors hold; what is exposed lies on the grid of halves."""
    made = name_nodes(model)
    found = magnitudes(made, feeds())
    assert found["x"] == max(float(np.abs(feed["x"]).max()) for feed in feeds())
    converted = convert_precision(model, "fp16").model
    shown = exposed(converted)
    run = runner(shown, exact=True)
    names = half_tensors(converted)
    for feed in feeds():
        for output, value in zip(shown.graph.output, run(feed), strict=True):
            if output.name in names:
                assert np.array_equal(value, value.astype(np.float16).astype(np.float32), equal_nan=True)
    values = {o.name: v for o, v in zip(made.graph.output, runner(made)(feeds()[0]), strict=True)}
    for name, value in values.items():
        if value.dtype == np.float32:
            assert found[name] >= float(np.abs(value).max()) * (1 - 1e-5)
